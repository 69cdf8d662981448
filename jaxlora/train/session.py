"""A training run of many experts on text: batches, checkpoints, exact resume.

The loop on the host feeds chunks of updates to :func:`jaxlora.train.text.updates`.
Batch k of an expert is a function of its rows, its seed and k, so that a run's state
is its arrays and a step number: killed and resumed, it ends bit-equal.
"""

import dataclasses
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlora.io import checkpoint
from jaxlora.lora import Library, LoraConfig
from jaxlora.models import Decoder
from jaxlora.tasks import packing
from jaxlora.tasks.packing import Rows
from jaxlora.train import text
from jaxlora.train.text import Plan, Run
from jaxlora.tree import Tree

ONE_BY_ONE = 512
"""Tokens of a microbatch from which on a CPU trains one expert after another."""
SAVE_EVERY = 60.0
"""Seconds between checkpoints; the last one is always written."""

Tell = Callable[[int, int, float], None]
"""Called with updates done, updates in all, and the mean of the last losses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast every expert learns."""

    epochs: float = 3.0
    """Passes over an expert's rows; each expert ends after its own."""
    steps: int = 0
    """Updates of every expert, in place of epochs, if not 0."""
    learning_rate: float = 2e-4
    """Peak."""
    warmup: float = 0.05
    """Share of the updates in which the rate rises."""
    decay: float = 1.0
    """Share of the peak that is gone at the end: 0 constant, 1 linear to zero."""
    batch: int = 8
    """Rows of a microbatch."""
    accumulate: int = 1
    """Microbatches of an update."""

    def __post_init__(self):
        sizes = (self.epochs, self.learning_rate)
        if not all(0 < size < math.inf for size in sizes) or self.steps < 0:
            raise ValueError(
                f"epochs={self.epochs}, steps={self.steps}, learning_rate="
                f"{self.learning_rate}: expected positive numbers (steps may be 0)."
            )
        if not 0 <= self.warmup < 1 or not 0 <= self.decay <= 1:
            raise ValueError(
                f"warmup={self.warmup}, decay={self.decay}: expected shares, from 0 "
                f"to 1 (warmup below 1)."
            )
        if self.batch < 1 or self.accumulate < 1:
            raise ValueError(
                f"batch={self.batch}, accumulate={self.accumulate}: expected 1 or more."
            )

    def total(self, rows: int) -> int:
        """Updates of an expert of so many rows.

        >>> Schedule(epochs=2, batch=4).total(10)
        5
        """
        size = self.batch * self.accumulate
        return self.steps or max(1, -(-int(rows * self.epochs) // size))


class Trained(NamedTuple):
    """What a run gives; histories are padded with NaN after an expert's end."""

    library: Library
    """[E, ...], float32."""
    loss: np.ndarray
    """[E, updates], nats per answer token before each update."""
    norm: np.ndarray
    """[E, updates], norm of the gradient before clipping."""
    resumed: int
    """Updates that a checkpoint had already."""


def at_once(experts: int, tokens: int) -> int:
    """How many experts run together, as measured on two CPU cores (benchmarks).

    Args:
      experts: E.
      tokens: of one expert's microbatch.

    >>> at_once(8, 80)
    8
    """
    alone = jax.default_backend() == "cpu" and tokens >= ONE_BY_ONE
    return 1 if alone else experts


def key_of(seed: int, name: str) -> jax.Array:
    """The key of an expert's start: by its name, whoever else is trained with it."""
    return jax.random.fold_in(jax.random.key(seed), _number(name))


def train(
    model: Decoder,
    base: Tree,
    data: Mapping[str, Rows],
    config: LoraConfig,
    schedule: Schedule,
    *,
    opt: optax.GradientTransformation,
    seed: int = 0,
    together: int = 0,
    chunk: int = 8,
    folder: Path | None = None,
    made_by: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    tell: Tell = lambda *_: None,
) -> Trained:
    """Trains one expert for each entry of ``data``.

    Args:
      model: a decoder without a route.
      base: frozen params tree.
      data: rows by name, of one length T.
      config: rank, scale and targets of every expert.
      schedule: how long and how fast.
      opt: from :func:`jaxlora.train.text.optimizer`.
      seed: of starts and orders.
      together: experts that run at once; 0 chooses.
      chunk: updates between two looks at the clock, at most; compiled once.
      folder: of checkpoints; without one, a killed run starts again.
      made_by: what else makes the run what it is (base, files), for refusing to
        resume another one.
      mesh: cuts experts over ``expert`` and batches over ``data``; the base must lie
        on it.
      tell: called after each chunk.

    Raises:
      ValueError: if there are no data, rows differ in length, the folder holds another
        run, or an expert's loss is no longer finite.
    """
    totals = [schedule.total(len(rows.tokens)) for rows in _checked(data)]
    tokens = schedule.batch * next(iter(data.values())).tokens.shape[1]
    together = together or at_once(len(data), tokens)
    keys = jnp.stack([key_of(seed, name) for name in data])
    run = jax.jit(text.start, static_argnums=(1, 2))(base, config, opt, keys)
    chunk = min(chunk, max(totals))
    chunks = -(-max(totals) // chunk)
    told = np.full((2, len(data), chunks * chunk), np.nan, np.float32)
    facts = _facts(data, config, schedule, seed, made_by)
    if folder is not None:
        run, told = _resume(folder, run, told, facts)
    run, plan = _place((run, _plan(schedule, totals)), mesh, PartitionSpec("expert"))
    resumed = int(run.step)
    saved = time.monotonic()
    for start in range(resumed, chunks * chunk, chunk):
        steps = slice(start, start + chunk)
        rows = _batches(data, schedule, seed, range(start, start + chunk))
        rows = _place(rows, mesh, PartitionSpec("expert", None, None, "data"))
        run, said = text.updates(model, opt, together, base, run, plan, rows)
        told[:, :, steps] = np.asarray([said.loss, said.norm])
        _check_finite(told[:, :, steps], start, list(data), totals)
        tell(min(steps.stop, max(totals)), max(totals), float(np.mean(said.loss)))
        last = steps.stop == chunks * chunk
        if folder is not None and (last or time.monotonic() - saved > SAVE_EVERY):
            checkpoint.save(folder, steps.stop, _state(run, told), facts)
            saved = time.monotonic()
    for e, total in enumerate(totals):
        told[:, e, total:] = np.nan
    told = told[:, :, : max(totals)]
    return Trained(run.library, told[0], told[1], min(resumed, max(totals)))


def _checked(data: Mapping[str, Rows]) -> Sequence[Rows]:
    lengths = {rows.tokens.shape[1] for rows in data.values()}
    if len(lengths) != 1:
        raise ValueError(
            f"Got {len(data)} data sets with rows of {sorted(lengths)} tokens, "
            f"expected one set at least, and one length."
        )
    return list(data.values())


def _check_finite(told: np.ndarray, start: int, names, totals) -> None:
    """Stops before a lost run is saved; told [2, E, K] of the updates from start on."""
    for e, (name, total) in enumerate(zip(names, totals, strict=True)):
        fine = np.isfinite(told[:, e, : max(0, total - start)]).all(axis=0)
        if not fine.all():
            k = int(fine.argmin())
            raise ValueError(
                f"Training of {name!r} diverged: update {start + k} has the loss "
                f"{told[0, e, k]:.4g} and a gradient of norm {told[1, e, k]:.4g}, "
                f"expected finite numbers; lower the learning rate, or clip gradients."
            )


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def _plan(schedule: Schedule, totals: Sequence[int]) -> Plan:
    total = jnp.asarray(totals, jnp.float32)
    return Plan(
        peak=jnp.full_like(total, schedule.learning_rate),
        warmup=jnp.floor(total * schedule.warmup),
        total=total,
        decay=jnp.full_like(total, schedule.decay),
    )


def _batches(data, schedule: Schedule, seed: int, steps: range) -> Rows:
    """Rows [E, K, A, N, T] of some updates."""

    def cut(x: np.ndarray) -> np.ndarray:
        return x.reshape(schedule.accumulate, -1, x.shape[-1])

    experts = []
    for name, rows in data.items():
        size = schedule.batch * schedule.accumulate
        batches: Any = packing.batches(rows, size, _number(name) ^ seed)
        some = [Rows(*map(cut, batches[step])) for step in steps]
        experts.append(Rows(*map(np.stack, zip(*some, strict=True))))
    return Rows(*map(np.stack, zip(*experts, strict=True)))


def _place(tree: Tree, mesh: Mesh | None, spec: PartitionSpec) -> Tree:
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)

    def one(leaf: Any) -> jax.Array:
        where = spec if np.ndim(leaf) else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, where))

    return jax.tree.map(one, tree)


def _state(run: Run, told: Any) -> Tree:
    return {"run": run, "told": told}


def _facts(data, config, schedule, seed, made_by) -> dict[str, Any]:
    """What must be equal for a run to go on; data by checksums."""
    # A list: states lie in the order of the names, which keys of JSON would lose.
    rows = [
        [name, list(r.tokens.shape), [zlib.crc32(column.tobytes()) for column in r]]
        for name, r in data.items()
    ]
    return {
        "rows": rows,
        "lora": dataclasses.asdict(config) | {"targets": list(config.targets)},
        "schedule": dataclasses.asdict(schedule),
        "seed": seed,
        **(made_by or {}),
    }


def _resume(folder: Path, run: Run, told: np.ndarray, facts) -> tuple[Run, np.ndarray]:
    target = jax.eval_shape(lambda: _state(run, jnp.asarray(told)))
    other = ValueError(
        f"{folder} holds the checkpoint of another run (other data, sizes, or base); "
        f"give another folder, or remove this one to start again."
    )
    try:
        found = checkpoint.restore(folder, target)
    except ValueError:
        raise other from None
    if found is None:
        return run, told
    _, state, meta = found
    if checkpoint.fingerprint(meta) != checkpoint.fingerprint(facts):
        raise other
    return state["run"], np.array(state["told"])
