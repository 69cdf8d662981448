"""Training on packed text: chunks of updates, histories, checkpoints, exact resume.

Batch k of an expert is a function of its rows, its seed and k, so that a run's state
is its arrays and a step number: killed and resumed, it ends bit-equal. "Expert" is also
said of a gate: :class:`jaxlora.train.step.Part` is all that differs.
"""

import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlora import parallel, stopping
from jaxlora.io.checkpoint import Saver
from jaxlora.lora import Library, LoraConfig
from jaxlora.models import Decoder
from jaxlora.parallel import processes
from jaxlora.tasks.packing import Rows
from jaxlora.train import feeding, packed, resuming, run_facts
from jaxlora.train.packed import Program, Run
from jaxlora.train.resuming import Checkpoints as Checkpoints
from jaxlora.train.step import ADAPTER, GATE, Part
from jaxlora.train.training import Training
from jaxlora.tree import Tree

ONE_BY_ONE = 512
"""Tokens of a microbatch from which on a CPU trains one expert after another."""
SAVE_FIRST = 5.0
"""Seconds until the first checkpoint: what follows a compilation is worth keeping."""
SAVE_EVERY = 60.0
"""Seconds between checkpoints; the last one is always written."""
SAVE_SHARE = 0.02
"""Of the time, at most, a run waits for its checkpoints, which then come less often."""

Progress: TypeAlias = Callable[[int, int, np.ndarray], None]
"""Called with updates done, updates in all, and the losses and norms [2, E, K] of the
last updates. If it raises KeyboardInterrupt, the run is saved first."""


class Gates(NamedTuple):
    """Gates to train, and what they route."""

    libraries: Library
    """[G, E, ...], frozen, each as the route uses it."""
    states: Tree
    """Of the route, one for each library, [G, ...]; they are not changed."""


class Trained(NamedTuple):
    """What a run gives; histories are padded with NaN after an expert's end."""

    learned: Library | Tree
    """A library [E, ...], float32; or the states of gates [G, ...], whose keys alone
    are other than they were."""
    loss: np.ndarray
    """[E, updates], nats per answer token before each update."""
    norm: np.ndarray
    """[E, updates], norm of the gradient before clipping."""
    resumed: int
    """Updates that a checkpoint had already."""


def train_experts(
    model: Decoder,
    base: Tree,
    data: Mapping[str, Rows],
    config: LoraConfig,
    training: Training,
    *,
    checkpoints: Checkpoints = Checkpoints(),  # noqa: B008
    mesh: Mesh | None = None,
    progress: Progress = lambda *_: None,
) -> Trained:
    """Trains one expert for each entry of ``data``.

    Args:
      model: a decoder without a route.
      base: frozen params tree.
      data: rows by name, of one length T.
      config: rank, scale and targets of every expert.
      training: how long and how fast; its length is that of the rows already.
      checkpoints: where the run is saved; by default nowhere.
      mesh: cuts experts over ``expert``, batches over ``data`` and ``fsdp``; the base
        must lie on it as :func:`jaxlora.parallel.shardings` says.
      progress: called after each chunk of updates.

    Returns:
      A library [E, ...] in the order of ``data``, and its histories.

    Raises:
      ValueError: if there are no data, rows differ in length, the folder holds another
        run, or an expert's loss is no longer finite.
    """
    run_facts.check_rows(data)
    keys = jnp.stack([packed.key_of(training.seed, name) for name in data])
    opt = training.optimizer()
    run = jax.jit(packed.start, static_argnums=(1, 2))(base, config, opt, keys)
    facts = {"lora": dataclasses.asdict(config) | {"targets": list(config.targets)}}
    session = _Session(model, base, data, training, checkpoints, mesh, progress)
    return _learn(session, ADAPTER, run, facts)


def train_gates(
    model: Decoder,
    base: Tree,
    data: Mapping[str, Rows],
    gates: Gates,
    training: Training,
    *,
    checkpoints: Checkpoints = Checkpoints(),  # noqa: B008
    mesh: Mesh | None = None,
    progress: Progress = lambda *_: None,
) -> Trained:
    """Trains the keys of one gate for each entry of ``data``; all else is frozen.

    Args:
      model: a decoder with a route.
      base: frozen params tree.
      data: G data sets: rows by name, of one length T.
      gates: G libraries and the states they start from.
      training: how long and how fast; its length is that of the rows already.
      checkpoints: where the run is saved; by default nowhere.
      mesh: cuts gates over ``expert``, or the experts of a single one, and batches over
        ``data`` and ``fsdp``; the base must lie on it as
        :func:`jaxlora.parallel.shardings` says.
      progress: called after each chunk of updates.

    Returns:
      States [G, ...] in the order of ``data``, and their histories.

    Raises:
      ValueError: if there are no data, rows differ in length, there are not as many
        data sets as libraries and states, the folder holds another run, or a gate's
        loss is no longer finite.
    """
    run_facts.check_rows(data)
    run_facts.check_gates(data, tuple(gates))
    run = packed.start_gates(gates.states, training.optimizer())
    facts = {"route": repr(model.route), "experts": run_facts.sums(tuple(gates))}
    session = _Session(model, base, data, training, checkpoints, mesh, progress)
    libraries = gates.libraries
    if mesh is None or len(data) > 1:  # else its experts lie where they are
        libraries = feeding.on(mesh, libraries)
    return _learn(session, GATE, run, facts, libraries)


def default_together(experts: int, tokens: int, platform: str) -> int:
    """How many experts run at once, as measured on two CPU cores (benchmarks).

    Args:
      experts: E.
      tokens: of one expert's microbatch.
      platform: of the devices that will train.

    >>> default_together(8, 80, "cpu")
    8
    """
    alone = platform == "cpu" and tokens >= ONE_BY_ONE
    return 1 if alone else experts


class _Session(NamedTuple):
    """The arguments that experts and gates share."""

    model: Decoder
    base: Tree
    data: Mapping[str, Rows]
    training: Training
    checkpoints: Checkpoints
    mesh: Mesh | None
    progress: Progress


def _learn(
    session: _Session,
    part: Part,
    run: Run,
    facts: dict[str, Any],
    libraries: Library | None = None,
) -> Trained:
    """Runs all updates, from the last checkpoint on if there is one."""
    model, base, data, training, checkpoints, mesh, progress = session
    facts = facts | run_facts.facts(data, training) | dict(checkpoints.made_by)
    totals = [training.total(len(rows.tokens)) for rows in data.values()]
    most, chunk = max(totals), min(checkpoints.chunk, max(totals))
    padded = -(-most // chunk) * chunk
    history = np.full((2, len(data), padded), np.nan, np.float32)
    processes.same(facts, "data, base or settings")
    run, history = resuming.resume(checkpoints.folder, run, history, facts)
    which = feeding.spread(len(data), mesh if part is ADAPTER else None)
    names, few = (
        [list(data)[e] for e in which],
        feeding.without_copies(which, len(data)),
    )
    plan = training.plan([totals[e] for e in which])
    run, plan = feeding.on(mesh, (feeding.taken(run, which), plan))
    together = _together(session, len(which))
    program = Program(model, training.optimizer(), together, part)
    resumed, pace = int(run.step), _Pace()
    with Saver(checkpoints.folder) as saver:
        for start in range(resumed, padded, chunk):
            end = start + chunk
            # A step of a profile: all that the next chunk takes, its rows as well.
            with jax.profiler.StepTraceAnnotation("updates", step_num=start):
                rows = feeding.rows(data, names, training, range(start, end), mesh)
                with parallel.using(mesh):
                    run, report = packed.updates(
                        program, base, run, plan, rows, libraries
                    )
                recent = history[:, :, start:end]
                recent[:] = few(processes.host((report.loss, report.norm)))
            run_facts.check_finite(recent, start, list(data), totals)
            kept = (run, history)
            save = functools.partial(_save, saver, end, kept, few, facts)
            with resuming.saved_if_stopped(saver, save, min(end, most), most):
                progress(min(end, most), most, recent)
                if processes.told_to_stop(end // chunk):
                    raise stopping.Stop(signal.SIGTERM)
            if pace.is_due() or end == padded:
                pace.time(save)
    # An expert that ended early was carried along: its later updates are none.
    for e, total in enumerate(totals):
        history[:, e, total:] = np.nan
    loss, norm = history[:, :, :most]
    learned = few(run.trained)
    learned = learned if processes.count() == 1 else processes.host(learned)
    return Trained(learned, loss, norm, min(resumed, most))


def _save(
    saver: Saver,
    end: int,
    kept: tuple[Run, np.ndarray],
    few: Callable[[Tree], Tree],
    facts: Mapping[str, Any],
) -> None:
    """Saves a run without copies of experts, which are left out only then."""
    run, history = kept
    saver.save(end, resuming.state(few(run), history), facts)


class _Pace:
    """When a run is saved next: now and then, and never for much of its time."""

    def __init__(self):
        self._due = time.monotonic() + SAVE_FIRST

    def is_due(self) -> bool:
        """Is it time? With many processes the clock of the first one counts."""
        return processes.agreed(lambda: time.monotonic() > self._due)

    def time(self, save: Callable[[], None]) -> None:
        """Saves, and sets the next time by how long the run was kept waiting."""
        begun = time.monotonic()
        save()
        spent = time.monotonic() - begun
        self._due = begun + max(SAVE_EVERY, spent / SAVE_SHARE)


def _together(session: _Session, count: int) -> int:
    length = next(iter(session.data.values())).tokens.shape[1]
    tokens = session.training.batch * length
    platform = parallel.platform_of(session.base)
    chosen = session.training.together
    return chosen or default_together(count, tokens, platform)
