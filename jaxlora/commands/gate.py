"""``jaxlora gate``: the gate of a route that learns from data, as one file."""

import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from jaxlora.commands import (
    bars,
    flags,
    gate_plan,
    gate_tables,
    loading,
    printing,
    train_data,
)
from jaxlora.commands.gate_plan import PROG, Arguments, Plan
from jaxlora.io import gate_file
from jaxlora.io.gate_file import About
from jaxlora.models import Decoder
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import Reuse, decode
from jaxlora.tasks.text import Read
from jaxlora.train import gate_making
from jaxlora.train.session import Checkpoints
from jaxlora.tree import Tree

TARGET = "target"
"""Name of the one gate that all experts share."""


class Result(NamedTuple):
    """A gate, and what there is to say of it."""

    state: Tree
    facts: dict[str, Any]
    """How it came about, for its file."""
    show: Callable[[Console, Path, str], None]
    """Prints that, with the file and the route."""


class _Request(NamedTuple):
    """What both ways of making a gate need."""

    given: Arguments
    plan: Plan
    reuse: Reuse
    tokenizer: Tokenizer
    data: dict[str, Read]
    """Records by the name of the adapter, or of the file."""


def run(arguments: Sequence[str]) -> int:
    """Reads, measures or trains, and writes."""
    if "--list" in arguments:
        return _list([word for word in arguments if word != "--list"])
    given = gate_plan.parse(arguments)
    plan, names = gate_plan.planned(given), loading.names(given.adapter)
    sources = gate_plan.sources(given, plan, names)
    flags.check_new_file(given.out)
    data = train_data.read(sources, skip_bad=given.skip_bad)
    reuse = loading.load(given.model, given.adapter, given.dtype, route="uniform")
    tokenizer = decode.load_tokenizer(given.model, reuse)
    make = _measured if plan.training is None else _trained
    result = make(_Request(given, plan, reuse, tokenizer, data))
    about = About(
        route=given.route,
        experts=tuple(names),
        fields=gate_plan.fields(given),
        base=given.model.resolve().name,
        base_fingerprint=gate_file.fingerprint(reuse.base),
        training={"data": ", ".join(given.data), **result.facts},
    )
    gate_file.save(given.out, result.state, about)
    shutil.rmtree(_checkpoint(given.out), ignore_errors=True)
    result.show(printing.console(), given.out, given.route)
    return 0


def _checkpoint(out: Path) -> Path:
    """The folder of a training that was interrupted, beside the gate's file."""
    return out.with_name(f".{out.name}.checkpoint")


def _measured(request: _Request) -> Result:
    """Average activation, or stored examples: no training."""
    given, plan, reuse, tokenizer, data = request
    length = min(given.training.length, reuse.model.config.max_length)
    choose = functools.partial(
        gate_making.prompts,
        tokenizer=tokenizer,
        length=length,
        most=given.examples,
        seed=given.training.seed,
        truncate=given.truncate,
        skip_bad=given.skip_bad,
    )
    prompts = {name: choose(read.records, name=name) for name, read in data.items()}
    model = Decoder(reuse.model.config, plan.route)
    with bars.bar("measuring") as move:
        state = gate_making.measure(
            model,
            reuse.base,
            plan.route.library(reuse.library),
            list(prompts.values()),
            batch=given.training.batch,
            progress=lambda done, all_: move(f"{done} of {all_}", done, all_),
        )
    counts = {name: len(chosen) for name, chosen in prompts.items()}
    facts = {"examples": sum(counts.values()), "seed": given.training.seed}
    return Result(state, facts, functools.partial(gate_tables.measured, counts=counts))


def _trained(request: _Request) -> Result:
    """Keys by the loop that trains adapters."""
    given, plan, reuse, tokenizer, data = request
    config = loading.faster(given.remat, reuse.model.config)
    packed, counts = train_data.pack(
        data,
        tokenizer,
        min(given.training.length, config.max_length),
        seed=given.training.seed,
        truncate=given.truncate,
        skip_bad=given.skip_bad,
    )
    rows = packed if plan.per_expert else {TARGET: gate_making.joined(packed.values())}
    training = train_data.fitted(given.training, rows)
    updates = {name: training.total(len(part.tokens)) for name, part in rows.items()}
    each = updates if plan.per_expert else dict.fromkeys(packed, updates[TARGET])
    train_data.say(counts, next(iter(rows.values())).tokens.shape[1], each)
    made_by = {"model": str(given.model.resolve()), "dtype": config.dtype}
    with bars.bar("training") as move:
        gate = gate_making.train(
            Decoder(config, plan.training),
            reuse.base,
            plan.route.library(reuse.library),
            rows,
            training,
            per_expert=plan.per_expert,
            checkpoints=Checkpoints(_checkpoint(given.out), made_by),
            progress=lambda done, all_, loss: move(f"loss {loss:.3f}", done, all_),
        )
    facts = {
        "updates": max(updates.values()),
        "learning_rate": training.learning_rate,
        "seed": training.seed,
        "loss_before": float(np.mean(gate.before)),
        "loss_after": float(np.mean(gate.after)),
    }
    table = list(zip(updates, updates.values(), gate.before, gate.after, strict=True))
    return Result(gate.state, facts, functools.partial(gate_tables.trained, rows=table))


def _list(words: Sequence[str]) -> int:
    if words and set(words) - {"-h", "--help"}:
        raise ValueError(f"`{PROG} --list` takes nothing else, got {words[0]}.")
    gate_tables.every(printing.console())
    return 0
