"""What is asked at which sizes, and what is predicted of it before it is run."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxlora.files import write_text
from jaxlora.strangers import data
from jaxlora.studies.theory.config import PREDICTIONS, TheoryConfig
from jaxlora.theory import CLAIMS, PROGRAMS, Claim, Load, Rule, Sizes, interval
from jaxlora.theory.measure import GATES

LINEAR = "linear in the gate"
"""The claim that is made of a trained decoder alone."""


REPAIR = "a written bridge repairs it"
"""The claim that a trained decoder obeys least."""


class Case(NamedTuple):
    """One call of a program, for all seeds together."""

    program: str
    sizes: Sizes | Load
    arguments: tuple[tuple[str, float], ...] = ()

    @property
    def condition(self) -> dict[str, Any]:
        """Sizes and arguments by name."""
        sizes = dataclasses.asdict(self.sizes)
        return {"program": self.program} | sizes | dict(self.arguments)


def name_of(claim: str, item: str, condition: dict[str, Any]) -> str:
    """Returns one string for a claim, an item and a case.

    >>> name_of("capacity", "outer products", {"b": 1, "a": 2})
    'capacity | outer products | {"a": 2, "b": 1}'
    """
    return f"{claim} | {item} | {json.dumps(condition, sort_keys=True)}"


def cases(preset: str) -> list[Case]:
    """All cases of a preset, programs together."""
    return _standard() if preset == "standard" else _quick()


def _standard() -> list[Case]:
    middle, large = Sizes(50, 256, 4096), Sizes(100, 512, 4096)
    return [
        *(Case("two-hop", s) for s in (Sizes(25, 128, 1024), middle, large)),
        *_over("apart", middle, strength=(0.4, 0.6, 0.7, 0.8, 1.0)),
        *_over("alike", middle, alike=(0.0, 0.1, 0.2, 0.3, 0.5)),
        *_over("alike", large, alike=(0.1, 0.2, 0.3)),
        *_over("dominance", middle, weight=(0.5, 0.75, 1.5, 2.0)),
        *_loads("capacity", 64, 64, (32, 64, 128, 256, 512, 1024)),
        *_loads("capacity", 256, 64, (128, 256, 512, 1024, 2048)),
        *_loads("interference", 256, 64, (32, 64, 128, 192, 224, 240), others=100),
        *(Case("low-rank", Load(512, 1024, d)) for d in (64, 128, 256)),
        *_over("scaled", Load(512, 1024, 128), scale=(0.5, 0.625, 0.75)),
        *_over("added", middle, answers=(1, 2, 50)),
        *(_placed(middle, gain) for gain in (0.5, 1.0, 1.5, 2.0, 4.0)),
        _placed(middle, 2.0, stale=0.5),
        *(_placed(Sizes(*x), 1.0) for x in ((25, 128, 1024), (50, 512, 4096))),
    ]


def _placed(sizes: Sizes, gain: float, stale: float = 0.0) -> Case:
    return Case("placed", sizes, (("gain", gain), ("stale", stale)))


def _quick() -> list[Case]:
    small = Sizes(20, 96, 768)
    return [
        Case("two-hop", small),
        *_over("apart", small, strength=(0.4, 1.2)),
        *_over("alike", small, alike=(0.1, 0.5)),
        *_over("dominance", small, weight=(0.5, 2.0)),
        *_loads("capacity", 48, 48, (48, 256)),
        *_loads("interference", 64, 32, (16, 48), others=40),
        *_loads("low-rank", 128, 32, (96,)),
        *_over("scaled", Load(96, 128, 32), scale=(0.5, 0.75)),
        *_over("added", small, answers=(1, 20)),
        _placed(small, 2.0),
    ]


def _over(program: str, sizes: Sizes | Load, **arguments) -> Iterator[Case]:
    for name, values in arguments.items():
        for value in values:
            yield Case(program, sizes, ((name, value),))


def _loads(program: str, hidden: int, width: int, facts, others=0) -> Iterator[Case]:
    for n in facts:
        yield Case(program, Load(n, hidden, width, others))


@functools.cache
def points(preset: str, seeds: int) -> tuple[dict[str, Any], ...]:
    """Computes every prediction of a preset, as a record; no random weight is drawn.

    Args:
      preset: which cases.
      seeds: that are pooled; chance intervals depend on their number.
    """
    out = []
    for case in cases(preset):
        values = [value for _, value in case.arguments]
        shares = _predict(case.program, case.sizes, *values)
        for claim in (x for x in CLAIMS if x.program == case.program):
            out += _of_claim(claim, case, shares, seeds)
    return tuple(out)


def _predict(program: str, *arguments: Any) -> dict[str, float]:
    return PROGRAMS[program].predict(*arguments)


def _of_claim(claim: Claim, case: Case, shares, seeds: int) -> Iterator[dict[str, Any]]:
    sizes = case.sizes
    people = sizes.others or sizes.facts if isinstance(sizes, Load) else sizes.people
    for item, rule in claim.items.items():
        if item in shares:
            tries = len(GATES) ** 2 if item.endswith("*") else 1
            items = seeds * (1 if item == "one alone" else people)
            low, high = interval(rule, shares[item], items, tries)
            yield {
                "claim": claim.name,
                "item": item,
                "condition": case.condition,
                "rule": str(rule),
                "predicted": round(float(shares[item]), 4),
                "lo": low,
                "hi": high,
            }


def committed(path: Path = PREDICTIONS) -> dict[str, dict[str, Any]]:
    """Reads the predictions that were written before the runs, by their name.

    Raises:
      ValueError: if the file is no list of predictions.
    """
    try:
        records = data.read(path)["predictions"]
        return {name_of(r["claim"], r["item"], r["condition"]): r for r in records}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no file of predictions ({error}); expected an object with a "
            f"list 'predictions' of claim, item, condition, predicted, lo and hi."
        ) from None


def digest(path: Path = PREDICTIONS) -> str:
    """Returns the SHA-256, in hex, of the committed predictions as canonical JSON."""
    content = data.read(path)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


DECODER = {
    "edit is exact": {"own facts": (Rule.EXACT, 1.0)},
    "sum keeps both hops": {
        "sum: hop 1": (Rule.EXACT, 1.0),
        "sum: hop 2": (Rule.EXACT, 1.0),
    },
    "two-hop answers the bridge": {"sum: bridge": (Rule.SURE, 1.0)},
    "composition is chance": {"sum: composed": (Rule.SURE, 0.0)},
    REPAIR: {"sum: written": (Rule.SURE, 1.0)},
    LINEAR: {
        f"{name}: {what}": (Rule.NEAR, None)
        for name in ("mean", "sum")
        for what in ("hop 1", "hop 2", "bridge")
    },
}
"""What the theory says of a trained decoder, were it one layer with fixed keys.

Under the last claim the prediction itself is measured, with one adapter at a time: the
logits of a merged model are those of the base and the weighted sum of what each expert
alone changes.
"""


def of_decoder() -> list[dict[str, Any]]:
    """Predictions on a trained decoder; None is predicted from single experts."""
    out = []
    for name, items in DECODER.items():
        for item, (rule, share) in items.items():
            record = {"claim": name, "item": item, "rule": str(rule)}
            ends = (None, None) if share is None else interval(rule, share, 1)
            out.append(record | {"predicted": share, "lo": ends[0], "hi": ends[1]})
    return out


def write(path: Path, seeds: int = TheoryConfig().seeds) -> None:
    """Writes the predictions of the standard preset, one a line."""

    def lines(entries: Iterable[dict[str, Any]]) -> str:
        return ",\n    ".join(map(json.dumps, entries))

    model = lines(points("standard", seeds))
    decoder = lines(of_decoder())
    text = (
        f'{{\n  "seeds": {seeds},\n  "predictions": [\n    {model}\n  ],\n'
        f'  "decoder": [\n    {decoder}\n  ]\n}}\n'
    )
    write_text(path, text)
