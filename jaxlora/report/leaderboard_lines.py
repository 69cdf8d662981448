"""What a leaderboard's lines say: which there are, what they saw, their readings."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from jaxlora.report.readings import MEASURED, UNAVAILABLE, Reading

Line: TypeAlias = Mapping[str, Any]
"""One method, control or reference, as results.json holds it."""

SEES = {"free": "nothing", "own": "own data", "target": "target data"}
"""What a method sees, in words."""

ENOUGH = 20
"""Target rows that a method needs before "seeing data does not help" can be said."""


def lines(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the leaderboard at the highest coverage; empty if there is none.

    Args:
      results: as in results.json.
    """
    # Runs of version 0.1 stored it as "league".
    every = list(results.get("leaderboard") or results.get("league") or [])
    coverages = {line["coverage"] for line in every}
    return [line for line in every if line["coverage"] == max(coverages)]


def sees(line: Line) -> str:
    """What a merge or route saw, in words; ``control`` for a control.

    Args:
      line: no reference.
    """
    return "control" if line["kind"] == "control" else SEES[line["data"]]


def learned(line: Line) -> str:
    """From how many target rows a method learned, such as ``18``, or a dash.

    Args:
      line: any; runs before these numbers were noted have none.

    >>> learned({"learned_rows": [17, 18]}), learned({})
    ('17 to 18', '–')
    """
    rows = line.get("learned_rows")
    if not rows:
        return "–"
    least, most = rows
    return str(most) if least == most else f"{least} to {most}"


def counted(every: Sequence[Line]) -> str:
    """Says what rows are, and who had too few to say that seeing data does not help.

    Args:
      every: methods; empty is returned if none of them learned, or none noted it.

    >>> counted([{"method": "cat", "learned_rows": [3, 4]}])
    'Rows: of target data, learned from. Fewer than 20, too few to judge by: cat.'
    """
    rows = {x["method"]: x["learned_rows"] for x in every if x.get("learned_rows")}
    names = [name for name, (least, _) in rows.items() if least < ENOUGH]
    text = "Rows: of target data, learned from." if rows else ""
    few = f" Fewer than {ENOUGH}, too few to judge by: {', '.join(names)}."
    return text + few if names else text


def band(every: Sequence[Line]) -> tuple[float, float] | None:
    """The range of the base, of experts alone and of controls under mean.

    Args:
      every: what :func:`lines` returns.
    """
    negative = ("base", "A->B alone", "B->C alone")
    ends = [
        line["two_hop"][end]
        for line in every
        if line["kind"] == "reference"
        and (line["method"] in negative or line["method"].endswith("(mean)"))
        for end in ("lo", "hi")
    ]
    return (min(ends), max(ends)) if ends else None


def reading(line: Line, name: str) -> Reading:
    """A number of a line with its interval, or why there is none.

    Args:
      line: one of :func:`lines`.
      name: of the number, such as ``two_hop`` or ``hop1``.
    """
    value = line.get(name)
    if value is not None:
        ends = (value["value"], value["lo"], value["hi"])
        return Reading(*ends, value["n"], MEASURED)
    library = "3-combination" if name == "three" else "2-combination"
    # A method that cannot merge three adapters says so; it is not a missing number.
    refused = library in (line.get("unavailable") or {})
    return Reading(status=UNAVAILABLE) if refused else Reading()
