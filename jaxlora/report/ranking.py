"""The ranking of all merges and routes where there is headroom: words and CSV.

Two places of the boundary study: experts that practise, asked to write the bridge, and
experts placed in layers, asked directly. Where one LoRA on both fact sets falls short
of its criterion, methods are listed and not ranked.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxlora.files import write_text, write_whole
from jaxlora.report import ranking_figure
from jaxlora.report.figures import png
from jaxlora.report.grid import Grid, markdown_table
from jaxlora.report.leaderboard_lines import ENOUGH
from jaxlora.report.ranking_lines import (
    BOUND,
    CONTROL,
    REFERENCE,
    Cost,
    Line,
    Ranking,
)
from jaxlora.report.readings import Reading

FIGURE = "figure-leaderboard.png"
ALPHA = 0.05
HEADER = (
    *("method", "kind", "needs", "rows", "two-hop", "random experts", "above mean"),
    *("p", "hop 1", "hop 2", "familiar", "seconds", "forward", "kept"),
)
_READINGS = ("composed", "random", "above", "hop1", "hop2", "familiar")
_NOTE = (
    "Two-hop accuracy over all people of R-OO, H-OO and F-OO, asked as the title says, "
    "with 95% intervals. Random experts: of the same norms, under the same method. "
    "Above mean: the paired difference to the mean; p two-sided, after Holm over all "
    "merges and routes. Hop 1, hop 2, familiar: what the combined model keeps. Rows: "
    "of target data, learned from. Seconds: to make one merge or gate, with what it "
    "must see or learn. Forward: its time over that of one adapter. Kept: bytes for "
    "inference, of the merged adapter at its rank, or of the library and its gate; "
    "a merged adapter that is fused into the base keeps nothing and costs no time."
)


def grid(ranking: Ranking) -> Grid:
    """Returns a line for each method, best first, then what they are compared with.

    Args:
      ranking: of one place.
    """
    body = [_words(x) for x in ranking.lines if x.ranks or x.kind == CONTROL]
    body += [("For comparison",)]
    body += [_words(x) for x in ranking.lines if x.kind in (BOUND, REFERENCE)]
    return Grid(ranking.place.title, HEADER, tuple(body), _NOTE, numeric=True)


def _words(x: Line) -> tuple[str, ...]:
    kept = tuple(_value(r) for r in (x.hop1, x.hop2, x.familiar))
    cost = ("–", "–", "–") if x.cost is None else _cost(x.cost)
    p = "–" if x.p is None else f"{x.p:.3f}"
    numbers = (x.composed.text(), _value(x.random), x.above.text(), p)
    return (x.method, x.kind, x.sees or "–", _learned(x), *numbers, *kept, *cost)


def _value(x: Reading) -> str:
    """The CSV has its interval."""
    return "–" if x.value is None else f"{x.value:.2f}"


def _learned(x: Line) -> str:
    if x.learned is None:
        return "–"
    least, most = x.learned
    return f"{least}" if least == most else f"{least} to {most}"


def _cost(x: Cost) -> tuple[str, str, str]:
    return f"{x.seconds:.2g}", f"{x.forward:.1f}x", f"{x.bytes / 1024:,.0f} KiB"


def sentences(ranking: Ranking) -> list[str]:
    """Says whether methods separate: headroom, spread, and who differs from whom.

    Args:
      ranking: of one place.
    """
    lines = [x for x in ranking.lines if x.ranks and x.composed.measured]
    out = [_headroom(ranking), _spread(lines)]
    tested = [x for x in lines if x.p is not None]
    if tested:
        sure = [x for x in tested if x.p is not None and x.p < ALPHA]
        above = [x.method for x in sure if (x.above.value or 0.0) > 0]
        out.append(
            f"After Holm over {len(tested)}, {_named(above)} above the mean and "
            f"{len(sure) - len(above)} below it, paired over the same people."
        )
    few = [x.method for x in lines if x.learned and x.learned[0] < ENOUGH]
    if few:
        out.append(f"Too few rows to judge by (below {ENOUGH}): {', '.join(few)}.")
    return out


def _headroom(ranking: Ranking) -> str:
    if ranking.headroom is None:
        return "Nobody asked one LoRA on both fact sets, so headroom is not known."
    joint = f"one LoRA on both fact sets reaches {ranking.joint.text()}"
    if ranking.headroom:
        return f"Headroom: {joint}."
    return f"No headroom: {joint}, so the methods are listed, not ranked."


def _spread(lines: Sequence[Line]) -> str:
    ordered = sorted(lines, key=lambda x: x.composed.value or 0.0)
    values = [x.composed.value or 0.0 for x in ordered]
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    above, below = _beyond(ordered, float(median))
    worse = _beyond(ordered, values[-1])[1]
    return (
        f"{len(ordered)} merges and routes lie between {values[0]:.2f} "
        f"({ordered[0].method}) and {values[-1]:.2f} ({ordered[-1].method}), half of "
        f"them between {low:.2f} and {high:.2f}; the median is {median:.2f}. "
        f"{above} intervals are above the median and {below} below it; {worse} are "
        f"below the best value."
    )


def _beyond(lines: Sequence[Line], value: float) -> tuple[int, int]:
    """How many intervals are above a value, and how many below."""
    ends = [(x.composed.lo, x.composed.hi) for x in lines]
    above = sum(lo is not None and lo > value for lo, _ in ends)
    return above, sum(hi is not None and hi < value for _, hi in ends)


def _named(names: Sequence[str]) -> str:
    if not names:
        return "none is"
    verb = "is" if len(names) == 1 else "are"
    return f"{len(names)} ({', '.join(names)}) {verb}"


def to_markdown(rankings: Sequence[Ranking], about: str = "") -> str:
    """Returns every place as a heading, what it says, and its table.

    Args:
      rankings: of every place.
      about: how it was measured, in a sentence.
    """
    out = ["# All merges and routes where there is headroom"]
    for ranking in rankings:
        out += [f"## {ranking.place.title}", " ".join(sentences(ranking))]
        out += [markdown_table(grid(ranking))]
    return "\n\n".join([*out, f"{_NOTE} {about}".strip()]) + "\n"


def to_csv(rankings: Sequence[Ranking]) -> str:
    """Returns every number, one line for each method of each place.

    Args:
      rankings: of every place.
    """
    entries = [_entry(ranking, x) for ranking in rankings for x in ranking.lines]
    return pd.DataFrame(entries).to_csv(index=False)


def _entry(ranking: Ranking, x: Line) -> dict[str, Any]:
    place, least = ranking.place, (x.learned or (None, None))
    entry = {"regime": place.regime, "asked": str(place.split), "method": x.method}
    entry |= {"kind": x.kind, "needs": x.sees, "headroom": ranking.headroom}
    for name in _READINGS:
        reading = getattr(x, name)
        ends = {"": reading.value, "_lo": reading.lo, "_hi": reading.hi}
        entry |= {f"{name}{end}": number for end, number in ends.items()}
    entry |= {"n": x.composed.n, "p_adjusted": x.p}
    entry |= {"rows_fewest": least[0], "rows_most": least[1]}
    cost = dict.fromkeys(Cost._fields) if x.cost is None else x.cost._asdict()
    return entry | cost


def save(
    rankings: Sequence[Ranking], out_dir: str | os.PathLike[str], about: str = ""
) -> list[Path]:
    """Writes leaderboard.md, leaderboard.csv and the figure; returns their paths.

    Args:
      rankings: of every place.
      out_dir: the folder.
      about: how it was measured, in a sentence.
    """
    out = Path(out_dir)
    paths = [out / name for name in ("leaderboard.md", "leaderboard.csv")]
    write_text(paths[0], to_markdown(rankings, about))
    write_text(paths[1], to_csv(rankings))
    return [*paths, write_whole(out / FIGURE, png(ranking_figure.figure(rankings)))]
