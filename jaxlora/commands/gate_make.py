"""How ``jaxlora gate`` makes a gate: measured on prompts, or trained on answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlora import route as routes
from jaxlora.commands import bars, train_data, train_options
from jaxlora.commands.gate_options import Arguments
from jaxlora.lora import Library
from jaxlora.models import Decoder, gate_state
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import Reuse
from jaxlora.route import Route
from jaxlora.tasks import text
from jaxlora.tasks.packing import Rows
from jaxlora.tasks.text import Read, Record
from jaxlora.train import gate_data, gates, session
from jaxlora.train.session import Checkpoints, Gates
from jaxlora.train.training import Training
from jaxlora.tree import Tree

TARGET = "target"


class Plan(NamedTuple):
    """Which route is made, and how its keys are trained."""

    route: Route
    """As it will be used."""
    training: Route | None
    """As it is trained; None if its keys are measured."""
    own: bool
    """From each adapter's own data?"""


class Made(NamedTuple):
    """A gate, and what there is to say of it."""

    state: Tree
    facts: dict[str, Any]
    rows: list[tuple[str, int, float, float]]
    """Of a training: gate, updates, loss before and after."""
    counts: dict[str, int]
    """Of a measurement: examples of each adapter."""


def make(
    given: Arguments,
    plan: Plan,
    reuse: Reuse,
    words: Tokenizer,
    found: Mapping[str, Read],
) -> Made:
    """Makes the gate.

    Args:
      given: flags.
      plan: which route, and how.
      reuse: the model with all adapters in a library.
      words: its tokenizer.
      found: records by the name of the adapter, or of the file.

    Raises:
      ValueError: if nothing is left of the data, or the training diverges.
    """
    library = plan.route.library(reuse.library)
    way = _trained if plan.training else _measured
    return way(given, plan, reuse, words, found, library)


def checkpoint(out: Path) -> Path:
    """The folder of a training that was interrupted."""
    return out.with_name(f".{out.name}.checkpoint")


def _measured(
    given: Arguments,
    plan: Plan,
    reuse: Reuse,
    words: Tokenizer,
    found: Mapping[str, Read],
    library: Library,
) -> Made:
    """Average activation, or stored examples: no training."""
    length = min(given.length, reuse.model.config.max_length)
    prompts = {
        name: prompts_of(one.records, words, length, given, name)
        for name, one in found.items()
    }
    model, every = Decoder(reuse.model.config), list(prompts.values())
    how: dict[str, Any] = {"batch": given.batch}
    with bars.bar("measuring") as move:
        how["tell"] = lambda done, total: move(f"{done} of {total}", done, total)
        if isinstance(plan.route.gate, routes.Nearest):
            data = gate_data.examples(model, reuse.base, every, **how)
        else:
            data = gate_data.means(model, reuse.base, library, every, **how)
    routed = Decoder(reuse.model.config, plan.route)
    counts = {name: len(some) for name, some in prompts.items()}
    facts = {"data": ", ".join(given.data), "examples": sum(counts.values())}
    state = gate_state(routed, library, data=data)
    return Made(state, facts | {"seed": given.seed}, [], counts)


def prompts_of(
    records: Sequence[Record],
    words: Tokenizer,
    length: int,
    given: Arguments,
    name: str,
) -> list[list[int]]:
    """Token ids of what stands before the answers of some records.

    Plain texts, which have no prompt, are taken whole. Those longer than ``length`` are
    left out, or cut at their start.

    Raises:
      ValueError: if none is left, or one cannot be rendered and bad ones are not
        skipped.
    """
    order = np.random.default_rng(given.seed).permutation(len(records))
    kept, long = [], 0
    for i in order:
        try:
            ids = _asked(records[i], words)
        except ValueError:
            if not given.skip_bad:
                raise
            continue
        long += len(ids) > length
        if ids and (given.truncate or len(ids) <= length):
            kept.append(ids[-length:])
        if len(kept) == given.examples:
            break
    if not kept:
        raise ValueError(
            f"{name}: no example is left to measure, of {len(records)}: {long} are "
            f"longer than {length} tokens; raise --length, or --truncate them."
        )
    return kept


def _asked(record: Record, words: Tokenizer) -> list[int]:
    if record.messages:
        return text.prompt(record, words)
    return text.encode_one(record, words).tokens.tolist()


def _trained(
    given: Arguments,
    plan: Plan,
    reuse: Reuse,
    words: Tokenizer,
    found: Mapping[str, Read],
    library: Library,
) -> Made:
    """Keys by the loop that trains adapters."""
    config = train_options.faster(given.remat, reuse.model.config)
    model = Decoder(config, plan.training)
    packed, counts = train_data.pack(
        found,
        words,
        min(given.length, config.max_length),
        seed=given.seed,
        truncate=given.truncate,
        skip_bad=given.skip_bad,
    )
    rows = packed if plan.own else {TARGET: _joined(list(packed.values()))}
    training = _training(given, rows)
    totals = {name: training.total(len(some.tokens)) for name, some in rows.items()}
    told = totals if plan.own else dict.fromkeys(packed, totals.get(TARGET, 0))
    train_data.say(counts, next(iter(rows.values())).tokens.shape[1], told)
    libraries, states = _begun(given, plan, model, library)
    losses = [gate_data.losses(model, reuse.base, libraries, states, rows)]
    begin = Gates(libraries, states)
    trained = _session(given, model, reuse.base, rows, begin, training)
    losses += [gate_data.losses(model, reuse.base, libraries, trained.learned, rows)]
    table = list(zip(totals, totals.values(), *losses, strict=True))
    facts = {
        "data": ", ".join(given.data),
        "updates": max(totals.values()),
        "learning_rate": given.learning_rate,
        "seed": given.seed,
        "loss_before": float(np.mean(losses[0])),
        "loss_after": float(np.mean(losses[1])),
    }
    return Made(_one(plan, trained.learned), facts, table, {})


def _begun(given: Arguments, plan: Plan, model: Decoder, library: Library):
    """Libraries and fresh states [G, E, ...]: E of one expert, or one of E."""
    key = jax.random.key(given.seed)

    def fresh(library: Library) -> Tree:
        return gate_state(model, library, key=key)

    libraries = (
        gates.singles(library) if plan.own else jax.tree.map(lambda x: x[None], library)
    )
    return libraries, jax.jit(jax.vmap(fresh))(libraries)


def _one(plan: Plan, states: Tree) -> Tree:
    """The state of one library of E experts."""
    if plan.own:
        return gates.together(states)
    return jax.tree.map(lambda x: x[0], states)


def _session(given: Arguments, model, base, rows, begin: Gates, training: Training):
    made_by = {"model": str(given.model.resolve()), "dtype": model.config.dtype}
    with bars.bar("training") as move:
        return session.train_gates(
            model,
            base,
            rows,
            begin,
            training,
            checkpoints=Checkpoints(checkpoint(given.out), made_by),
            progress=lambda done, total, loss: move(f"loss {loss:.3f}", done, total),
        )


def _training(given: Arguments, rows: Mapping[str, Rows]) -> Training:
    most = max(len(found.tokens) for found in rows.values())
    return Training(
        epochs=given.epochs,
        steps=given.steps,
        learning_rate=given.learning_rate,
        warmup=given.warmup,
        weight_decay=given.weight_decay,
        clip=given.clip,
        length=given.length,
        batch=min(given.batch, most),
        accumulate=given.accumulate,
        together=given.together,
        seed=given.seed,
    )


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
