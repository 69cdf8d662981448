"""The finding of a two-hop study in one sentence, of the numbers in results.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxlora.evaluate.verdict import Label

JOINS = (Label.COMPOSES.value, Label.COMPOSES_WITH_BASE.value)
NOT = (Label.NO_TRANSFER, Label.NO_GAIN, Label.LIKELIHOOD)
WHAT = "facts from two experts"


def sentence(results: Mapping[str, Any]) -> str:
    """Returns what a reader should take home; empty for runs of earlier versions.

    Args:
      results: as in results.json.

    >>> mean = {"label": "no transfer", "value": 0.0, "lo": 0.0, "hi": 0.04}
    >>> back = {"label": "retrieves", "value": 0.89}
    >>> sentence({"finding": {"value": 0.01, "lo": 0.0, "hi": 0.04, "n": 270,
    ...     "chance": 0.02, "combinations": {"mean": mean, "sum": mean},
    ...     "given_back": back}})  # doctest: +NORMALIZE_WHITESPACE
    'None of 2 combinations joins facts from two experts (0.01 [0.00, 0.04]; chance
    0.02); an expert that saw the answers gives them back (0.89).'
    """
    numbers = results.get("finding")
    if not numbers:
        return ""
    parts = [*_joined(numbers), *_given_back(numbers.get("given_back"))]
    return f"{'; '.join(parts)}."


def _joined(numbers: Mapping[str, Any]) -> list[str]:
    labels = {name: x["label"] for name, x in numbers["combinations"].items()}
    total, shown = len(labels), _numbers(numbers)
    yes = [name for name, label in labels.items() if label in JOINS]
    if set(labels.values()) == {Label.INVALID.value}:
        return [f"Nothing follows on {WHAT}: a criterion failed"]
    if not yes and _count(labels, Label.UNDECIDED) == total:
        return [f"Whether {_all(total, 'join')} {WHAT} is undecided {shown}"]
    if yes and len(yes) < total:
        parts = [f"{len(yes)} of {total} combinations {_verb(yes)} {WHAT}: "]
        parts[0] += f"{_listed(yes, numbers)}; chance {numbers['chance']:.2f}"
        return parts + _others(labels)
    if yes:
        return [f"{_all(total, 'join', 'All ')} {WHAT} {shown}"]
    no = _count(labels, *NOT)
    if no == total:
        every = f"None of {total} combinations joins"
        first = "The combination does not join" if total == 1 else every
        return [f"{first} {WHAT} {shown}", *_likelier(labels)]
    return [f"No combination was seen to join {WHAT} {shown}", *_others(labels)]


def _all(total: int, verb: str, all_: str = "") -> str:
    if total == 1:
        return f"{'The' if all_ else 'the'} combination {verb}s"
    return f"{all_}{total} combinations {verb}"


def _verb(names: Sequence[str]) -> str:
    return "joins" if len(names) == 1 else "join"


def _others(labels: Mapping[str, str]) -> list[str]:
    """What became of the combinations that were not seen to join anything."""
    no = _count(labels, *NOT)
    open_, invalid = _count(labels, Label.UNDECIDED), _count(labels, Label.INVALID)
    parts = [f"{no} {'does' if no == 1 else 'do'} not"] if no else []
    parts += _likelier(labels)
    if open_:
        parts.append(f"{open_} {'is' if open_ == 1 else 'are'} undecided")
    if invalid:
        parts.append(f"{invalid} could not be judged")
    return parts


def _likelier(labels: Mapping[str, str]) -> list[str]:
    n = _count(labels, Label.LIKELIHOOD)
    makes = "makes" if n == 1 else "make"
    return [f"{n} {makes} the answer likelier, but not the first choice"] if n else []


def _given_back(numbers: Mapping[str, Any] | None) -> list[str]:
    if not numbers or numbers["label"] == Label.INVALID.value:
        return []
    number = f"({numbers['value']:.2f})"
    if numbers["label"] == Label.RETRIEVES.value:
        return [f"an expert that saw the answers gives them back {number}"]
    if numbers["label"] == Label.NO_TRANSFER.value:
        return [f"an expert that saw the answers does not give them back {number}"]
    why = "whether an expert that saw the answers gives them back is undecided"
    return [f"{why} {number}"]


def _count(labels: Mapping[str, str], *wanted: Label) -> int:
    return sum(label in wanted for label in labels.values())


def _listed(names: Sequence[str], numbers: Mapping[str, Any]) -> str:
    of = numbers["combinations"]
    return ", ".join(f"{name} {_interval(of[name])}" for name in names)


def _numbers(numbers: Mapping[str, Any]) -> str:
    return f"({_interval(numbers)}; chance {numbers['chance']:.2f})"


def _interval(x: Mapping[str, Any]) -> str:
    return f"{x['value']:.2f} [{x['lo']:.2f}, {x['hi']:.2f}]"
