"""From the log of a run to rows, verdicts, the law and predictions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxlora.evaluate import schema
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Address, Arm, Method, Metric, Split
from jaxlora.evaluate.statistics import holm
from jaxlora.studies.harness import Results, Run, results, samples
from jaxlora.studies.harness.config import plain
from jaxlora.studies.harness.samples import Intervals, Samples
from jaxlora.studies.word_problems import design, judging
from jaxlora.studies.word_problems.config import WordProblemsConfig
from jaxlora.studies.word_problems.judging import Rules
from jaxlora.studies.word_problems.log import Asked, Log
from jaxlora.studies.word_problems.questions import ANSWER_ONLY


def finish(
    this: Run[WordProblemsConfig], log: Log, claims: Sequence[Prediction]
) -> Results:
    """Pools, judges and checks.

    Args:
      this: the run.
      log: what it learned.
      claims: the predictions.
    """
    config = this.config
    how = Intervals(config.thresholds.confidence, config.resamples)
    pooled: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    laws: list[dict[str, Any]] = []
    ranked: list[dict[str, Any]] = []
    every = [Asked(p, regime) for p in design.points(config) for regime in p.regimes]
    for number, asked in enumerate(every):
        this.progress("statistics", number, len(every), asked.regime.name)
        blocks = {b: x for b, x in log.blocks.get(asked, {}).items() if len(x)}
        of = judging.measured(blocks)
        pooled += _rows(log, asked, of, how)
        seeds, direct = _seeds(log, asked), _direct(log, asked)
        for address, law in judging.laws(blocks, seeds, direct, how):
            laws.append(_law_record(asked, address, law))
            pooled += _law_rows(address, law)
        verdicts += _judged(config, log, asked, of)
        if asked.regime.ranked:
            ranked += _ranked(log, asked, of, how)
    table = results.table(this.study.name, [*log.rows, *pooled])
    summary = {
        "study": this.study.name,
        "config": plain(config),
        "failed_seeds": log.failed,
        "criteria": log.criteria,
        "own_facts": [
            dict(asked.condition) | {"library": str(arm), "value": value}
            for (asked, arm), value in log.lowest.items()
        ],
        "refused": [
            dict(block.regime) | {"method": str(block.method), "reason": reason}
            for block, reason in log.refused.items()
            if block.arm is Arm.PAIR
        ],
        "predictions": results.checked(claims, pooled, this.study.revision),
        "verdicts": verdicts,
        "laws": laws,
        "leaderboard": ranked,
    }
    return Results(table, summary | this.origin, log.failed)


def _seeds(log: Log, asked: Asked) -> tuple[int, ...]:
    return tuple(log.passed.get(asked.point, ()))


def _direct(log: Log, asked: Asked) -> tuple[int, ...]:
    """Those of them whose base answers without steps as well."""
    return tuple(log.direct.get(asked.point, ()))


def _rows(
    log: Log, asked: Asked, of: Samples, how: Intervals
) -> Iterator[dict[str, Any]]:
    """Pooled rows, and the accuracy of combinations and the joint LoRA by seed."""
    seeds = _seeds(log, asked)
    direct = _direct(log, asked)
    steps = {x: v for x, v in of.items() if x.split not in ANSWER_ONLY}
    answers = {x: v for x, v in of.items() if x.split in ANSWER_ONLY}
    yield from samples.pooled(steps, seeds, how)
    # Without steps only bases count that answer known problems so.
    yield from samples.pooled(answers, direct, how)
    if answers and not direct:
        where = Address(
            cell=None,
            arm=Arm.PAIR,
            method=Method.NONE,
            split=Split.ANSWER_BOTH,
            metric=Metric.AVAILABLE,
            regime=asked.condition,
        )
        reason = "no base answers known problems without steps"
        yield samples.unavailable("all", where, reason)
    for x, by_seed in steps.items():
        shown = x.arm in (Arm.PAIR, Arm.JOINT) and x.split is Split.BOTH
        if shown and x.metric is Metric.ACCURACY:
            yield from samples.per_seed({x: by_seed}, seeds, how.confidence)
        if shown and x.arm is Arm.PAIR and x.metric is Metric.ACCURACY:
            yield from _differences(of, x, seeds, how)


def _differences(
    of: Samples, x: Address, seeds: Sequence[int], how: Intervals
) -> Iterator[dict[str, Any]]:
    joint = x.at(arm=Arm.JOINT, method=Method.NONE)
    for y in (*judging.controls(x), joint):
        pair = samples.difference(of, x, y, seeds, how)
        if pair is not None:
            yield samples.difference_row(x, y, pair.difference)


def _law_rows(address: Address, law) -> Iterator[dict[str, Any]]:
    for metric, value in ((Metric.PRODUCT, law.product), (Metric.RATIO, law.ratio)):
        yield schema.row("all", address.at(metric=metric), value)


def _law_record(asked: Asked, address: Address, law) -> dict[str, Any]:
    return (
        dict(asked.condition)
        | dict(address.where)
        | {
            "library": str(address.arm),
            "method": str(address.method),
            "split": str(address.split),
        }
        | {name: value._asdict() for name, value in law._asdict().items()}
    )


def _judged(
    config: WordProblemsConfig, log: Log, asked: Asked, of: Samples
) -> Iterator[dict[str, Any]]:
    lowest: Mapping[Arm, float] = {
        arm: value for (where, arm), value in log.lowest.items() if where == asked
    }
    rules = Rules(config.thresholds, config.resamples, config.experts.min_own)
    for split, seeds in (
        (Split.BOTH, _seeds(log, asked)),
        (Split.ANSWER_BOTH, _direct(log, asked)),
    ):
        mine = {x: v for x, v in of.items() if x.split is not _other(split)}
        if seeds:
            for record in judging.verdicts(mine, seeds, lowest, rules):
                yield dict(asked.condition) | record


def _other(split: Split) -> Split:
    return Split.ANSWER_BOTH if split is Split.BOTH else Split.BOTH


def _ranked(
    log: Log, asked: Asked, of: Samples, how: Intervals
) -> Iterator[dict[str, Any]]:
    """Every method beside the mean, at problems of two operations."""
    seeds, level = _seeds(log, asked), (("level", 2),)
    chosen = [
        x
        for x in of
        if x.arm is Arm.PAIR
        and x.split is Split.BOTH
        and x.metric is Metric.ACCURACY
        and x.where == level
    ]
    mean = next((x for x in chosen if x.method is Method.MEAN), None)
    if mean is None or not seeds:
        return
    pairs = {
        x: samples.difference(of, x, mean, seeds, how.of_differences) for x in chosen
    }
    known = {x: pair for x, pair in pairs.items() if pair is not None and x is not mean}
    adjusted = (
        dict(zip(known, holm([p.p for p in known.values()]), strict=True))
        if known
        else {}
    )
    for x in chosen:
        value = samples.interval(x, samples.of_seeds(of, x, seeds), how)
        above = pairs[x]
        yield {
            "method": str(x.method),
            "value": value._asdict(),
            "above mean": above and above.difference._asdict(),
            "p_adjusted": None if x not in adjusted else float(adjusted[x]),
        }
