"""The theory study: every prediction beside its measurement, over seeds and sizes."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlora.evaluate.statistics import Interval, bootstrap
from jaxlora.studies import harness
from jaxlora.studies.harness import Results, Run, Study, code, provenance, results
from jaxlora.studies.harness.config import plain
from jaxlora.studies.theory import decoder, design
from jaxlora.studies.theory.config import PREDICTIONS, TheoryConfig
from jaxlora.studies.theory.design import Case
from jaxlora.theory import PROGRAMS, over_seeds

# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.theory.protocol")
STUDY = "theory"
Progress = Callable[[str, int, int], None]
"""``progress(text, done, total)``."""


def run(
    config: TheoryConfig, out: Path, cache: Path, progress: Progress = lambda *_: None
) -> Results:
    """Runs the study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: where ``jaxlora study two-hop`` keeps its bases and experts.
      progress: called with (text, done, total) as the study moves on.

    Raises:
      ValueError: if ``out`` holds something else.
    """
    # Where the predictions were committed; None if they are computed on the spot.
    standard = config.preset == "standard"
    study = Study(
        name=STUDY,
        config=config,
        code=CODE,
        predictions=design.digest(),
        revision=provenance.revision_of(PREDICTIONS) if standard else None,
    )

    def bars(_: str, done: int, total: int, text: str) -> None:
        progress(text, done, total)

    return harness.run(study, out, cache, _work, bars)


def _work(this: Run[TheoryConfig]) -> Results:
    config = this.config
    rows: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    with this.clock.time("predict"):
        plan = _plan(config)
    # Every case in order; two are compiled and run at a time.
    with this.clock.time("evaluate"), ThreadPoolExecutor(max_workers=2) as pool:
        running = [pool.submit(_measure, config, case) for case, _ in plan]
        for i, (case, records) in enumerate(plan):
            items = running[i].result()
            try:
                this.progress("evaluate", i + 1, len(plan) + 1, str(case.condition))
            except KeyboardInterrupt:  # or the pool would go on with all that wait
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            _judge(config, items, records, rows, outcomes)
    this.progress("decoder", len(plan), len(plan) + 1, "trained decoders")
    with this.clock.time("decoder"):
        trained = decoder.run(config, this.cache)
    rows += [_decoder_row(x) for x in trained.outcomes]
    summary = _summary(this, outcomes, trained)
    missed = [x for x in outcomes if x["held"] is False]
    return Results(results.table(STUDY, rows), summary, missed)


def _plan(config: TheoryConfig) -> list[tuple[Case, list[dict[str, Any]]]]:
    """Every case with the predictions on it: the committed ones, if there are any."""
    if config.preset == "standard":
        known = [*design.committed().values()]
    else:
        known = [*design.points(config.preset, config.seeds)]
    return [
        (case, [r for r in known if r["condition"] == case.condition])
        for case in design.cases(config.preset)
    ]


def _measure(config: TheoryConfig, case: Case) -> dict[str, np.ndarray]:
    """Items of every seed, [S, N] each; one program for all seeds."""
    numbers = config.first_seed + np.arange(config.seeds)
    keys = jax.vmap(jax.random.key)(numbers)
    arguments = [np.float32(value) for _, value in case.arguments]
    items = over_seeds(PROGRAMS[case.program].measure, keys, case.sizes, *arguments)
    return {name: np.asarray(values, np.float64) for name, values in items.items()}


def _judge(
    config: TheoryConfig,
    items: Mapping[str, np.ndarray],
    records: Sequence[Mapping[str, Any]],
    rows: list[dict[str, Any]],
    outcomes: list[dict[str, Any]],
) -> None:
    for record in records:
        name, values = _named(record["item"], items)
        pooled = pool(config, values)
        held = bool(record["lo"] <= pooled.value <= record["hi"])
        more = {"which": name} if name != record["item"] else {}
        measured = {"value": round(pooled.value, 6), "n": pooled.n}
        ends = {"value_lo": round(pooled.lo, 6), "value_hi": round(pooled.hi, 6)}
        outcomes.append(dict(record) | more | measured | ends | {"held": held})
        condition = {k: record[k] for k in ("claim", "predicted")}
        condition |= {"interval": [record["lo"], record["hi"]], "held": held} | more
        rows.append(_row("all", record, pooled, condition))
        for s, mine in enumerate(values, start=config.first_seed):
            single = pool(config, mine[None])
            rows.append(_row(s, record, single, {"claim": record["claim"]}))


def pool(config: TheoryConfig, values: np.ndarray) -> Interval:
    """Mean of items [S, N], with an interval over seeds and items."""
    rng = np.random.default_rng(0)
    return bootstrap(list(values), rng, config.confidence, config.resamples)


def _named(item: str, items: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """The items of a name; of ``gate *`` those of the gate that did best."""
    if not item.endswith("*"):
        return item, items[item]
    names = [name for name in items if name.startswith(item[:-1])]
    best = max(names, key=lambda name: items[name].mean())
    return best, items[best]


def _row(
    seed: int | str, record: Mapping[str, Any], value: Interval, more: Mapping[str, Any]
) -> dict[str, Any]:
    name, _, split = record["item"].rpartition(": ")
    condition = dict(record.get("condition", {}))
    merged = name in ("sum", "mean")
    return {
        "seed": seed,
        "familiarity": "",
        "knows": "",
        "library": condition.get("program", "decoder"),
        "method": name if merged else "none",
        "split": split if merged else record["item"],
        "metric": "accuracy",
        "value": round(value.value, 6),
        "n": value.n,
        "lo": round(value.lo, 6),
        "hi": round(value.hi, 6),
        "condition": json.dumps(condition | dict(more), sort_keys=True),
    }


def _decoder_row(x: Mapping[str, Any]) -> dict[str, Any]:
    more = {k: x[k] for k in ("claim", "predicted", "held", "bases")}
    more["interval"] = [x["lo"], x["hi"]]
    if x["value"] is None:
        nothing = Interval(float("nan"), float("nan"), float("nan"), 0)
        return _row("all", x, nothing, more | {"unavailable": x["why"]})
    value = Interval(x["value"], x["value_lo"], x["value_hi"], x["n"])
    row = _row("all", x, value, more)
    return row | {"metric": "cosine"} if x["claim"] == decoder.OVERLAP else row


INTERIOR = (0.1, 0.9)
"""A share between these could have missed on either side."""


def interior(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns how many predictions are no identity, how many held, and the mean error.

    A prediction of 0 or 1 is often true by construction; one in between says more. A
    share that does not depend on a case's arguments is measured once, and counts once.

    Args:
      outcomes: predictions beside their measurements.

    >>> half = {"item": "x", "predicted": 0.5, "value": 0.4, "held": True}
    >>> half["condition"] = {"program": "p", "people": 5}
    >>> interior([half, half, half | {"predicted": 1.0}])
    {'count': 1, 'held': 1, 'mean_error': 0.1}
    """
    low, high = INTERIOR
    sizes = ("program", "people", "facts", "width", "hidden")
    distinct = {}
    for x in outcomes:
        at = tuple(x["condition"].get(size) for size in sizes)
        # One item at the same sizes with the same outcome is one measurement.
        distinct[x["item"], at, x["predicted"], x["value"]] = x
    inside = [x for x in distinct.values() if low <= x["predicted"] <= high]
    errors = [abs(x["value"] - x["predicted"]) for x in inside]
    mean = round(sum(errors) / len(errors), 4) if errors else None
    held = sum(x["held"] for x in inside)
    return {"count": len(inside), "held": held, "mean_error": mean}


def _summary(
    this: Run[TheoryConfig], outcomes, trained: decoder.Decoders
) -> dict[str, Any]:
    config = this.config
    judged = [*outcomes, *(x for x in trained.outcomes if x["held"] is not None)]
    return {
        "study": STUDY,
        "config": plain(config),
        **this.origin,
        "predictions_revision": this.study.revision,
        "predictions_digest": this.study.predictions,
        "outcomes": outcomes,
        "decoder": trained.outcomes,
        "decoder_notes": trained.notes,
        "interior": interior(outcomes),
        "held": sum(x["held"] for x in judged),
        "judged": len(judged),
        "repeat": f"jaxlora study theory --preset {config.preset} "
        f"--seeds {config.seeds} --first-seed {config.first_seed}",
    }
