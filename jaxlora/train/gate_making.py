"""Making the gate of a route from data: measured on prompts, or trained on answers."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlora import parallel
from jaxlora import route as routes
from jaxlora.lora import Library
from jaxlora.models import Decoder, gate_state
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.parallel import layout, processes
from jaxlora.route import Route
from jaxlora.tasks import text
from jaxlora.tasks.packing import Rows
from jaxlora.tasks.text import Record
from jaxlora.train import gate_data, session
from jaxlora.train.session import Checkpoints, Gates, Progress
from jaxlora.train.training import Training
from jaxlora.tree import Tree


class Plan(NamedTuple):
    """Which route a gate is for, and how its keys are made."""

    route: Route
    """As it will be used."""
    training: Route | None
    """As it is trained; None if its keys are measured."""
    per_expert: bool
    """From each adapter's own data?"""


class TrainedGate(NamedTuple):
    """The state of a trained gate, and the losses of its parts on the same rows."""

    state: Tree
    """For one library of E experts."""
    before: np.ndarray
    """[G], nats per answer token; G is E if each learned alone, else 1."""
    after: np.ndarray
    """[G]."""


def plan(route: Route, training: Route | None = None) -> Plan:
    """Says how the gate of a route is made: measured, or trained, and on whose data.

    Args:
      route: one that learns from data, as it will be used.
      training: how the route's preset says that it is trained; None if it does not.
    """
    if isinstance(route.gate, routes.Mean | routes.Nearest):
        return Plan(route, None, per_expert=True)
    if route.gate.data == "target":
        # Keys learn under the choice that they will make.
        top_k, heat = route.top_k, route.temperature
        how = dataclasses.replace(training or route, top_k=top_k, temperature=heat)
        return Plan(route, how, per_expert=False)
    alone = Route(gate=routes.ExpertKeys(per=route.per), weighting="sigmoid")
    return Plan(route, training or alone, per_expert=True)


def prompts(
    records: Sequence[Record],
    tokenizer: Tokenizer,
    length: int,
    *,
    name: str,
    most: int,
    seed: int = 0,
    truncate: bool = False,
    skip_bad: bool = False,
) -> list[list[int]]:
    """Token ids of what stands before the answers of some records.

    Plain texts, which have no prompt, are taken as they are.

    Args:
      records: to choose from.
      tokenizer: of the model.
      length: tokens of a prompt at most; longer ones are left out.
      name: of the adapter, for messages.
      most: how many prompts are taken at most.
      seed: of the choice.
      truncate: cut longer prompts at their start instead.
      skip_bad: leave out records that cannot be rendered.

    Raises:
      ValueError: if none is left, or one cannot be rendered and bad ones are not
        skipped.
    """
    order = np.random.default_rng(seed).permutation(len(records))
    chosen, long = [], 0
    for i in order:
        try:
            ids = _asked(records[i], tokenizer)
        except ValueError:
            if not skip_bad:
                raise
            continue
        long += len(ids) > length
        if ids and (truncate or len(ids) <= length):
            chosen.append(ids[-length:])
        if len(chosen) == most:
            break
    if not chosen:
        raise ValueError(
            f"{name}: no example is left to measure, of {len(records)}: {long} are "
            f"longer than {length} tokens; raise --length, or --truncate them."
        )
    return chosen


def _asked(record: Record, tokenizer: Tokenizer) -> list[int]:
    if record.messages:
        return text.prompt(record, tokenizer)
    return text.encode_one(record, tokenizer).tokens.tolist()


def measure(
    model: Decoder,
    base: Tree,
    library: Library,
    prompts: Sequence[Sequence[Sequence[int]]],
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Tree:
    """Measures a gate: average activation, or stored examples.

    Args:
      model: a decoder with a route whose gate is ``route.Mean`` or ``route.Nearest``.
      base: params tree, on one device or on a mesh, over which rows are cut then.
      library: E experts, as the route uses them.
      prompts: token ids, for each of E experts.
      batch: prompts at once.
      progress: called after each batch, with prompts measured and in all.

    Returns:
      The gate's state.
    """
    plain, mesh = Decoder(model.config), parallel.mesh_of(base)
    how: dict[str, Any] = {"batch": batch, "mesh": mesh, "progress": progress}
    if model.route is not None and isinstance(model.route.gate, routes.Nearest):
        data = gate_data.examples(plain, base, prompts, **how)
    else:
        data = gate_data.means(plain, base, library, prompts, **how)
    with parallel.using(mesh):
        state = _state(model, library, None, data)
    return processes.host(state)


@functools.partial(jax.jit, static_argnums=0)
def _state(model: Decoder, library: Library, key: jax.Array | None, data: Any) -> Tree:
    return gate_state(model, library, key=key, data=data)


def train(
    model: Decoder,
    base: Tree,
    library: Library,
    rows: Mapping[str, Rows],
    training: Training,
    *,
    per_expert: bool,
    checkpoints: Checkpoints,
    progress: Progress = lambda *_: None,
) -> TrainedGate:
    """Trains a gate's keys: all experts on one data set, or each alone on its own.

    Args:
      model: a decoder with the route that is trained.
      base: params tree, frozen, on one device or on a mesh, over which gates, or the
        experts of a single one, and rows are cut then.
      library: E experts, as the route uses them, frozen.
      rows: one data set for all experts; or E, one for each.
      training: how long and how fast.
      per_expert: every expert learns alone, on its own rows.
      checkpoints: where the run is saved.
      progress: called after each chunk of updates.
    """
    key, mesh = jax.random.key(training.seed), parallel.mesh_of(base)
    # [G, E, ...]: E libraries of one expert, or one of E.
    with parallel.using(mesh):
        libraries = _libraries(library, per_expert)
        states = jax.jit(jax.vmap(lambda x: gate_state(model, x, key=key)))(libraries)
    losses = functools.partial(gate_data.losses, model, base, libraries, mesh=mesh)
    before = losses(states, rows)
    learned = session.train_gates(
        model,
        base,
        rows,
        Gates(libraries, states),
        training,
        checkpoints=checkpoints,
        mesh=mesh,
        progress=progress,
    ).learned
    after = losses(learned, rows)
    learned = processes.host(learned)
    first = jax.tree.map(lambda x: x[0], learned)
    state = gate_data.join_singles(learned) if per_expert else first
    return TrainedGate(state, before, after)


@functools.partial(jax.jit, static_argnums=1)
def _libraries(library: Library, per_expert: bool) -> Library:
    if per_expert:
        return layout.by_expert(gate_data.singles(library))
    return jax.tree.map(lambda x: x[None], layout.by_expert(library))


def joined(parts: Iterable[Rows]) -> Rows:
    """The rows of several data sets as those of one.

    Args:
      parts: rows [N, T] each, of one length T.
    """
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
