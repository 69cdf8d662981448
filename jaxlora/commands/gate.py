"""``jaxlora gate``: the gate of a route that learns from data, as one file."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jax.sharding import Mesh

from jaxlora import files, locks, parallel
from jaxlora import route as routes
from jaxlora.commands import (
    bars,
    gate_plan,
    loading,
    printing,
    scalars,
    talk,
    train_output,
)
from jaxlora.commands.flags import outputs
from jaxlora.commands.gate_plan import PROG, Arguments
from jaxlora.commands.printing import line, say, table
from jaxlora.io import collection_about, gate_file
from jaxlora.io.gate_file import About
from jaxlora.models import Decoder
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.parallel import processes
from jaxlora.reuse import Reuse
from jaxlora.studies.harness import code, provenance
from jaxlora.tasks import data_sets, text
from jaxlora.tasks.packing import Rows
from jaxlora.tasks.text import Read
from jaxlora.train import gate_making
from jaxlora.train.gate_making import Plan
from jaxlora.train.session import Checkpoints
from jaxlora.train.training import Training, faster
from jaxlora.tree import Tree

# Taken on import: a file that is edited while a run lasts is not what runs.
CODE = code.digest("jaxlora.train.gate_making")
Data: TypeAlias = dict[str, Read]
"""Records by the name of the adapter, or of the file."""
SEES = {
    "free": "the adapters",
    "own": "each adapter's own data",
    "target": "data of the task",
    "labels": "labels with each call",
}
"""What a route is made from, in words."""
TARGET = "target"
"""Name of the one gate that all experts share."""


class _Result(NamedTuple):
    """A gate, and what is said of it."""

    state: Tree
    facts: dict[str, Any]
    """How it came about, for its file."""
    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    ending: str = ""


def run(arguments: Sequence[str]) -> int:
    """Reads, measures or trains, and writes."""
    if "--list" in arguments:
        return _list([word for word in arguments if word != "--list"])
    given = gate_plan.parse(arguments)
    plan, names = gate_plan.planned(given), collection_about.names(given.adapters)
    sources = gate_plan.sources(given, plan, names)
    cut = given.cut()
    processes.agreed(lambda: outputs.check_files(given.force, given.out))
    with train_output.kept(_checkpoint(given.out)), _held(given):
        result = _make(given, plan, names, sources, cut)
    console = printing.console()
    line(console, f"{given.out}: {given.route}, {result.title}")
    table(console, result.heads, result.rows)
    if result.ending:
        line(console, result.ending)
    return 0


@contextlib.contextmanager
def _held(given: Arguments) -> Iterator[None]:
    """The file that is written; if another run holds it, all processes learn it."""
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            lock = given.out.with_name(f".{given.out.name}.lock")
            stack.enter_context(locks.held(lock, given.out))
            # Again: another run may have ended since.
            outputs.check_files(given.force, given.out)
            files.sweep(given.out.parent)

        processes.agreed(hold)
        yield


def _make(
    given: Arguments, plan: Plan, names: Sequence[str], sources, cut: Mesh | None
) -> _Result:
    """Measures or trains a gate, and writes its file."""
    data = {x: text.read(y, skip_bad=given.skip_bad) for x, y in sources.items()}
    say(note for read in data.values() for note in read.notes)
    how = {"route": "uniform", "mesh": cut}
    reuse = loading.load(given.model, given.adapter, given.dtype, **how)
    words = {"tokenizer": given.tokenizer}
    tokenizer = loading.words(given.model, reuse, given.adapter, **words)
    make = _measured if plan.training is None else _trained
    result = make(given, plan, data, reuse, tokenizer)
    about = About(
        route=given.route,
        experts=tuple(names),
        fields=given.fields,
        base=given.model.resolve().name,
        base_fingerprint=gate_file.fingerprint(reuse.base),
        training={"data": ", ".join(given.data), **result.facts},
    )
    if talk.current().writes:
        gate_file.save(given.out, result.state, about)
        gate_file.load(given.out)  # read back, before what it was made from goes
        files.remove(_checkpoint(given.out))
    processes.meet()
    return result


def _checkpoint(out: Path) -> Path:
    """The folder of a training that was interrupted, beside the gate's file."""
    return out.with_name(f".{out.name}.checkpoint")


def _measured(
    given: Arguments, plan: Plan, data: Data, reuse: Reuse, tokenizer: Tokenizer
) -> _Result:
    """Average activation, or stored examples: no training."""
    choose = functools.partial(
        gate_making.prompts,
        tokenizer=tokenizer,
        length=min(given.training.length, reuse.model.config.max_length),
        most=given.examples,
        seed=given.training.seed,
        truncate=given.truncate,
        skip_bad=given.skip_bad,
    )
    prompts = {name: choose(read.records, name=name) for name, read in data.items()}
    with bars.bar("measuring") as move:
        state = gate_making.measure(
            Decoder(reuse.model.config, plan.route),
            reuse.base,
            plan.route.library(reuse.library),
            list(prompts.values()),
            batch=given.training.batch,
            progress=lambda done, total: move(f"{done} of {total}", done, total),
        )
    counts = {name: len(chosen) for name, chosen in prompts.items()}
    return _Result(
        state,
        {"examples": sum(counts.values()), "seed": given.training.seed},
        f"of {len(counts)} adapters' own examples",
        ("adapter", "examples"),
        [(name, str(count)) for name, count in counts.items()],
    )


def _trained(
    given: Arguments, plan: Plan, data: Data, reuse: Reuse, tokenizer: Tokenizer
) -> _Result:
    """Keys by the loop that trains adapters."""
    config = faster(reuse.model.config, given.remat, parallel.platform_of(reuse.base))
    rows, training, updates = _packed(given, plan, data, tokenizer, config.max_length)
    made_by = provenance.base(reuse.base, config) | {"code": CODE}
    who = ", ".join(updates) if len(updates) < 4 else f"{len(updates)} gates"
    with bars.bar("training", first=f"{who}: {bars.COMPILING}") as move:

        def progress(done: int, total: int, recent: np.ndarray) -> None:
            move(f"{who}: loss {scalars.mean(recent):.3f}", done, total)

        gate = gate_making.train(
            Decoder(config, plan.training),
            reuse.base,
            plan.route.library(reuse.library),
            rows,
            training,
            per_expert=plan.per_expert,
            checkpoints=Checkpoints(_checkpoint(given.out), made_by),
            progress=progress,
        )
    facts = {
        "updates": max(updates.values()),
        "learning_rate": training.learning_rate,
        "seed": training.seed,
        "loss_before": float(np.mean(gate.before)),
        "loss_after": float(np.mean(gate.after)),
    }
    ends = zip(updates.items(), gate.before, gate.after, strict=True)
    return _Result(
        gate.state,
        facts,
        "trained; base and adapters as they were",
        ("gate", "updates", "loss before", "loss after"),
        [(x, str(n), f"{old:.3f}", f"{new:.3f}") for (x, n), old, new in ends],
        "losses are in nats per answer token, on the first rows of the data",
    )


def _packed(
    given: Arguments, plan: Plan, data: Data, tokenizer: Tokenizer, context: int
) -> tuple[dict[str, Rows], Training, dict[str, int]]:
    """Rows and updates by gate; says what became of the data."""
    with bars.bar("packing") as move:
        packed, counts = data_sets.pack(
            data,
            tokenizer,
            min(given.training.length, context),
            seed=given.training.seed,
            truncate=given.truncate,
            skip_bad=given.skip_bad,
            progress=move,
        )
    rows = packed if plan.per_expert else {TARGET: gate_making.joined(packed.values())}
    training = given.training
    cut = given.cut()
    training = training.fitted(max(len(part.tokens) for part in rows.values()))
    if cut is not None and cut.shape["expert"] > 1:  # over devices, all at once
        training = dataclasses.replace(training, together=len(rows))
    updates = {name: training.total(len(part.tokens)) for name, part in rows.items()}
    each = updates if plan.per_expert else dict.fromkeys(packed, updates[TARGET])
    train_output.say(counts, next(iter(rows.values())).tokens.shape[1], each)
    return rows, training, updates


def _list(words: Sequence[str]) -> int:
    if words and set(words) - {"-h", "--help"}:
        raise ValueError(f"`{PROG} --list` takes nothing else, got {words[0]}.")
    console = printing.console()
    entries = ((name, routes.describe(name)) for name in routes.names())
    rows = [(name, SEES[x.data], x.summary, x.source) for name, x in entries]
    table(console, ("route", "made from", "what it is", "source"), rows)
    line(
        console,
        "made from data: `jaxlora gate` makes it, and --gate FILE uses it; from the "
        "adapters alone: --route NAME does",
    )
    return 0
