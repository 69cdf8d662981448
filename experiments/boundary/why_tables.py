"""The tables of why.md: which assumptions of the theory hold, and all shares."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxlora.evaluate.statistics import wilson
from jaxlora.report.why_figure import Line, pooled, table

START = "## Tables"
MODELS = (
    Line("base, familiar facts", "base", "", "direct"),
    Line("placed, sum", "placed", "sum", "direct"),
    Line("plain, sum", "direct", "sum", "direct"),
    Line("plain, mean", "direct", "mean", "direct"),
    Line("base, familiar facts, written", "base", "", "written"),
    Line("bridge rows, mean, written", "bridge rows 0.5", "mean", "written"),
    Line("plain, mean, written", "direct", "mean", "written"),
)
ASKED = {
    "hop1": "A r1",
    "hop2": "B r2",
    "bridge": "writes B",
    "right_bridge": "C, right bridge given",
    "two_hop": "C",
}
WRITTEN = ("bridge", "right_bridge")
"""Of written answers alone."""


class Assumption(NamedTuple):
    """Of the two-layer model with placed edits, as a number of the trained decoder."""

    text: str
    what: tuple[str, str, str]
    """Measure, quantity and donor."""
    where: tuple[str, int]
    """Position, and layers done."""
    high: bool = True
    """Does it hold if the share is at least a half, or if it is at most a tenth?"""


HALF, EARLY = ("r1", 2), ("r1", 1)
BRIDGE, NEAR = ("lens", "bridge", ""), ("lens", "subject", "")
ANSWER = ("lens", "answer", "")
SUBJECT = ("patch", "follows", "bridge as subject")
KNOWN = ("patch", "follows right", "familiar first fact")
OTHER = ("patch", "follows right", "another person")
ASSUMPTIONS = (
    Assumption("the first fact is written low, at r1: it reads as B", BRIDGE, HALF),
    Assumption("as a subject: the embedding nearest to it is B's", NEAR, HALF),
    Assumption("a subject will do there: the state of 'B' gives C", SUBJECT, HALF),
    Assumption("B of a familiar fact there gives C", KNOWN, HALF),
    Assumption("it is at r1: another's state gives the other's C", OTHER, EARLY),
    Assumption("nothing stale: another's A does not", OTHER, ("A", 1), False),
    Assumption("not moved yet: another's r2 does not", OTHER, ("r2", 1), False),
    Assumption("moved by the third layer: another's r2 does", OTHER, ("r2", 3)),
    Assumption("the second fact is read high: no C yet", ANSWER, ("r2", 2), False),
)


def page(rows: pd.DataFrame) -> str:
    """Returns all tables, in Markdown.

    Args:
      rows: of why.csv, words filled in.
    """
    parts = [
        START,
        "### What is answered",
        "\n".join(_answered(rows)),
        "### What the two-layer model with placed edits assumes",
        "A high share holds from .50 on, one that must be low up to .10; in brackets "
        "95% Wilson intervals. Another's, a familiar fact: where the donor is right.",
        "\n".join(_assumed(rows)),
        "### Layers switched off",
        "Share right of the question, and (in brackets) of the expert's fact alone.",
        "\n".join(_needed(rows)),
        "### Layer by layer",
        "Columns are layers done: 0 is the embedding. R-OO, H-OO and F-OO together; "
        "*familiar first fact* is R-OO alone.",
        "\n".join(_layers(rows)),
    ]
    return "\n\n".join(parts) + "\n"


def _answered(rows: pd.DataFrame) -> Iterator[str]:
    yield _line(("model", *ASKED.values()))
    yield "|:--|" + "--:|" * len(ASKED)
    for model in MODELS:
        mine = model.of(rows, measure="ablation", expert="none")
        if mine.empty:
            continue
        # Nothing is written in a direct answer.
        names = [x for x in ASKED if model.asked == "written" or x not in WRITTEN]
        shares = {name: _share(mine[mine["quantity"] == name]) for name in names}
        cells = [shares.get(name, "") for name in ASKED]
        yield _line((model.name, *cells))


def _assumed(rows: pd.DataFrame) -> Iterator[str]:
    models = MODELS[:3]
    yield _line(("assumption", "where", *(x.name for x in models)))
    yield "|:--|:--|" + ":--|" * len(models)
    for x in ASSUMPTIONS:
        names = ("measure", "quantity", "donor", "position", "layer")
        keys = dict(zip(names, (*x.what, *x.where), strict=True))
        every = [model.of(rows, **keys) for model in models]
        where = f"{x.where[0]}, {x.where[1]} done"
        yield _line((x.text, where, *(_holds(mine, x.high) for mine in every)))


def _holds(mine: pd.DataFrame, high: bool) -> str:
    if mine.empty:
        return "not measured"
    value = pooled(mine)
    holds = value >= 0.5 if high else value <= 0.1
    return f"{'yes' if holds else 'no'}, {_share(mine)}"


def _needed(rows: pd.DataFrame) -> Iterator[str]:
    off = [x for x in dict.fromkeys(rows["off"]) if x]
    yield _line(("model", "expert", "none", *off))
    yield "|:--|:--|" + "--:|" * (1 + len(off))
    for model in MODELS:
        every = model.of(rows, measure="ablation")
        for expert, fact in (("A->B", "hop1"), ("B->C", "hop2")) if len(every) else ():
            cells = [
                _both(every[(every["expert"] == who) & (every["off"] == what)], fact)
                for who, what in (("none", ""), *((expert, x) for x in off))
            ]
            yield _line((model.name, expert, *cells))


def _both(rows: pd.DataFrame, fact: str) -> str:
    values = (pooled(rows[rows["quantity"] == x]) for x in ("two_hop", fact))
    return "{} ({})".format(*map(_number, values))


def _layers(rows: pd.DataFrame) -> Iterator[str]:
    mine = rows[rows["layer"].notna()]
    count = int(mine["layer"].max()) + 1
    yield _line(("model", "what", "position", *map(str, range(count))))
    yield "|:--|:--|:--|" + "--:|" * count
    named = {
        "bridge": "lens: B",
        "subject": "nearest embedding: B",
        "answer": "lens: C",
    }
    for model in MODELS:
        every = model.of(mine)
        for quantity, name in named.items():
            shares = table(every[every["quantity"] == quantity])
            yield from _by_position(model.name, name, shares)
        patched = every[every["quantity"] == "follows"]
        for donor in dict.fromkeys(patched["donor"]):
            shares = table(patched[patched["donor"] == donor])
            alone = pooled(model.of(rows, quantity="donor", donor=donor))
            name = f"patch: {donor} (itself right {_number(alone)})"
            # What a patch that changes nothing leaves: another's answer is never it.
            right = 0.0 if donor == OTHER[-1] else _unpatched(model.of(mine))
            yield from _by_position(model.name, name, shares, right)


def _unpatched(rows: pd.DataFrame) -> float:
    answer = table(rows[rows["quantity"] == "answer"])
    return float(answer.iloc[-1, -1])


def _by_position(
    model: str, what: str, shares: pd.DataFrame, unchanged: float = 0.0
) -> Iterator[str]:
    for position in shares.columns:
        # Positions at which nothing ever happens would double the table.
        if (shares[position] - unchanged).abs().max() >= 0.05:
            cells = map(_number, shares[position])
            yield _line((model, what, position.strip("<>"), *cells))


def _share(rows: pd.DataFrame) -> str:
    n = int(rows["n"].sum())
    if not n:
        return ""
    hits = round(float((rows["value"] * rows["n"]).sum()))
    interval = wilson(hits, n)
    ends = f"{_number(interval.lo)}, {_number(interval.hi)}"
    return f"{_number(hits / n)} [{ends}]"


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}".removeprefix("0")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
