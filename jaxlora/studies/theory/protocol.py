"""The theory study: every prediction beside its measurement, over seeds and sizes."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxlora.evaluate.schema import COLUMNS
from jaxlora.evaluate.statistics import Interval, bootstrap
from jaxlora.io.files import write_text
from jaxlora.studies import provenance
from jaxlora.studies.theory import decoder, design
from jaxlora.studies.theory.config import PREDICTIONS, TheoryConfig
from jaxlora.studies.theory.design import Case
from jaxlora.studies.two_hop import store
from jaxlora.studies.two_hop.record import Clock
from jaxlora.theory import PROGRAMS, over_seeds
from jaxlora.tree import Tree

STUDY = "theory"
Progress = Callable[[str, int, int], None]
"""``progress(text, done, total)``."""


class Results(NamedTuple):
    """What a run found."""

    rows: pd.DataFrame
    """``schema.COLUMNS``; one pooled row a prediction, and one for each seed."""
    summary: dict[str, Any]
    """As in results.json."""

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Predictions outside their interval."""
        return [x for x in self.summary["outcomes"] if x["held"] is False]


def run(
    config: TheoryConfig,
    out: Path,
    cache: Path,
    progress: Progress = lambda *_: None,
) -> Results:
    """Runs the study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: where ``jaxlora study two-hop`` keeps its bases and experts.
      progress: called as the study moves on.

    Raises:
      ValueError: if ``out`` holds something else.
    """
    started = time.monotonic()
    store.claim(out, config, (), design.digest(), STUDY)
    origin = provenance.here() | {"predictions_revision": _revision(config)}
    rows: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    with provenance.compile_time() as compiled:
        clock = Clock(compiled)
        with clock.time("predict"):
            plan = _plan(config)
        with clock.time("evaluate"):
            for i, (records, items) in enumerate(_measure_all(config, plan)):
                progress(str(plan[i][0].condition), i + 1, len(plan) + 1)
                _judge(config, items, records, rows, outcomes)
        progress("trained decoders", len(plan), len(plan) + 1)
        with clock.time("decoder"):
            found = decoder.run(config, cache)
        rows += [_decoder_row(x) for x in found.outcomes]
    summary = _summary(config, origin, outcomes, found)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    seconds = clock.seconds | {"compile": compiled.seconds}
    seconds["total"] = time.monotonic() - started
    summary["timings"] = {f"{k}_s": round(s, 1) for k, s in seconds.items()}
    write_text(out / "results.csv", frame.to_csv(index=False))
    write_text(out / "results.json", provenance.to_json(summary))
    return Results(frame, summary)


def _revision(config: TheoryConfig) -> str | None:
    """Where the predictions were committed; None if they were computed on the spot."""
    return provenance.revision_of(PREDICTIONS) if config.preset == "standard" else None


def _plan(config: TheoryConfig) -> list[tuple[Case, list[dict[str, Any]]]]:
    """Every case with the predictions on it: the committed ones, if there are any."""
    if config.preset == "standard":
        known = list(design.committed().values())
    else:
        known = design.plain(design.points(config.preset, config.seeds))
    return [
        (case, [r for r in known if r["condition"] == case.condition])
        for case in design.cases(config.preset)
    ]


def _measure_all(config: TheoryConfig, plan):
    """Every case in order; two are compiled and run at a time."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = [pool.submit(_measure, config, case) for case, _ in plan]
        for (_, records), one in zip(plan, running, strict=True):
            yield records, one.result()


def _measure(config: TheoryConfig, case: Case) -> dict[str, np.ndarray]:
    """Items of every seed, [S, N] each; one program for all seeds."""
    numbers = config.first_seed + np.arange(config.seeds)
    keys = jax.vmap(jax.random.key)(numbers)
    arguments = [np.float32(value) for _, value in case.arguments]
    found = over_seeds(PROGRAMS[case.program].measure, keys, case.sizes, *arguments)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def _judge(
    config: TheoryConfig,
    items: Mapping[str, np.ndarray],
    records: Sequence[Mapping[str, Any]],
    rows: list[dict[str, Any]],
    outcomes: list[dict[str, Any]],
) -> None:
    for record in records:
        name, values = _found(record["item"], items)
        pooled = pool(config, values)
        held = bool(record["lo"] <= pooled.value <= record["hi"])
        more = {"which": name} if name != record["item"] else {}
        measured = {"value": round(pooled.value, 6), "n": pooled.n}
        ends = {"value_lo": round(pooled.lo, 6), "value_hi": round(pooled.hi, 6)}
        outcomes.append(dict(record) | more | measured | ends | {"held": held})
        told = {k: record[k] for k in ("claim", "predicted")}
        told |= {"interval": [record["lo"], record["hi"]], "held": held} | more
        rows.append(_row("all", record, pooled, told))
        rows += _per_seed(config, record, values)


def _per_seed(config: TheoryConfig, record, values: np.ndarray) -> Iterator[dict]:
    for s, mine in enumerate(values):
        told = {"claim": record["claim"]}
        yield _row(config.first_seed + s, record, pool(config, mine[None]), told)


def pool(config: TheoryConfig, values: np.ndarray) -> Interval:
    """Mean of items [S, N], with an interval over seeds and items."""
    rng = np.random.default_rng(0)
    return bootstrap(list(values), rng, config.level, config.resamples)


def _found(item: str, items: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """The items of a name; of ``gate *`` those of the gate that did best."""
    if not item.endswith("*"):
        return item, items[item]
    names = [name for name in items if name.startswith(item[:-1])]
    best = max(names, key=lambda name: items[name].mean())
    return best, items[best]


def _row(seed: int | str, record: Mapping[str, Any], found: Interval, told):
    name, _, split = record["item"].rpartition(": ")
    condition = dict(record.get("condition", {})) | told
    return {
        "study": STUDY,
        "seed": seed,
        "familiarity": "",
        "knows": "",
        "library": record.get("condition", {}).get("program", "decoder"),
        "method": name if name in ("sum", "mean") else "none",
        "split": split if name in ("sum", "mean") else record["item"],
        "metric": "accuracy",
        "value": round(found.value, 6),
        "n": found.n,
        "lo": round(found.lo, 6),
        "hi": round(found.hi, 6),
        "condition": json.dumps(condition, sort_keys=True),
    }


def _decoder_row(x: Mapping[str, Any]) -> dict[str, Any]:
    told = {k: x[k] for k in ("claim", "predicted", "held", "bases")}
    told["interval"] = [x["lo"], x["hi"]]
    if x["value"] is None:
        nothing = Interval(float("nan"), float("nan"), float("nan"), 0)
        return _row("all", x, nothing, told | {"unavailable": x["why"]})
    found = Interval(x["value"], x["value_lo"], x["value_hi"], x["n"])
    row = _row("all", x, found, told)
    return row | {"metric": "cosine"} if x["claim"] == decoder.OVERLAP else row


def _summary(config, origin, outcomes, found: decoder.Found) -> dict[str, Any]:
    judged = [*outcomes, *(x for x in found.outcomes if x["held"] is not None)]
    return {
        "study": STUDY,
        "config": store.plain(config),
        **origin,
        "predictions_digest": design.digest(),
        "outcomes": outcomes,
        "decoder": found.outcomes,
        "decoder_notes": found.notes,
        "held": sum(x["held"] for x in judged),
        "judged": len(judged),
        "repeat": f"jaxlora study theory --preset {config.preset} "
        f"--seeds {config.seeds} --first-seed {config.first_seed}",
    }


def by_claim(outcomes: Sequence[Mapping[str, Any]]) -> Tree:
    """Outcomes by the name of their claim, in order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for outcome in outcomes:
        found.setdefault(outcome["claim"], []).append(outcome)
    return found
