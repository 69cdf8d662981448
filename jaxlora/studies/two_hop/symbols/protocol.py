"""The two-hop study on symbols: bases are trained, meet criteria, and are asked.

An interrupted study goes on where it stopped and ends with the same rows.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax

from jaxlora.evaluate import predictions, schema
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Arm, Method, Metric, Split
from jaxlora.studies import harness
from jaxlora.studies.harness import (
    Criterion,
    Results,
    Run,
    Study,
    code,
    provenance,
    results,
)
from jaxlora.studies.harness import share as shares
from jaxlora.studies.harness.criteria import bare
from jaxlora.studies.harness.samples import per_seed
from jaxlora.studies.two_hop import arms
from jaxlora.studies.two_hop import config as common
from jaxlora.studies.two_hop.items import OldAnswers
from jaxlora.studies.two_hop.protocol import (
    Count,
    Log,
    Part,
    ask,
    judge_base,
    note_experts,
)
from jaxlora.studies.two_hop.rows import Block, base_block, guess_rows, samples
from jaxlora.studies.two_hop.symbols import (
    answer,
    bases,
    check,
    experts,
    questions,
    summary,
)
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.config import FREE, STUDY, TwoHopConfig
from jaxlora.studies.two_hop.symbols.recipes import kinds
from jaxlora.tasks.two_hop import facts, world
from jaxlora.tasks.two_hop.experts import groups
from jaxlora.tasks.two_hop.records import Record
from jaxlora.tasks.two_hop.world import World

# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.two_hop.symbols.protocol")
SPLITS = {
    "one-hop recall": Split.FAMILIAR_ONE_HOP,
    "held-out two-hop": Split.FAMILIAR_TWO_HOP,
    "copy": Split.COPY,
    "written bridge": Split.FAMILIAR_WRITTEN,
    "bridge is read": Split.FAMILIAR_MISLED,
    "one document": Split.FAMILIAR_DOCUMENT,
    "facts in context": Split.RANDOM_CONTEXT,
}
"""What each criterion of a base asks."""


def run(
    config: TwoHopConfig,
    out: Path,
    cache: Path,
    progress: harness.Progress = lambda *_: None,
    share: str = "",
) -> Results:
    """Runs, or goes on with, a study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: folder of trained bases and experts, shared between studies.
      progress: called with (stage, done, total, text) as the study moves on; the
        stages are pretrain, experts and questions.
      share: ``I/N`` does every N-th cell only, coverage by coverage and seed by seed.

    Raises:
      ValueError: if ``out`` holds something else, or a file given is not usable.
    """
    config = common.settled(config)
    cells = list(itertools.product(config.all_coverages, config.numbers))
    part = shares.read(share, len(cells))
    claims, people = claimed(config), own_people(config)
    _check(config, people)
    study = Study(
        name=STUDY,
        config=config,
        code=CODE,
        predictions=predictions.digest(claims),
        revision=_revision(config, claims),
        people=people,
        free=FREE,
    )

    def work(this: Run[TwoHopConfig]) -> Results:
        log = Log()
        this.progress("pretrain", 0, config.pretrain.max_steps, "")
        for coverage, mine in itertools.groupby(part.of(cells), lambda x: x[0]):
            for base in _bases(this, coverage, [seed for _, seed in mine], people):
                _ask_base(this, log, coverage, base)
        if not part.complete:
            return Results(results.table(STUDY, []), {})
        with this.clock.time("statistics"):
            return summary.finish(this, log, claims)

    return harness.run(study, out, cache, work, progress, part)


def own_people(config: TwoHopConfig) -> tuple[Record, ...]:
    """The people of a user's facts file, if one was given."""
    if config.facts is None:
        return ()
    given = facts.read(config.facts, config.allow_ties)
    people = tuple(facts.people(given, config.world))
    check.people(config.facts, people)
    return people


def _check(config: TwoHopConfig, people: tuple[Record, ...]) -> None:
    """Refuses, before a file is written, what could only fail after training."""
    check.router(config)
    if config.data_dir is not None:
        check.data_dir(config, config.data_dir, people)
    first = _world(config, config.all_coverages[0], config.numbers[0], people)
    check.world(first)
    check.adapters(first, config.model, config.lora)


def claimed(config: TwoHopConfig) -> tuple[Prediction, ...]:
    """The predictions of a study: its file's, or the package's on what it asks."""
    if config.predictions is not None:
        return predictions.load(config.predictions)
    usual = predictions.load(common.predictions(""))
    more = predictions.load(common.predictions("league"))
    asked = _plan(config)
    # Claims on arms and methods that a smaller study leaves out are not its own.
    return tuple(x for x in (*usual, *more) if (x.library, x.method) in asked)


def _plan(config: TwoHopConfig) -> list[tuple[Arm, Method]]:
    recipe = config.experts
    return arms.plan(config.all_methods, recipe.placed, recipe.extra)


def _revision(config: TwoHopConfig, claims: tuple[Prediction, ...]) -> str | None:
    """Where the predictions were committed; None unless every file of them was."""
    path = common.predictions("")
    usual = provenance.revision_of(config.predictions or path)
    alone = config.predictions or set(claims) <= set(predictions.load(path))
    if alone or usual is None:
        return usual
    return provenance.revision_of(common.predictions("league"))


def _bases(
    this: Run[TwoHopConfig],
    coverage: float,
    numbers: Sequence[int],
    people: tuple[Record, ...],
) -> Iterator[Base]:
    config = this.config
    concurrent = config.seeds_at_once
    if concurrent == 0:
        # One CPU is busy with one base; an accelerator has room for all of them. Asked
        # of JAX, as nothing is placed yet: a study of symbols takes no mesh.
        concurrent = 1 if jax.default_backend() == "cpu" else len(numbers)
    most = config.pretrain.max_steps

    def progress(seed: int, steps: int, measured: Mapping[str, tuple[float, int]]):
        held = measured.get("held-out two-hop", (0.0, 0))[0]
        text = f"coverage {coverage:g}, seed {seed}: held-out two-hop {held:.2f}"
        this.progress("pretrain", steps, most, text)

    for i in range(0, len(numbers), concurrent):
        seeds = numbers[i : i + concurrent]
        with this.clock.time("pretrain"):
            worlds = [_world(config, coverage, seed, people) for seed in seeds]
            recipe = (config.model, config.pretrain, this.cache, concurrent, progress)
            names = ", ".join(map(str, seeds))
            this.progress("pretrain", 0, most, f"seed {names}: compiling ...")
            trained = bases.train(seeds, worlds, *recipe)
        yield from trained


def _world(
    config: TwoHopConfig, coverage: float, seed: int, people: tuple[Record, ...]
) -> World:
    sizes = dataclasses.replace(config.world, coverage=coverage)
    if config.data_dir is not None:
        from jaxlora.tasks.two_hop import builder

        return builder.read(builder.folder(sizes, seed, config.data_dir, people))
    return world.generate(sizes, seed, people)


def _ask_base(this: Run[TwoHopConfig], log: Log, coverage: float, base: Base) -> None:
    """Asks a base that meets its criteria everything, and logs one that does not."""
    config, first = this.config, base_block(coverage, base.seed)
    rules = bases.CRITERIA | bases.FORMATS
    criteria = {
        SPLITS[name]: Criterion(
            name,
            *measured,
            threshold=getattr(config.pretrain, rules[name][2]),
            required=name in bases.CRITERIA,
        )
        for name, measured in base.measured.items()
    }
    text = f"{base.seed} (coverage {coverage:g})"
    passed = judge_base(log, first, criteria, text, steps=base.steps)
    log.base_rows += _world_rows(first, base)
    if not passed:
        return
    setting = functools.cache(functools.partial(_setting, this, base))

    def answers(arm: Arm, method: Method, old: OldAnswers | None, count: Count):
        ready = setting()._replace(old=old, progress=count)
        return answer.answer(ready, arm, method)

    name, resumed = f"coverage {coverage:g}, seed {base.seed}", this.clock.resumed
    plan = [Block(coverage, base.seed, *x) for x in _plan(config)]
    ask(this, log, [Part(name, this.out, answers)], plan)
    for block in plan:
        outcome = log.outcomes[block][0]
        measured = samples({block: outcome.items})
        measured |= summary.route_samples({block: outcome.notes.get("routes", [])})
        log.rows += per_seed(measured, [block.seed], config.thresholds.confidence)
    people = sum(group.size for group in groups(base.world))
    recipe = config.experts
    note_experts(log, first, recipe.min_own, people, steps=recipe.steps)
    if this.clock.resumed - resumed < len(plan):  # a finished table is not cut back
        rows = results.table(STUDY, log.base_rows + log.rows)
        results.write_rows(this.out, rows)
    this.progress("questions", len(plan), len(plan), f"seed {base.seed} done")


def _world_rows(block: Block, base: Base) -> Iterator[dict]:
    """Steps and phi of a base, and what guessing would give in each cell."""
    for metric, value in ((Metric.STEPS, base.steps), (Metric.PHI, base.world.phi)):
        address = block.address(None, Split.FAMILIAR_TWO_HOP, metric=metric)
        yield schema.row(base.seed, address, bare(value, 1))
    yield from guess_rows(block, groups(base.world))


def _setting(this: Run[TwoHopConfig], base: Base) -> answer.Setting:
    config = this.config
    every = set(kinds(config.experts).values())
    total, done = len(every) * len(groups(base.world)), 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        this.progress("experts", done, total, f"seed {base.seed}")

    this.progress("experts", 0, total, f"seed {base.seed}: compiling ...")
    with this.clock.time("experts"):
        trained = experts.train(base, config.lora, config.experts, this.cache, progress)
    asked = questions.ask(base, trained.groups, config.retention_items)
    return answer.Setting(config, trained, asked)
