"""Predictions written down before the results, and what became of them.

A prediction is one claim about one pooled row: the bound it must keep. A file of
predictions is a JSON list of objects with the fields of ``Prediction``; it is
committed with the config, and its hash goes into the results, so that nobody, the
authors included, can change a line once the numbers are known.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from jaxlora.evaluate import claims
from jaxlora.evaluate.claims import Claim as Claim
from jaxlora.evaluate.claims import Ending as Ending
from jaxlora.evaluate.schema import Arm, Cell, Method, Metric, Split
from jaxlora.names import near
from jaxlora.strangers import data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """One claim about one pooled row."""

    cell: Cell | None
    """``None`` for a row of the base that belongs to no cell."""
    library: Arm
    """The arm, as the column of that name holds it."""
    method: Method
    claim: Claim
    """What is said of the value or its interval."""
    bound: float | None
    """The number in the claim; ``None`` for ``reported``."""
    statement: str
    """The claim in words, with its reason."""
    split: Split = Split.TWO_HOP
    metric: Metric = Metric.ACCURACY
    condition: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    """Entries that the row's condition must have. Where several rows qualify (several
    coverages, say), the claim is made of each of them."""


class Outcome(NamedTuple):
    """A prediction beside the row it speaks of."""

    prediction: Prediction
    value: float | None
    lo: float | None
    hi: float | None
    ending: Ending
    """Not measured: no such row, no value, or no interval."""
    sentence: str

    @property
    def held(self) -> bool | None:
        """True if it held, False if it failed, None where neither is known."""
        return {Ending.HELD: True, Ending.FAILED: False}.get(self.ending)


def load(path: str | Path) -> tuple[Prediction, ...]:
    """Reads a JSON list of predictions.

    Raises:
      ValueError: if the file is no UTF-8 JSON list, or an entry has a field, cell,
        library, method, claim, split or metric that does not exist, lacks one, or
        has a bound that does not fit its claim. The message names file and entry.
    """
    records = data.read(path, what="a list of predictions", finite=False)
    return parse(records, source=str(path))


def parse(records: Any, source: str = "predictions") -> tuple[Prediction, ...]:
    """Returns the predictions in a list of objects, such as a config holds.

    Args:
      records: list of mappings with the fields of ``Prediction``.
      source: what to call the list in messages.

    Raises:
      ValueError: as in ``load``.

    >>> parse([{"cell": "R-OI", "library": "2-combination", "method": "mean",
    ...         "claim": "reported", "statement": "whatever it is"}])[0].split.value
    'two-hop'
    """
    if not isinstance(records, list):
        raise ValueError(
            f"{source}: expected a list of predictions, got {type(records).__name__}."
        )
    parsed: dict[str, Prediction] = {}
    for i, record in enumerate(records, start=1):
        prediction = _parse_one(record, f"{source}, prediction {i}")
        key = _canonical(dataclasses.asdict(prediction))
        if key in parsed:
            first = list(parsed).index(key) + 1
            raise ValueError(f"{source}: prediction {i} repeats prediction {first}.")
        parsed[key] = prediction
    return tuple(parsed.values())


def digest(predictions: Iterable[Prediction]) -> str:
    """Returns the SHA-256, in hex, of the predictions as canonical JSON.

    Independent of the order of predictions, and of the fields in each.

    >>> digest([])[:8]
    '4f53cda1'
    """
    records = sorted(_canonical(dataclasses.asdict(x)) for x in predictions)
    return hashlib.sha256(f"[{','.join(records)}]".encode()).hexdigest()


def check(
    predictions: Sequence[Prediction], pooled_rows: Iterable[Mapping[str, Any]]
) -> list[Outcome]:
    """Returns what became of each prediction, one outcome for each row it speaks of.

    Args:
      predictions: the claims.
      pooled_rows: rows as ``schema.row`` makes them; those of a single seed are
        passed over.
    """
    rows = [dict(row) for row in pooled_rows if row["seed"] == "all"]
    for row in rows:
        row["condition"] = json.loads(row["condition"])
    outcomes: list[Outcome] = []
    for prediction in predictions:
        spoken_of = [row for row in rows if _speaks_of(prediction, row)]
        outcomes += [_outcome(prediction, row, rows) for row in spoken_of or [None]]
    return outcomes


def _outcome(
    x: Prediction, row: dict[str, Any] | None, rows: list[dict[str, Any]]
) -> Outcome:
    got = {key: _number(row, key) for key in ("value", "lo", "hi")}
    # Chance is that of the same items: same address and same condition.
    like = _address(row, Metric.CHANCE) if row else None
    chances = (other for other in rows if _address(other, other["metric"]) == like)
    chance = _number(next(chances, None), "value")
    interval = got["value"], got["lo"], got["hi"]
    ending = claims.ending(x.claim, x.bound, interval, chance)
    claim = claims.in_words(x.claim, x.bound, chance)
    shown = _show(**got) if row else "no such row"
    address = f"{x.cell or 'base'}, {x.library}, {x.method}, {x.split} {x.metric}"
    condition = row["condition"] if row else dict(x.condition)
    at = f" at {json.dumps(condition, sort_keys=True)}" if condition else ""
    sentence = f"{address}{at}: {shown}; predicted {claim}: {ending}."
    return Outcome(x, **got, ending=ending, sentence=sentence)


def _address(row: Mapping[str, Any], metric: str) -> tuple[Any, ...]:
    keys = ("familiarity", "knows", "library", "method", "split", "condition")
    return (*(row[key] for key in keys), metric)


def _speaks_of(x: Prediction, row: Mapping[str, Any]) -> bool:
    cell = (x.cell.familiarity, x.cell.knows) if x.cell else ("", "")
    # Of the row's condition, only the entries that the prediction names must agree.
    condition = row["condition"] | dict(x.condition)
    named = (*cell, x.library, x.method, x.split, condition, x.metric)
    return _address(row, row["metric"]) == named


def _number(row: Mapping[str, Any] | None, key: str) -> float | None:
    value = row[key] if row else None
    return None if value is None or math.isnan(value) else float(value)


def _show(value: float | None, lo: float | None, hi: float | None) -> str:
    if value is None:
        return "no value"
    interval = "" if lo is None or hi is None else f" [{lo:.2f}, {hi:.2f}]"
    return f"{value:.2f}{interval}"


_KINDS: dict[str, type[StrEnum]] = {
    "cell": Cell,
    "library": Arm,
    "method": Method,
    "claim": Claim,
    "split": Split,
    "metric": Metric,
}


def _parse_one(record: Any, source: str) -> Prediction:
    if not isinstance(record, Mapping):
        raise ValueError(
            f"{source}: expected an object with fields, got {type(record).__name__}."
        )
    _check_fields(record, source)
    fields = dict(record)
    for name, kind in _KINDS.items():
        if name in fields and not (name == "cell" and fields[name] is None):
            fields[name] = _member(kind, fields[name], f"{source}, {name}")
    fields["bound"] = _bound(fields["claim"], fields.get("bound"), source)
    if not isinstance(fields["statement"], str) or not fields["statement"].strip():
        raise ValueError(f"{source}: expected a statement in words, got nothing.")
    _check_condition(fields.get("condition", {}), source)
    return Prediction(**fields)


def _check_fields(record: Mapping[str, Any], source: str) -> None:
    known = [field.name for field in dataclasses.fields(Prediction)]
    for name in record:
        if name not in known:
            raise ValueError(
                f"{source}: unknown field {name!r}{_nearest(name, known)}. "
                f"Fields: {', '.join(known)}."
            )
    needed = ("cell", "library", "method", "claim", "statement")
    missing = [name for name in needed if name not in record]
    if missing:
        raise ValueError(f"{source}: missing {', '.join(missing)}.")


def _check_condition(condition: Any, source: str) -> None:
    try:
        if not isinstance(condition, Mapping):
            raise ValueError
        _canonical(condition)
    except (ValueError, TypeError):
        raise ValueError(
            f'{source}: expected a condition such as {{"coverage": 1.0}}, in JSON and '
            f"without NaN, got {condition!r}."
        ) from None


def _member(kind: type[StrEnum], value: Any, source: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        names = [member.value for member in kind]
        raise ValueError(
            f"{source}: got {value!r}{_nearest(str(value), names)}. "
            f"There are: {', '.join(names)}."
        ) from None


def _bound(claim: Claim, bound: Any, source: str) -> float | None:
    if claim is Claim.REPORTED:
        if bound is not None:
            raise ValueError(f"{source}: claim reported takes no bound, got {bound!r}.")
        return None
    number = isinstance(bound, int | float) and not isinstance(bound, bool)
    if not number or not abs(bound) <= 1e300:  # nor NaN, nor what no float can hold
        raise ValueError(
            f"{source}: claim {claim} needs a finite number as its bound, got "
            f"{bound!r}."
        )
    return float(bound)


def _nearest(name: str, names: Sequence[str]) -> str:
    nearest = near(name, names, cutoff=0.5)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
