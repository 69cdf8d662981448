"""Verdicts and criteria of the word-problem study as tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxlora.evaluate.schema import Arm, Split
from jaxlora.report import outcome
from jaxlora.report.grid import Grid

Record = Mapping[str, Any]
EXPERTS = (Arm.EXPERT_A, Arm.EXPERT_B, Arm.JOINT, Arm.HARD)
"""Whose accuracy on their own rows the criteria show."""


def verdict_grid(results: Mapping[str, Any], *, answers: bool = False) -> Grid:
    """Returns verdicts with cause, remarks and reason.

    Args:
      results: as in results.json.
      answers: those on answers without steps, instead of written solutions.
    """
    split = Split.ANSWER_BOTH if answers else Split.BOTH
    mine = [x for x in results.get("verdicts", []) if x["asked"] == split]
    names = {Split.BOTH: "Verdicts", Split.ANSWER_BOTH: "Verdicts on answers alone"}
    header = ("base", "known unary", "regime", "overlap", "operations", "method")
    header += ("verdict", "cause", "remarks", "reason")
    return Grid(names[split], header, tuple(map(_verdict, mine)))


def _verdict(x: Record) -> tuple[str, ...]:
    where = (x["base"], str(x["known unary"]), x["regime"], f"{x['overlap']:g}")
    cause = x.get("cause") or "none"
    remarks = ", ".join(outcome.remarks(x, short=True)) or "–"
    words = (x["method"], x["label"], "–" if cause == "none" else cause, remarks)
    return (*where, str(x["level"]), *words, x.get("reason") or "–")


def criteria_grid(results: Mapping[str, Any]) -> Grid:
    """Returns the criteria of each kind of base, the worst of its seeds and templates.

    Args:
      results: as in results.json.
    """
    criteria = results.get("criteria", [])
    names = list(dict.fromkeys(map(_name, criteria)))
    needs = {_name(x): x["threshold"] for x in criteria}
    points = dict.fromkeys((x["base"], x["known unary"]) for x in criteria)
    body = []
    for point in points:
        mine = [x for x in criteria if (x["base"], x["known unary"]) == point]
        values = (_worst([x for x in mine if _name(x) == n]) for n in names)
        seeds, steps = len({x["seed"] for x in mine}), max(x["steps"] for x in mine)
        where = (point[0], str(point[1]), str(seeds), str(steps))
        body.append((*where, *values))
    header = ("base", "known unary", "bases", "steps")
    header += tuple(f"{x} >= {needs[x]:g}" for x in names)
    note = (
        "Share of problems of known operations that a base solves, on chains it never "
        "saw: the worst seed and template. A base that cannot answer without steps "
        "still counts where steps are written."
    )
    return Grid("Criteria of the bases", header, tuple(body), note if body else "")


def _name(x: Record) -> str:
    """Level and form of a criterion, all templates together."""
    form, level = x["criterion"].split(", ")[:2]
    return level if form.startswith("known") else f"{form}, {level}"


def _worst(some: Sequence[Record]) -> str:
    if not some:
        return "–"
    worst = min(some, key=lambda x: (x["passed"], x["value"]))
    return f"{worst['value']:.3f}{'' if worst['passed'] else ' failed'}"


def expert_grid(results: Mapping[str, Any]) -> Grid:
    """Returns how well experts solve their own rows: the worst of each regime.

    Args:
      results: as in results.json.
    """
    config = results.get("config", {}).get("experts", {})
    least = config.get("min_own", 0.0)
    every = results.get("own_facts", [])
    regimes = dict.fromkeys(map(_where, every))
    body = tuple((*x, *_lowest(every, x, least)) for x in regimes)
    header = ("base", "known unary", "regime", "overlap", *map(str, EXPERTS))
    note = f"Lowest accuracy on own rows, over seeds and operations; needs {least:g}."
    return Grid("Criteria of the experts", header, body, note if body else "")


def _where(x: Record) -> tuple[str, ...]:
    return (x["base"], str(x["known unary"]), x["regime"], f"{x['overlap']:g}")


def _lowest(every: Sequence[Record], where, least: float) -> Iterator[str]:
    mine = {x["library"]: x["value"] for x in every if _where(x) == where}
    for arm in EXPERTS:
        value = mine.get(str(arm))
        failed = "" if value is None or value >= least else " failed"
        yield "–" if value is None else f"{value:.3f}{failed}"
