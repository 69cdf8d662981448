"""The table of plans: models, experts and slices; what fits, on which mesh.

    python experiments/plans/table.py                      all by formula, a few minutes
    python experiments/plans/table.py --compile qwen2.5-7b:8:v5e-16 ...

Rows that were compiled stay as they are until they are compiled again; all others are
by formula, each on the best mesh that fits, with as many experts at once as fit.
"""

import argparse
import csv
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxlora import plan
from jaxlora.commands.plan_output import mesh_text
from jaxlora.lora import LoraConfig
from jaxlora.plan import search
from jaxlora.plan.planning import Plan
from jaxlora.plan.topology import Topology
from jaxlora.plan.work import Work

FOLDER = Path(__file__).parent
MODELS = ("qwen2.5-1.5b", "qwen2.5-7b", "llama-3.1-8b", "qwen2.5-14b")
EXPERTS = (1, 2, 4, 8, 16, 32, 64)
SLICES = ("v5e-8", "v5e-16", "v5e-64", "v5p-8", "v5p-64", "v6e-8", "h100:8")
KEY = ("model", "experts", "slice")
COLUMNS = (
    *KEY,
    "chips",
    "mesh",
    "together",
    "peak_gib",
    "limit_gib",
    "fits",
    "by",
    "formula_gib",
    "collectives",
    "seconds_a_step",
    "compile_seconds",
    "compile_cpu_seconds",
)


def main() -> None:
    """Reads what was compiled, plans the rest, writes the table and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", nargs="*", default=[], metavar="MODEL:E:SLICE")
    parser.add_argument("--only", action="store_true", help="leave other rows alone")
    given = parser.parse_args()
    path = FOLDER / "plans.csv"
    kept = read(path)
    asked = {tuple(x.split(":", 2)) for x in given.compile}
    for key in ((m, str(e), s) for m in MODELS for e in EXPERTS for s in SLICES):
        old = kept.get(key)
        if key not in asked and old and (given.only or old["by"] != "formula"):
            continue
        started = time.monotonic()
        new = row(key, compiled=key in asked)
        kept = read(path) | {key: new}  # another process may have compiled some
        took = time.monotonic() - started
        print(*new.values(), f"({took:.0f} s)", flush=True)
        write(path, kept)
    page(kept)


def row(key: tuple[str, str, str], *, compiled: bool) -> dict[str, Any]:
    """One row: the best mesh by formula, compiled if that is asked for."""
    model, experts, name = key
    config = dataclasses.replace(
        plan.model_of(model), dtype="bfloat16", param_dtype="bfloat16", remat=True
    )
    work = Work(config=config, experts=int(experts), lora=LoraConfig(rank=16))
    where = plan.describe(name, compiled=compiled)
    try:
        work, sizes = best(work, where)
    except ValueError:  # fewer rows, experts and heads than chips
        none = dict.fromkeys(COLUMNS, "") | dict(zip(KEY, key, strict=True))
        return none | {"chips": where.count, "fits": "no mesh", "by": "formula"}
    started = time.process_time()
    done = plan.plan(work, where, sizes)
    return line(key, done, time.process_time() - started)


def best(work: Work, where: Topology) -> tuple[Work, dict[str, int]]:
    """As many experts at once as fit, and their best mesh; the least if none do."""
    local = work.on(where.platform)
    together, choice = work.experts, None
    while together:
        some = dataclasses.replace(local, together=together)
        ranked = search.rank(some, where)
        choice = dataclasses.replace(work, together=together), ranked[0].sizes
        if ranked[0].fits:
            break
        together //= 2
    assert choice is not None
    return choice


def line(key: tuple[str, str, str], done: Plan, seconds: float) -> dict[str, Any]:
    """A plan as a row of the table, and the processor's seconds that it took."""
    sent = [
        f"{x.kind} along {' and '.join(x.axes)} {x.received / 2**20:.3g} MiB"
        for x in done.traffic
        if x.received > 2**20
    ]
    values = (
        *key,
        done.where.count,
        mesh_text(done.sizes),
        done.work.at_once,
        f"{done.peak / 2**30:.2f}",
        f"{(done.limit or 0) / 2**30:.2f}",
        "yes" if done.fits else "no",
        done.by,
        f"{done.formula / 2**30:.2f}",
        "; ".join(sent) or "none above 1 MiB",
        f"{done.seconds:.3g}",
        f"{done.took:.0f}" if done.took else "",
        f"{seconds:.0f}" if done.took else "",
    )
    return dict(zip(COLUMNS, values, strict=True))


def read(path: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows by key; none if there is no table yet."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {tuple(x[name] for name in KEY): x for x in csv.DictReader(file)}


def write(path: Path, rows: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """Writes all rows, in the order of the lists above."""
    order = [(m, str(e), s) for m in MODELS for e in EXPERTS for s in SLICES]
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, COLUMNS)
        out.writeheader()
        out.writerows(rows[key] for key in order if key in rows)


def page(rows: dict[tuple[str, ...], dict[str, Any]]) -> None:
    """Writes the tables of the page between its marks."""
    lines = []
    for model in MODELS:
        lines += ["", f"### {model}", "", f"| experts | {' | '.join(SLICES)} |"]
        lines += ["|--:|" + ":--|" * len(SLICES)]
        for e in EXPERTS:
            cells = [cell(rows.get((model, str(e), name))) for name in SLICES]
            lines.append(f"| {e} | {' | '.join(cells)} |")
    path = FOLDER / "README.md"
    text = path.read_text()
    start, end = "<!-- table -->", "<!-- end -->"
    head, tail = text.split(start)[0], text.split(end)[1]
    path.write_text(head + start + "\n".join([*lines, "", end]) + tail)


def cell(row: dict[str, Any] | None) -> str:
    """Peak a chip, mesh and experts at once; **no** where it does not fit."""
    if row is None:
        return ""
    if row["fits"] == "no mesh":
        return "too many chips"
    mark = "" if row["by"] == "formula" else "*"
    peak = f"{float(row['peak_gib']):.1f}{mark}"
    peak = peak if row["fits"] == "yes" else f"**no** ({peak})"
    few = int(row["together"]) < int(row["experts"])
    return f"{peak}, {row['mesh']}" + (f", {row['together']} at once" if few else "")


if __name__ == "__main__":
    main()
