"""The two-hop study: bases, experts, blocks of questions, rows, verdicts.

``run`` is a function of a config and two folders. It stores every block as it is
finished and skips those it finds, so an interrupted study goes on where it stopped and
ends with the same rows.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax

from jaxlora.evaluate import predictions
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Library
from jaxlora.io.files import write_text
from jaxlora.studies import provenance
from jaxlora.studies.two_hop import (
    bases,
    blocks,
    check,
    items,
    libraries,
    store,
    summary,
)
from jaxlora.studies.two_hop.bases import Base
from jaxlora.studies.two_hop.config import (
    LEAGUE_PREDICTIONS,
    PREDICTIONS,
    TwoHopConfig,
)
from jaxlora.studies.two_hop.record import (
    Clock,
    Log,
    add_rows,
    note_block,
    note_experts,
    note_gates,
)
from jaxlora.studies.two_hop.rows import Block
from jaxlora.studies.two_hop.summary import Results
from jaxlora.tasks.two_hop import facts, world
from jaxlora.tasks.two_hop.experts import groups
from jaxlora.tasks.two_hop.records import Record
from jaxlora.tasks.two_hop.world import World

Progress = Callable[[str, int, int, str], None]
"""``progress(stage, done, total, text)``; stages are pretrain, experts, questions."""


class _Run(NamedTuple):
    """One call of :func:`run`."""

    config: TwoHopConfig
    people: tuple[Record, ...]
    out: Path
    cache: Path
    progress: Progress
    clock: Clock
    log: Log


def run(
    config: TwoHopConfig,
    out: Path,
    cache: Path,
    progress: Progress = lambda *_: None,
) -> Results:
    """Runs, or goes on with, a study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: folder of trained bases and experts, shared between studies.
      progress: called as the study moves on.

    Raises:
      ValueError: if ``out`` holds something else, or a file given is not usable.
    """
    started = time.monotonic()
    claims = claimed(config)
    people = own_people(config)
    _check(config, people)
    store.claim(out, config, people, predictions.digest(claims))
    cache.mkdir(parents=True, exist_ok=True)
    # Asked now: what runs is the code of now, whatever is edited meanwhile.
    revision = {"predictions_revision": _revision(config, claims)}
    log = Log(origin=provenance.here() | revision)
    with provenance.compile_time() as compiled:
        clock = Clock(compiled)
        this = _Run(config, people, out, cache, progress, clock, log)
        for level in config.levels:
            for base in _bases(this, level):
                _one_base(this, level, base)
        with clock.time("statistics"):
            results = summary.finish(config, log, claims, out)
    seconds = clock.seconds | {"compile": compiled.seconds}
    seconds["total"] = time.monotonic() - started
    timings: dict[str, float] = {f"{k}_s": round(s, 1) for k, s in seconds.items()}
    timings["peak_memory_gib"] = round(provenance.peak_memory_gib(), 2)
    timings["blocks_resumed"] = log.resumed
    results.summary["timings"] = timings
    write_text(out / "results.json", provenance.to_json(results.summary))
    return results


def seeds(config: TwoHopConfig) -> list[int]:
    """The seeds of a study."""
    return [config.first_seed + i for i in range(config.seeds)]


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
        check.data_dir(config, config.data_dir, seeds(config), people)
    first = _world(config, config.levels[0], seeds(config)[0], people)
    check.world(first)
    check.adapters(first, config.model, config.lora)


def claimed(config: TwoHopConfig) -> tuple[Prediction, ...]:
    """The predictions of a study: its file's, or the package's on its methods.

    Those of the league are about methods beyond the usual ones, if the study has them.
    """
    if config.predictions is not None:
        return predictions.load(config.predictions)
    more = predictions.load(LEAGUE_PREDICTIONS)
    mine = tuple(x for x in more if str(x.method) in config.methods)
    return predictions.load(PREDICTIONS) + mine


def _revision(config: TwoHopConfig, claims: tuple[Prediction, ...]) -> str | None:
    """Where the predictions were committed; None unless every file of them was."""
    if config.predictions is not None:
        return provenance.revision_of(config.predictions)
    usual = provenance.revision_of(PREDICTIONS)
    if len(claims) == len(predictions.load(PREDICTIONS)) or usual is None:
        return usual
    return provenance.revision_of(LEAGUE_PREDICTIONS)


def _bases(this: _Run, level: float) -> Iterator[Base]:
    config, numbers = this.config, seeds(this.config)
    at_once = config.seeds_at_once
    if at_once == 0:
        # One CPU is busy with one base; an accelerator has room for all of them.
        at_once = 1 if jax.default_backend() == "cpu" else len(numbers)
    for i in range(0, len(numbers), at_once):
        some = numbers[i : i + at_once]
        with this.clock.time("pretrain"):
            made = [_world(config, level, seed, this.people) for seed in some]
            trained = bases.train(
                some,
                made,
                config.model,
                config.pretrain,
                this.cache,
                at_once,
                _tell(this, level),
            )
        yield from trained


def _world(
    config: TwoHopConfig, level: float, seed: int, people: tuple[Record, ...]
) -> World:
    sizes = dataclasses.replace(config.world, coverage=level)
    if config.data_dir is not None:
        from jaxlora.tasks.two_hop import builder

        return builder.read(builder.folder(sizes, seed, config.data_dir, people))
    return world.generate(sizes, seed, people)


def _tell(this: _Run, level: float):
    most = this.config.pretrain.max_steps

    def tell(seed: int, steps: int, gates: Mapping[str, tuple[float, int]]) -> None:
        held = gates.get("held-out two-hop", (0.0, 0))[0]
        text = f"coverage {level:g}, seed {seed}: held-out two-hop {held:.2f}"
        this.progress("pretrain", steps, most, text)

    return tell


def _one_base(this: _Run, level: float, base: Base) -> None:
    """Asks a base that passed its gates everything, and logs one that did not."""
    config, log = this.config, this.log
    note_gates(config, level, base, log)
    if not base.passed(config.pretrain):
        log.failed.append(f"{base.seed} (coverage {level:g})")
        return
    log.passed.setdefault(level, []).append(base.seed)
    plan = [Block(level, base.seed, *names) for names in blocks.plan(config.methods)]
    setting: blocks.Setting | None = None
    resumed = log.resumed
    for i, block in enumerate(plan):
        text = f"coverage {level:g}, seed {base.seed}: {block.library}, {block.method}"
        this.progress("questions", i, len(plan), text)
        outcome = store.load(this.out, block)
        if outcome is None:
            setting = setting or _setting(this, base)
            told = functools.partial(_tell_routes, this.progress, i, len(plan), text)
            ready = setting._replace(old=_old(log, block), tell=told)
            outcome = _ask(this, block, ready)
        else:
            log.resumed += 1
        log.items[block] = outcome.items
        note_block(log, block, outcome)
        add_rows(config, block, outcome, log)
    note_experts(config, level, base, log)
    if log.resumed - resumed < len(plan):  # a finished table is not cut back
        summary.write_rows(this.out, log)
    this.progress("questions", len(plan), len(plan), f"seed {base.seed} done")


def _tell_routes(progress: Progress, i: int, n: int, text: str, tried: int, all_: int):
    progress("questions", i, n, f"{text}: {tried:,} of {all_:,} routes")


def _old(log: Log, block: Block) -> items.Old | None:
    """What the base said, once it was asked; every other block comes after it."""
    if block.library is Library.BASE:
        return None
    first = block._replace(library=Library.BASE, method=blocks.Method.NONE)
    return items.predictions(log.items[first])


def _ask(this: _Run, block: Block, setting: blocks.Setting) -> blocks.Outcome:
    with this.clock.time("evaluate"):
        outcome = blocks.run(setting, block.library, block.method)
    store.save(this.out, block, outcome)
    # What is stored is what counts: a resumed run must see the same numbers.
    stored = store.load(this.out, block)
    assert stored is not None
    return stored


def _setting(this: _Run, base: Base) -> blocks.Setting:
    config = this.config
    total = sum(len(names) for names, _ in libraries.PROGRAMS) * len(groups(base.world))
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        this.progress("experts", done, total, f"seed {base.seed}")

    this.progress("experts", 0, total, f"seed {base.seed}")
    with this.clock.time("experts"):
        made = libraries.train(base, config.lora, config.experts, this.cache, tell)
    return blocks.prepare(config, made)
