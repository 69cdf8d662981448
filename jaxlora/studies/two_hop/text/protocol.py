"""The two-hop study on text: people, experts of a checkpoint, and every arm asked.

The checkpoint is read only if something is left to ask.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from jaxlora.evaluate import predictions
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Arm, Cell, Method, Split
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
from jaxlora.studies.harness.store import remembered
from jaxlora.studies.two_hop import arms, items
from jaxlora.studies.two_hop import config as common
from jaxlora.studies.two_hop.items import OldAnswers
from jaxlora.studies.two_hop.protocol import (
    Count,
    Log,
    Part,
    ask,
    note_criteria,
    note_experts,
)
from jaxlora.studies.two_hop.rows import Block, base_block, guess_rows
from jaxlora.studies.two_hop.text import answer, experts, resources, summary
from jaxlora.studies.two_hop.text.config import FREE, STUDY, CriteriaConfig, TextConfig
from jaxlora.studies.two_hop.text.resources import Loaded
from jaxlora.studies.two_hop.text.roles import Roles, Skill, left_out, roles_of
from jaxlora.tasks.two_hop import people, separation
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.tasks.two_hop.people import Given

# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.two_hop.text.protocol")
CONTEXT, KNOWN = "facts in context", "two-hop over known facts"


class Source(NamedTuple):
    """Where the people and the experts of a run come from."""

    given: Given | None
    """A user's facts."""
    loaded: Callable[[], Loaded]
    """Reads the checkpoint when it is first needed."""
    roles: Roles | None = None
    """Which of a user's adapters is which expert; None to train experts."""


def run(
    config: TextConfig,
    out: Path,
    cache: Path,
    progress: harness.Progress = lambda *_: None,
) -> Results:
    """Runs, or goes on with, a study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: folder of trained experts, shared between studies.
      progress: called with (stage, done, total, text) as the study moves on; the
        stages are loading, experts and questions.

    Raises:
      ValueError: if ``out`` holds something else, or a file given is not usable.
    """
    config = common.settled(config)
    given = people.read(config.facts, config.allow_ties) if config.facts else None
    claims, revision = _claims(config)
    _check(config, given)
    study = Study(
        name=STUDY,
        config=config,
        code=CODE,
        predictions=predictions.digest(claims),
        revision=revision,
        people=[r for some in given.people for p in some for r in p] if given else (),
        free=FREE,
    )

    def work(this: Run[TextConfig]) -> Results:
        return _ask_all(this, given, claims)

    return harness.run(study, out, cache, work, progress)


def _claims(config: TextConfig) -> tuple[tuple[Prediction, ...], str | None]:
    """The predictions; those of the package are about trained experts only."""
    path = config.predictions or common.predictions("text")
    if config.adapter and config.predictions is None:
        return (), None
    return predictions.load(path), provenance.revision_of(path)


def _check(config: TextConfig, given: Given | None) -> None:
    """Refuses, before a file is written, what could only fail after loading."""
    resources.check(config)
    for seed in () if config.adapter else config.numbers:
        for group in (*_generated(config, seed), *_provisional(config, given)):
            separation.check(group, most=config.phrasings)


def _generated(config: TextConfig, seed: int) -> tuple[Group, ...]:
    if config.adapter or not config.cells:
        return ()
    cells = tuple(map(Cell, config.cells))
    return people.generate(cells, config.people, config.pairs, seed)


def _provisional(config: TextConfig, given: Given | None) -> tuple[Group, ...]:
    """A user's people, before it is known what the base knows of them."""
    cell = Cell(f"{config.familiarity}-OO")
    # Pairs of a file are numbered after those of generated people.
    start = 0 if config.adapter else config.pairs
    pairs = given.people if given else ()
    return tuple(people.group(p, cell, start + i) for i, p in enumerate(pairs))


def _ask_all(
    this: Run[TextConfig], given: Given | None, claims: Sequence[Prediction]
) -> Results:
    config, log = this.config, Log()

    @functools.cache
    def loaded() -> Loaded:
        with this.clock.time("loading"):
            return resources.load(config, this.progress)

    source = Source(given, loaded)
    real, known = _real(this, source)
    source = source._replace(roles=_roles(this, loaded, real))
    present = set(source.roles.of) if source.roles else set(Expert)
    cells: dict[Cell, None] = {}
    for seed in config.numbers:
        groups = (*_generated(config, seed), *real)
        cells |= dict.fromkeys(group.cell for group in groups)
        _ask_seed(this, log, source, seed, groups)
    missing = left_out(config, present) + _nobody(given, real)
    with this.clock.time("statistics"):
        ended = summary.finish(this, log, claims, tuple(cells), missing)
    ended.summary["known_by_base"] = known
    if source.roles:
        ended.summary["roles"] = source.roles.record()
    return ended


def _nobody(given: Given | None, real: Sequence[Group]) -> list[dict[str, str]]:
    """People of a file who are in no group."""
    if given is None:
        return []
    asked = sum(group.size for group in real)
    count = given.left_out + sum(map(len, given.people)) - asked
    why = (
        f"fewer than {people.LEAST} alike: same relations, same hops known to the base"
    )
    return [{"what": f"{count} people of the facts", "why": why}] if count else []


def _real(
    this: Run[TextConfig], source: Source
) -> tuple[tuple[Group, ...], list[dict[str, Any]]]:
    """A user's people by what the base knows, measured once and stored."""
    config, groups = this.config, _provisional(this.config, source.given)
    if not groups or config.familiarity != "R":
        return groups, []

    def measure() -> list[dict[str, Any]]:
        hops = [resources.knowledge(source.loaded(), config, groups, g) for g in groups]
        return [
            {"pair": group.pair, "hop1": hop1, "hop2": hop2}
            for group, (hop1, hop2) in zip(groups, hops, strict=True)
        ]

    known = remembered(this.out / "known.json", measure)
    split = [
        part
        for group, hops in zip(groups, known, strict=True)
        for part in people.by_knowledge(group, hops["hop1"], hops["hop2"])
    ]
    if not split:
        raise ValueError(
            f"Of the people in {config.facts}, fewer than {people.LEAST} are "
            f"alike in what the base knows of them; give more facts."
        )
    return tuple(split), known


def _roles(
    this: Run[TextConfig], loaded: Callable[[], Loaded], real: Sequence[Group]
) -> Roles | None:
    if not this.config.adapter:
        return None
    skills = remembered(
        this.out / "skills.json",
        lambda: resources.skills(loaded(), this.config, real),
    )
    by_folder = {folder: Skill(*values) for folder, values in skills.items()}
    return roles_of(this.config, by_folder)


def _ask_seed(
    this: Run[TextConfig], log: Log, source: Source, seed: int, groups: Sequence[Group]
) -> None:
    """Asks the base, then, if it meets its criteria, every arm of every group."""
    config, base = this.config, base_block(None, seed)
    ask(this, log, _parts(this, source, seed, groups), [base])
    criteria = criteria_of(config.criteria, log.items(base))
    note_criteria(log, base, criteria)
    log.base_rows += guess_rows(base, groups)
    if not met(list(criteria.values())):
        log.failed.append(str(seed))
        return
    log.passed.setdefault(None, []).append(seed)
    present = set(source.roles.of) if source.roles else set(Expert)
    refused, blocks = plan(config.methods, present, seed)
    for block, reason in refused.items():
        log.outcomes[block] = [Outcome(items.nothing(), {"unavailable": reason})]
    ask(this, log, _parts(this, source, seed, groups), blocks)
    people_asked = sum(group.size for group in groups)
    note_experts(log, base, config.criteria.min_own, people_asked)


def plan(
    methods: Sequence[str], present: set[Expert], seed: int
) -> tuple[dict[Block, str], list[Block]]:
    """What a method refuses to combine, and why; and all other blocks but the base's.

    Args:
      methods: names of merges and routes.
      present: experts that there are; an arm needs all of its own.
      seed: of the blocks.
    """
    refused, blocks = {}, []
    for arm, method in arms.plan(methods):
        if arm not in arms.MEMBERS or not set(arms.MEMBERS[arm]) <= present:
            continue
        block = Block(None, seed, arm, method)
        if reason := arms.obstacle(arm, method):
            refused[block] = reason
        else:
            blocks.append(block)
    return refused, blocks


def criteria_of(
    least: CriteriaConfig, items: pd.DataFrame
) -> Mapping[Split, Criterion]:
    """The criteria of the base, of reading and of composing what is known.

    Args:
      least: the thresholds.
      items: of the base; a criterion that nobody was asked about is left out.
    """
    right = items["correct"].to_numpy(float)
    context = items["split"] == str(Split.CONTEXT)
    known = (items["split"] == str(Split.TWO_HOP)) & (items["cell"] == str(Cell.R_II))
    rules = {
        Split.CONTEXT: (CONTEXT, right[context], least.min_context),
        Split.FAMILIAR_TWO_HOP: (KNOWN, right[known], least.min_two_hop),
    }
    return {
        split: Criterion(name, float(hits.mean()), hits.size, threshold)
        for split, (name, hits, threshold) in rules.items()
        if hits.size
    }


def _parts(
    this: Run[TextConfig], source: Source, seed: int, groups: Sequence[Group]
) -> Iterator[Part]:
    """One part a group; its experts are there as long as it is asked."""
    for group in groups:
        bare = functools.cache(
            functools.partial(_setting, this, source, seed, groups, group)
        )
        full = functools.cache(functools.partial(_with_experts, this, source, bare))

        def answers(
            arm: Arm,
            method: Method,
            old: OldAnswers | None,
            _: Count,
            bare: Callable[[], answer.Setting] = bare,
            full: Callable[[], answer.Setting] = full,
        ) -> Outcome:
            ready = bare() if arm is Arm.BASE else full()
            return answer.answer(ready._replace(old=old), arm, method)

        name = f"seed {seed}, {group.cell} {group.pair}"
        folder = this.out / "groups" / f"{group.cell}-{group.pair}"
        yield Part(name, folder, answers)


def _setting(
    this: Run[TextConfig],
    source: Source,
    seed: int,
    groups: Sequence[Group],
    group: Group,
) -> answer.Setting:
    """One group ready to be asked, with a user's adapters if there are any."""
    known = source.given.known if source.given else {}
    loaded = source.loaded()
    bare = resources.setting(loaded, this.config, groups, group, seed, known)
    if source.roles is None:
        return bare
    of = source.roles.of
    return bare._replace(adapters={x: loaded.adapters[of[x]] for x in of})


def _with_experts(
    this: Run[TextConfig], source: Source, bare: Callable[[], answer.Setting]
) -> answer.Setting:
    """The same with experts, trained if need be, and what each holds of its facts."""
    ready = bare()
    if source.roles is None:
        name = f"seed {ready.seed}, {ready.group.cell}"

        def progress(done: int, total: int, loss: float) -> None:
            this.progress("experts", done, total, f"{name}: loss {loss:.3f}")

        config = this.config
        recipe = experts.Recipe(
            config.lora, config.train, config.phrasings, config.dtype
        )
        with this.clock.time("experts"):
            trained = experts.train(
                experts.Learner(ready.model, ready.base, ready.codec),
                ready.group,
                ready.seed,
                recipe,
                this.cache,
                progress,
            )
        ready = ready._replace(adapters=trained.adapters)
    accuracy = {name: answer.own_facts(ready, name) for name in ready.adapters}
    return ready._replace(accuracy=accuracy)
