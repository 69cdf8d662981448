"""One seed of the study: the base and its gates, then every library of every group.

A block of a group is stored as it is finished, and skipped if it is found.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxlora.evaluate.schema import Library, Method
from jaxlora.studies.two_hop import items, store
from jaxlora.studies.two_hop.blocks import Outcome
from jaxlora.studies.two_hop.record import Clock
from jaxlora.studies.two_hop.rows import Block
from jaxlora.studies.two_hop_text import adapters, blocks, experts, record, resources
from jaxlora.studies.two_hop_text.config import TextConfig
from jaxlora.studies.two_hop_text.record import LEVEL, TextLog
from jaxlora.studies.two_hop_text.resources import Loaded
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.tasks.two_hop.people import Given

Progress = Callable[[str, int, int, str], None]
"""``progress(stage, done, total, text)``; stages: loading, experts, questions."""


class Run(NamedTuple):
    """One call of :func:`.protocol.run`."""

    config: TextConfig
    given: Given | None
    """A user's facts."""
    out: Path
    cache: Path
    progress: Progress
    clock: Clock
    log: TextLog
    loaded: Callable[[], Loaded]
    """Reads the checkpoint when it is first needed."""


def ask_seed(
    this: Run, seed: int, mine: Sequence[Group], roles: adapters.Roles | None
) -> None:
    """Asks the base, then, if it passes its gates, every library of every group.

    Args:
      this: the call.
      seed: number of the seed.
      mine: its groups.
      roles: of a user's adapters; None to train experts.
    """
    config, log = this.config, this.log
    base = Block(LEVEL, seed, Library.BASE, Method.NONE)
    maker = functools.partial(_setting, this, seed, mine, roles)
    first = [
        _block(this, group, base, functools.partial(maker, group, False))
        for group in mine
    ]
    record.note_block(log, base, first)
    if not record.note_base(config, seed, mine, log.items[base], log):
        return
    present = set(roles.of) if roles else set(Expert)
    plan = blocks.plan(config.methods, present)
    for names, reason in blocks.refused(config.methods, present).items():
        log.refused[Block(LEVEL, seed, *names)] = reason
    todo = [Block(LEVEL, seed, *names) for names in plan if names[0] != Library.BASE]
    found: dict[Block, list[Outcome]] = {block: [] for block in todo}
    for group, told in zip(mine, first, strict=True):
        make = functools.cache(functools.partial(maker, group, True, told))
        for i, block in enumerate(todo):
            text = f"seed {seed}, {group.cell} {group.pair}: {block.library}"
            this.progress("questions", i, len(todo), f"{text}, {block.method}")
            found[block].append(_block(this, group, block, make))
    for block, outcomes in found.items():
        record.note_block(log, block, outcomes)
    record.note_experts(config, seed, sum(group.size for group in mine), log)


def _block(
    this: Run, group: Group, block: Block, make: Callable[[], blocks.Setting]
) -> Outcome:
    """Reads a block of a group, or runs and stores it."""
    folder = this.out / "groups" / f"{group.cell}-{group.pair}"
    found = store.load(folder, block)
    if found is not None:
        this.log.resumed += 1
        return found
    setting = make()
    with this.clock.time("evaluate"):
        outcome = blocks.run(setting, block.library, block.method)
    store.save(folder, block, outcome)
    # What is stored is what counts: a resumed run must see the same numbers.
    stored = store.load(folder, block)
    assert stored is not None
    return stored


def _setting(
    this: Run,
    seed: int,
    mine: Sequence[Group],
    roles: adapters.Roles | None,
    group: Group,
    trained: bool,
    base: Outcome | None = None,
) -> blocks.Setting:
    """One group ready to be asked, with its experts if ``trained``."""
    loaded = this.loaded()
    known = this.given.known if this.given else {}
    bare = resources.setting(loaded, this.config, mine, group, seed, known)
    if roles:
        found = {role: loaded.adapters[folder] for role, folder in roles.of.items()}
        bare = bare._replace(adapters=found)
    elif trained:
        tell = resources.teller(this.progress, f"seed {seed}, {group.cell}")
        with this.clock.time("experts"):
            made = experts.train(
                loaded.model, loaded.base, loaded.talk, group, seed, this.config,
                this.cache, tell,
            )  # fmt: skip
        bare = bare._replace(adapters=made.adapters)
    if not trained:
        return bare
    own = {name: blocks.own_facts(bare, name) for name in bare.adapters}
    assert base is not None
    return bare._replace(own=own, old=items.predictions(base.items))
