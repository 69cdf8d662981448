"""The boundary study: every point's bases, all experts of a base, every regime.

All experts of a base are trained first, in few programs, and equal ones once: a regime
then only chooses among them. Blocks are stored as they are asked.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxlora.evaluate import predictions
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Address, Arm, Method, Metric, Split
from jaxlora.studies import harness, two_hop
from jaxlora.studies.boundary import design, summary
from jaxlora.studies.boundary.config import STUDY, BoundaryConfig
from jaxlora.studies.boundary.design import Point
from jaxlora.studies.boundary.log import Asked, Log
from jaxlora.studies.boundary.regimes import Regime
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
from jaxlora.studies.two_hop import Kind, TwoHopConfig, kinds
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.experts import Expert, Group, groups

# What decides a stored block, taken on import. Every run makes its rows anew of all
# blocks, and a block's path names its regime: design and summary are no part of it.
CODE = code.digest("jaxlora.studies.two_hop.symbols.answer")
PREDICTIONS = Path(__file__).with_name("predictions.json")
Base = two_hop.bases.Base
CRITERION_SPLITS = {
    "one-hop recall": Split.FAMILIAR_ONE_HOP,
    "held-out two-hop": Split.FAMILIAR_TWO_HOP,
    "copy": Split.COPY,
    "written bridge": Split.FAMILIAR_WRITTEN,
    "bridge is read": Split.FAMILIAR_MISLED,
    "one document": Split.FAMILIAR_DOCUMENT,
    "facts in context": Split.RANDOM_CONTEXT,
}


class _Ready(NamedTuple):
    """A base with all experts that its regimes need, and its questions."""

    base: Base
    people: tuple[Group, ...]
    trained: Mapping[Kind, two_hop.experts.Trained]
    asked: two_hop.questions.Asked


def run(
    config: BoundaryConfig,
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
      ValueError: if ``out`` holds something else, or a regime asks for layers or
        formats that a base does not have.
    """
    every = design.points(config)
    for point in every:
        check(point)
    claims = claimed(config)
    study = Study(
        name=STUDY,
        config=config,
        code=CODE,
        predictions=predictions.digest(claims),
        revision=provenance.revision_of(config.predictions or PREDICTIONS),
    )

    def work(this: Run[BoundaryConfig]) -> Results:
        log = Log()
        for point in every:
            for seed in point.seeds:
                ask_base(this, log, point, seed)
        with this.clock.time("statistics"):
            return summary.finish(this, log, claims)

    return harness.run(study, out, cache, work, progress)


def claimed(config: BoundaryConfig) -> tuple[Prediction, ...]:
    """The predictions of a study: its file's, or the package's.

    Args:
      config: of the study.
    """
    return predictions.load(config.predictions or PREDICTIONS)


def check(point: Point) -> None:
    """Refuses, before anything is trained, regimes that a point's bases cannot have.

    Args:
      point: bases and regimes.

    Raises:
      ValueError: naming the layers, or the formats that the bases are trained on.
    """
    count, formats = point.model.num_layers, point.pretrain.formats
    for regime in point.regimes:
        beyond = [
            x for x in (*regime.first_layers, *regime.second_layers) if x >= count
        ]
        if beyond:
            raise ValueError(
                f"Regime {regime.name!r} confines an expert to layer {beyond[0]}, but "
                f"the bases of {point.name!r} have {count} layers, 0 to {count - 1}."
            )
        used = (*regime.first.formats, *regime.second.formats)
        unseen = [name for name in used if name not in formats]
        if unseen:
            seen = ", ".join(formats) or "direct questions alone"
            raise ValueError(
                f"Regime {regime.name!r} has rows of the format {unseen[0]!r}, which "
                f"the bases of {point.name!r} never see; they are trained on {seen}."
            )


def ask_base(this: Run[BoundaryConfig], log: Log, point: Point, seed: int) -> None:
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
        first = asked.block(seed, Arm.BASE, Method.NONE)
        # The base holds no expert: what it answers is stored once for all regimes.
        path = first._replace(regime=point.condition).path(this.out)
        make = functools.partial(_answer, this.config, ready, regime, None)
        empty = functools.partial(make, Arm.BASE, Method.NONE)
        alone = harness.ask(this, path, two_hop.items.COLUMNS, empty)
        log.add(asked, first, alone)
        old = two_hop.items.old_answers(alone.items)
        where = f"{point.name} {point.world.coverage:g}, seed {seed}, {regime.name}"
        for arm, method in point.plan(regime):
            text = f"{where}: {arm}, {method}"
            this.progress("questions", number, len(point.regimes), text)
            block = asked.block(seed, arm, method)
            make = functools.partial(_answer, this.config, ready, regime, old)
            some = functools.partial(make, arm, method)
            outcome = harness.ask(
                this, block.path(this.out), two_hop.items.COLUMNS, some
            )
            log.add(asked, block, outcome)


def _base(this: Run[BoundaryConfig], point: Point, seed: int) -> Base:
    most = point.pretrain.max_steps

    def progress(number: int, steps: int, measured: Mapping[str, tuple[float, int]]):
        held = measured.get("held-out two-hop", (0.0, 0))[0]
        text = f"{point.name}, seed {number}: held-out two-hop {held:.2f}"
        this.progress("pretrain", steps, most, text)

    this.progress("pretrain", 0, most, f"{point.name}, seed {seed}: compiling ...")
    with this.clock.time("pretrain"):
        people = world.generate(point.world, seed)
        how = (point.model, point.pretrain, this.cache, 1, progress)
        (base,) = two_hop.bases.train([seed], [people], *how)
    return base


def _judge(log: Log, point: Point, base: Base) -> bool:
    """Logs the criteria of a base; whether it met those that are required."""
    rules = two_hop.bases.CRITERIA | two_hop.bases.FORMATS
    criteria = {
        name: Criterion(
            name,
            *measured,
            threshold=getattr(point.pretrain, rules[name][2]),
            required=name in two_hop.bases.CRITERIA,
        )
        for name, measured in base.measured.items()
    }
    where = {"base": point.name, "coverage": point.world.coverage, "seed": base.seed}
    for name, criterion in criteria.items():
        record = criterion.record(**where, steps=base.steps)
        if record in log.criteria:  # two points may ask the same base
            continue
        log.criteria.append(record)
        address = Address(
            cell=None,
            arm=Arm.BASE,
            method=Method.NONE,
            split=CRITERION_SPLITS[name],
            metric=Metric.ACCURACY,
            coverage=point.world.coverage,
            regime=point.condition,
        )
        log.rows += criterion.rows(base.seed, address)
    passed = met(list(criteria.values()))
    if passed:
        log.passed.setdefault(point, []).append(base.seed)
    else:
        text = f"{base.seed} ({point.name}, {point.world.coverage:g})"
        log.failed += [] if text in log.failed else [text]
    return passed


def _ready(this: Run[BoundaryConfig], point: Point, base: Base) -> _Ready:
    people = tuple(x for x in groups(base.world) if x.cell in point.cells)
    config = this.config
    every = tuple(
        dict.fromkeys(
            kind
            for regime in point.regimes
            for kind in _kinds(point, regime, config).values()
        )
    )
    total, done = len(every) * len(people), 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        this.progress("experts", done, total, f"{point.name}, seed {base.seed}")

    progress(0)
    how = (config.lora, config.experts)
    with this.clock.time("experts"):
        trained = two_hop.experts.train_kinds(
            base, people, every, how, this.cache, progress
        )
    asked = two_hop.questions.ask(base, people, config.retention_items)
    return _Ready(base, people, trained, asked)


def _kinds(point: Point, regime: Regime, config: BoundaryConfig) -> dict[Expert, Kind]:
    """The experts that the arms of a regime are made of."""
    needed: set[Expert] = set()
    for arm, _ in point.plan(regime):
        needed |= set(two_hop.arms.judged(arm))
    named = kinds(regime.recipe(config.experts))
    return {name: kind for name, kind in named.items() if name in needed}


def _answer(
    config: BoundaryConfig,
    of: Callable[[], _Ready],
    regime: Regime,
    old: two_hop.items.OldAnswers | None,
    arm: Arm,
    method: Method,
) -> Outcome:
    """Asks one arm of a regime; what that needs is made when it is first needed."""
    recipe, ready = regime.recipe(config.experts), of()
    names = {n: kind for n, kind in kinds(recipe).items() if kind in ready.trained}
    chosen = two_hop.experts.select(ready.base, ready.people, names, ready.trained)
    given = TwoHopConfig(experts=recipe, retention_items=config.retention_items)
    return two_hop.answer.answer(
        two_hop.answer.Setting(given, chosen, ready.asked, old), arm, method
    )
