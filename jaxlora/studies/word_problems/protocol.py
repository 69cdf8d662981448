"""The word-problem study: bases, all experts of a base, every regime.

All experts of a base are trained first, and equal ones once: a regime then only chooses
among them. Blocks are stored as they are asked.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxlora.evaluate import predictions
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Address, Arm, Method, Metric, Split
from jaxlora.studies import harness
from jaxlora.studies.harness import (
    Criterion,
    Outcome,
    Results,
    Run,
    Study,
    code,
    provenance,
)
from jaxlora.studies.harness.criteria import met
from jaxlora.studies.word_problems import (
    answer,
    bases,
    design,
    experts,
    questions,
    summary,
)
from jaxlora.studies.word_problems.bases import Base
from jaxlora.studies.word_problems.config import STUDY, WordProblemsConfig
from jaxlora.studies.word_problems.design import Point, Regime
from jaxlora.studies.word_problems.experts import Expert
from jaxlora.studies.word_problems.kinds import Kind
from jaxlora.studies.word_problems.log import Asked, Log

# What decides a stored block: design and summary are no part of it, for a block's path
# names its regime, and every run makes its rows anew of all blocks.
CODE = code.digest("jaxlora.studies.word_problems.answer")
PREDICTIONS = Path(__file__).with_name("predictions.json")


class _Ready(NamedTuple):
    """A base with all experts that its regimes need, and its questions."""

    base: Base
    trained: Mapping[Kind, Expert]
    asked: questions.Asked


def run(
    config: WordProblemsConfig,
    out: Path,
    cache: Path,
    progress: harness.Progress = lambda *_: None,
) -> Results:
    """Runs, or goes on with, the study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: folder of trained bases and experts, shared between studies.
      progress: called as the study moves on.

    Raises:
      ValueError: if ``out`` holds something else.
    """
    claims = claimed(config)
    study = Study(
        name=STUDY,
        config=config,
        code=CODE,
        predictions=predictions.digest(claims),
        revision=provenance.revision_of(config.predictions or PREDICTIONS),
    )

    def work(this: Run[WordProblemsConfig]) -> Results:
        log = Log()
        for point in design.points(config):
            for seed in point.seeds:
                ask_base(this, log, point, seed)
        with this.clock.time("statistics"):
            return summary.finish(this, log, claims)

    return harness.run(study, out, cache, work, progress)


def claimed(config: WordProblemsConfig) -> tuple[Prediction, ...]:
    """The predictions of a study: its file's, or the package's.

    Args:
      config: of the study.
    """
    return predictions.load(config.predictions or PREDICTIONS)


def ask_base(this: Run[WordProblemsConfig], log: Log, point: Point, seed: int) -> None:
    """Asks a base that meets its criteria every regime, and logs one that does not.

    Args:
      this: the run.
      log: grows.
      point: whose base.
      seed: of the base.
    """
    base = _base(this, point, seed)
    if not _judge(log, point, base):
        return
    ready = functools.cache(functools.partial(_ready, this, point, base))
    for number, regime in enumerate(point.regimes):
        asked = Asked(point, regime)
        for arm, method in ((Arm.BASE, Method.NONE), *point.plan(regime)):
            text = f"{point.name}, seed {seed}, {regime.name}"
            if regime.name == "overlap":
                text += f" {regime.second.share:g}"
            text += f": {arm}, {method}"
            this.progress("questions", number, len(point.regimes), text)
            block = asked.block(seed, arm, method)
            make = functools.partial(_answer, this, ready, regime, arm, method)
            path = block.path(this.out)
            log.add(asked, block, harness.ask(this, path, answer.COLUMNS, make))


def _base(this: Run[WordProblemsConfig], point: Point, seed: int) -> Base:
    config, recipe = this.config, point.pretrain

    def progress(steps: int, measured: Mapping[str, tuple[float, int]]) -> None:
        known = [x for name, (x, _) in measured.items() if bases.is_required(name)]
        text = f"{point.name}, seed {seed}: known problems {min(known):.2f}"
        this.progress("pretrain", steps, recipe.max_steps, text)

    text = f"{point.name}, seed {seed}: compiling ..."
    this.progress("pretrain", 0, recipe.max_steps, text)
    with this.clock.time("pretrain"):
        how = (config.model, recipe, seed, this.cache, progress)
        return bases.train(point.world, *how)


def _judge(log: Log, point: Point, base: Base) -> bool:
    """Logs the criteria of a base; whether it met those that are required."""
    seed, recipe = base.world.seed, point.pretrain
    criteria = []
    for name, measured in base.measured.items():
        required = bases.is_required(name)
        threshold = recipe.min_known if required else recipe.min_answer
        criterion = Criterion(name, *measured, threshold, required)
        criteria.append(criterion)
        where = {"base": point.name, "known unary": point.world.known_unary}
        record = criterion.record(**where, seed=seed, steps=base.steps)
        if record in log.criteria:
            continue
        log.criteria.append(record)
        address = Address(
            cell=None,
            arm=Arm.BASE,
            method=Method.NONE,
            split=Split.KNOWN if required else Split.ANSWER_KNOWN,
            metric=Metric.ACCURACY,
            regime=point.condition,
            where=(("criterion", name),),
        )
        log.rows += criterion.rows(seed, address)
    passed = met(criteria)
    if passed:
        log.passed.setdefault(point, []).append(seed)
        if base.answers(recipe):
            log.direct.setdefault(point, []).append(seed)
    else:
        text = f"{seed} ({point.name}, {point.world.known_unary} unary operations)"
        log.failed += [] if text in log.failed else [text]
    return passed


def _ready(this: Run[WordProblemsConfig], point: Point, base: Base) -> _Ready:
    config, pairs = this.config, design.pairs(point.world)
    every = needed(point)
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        text = f"{point.name}, seed {base.world.seed}"
        this.progress("experts", done, len(every), text)

    progress(0)
    how = (config.lora, config.experts)
    with this.clock.time("experts"):
        trained = experts.train(base, every, how, this.cache, progress)
    return _Ready(base, trained, questions.ask(base.world, pairs))


def needed(point: Point) -> tuple[Kind, ...]:
    """All experts of a point's regimes, each once.

    Args:
      point: bases and regimes.
    """
    every = {
        kind: None
        for regime in point.regimes
        for arm, _ in point.plan(regime)
        if arm is not Arm.FULL  # which is no adapter
        for pair in design.pairs(point.world)
        for kind in design.members(arm, regime, pair, point.world.new)
    }
    return tuple(every)


def _answer(
    this: Run[WordProblemsConfig],
    of: Callable[[], _Ready],
    regime: Regime,
    arm: Arm,
    method: Method,
) -> Outcome:
    """Asks one arm of a regime; what that needs is made when it is first needed."""
    ready = of()
    setting = answer.Setting(
        this.config, regime, ready.base, ready.asked, ready.trained
    )
    return answer.answer(setting, arm, method)
