"""The loop on the host: chunks of updates, histories, checkpoints.

It knows neither adapters nor gates: what learns is in its :class:`Run`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlora.io import checkpoint
from jaxlora.models import Decoder
from jaxlora.tasks.packing import Rows
from jaxlora.train import schedule as schedules
from jaxlora.train import text
from jaxlora.train.schedule import Schedule
from jaxlora.train.text import Run
from jaxlora.tree import Tree

Tell: TypeAlias = Callable[[int, int, float], None]
"""Called with updates done, updates in all, and the mean of the last losses."""


def learn(
    model: Decoder,
    base: Tree,
    data: Mapping[str, Rows],
    schedule: Schedule,
    run: Run,
    more: dict[str, Any],
    *,
    facts: Mapping[str, Any],
    opt: optax.GradientTransformation,
    seed: int,
    together: int,
    chunk: int,
    folder: Path | None,
    save_every: float,
    mesh: Mesh | None,
    tell: Tell,
) -> tuple[Tree, np.ndarray, np.ndarray, int]:
    """Runs all updates, from the last checkpoint on if there is one.

    Args:
      model: of the decoder.
      base: frozen params tree.
      data: rows by name.
      schedule: how long and how fast.
      run: the start; donated.
      more: ``part`` and ``held`` of :func:`jaxlora.train.text.updates`.
      facts: what must be equal for a checkpoint to be of this run.
      opt: as in ``session.train``, and so are all that follow.
      seed: see there.
      together: experts that run at once.
      chunk: see there.
      folder: see there.
      save_every: seconds between two checkpoints.
      mesh: see there.
      tell: see there.

    Returns:
      What was trained, losses and norms [E, updates], and the updates that a
      checkpoint had already.
    """
    totals = [schedule.total(len(rows.tokens)) for rows in data.values()]
    chunk = min(chunk, max(totals))
    chunks = -(-max(totals) // chunk)
    told = np.full((2, len(data), chunks * chunk), np.nan, np.float32)
    if folder is not None:
        run, told = _resume(folder, run, told, facts)
    by_expert = PartitionSpec("expert")
    run, plan = _place((run, schedules.plan(schedule, totals)), mesh, by_expert)
    if "held" in more:
        more = more | {"held": _place(more["held"], mesh, by_expert)}
    resumed = int(run.step)
    saved = time.monotonic()
    for start in range(resumed, chunks * chunk, chunk):
        steps = slice(start, start + chunk)
        rows = schedules.batches(data, schedule, seed, range(start, start + chunk))
        rows = _place(rows, mesh, PartitionSpec("expert", None, None, "data"))
        run, said = text.updates(model, opt, together, base, run, plan, rows, **more)
        told[:, :, steps] = np.asarray([said.loss, said.norm])
        _check_finite(told[:, :, steps], start, list(data), totals)
        tell(min(steps.stop, max(totals)), max(totals), float(np.mean(said.loss)))
        last = steps.stop == chunks * chunk
        if folder is not None and (last or time.monotonic() - saved > save_every):
            checkpoint.save(folder, steps.stop, _state(run, told), facts)
            saved = time.monotonic()
    for e, total in enumerate(totals):
        told[:, e, total:] = np.nan
    told = told[:, :, : max(totals)]
    return run.trained, told[0], told[1], min(resumed, max(totals))


def _check_finite(told: np.ndarray, start: int, names: Sequence[str], totals) -> None:
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


def _place(tree: Tree, mesh: Mesh | None, spec: PartitionSpec) -> Tree:
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)

    def one(leaf: Any) -> jax.Array:
        where = spec if np.ndim(leaf) else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, where))

    return jax.tree.map(one, tree)


def _state(run: Run, told: Any) -> Tree:
    return {"run": run, "told": told}


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
