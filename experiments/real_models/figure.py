"""The figures and the pooled table of a real model, from results that are committed.

    python experiments/real_models/figure.py experiments/real_models/smollm2

Reads beyond/seed*/results.csv.gz of the folder (or quick/), hops.csv, knows.csv and
retention.csv, as far as they are there. Writes pooled.md, figure.png and retention.png,
and, beside the dial of the word problems, top.png, which the README shows.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.image as images
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlora.evaluate.statistics import wilson
from jaxlora.files import write_text, write_whole
from jaxlora.report import draw, figures

DIAL = Path(__file__).parents[1] / "word_problems" / "standard" / "overlap.png"
NEW = ("R-OI", "R-IO", "R-OO")
"""Cells of which the base lacks a hop."""
NEEDED = 0.8
"""Criterion of the base: two-hop questions with both facts before them."""
DIRECT, CONTEXT = "two-hop", "two-hop, facts in context"
WRITTEN = "two-hop, written bridge"


class Bar(NamedTuple):
    """One arm."""

    label: str
    library: str
    method: str
    color: str
    split: str = DIRECT


BARS = (
    Bar("base", "base", "none", draw.GREYS[1]),
    Bar("A→B alone", "A->B", "none", draw.GREYS[1]),
    Bar("B→C alone", "B->C", "none", draw.GREYS[1]),
    Bar("shuffled, mean", "shuffled answers", "mean", draw.GREYS[1]),
    Bar("mean", "2-combination", "mean", draw.BLUE),
    Bar("sum", "2-combination", "sum", draw.RED),
    Bar("Arrow", "2-combination", "arrow", draw.SKY),
    Bar("sum, bridge written", "2-combination", "sum", draw.RED, WRITTEN),
    Bar("one LoRA on both", "joint", "none", draw.GREEN),
    Bar("with A→C, mean", "3-combination", "mean", draw.PURPLE),
    Bar("base, facts in context", "base", "none", draw.INK, CONTEXT),
)


class Share(NamedTuple):
    """A share of n questions with its 95% interval."""

    value: float
    lo: float
    hi: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.lo:.2f}, {self.hi:.2f}]"


def share(hits: float, n: int) -> Share:
    """Wilson's interval; people of one seed and of another count once each."""
    x = wilson(round(hits), n)
    return Share(hits / n, x.lo, x.hi, n)


def runs(folder: Path) -> pd.DataFrame:
    """Accuracies of all seeds: a line a run, cell, arm, method and split."""
    parts = []
    for path in sorted(folder.glob("seed*/results.csv.gz")):
        rows = pd.read_csv(path)
        plain = (rows["metric"] == "accuracy") & (rows["condition"] == "{}")
        rows = rows[plain & (rows["seed"].astype(str) != "all")]
        parts.append(rows.assign(cell=rows["familiarity"] + "-" + rows["knows"]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def pooled(rows: pd.DataFrame, cells: Sequence[str], bar: Bar) -> Share | None:
    """What an arm answers in some cells, over all seeds; None if nobody was asked."""
    some = rows[
        rows["cell"].isin(cells)
        & (rows["library"] == bar.library)
        & (rows["method"] == bar.method)
        & (rows["split"] == bar.split)
    ].dropna(subset=["value"])
    n = int(some["n"].sum())
    return share(float((some["value"] * some["n"]).sum()), n) if n else None


def table(rows: pd.DataFrame) -> str:
    """Markdown: every arm in each cell, and in all cells that lack a hop."""
    cells = [c for c in ("R-II", *NEW) if (rows["cell"] == c).any()]
    lines = [
        f"| share right | {' | '.join(cells)} | a hop new to the base |",
        f"|:--|{'--:|' * (len(cells) + 1)}",
    ]
    hops = [
        Bar(f"{name}, {split}", "2-combination", name, "", split)
        for name in ("mean", "sum", "arrow")
        for split in ("hop 1", "hop 2")
    ]
    for bar in (*BARS, *hops):
        some = [pooled(rows, [cell], bar) for cell in cells]
        every = pooled(rows, NEW, bar)
        if every is not None:
            cells_of = [str(x) if x else "" for x in (*some, every)]
            lines.append(f"| {bar.label} | {' | '.join(cells_of)} |")
    base = [pooled(rows, [cell], BARS[0]) for cell in cells]
    every = pooled(rows, NEW, BARS[0])
    sizes = [str(x.n) if x else "0" for x in (*base, every)]
    lines.append(f"| people | {' | '.join(sizes)} |")
    return "\n".join(lines) + "\n"


def bars(axes: Axes, labels: Sequence[str], some: Sequence[Share], colors) -> None:
    """Horizontal dots with intervals, the first on top."""
    y = np.arange(len(some))[::-1]
    draw.plain(axes, "x")
    for at, x, color in zip(y, some, colors, strict=True):
        axes.plot([x.lo, x.hi], [at, at], color=color, lw=1.6)
        axes.plot([x.value], [at], "o", color=color, markersize=6)
    axes.set_yticks(y, labels, fontsize=9)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def study_panel(axes: Axes, rows: pd.DataFrame) -> None:
    """Every arm on facts that the base does not know both of."""
    asked = [(bar, pooled(rows, NEW, bar)) for bar in BARS]
    kept = [(bar, x) for bar, x in asked if x is not None]
    labels = [bar.label for bar, _ in kept]
    bars(axes, labels, [x for _, x in kept], [bar.color for bar, _ in kept])
    n = max(x.n for _, x in kept)
    axes.set_title(f"two hops, one or both new, n = {n}", loc="left", fontsize=10)
    axes.set_xlabel("share right", fontsize=9.5)


def knows_panel(axes: Axes, knows: pd.DataFrame) -> None:
    """What the base knows, relation by relation."""
    first = knows[knows["phrasing"] == 0].groupby("relation", sort=False)["together"]
    some = [share(float(x.sum()), len(x)) for _, x in first]
    labels = [name for name, _ in first]
    bars(axes, labels, some, [draw.INK] * len(some))
    axes.set_title("facts it knows", loc="left", fontsize=10)
    axes.set_xlabel("share right, by ranking", fontsize=9.5)


def hops_panel(axes: Axes, hops: pd.DataFrame) -> None:
    """How it answers two hops by itself."""
    names = [x for x in hops.columns if hops[x].dtype.kind == "f"]
    names.remove("answers shuffled")
    some = [share(float(hops[x].sum()), len(hops)) for x in names]
    false = {"a false first fact before it", "as the false fact says"}
    colors = [draw.GREYS[1] if x in false else draw.INK for x in names]
    bars(axes, names, some, colors)
    title = f"two hops, without adapters, n = {len(hops)}"
    axes.set_title(title, loc="left", fontsize=10)
    axes.axvline(NEEDED, color=draw.INK, ls="dashed", lw=0.9)
    axes.set_xlabel(
        "share right; dashed: what the study needs in context", fontsize=9.5
    )


def retention_panel(axes: Axes, frame: pd.DataFrame) -> None:
    """Mean accuracy over the tasks of every arm."""
    arms = list(dict.fromkeys(frame["arm"]))
    groups = [frame[frame["arm"] == arm]["right"] for arm in arms]
    some = [share(float(x.sum()), len(x)) for x in groups]
    colors = [draw.GREYS[1] if arm == "base" else draw.BLUE for arm in arms]
    bars(axes, arms, some, colors)
    axes.set_title("eight tasks, eight adapters in one", loc="left", fontsize=10)
    axes.set_xlabel("share right", fontsize=9.5)


def drawn(panels: Sequence[Callable[[Axes], None]], width: float, title: str) -> Figure:
    """Panels side by side."""
    figure = draw.canvas(width * len(panels), 4.9, title)
    every = np.atleast_1d(figure.subplots(1, len(panels)))
    for panel, axes in zip(panels, every, strict=True):
        panel(axes)
    return figure


def beside(left: Path, right: bytes) -> bytes:
    """Two images of one height in one."""
    parts = [images.imread(left), images.imread(io.BytesIO(right))]
    height = max(x.shape[0] for x in parts)
    filled = [
        np.pad(x[..., :3], ((0, height - len(x)), (0, 0), (0, 0)), constant_values=1.0)
        for x in parts
    ]
    out = io.BytesIO()
    images.imsave(out, np.concatenate(filled, axis=1), format="png")
    return out.getvalue()


def read(path: Path) -> pd.DataFrame | None:
    """A table of the folder, if it is there."""
    return pd.read_csv(path) if path.exists() else None


def main() -> None:
    """Draws what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    # What was asked although the base failed shows more than that it failed.
    beyond = runs(folder / "beyond")
    rows = beyond if len(beyond) else runs(folder / "quick")
    panels: list[Callable[[Axes], None]] = []
    for name, panel in (("knows", knows_panel), ("hops", hops_panel)):
        frame = read(folder / f"{name}.csv")
        if frame is not None:
            panels.append(lambda axes, p=panel, f=frame: p(axes, f))
    if len(rows):
        write_text(folder / "pooled.md", table(rows))
        study = lambda axes: study_panel(axes, rows)  # noqa: E731
        panels.append(study)
        small = figures.png(drawn([study], 4.6, "A real model (135 M), one seed"))
        write_whole(folder / "top.png", beside(DIAL, small))
    if panels:
        title = "SmolLM2-135M-Instruct"
        write_whole(folder / "figure.png", figures.png(drawn(panels, 4.6, title)))
    kept = read(folder / "retention.csv")
    if kept is not None:
        one = [lambda axes: retention_panel(axes, kept)]
        title = "What merges of eight adapters keep"
        write_whole(folder / "retention.png", figures.png(drawn(one, 6.0, title)))


if __name__ == "__main__":
    main()
