"""The two-hop study on text: people, experts of a checkpoint, and every arm asked.

The checkpoint is read only if something is left to ask.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from jaxlora import lora, parallel
from jaxlora.evaluate import predictions
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Arm, Cell, Method, Split
from jaxlora.io import trust
from jaxlora.parallel import written
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
from jaxlora.studies.harness import share as shares
from jaxlora.studies.two_hop import arms, items
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
from jaxlora.studies.two_hop.rows import Block, base_block, guess_rows
from jaxlora.studies.two_hop.text import answer, experts, questions, resources, summary
from jaxlora.studies.two_hop.text.config import FREE, STUDY, CriteriaConfig, TextConfig
from jaxlora.studies.two_hop.text.resources import Loaded, Source
from jaxlora.studies.two_hop.text.roles import left_out
from jaxlora.tasks.two_hop import people, separation, text_forms
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.tasks.two_hop.people import Given

# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.two_hop.text.protocol")
CONTEXT, KNOWN = "facts in context", "two-hop over known facts"


def run(
    config: TextConfig,
    out: Path,
    cache: Path,
    progress: harness.Progress = lambda *_: None,
    share: str = "",
) -> Results:
    """Runs, or goes on with, a study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: folder of trained experts, shared between studies.
      progress: called with (stage, done, total, text) as the study moves on; the
        stages are loading, experts and questions.
      share: ``I/N`` does every N-th seed only.

    Raises:
      ValueError: if ``out`` holds something else, or a file given is not usable.
    """
    config = common.settled(config)
    part = shares.read(share, len(config.numbers))
    given = resources.facts_of(config)
    claims, revision = _claims(config)
    _check(config, given)
    study = Study(
        name=STUDY,
        config=config,
        code=CODE,
        predictions=predictions.digest(claims),
        revision=revision,
        model=trust.folders_hash(
            tuple(x for x in (config.model, *config.adapter, config.tokenizer) if x)
        ),
        people=[r for some in given.people for p in some for r in p] if given else (),
        free=FREE,
    )

    work = functools.partial(_ask_all, given=given, claims=claims)
    with parallel.using(written.mesh(config.mesh)):
        return harness.run(study, out, cache, work, progress, part)


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
        groups = (*resources.generated(config, seed), *resources.given(config, given))
        for group in groups:
            separation.check(group, wanted(config), config.phrasings, config.form)
            text_forms.check(config.form, group.two_hop)


def _ask_all(
    this: Run[TextConfig], given: Given | None, claims: Sequence[Prediction]
) -> Results:
    config, log = this.config, Log()

    @functools.cache
    def loaded() -> Loaded:
        with this.clock.time("loading"):
            return resources.load(config, this.progress)

    source = Source(given, loaded)
    real, known = resources.real(this, source)
    source = source._replace(roles=resources.roles(this, source, real))
    cells: dict[Cell, None] = {}
    for seed in this.share.of(config.numbers):
        drawn = people.sample(real, config.people, seed) if config.real else real
        groups = (*resources.generated(config, seed), *drawn)
        cells |= dict.fromkeys(group.cell for group in groups)
        _ask_seed(this, log, source, seed, groups)
    if not this.share.complete:
        return Results(pd.DataFrame(), {})
    missing = left_out(config, source.present) + resources.nobody(given, real)
    with this.clock.time("statistics"):
        ended = summary.finish(this, log, claims, tuple(cells), missing)
    ended.summary["known_by_base"] = known
    if source.roles:
        ended.summary["roles"] = source.roles.record()
    return ended


def _ask_seed(
    this: Run[TextConfig], log: Log, source: Source, seed: int, groups: Sequence[Group]
) -> None:
    """Asks the base, then, if it meets its criteria, every arm of every group."""
    config, base = this.config, base_block(None, seed)
    ask(this, log, _parts(this, source, seed, groups), [base])
    criteria = criteria_of(config.criteria, log.items(base))
    passed = judge_base(log, base, criteria, str(seed))
    log.base_rows += guess_rows(base, groups)
    if not passed:
        return
    layers = resources.decoder(config).num_layers
    refused, blocks = plan(config, source.present, seed, layers)
    for block, reason in refused.items():
        log.outcomes[block] = [Outcome(items.nothing(), {"unavailable": reason})]
    ask(this, log, _parts(this, source, seed, groups), blocks)
    people_asked = sum(group.size for group in groups)
    note_experts(log, base, config.criteria.min_own, people_asked)


def plan(
    config: TextConfig, present: set[Expert], seed: int, layers: int
) -> tuple[dict[Block, str], list[Block]]:
    """What a method refuses to combine, and why; and all other blocks but the base's.

    Args:
      config: of the study: its methods, and whether extra arms are asked.
      present: experts that there are; an arm needs all of its own.
      seed: of the blocks.
      layers: L of the base.
    """
    refused, blocks = {}, []
    for arm, method in arms.plan(config.methods, extra=config.extra):
        if arm not in arms.MEMBERS or not set(arms.MEMBERS[arm]) <= present:
            continue
        block = Block(None, seed, arm, method)
        if reason := arms.obstacle(arm, method, layers):
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
    return (_part(this, source, seed, groups, group) for group in groups)


def _part(
    this: Run[TextConfig],
    source: Source,
    seed: int,
    groups: Sequence[Group],
    group: Group,
) -> Part:
    @functools.cache
    def bare() -> answer.Setting:
        known = source.given.known if source.given else {}
        loaded = source.loaded()
        ready = resources.setting(loaded, this.config, groups, group, seed, known)
        if source.roles is None:
            return ready
        of = source.roles.of
        return ready._replace(adapters={x: loaded.adapters[of[x]] for x in of})

    @functools.cache
    def full() -> answer.Setting:
        ready = bare()
        if source.roles is None:
            ready = ready._replace(adapters=_train(this, ready, groups))
        accuracy = {name: answer.own_facts(ready, name) for name in ready.adapters}
        return ready._replace(accuracy=accuracy)

    def answers(arm: Arm, method: Method, old: OldAnswers | None, _: Count) -> Outcome:
        ready = bare() if arm is Arm.BASE else full()
        return answer.answer(ready._replace(old=old), arm, method)

    folder = this.out / "groups" / f"{group.cell}-{group.pair}"
    return Part(f"seed {seed}, {group.cell} {group.pair}", folder, answers)


def wanted(config: TextConfig) -> tuple[Expert, ...]:
    """The experts that some arm uses."""
    used = {
        member
        for arm, _ in arms.plan(config.methods, extra=config.extra)
        for half in (True, False)
        for member in (arms.members(arm, half) if arm in arms.MEMBERS else ())
    }
    return tuple(expert for expert in Expert if expert in used)


def _train(
    this: Run[TextConfig], ready: answer.Setting, groups: Sequence[Group]
) -> dict[Expert, lora.Adapter]:
    """The experts of a group, trained if need be."""
    config, group, names = this.config, ready.group, wanted(this.config)
    where = f"seed {ready.seed}, {group.cell}, {len(names)} experts"

    def progress(done: int, total: int, loss: float) -> None:
        this.progress("experts", done, total, f"{where}: loss {loss:.3f}")

    this.progress("experts", 0, config.train.steps, f"{where}: compiling ...")
    learner = experts.Learner(ready.model, ready.base, ready.codec)
    recipe = experts.Recipe(
        config.lora, config.train, config.phrasings, config.form, config.dtype
    )
    with this.clock.time("experts"):
        return experts.train(
            learner,
            questions.library_of(groups, group),
            ready.seed,
            recipe,
            this.cache,
            progress,
            names,
        ).adapters
