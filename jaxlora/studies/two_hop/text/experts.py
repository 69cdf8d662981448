"""The experts of one group, trained on its texts in one program, or from the cache."""

import dataclasses
import functools
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import locks, lora, parallel
from jaxlora.io import checkpoint
from jaxlora.lora import Adapter
from jaxlora.models import Decoder, DecoderConfig
from jaxlora.parallel import processes
from jaxlora.studies.harness import bases, code, provenance
from jaxlora.studies.two_hop.text.codec import PromptCodec
from jaxlora.tasks.packing import Rows
from jaxlora.tasks.two_hop import text_forms
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.tasks.two_hop.text_forms import TextForm
from jaxlora.train import feeding
from jaxlora.train import packed as training
from jaxlora.train.training import Training, at_once, faster
from jaxlora.tree import Tree

CHUNK = 20
"""Updates between two looks at the progress; a fifth of all if these are few."""
SAVE_EVERY = 60.0
"""Seconds between two savings of experts that are in training."""
# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.two_hop.text.experts")


class Recipe(NamedTuple):
    """How experts are trained."""

    lora: lora.LoraConfig
    train: Training
    phrasings: int
    """Training phrasings of each fact; 0 for all."""
    form: TextForm
    """How facts are read."""
    dtype: str
    """Of the base."""


class Trained(NamedTuple):
    """The experts of one group."""

    adapters: dict[Expert, Adapter]
    losses: dict[Expert, float]
    """Cross-entropy per answer token in the last update."""


class Learner(NamedTuple):
    """What learns: a checkpoint and its prompt codec."""

    model: Decoder
    """Without a route."""
    base: Tree
    codec: PromptCodec


def train(
    learner: Learner,
    groups: Sequence[Group],
    seed: int,
    recipe: Recipe,
    cache: Path,
    progress: Callable[[int, int, float], None] = lambda *_: None,
    names: Sequence[Expert] = tuple(Expert),
) -> Trained:
    """Trains, or reads from the cache, every expert of a library.

    Args:
      learner: the checkpoint that experts adapt.
      groups: whose facts the experts learn, of one cell and pair, or of several cells
        that share them.
      seed: of initialisation and order.
      recipe: how they are trained.
      cache: folder of cached libraries.
      progress: called with (updates done, updates in all, mean loss).
      names: of the experts; by default all that the study uses.
    """
    model, base, codec = learner
    how = recipe.phrasings, recipe.form
    groups = sorted(groups, key=number)  # whichever of them asks for their experts
    texts = [
        [x for some in groups for x in text_forms.texts(some, name, *how)]
        for name in names
    ]
    shared = _shared(model.config, codec.opening)
    sets = [codec.rows(x, recipe.train.length, seed, shared) for x in texts]
    # By the expert's place among all, so that it does not depend on the others.
    places = [number(groups[0]) + list(Expert).index(name) for name in names]
    fold = functools.partial(jax.random.fold_in, jax.random.key(seed))
    keys = jax.vmap(fold)(jnp.array(places))
    opt = recipe.train.optimizer()
    target = jax.eval_shape(lambda x: _fresh(base, recipe.lora, opt, x).trained, keys)
    folder = cache / "libraries" / _key_of(base, sets, seed, places, recipe)
    # Of many processes the first holds the entry: all read and write it in step.
    with locks.making(*([folder] if processes.first() else [])):
        restored = checkpoint.restore(folder, target)
        if restored is None:
            sizes = zip([len(rows.tokens) for rows in sets], places, strict=True)
            order = [_order(n, recipe.train, seed, place) for n, place in sizes]
            part = folder.with_name(f"{folder.name}.part")
            how = (part, progress)
            library, losses = _fit(model, base, keys, sets, order, recipe, *how)
            checkpoint.save(folder, 0, library, {"losses": losses})
            if processes.first():
                shutil.rmtree(part, ignore_errors=True)
        else:
            library, losses = _beside(base, restored[1]), restored[2]["losses"]
    adapters = dict(zip(names, lora.unstack(library), strict=True))
    return Trained(adapters, dict(zip(names, losses, strict=True)))


def _shared(config: DecoderConfig, opening: int) -> int:
    """Tokens that a row has once, where attention can show them to all its examples."""
    # Windows of local layers are counted in slots, as if nothing were shared, and the
    # TPU kernel shows a token its segment alone.
    alone = any(config.local_layers) or config.attention == "splash"
    return 0 if alone else opening


def number(group: Group) -> int:
    """A number of cell and pair, from which keys of their own are folded."""
    return 1000 * (1 + group.pair) + 100 * list(Cell).index(group.cell)


# The base is an argument: a constant of the program would be held twice.
_fresh: Any = jax.jit(training.start, static_argnums=(1, 2))


def _fit(model: Decoder, base, keys, sets, order, recipe: Recipe, part, progress):
    """Runs all updates that ``part`` has not; the library and the last losses."""
    count = len(sets)
    keys, sets, order = _spread(base, keys, sets, order)
    steps, opt = recipe.train.steps, recipe.train.optimizer()
    # Unrolled layers take three times as long to compile here, and no less to run.
    platform = parallel.platform_of(base)
    config = dataclasses.replace(faster(model.config, "auto", platform), unroll=1)
    model = Decoder(config)
    run = _beside(base, _fresh(base, recipe.lora, opt, keys))
    plan = recipe.train.plan([steps] * len(sets))
    together = recipe.train.together or at_once(config, count, platform)
    most = max(int((rows.weights > 0).sum(axis=1).max()) for rows in sets)
    program = training.Program(model, opt, together, most=most)
    losses: list[float] = []
    target = jax.eval_shape(lambda: feeding.taken(run, np.arange(count)))
    restored = checkpoint.restore(part, target)
    if restored is not None:
        filled = feeding.taken(restored[1], np.arange(len(sets)) % count)
        run, losses = _beside(base, filled), restored[2]["losses"]
    saved = time.monotonic()

    def save(done: int) -> None:
        checkpoint.save(
            part, done, feeding.taken(run, np.arange(count)), {"losses": losses}
        )

    # A few updates of a large model take minutes.
    chunk = CHUNK if steps > 2 * CHUNK else -(-steps // 5)
    for start in range(int(run.step), steps, chunk):
        batch = _batch(sets, [chosen[start : start + chunk] for chosen in order])
        run, metrics = training.updates(program, base, run, plan, batch)
        losses = processes.host(metrics.loss)[:count, -1].tolist()
        done = min(start + chunk, steps)
        try:
            progress(done, steps, float(np.mean(losses)))
        except KeyboardInterrupt:
            if processes.count() == 1:  # all save together, and the others go on
                save(done)
            raise
        if done < steps and _is_due(saved):
            save(done)
            saved = time.monotonic()
    return feeding.taken(run.trained, np.arange(count)), losses


def _spread(base: Tree, keys: jax.Array, *each: Sequence[Any]) -> tuple[Any, ...]:
    """Experts with copies of the first, until the devices that they lie on divide them.

    A group has as many as the study asks about, which few meshes divide.
    """
    which = feeding.spread(len(keys), parallel.mesh_of(base))
    return (keys[which], *([some[i] for i in which] for some in each))


def _is_due(saved: float) -> bool:
    """Is it time to save? Of many processes the clock of the first one counts."""
    return processes.agreed(lambda: time.monotonic() - saved > SAVE_EVERY)


def _beside(base: Tree, tree: Tree) -> Tree:
    """Puts experts [E, ...] on the mesh of the base, if it is on one."""
    mesh = parallel.mesh_of(base)
    if mesh is None:
        return tree
    return parallel.place(tree, mesh, parallel.expert_shardings(mesh, tree))


def _order(rows: int, config: Training, seed: int, expert: int) -> np.ndarray:
    """Rows of every update, [steps, A, batch]: epochs, each in a new order."""
    rng = np.random.default_rng([seed, expert])
    shape = (config.steps, config.accumulate, config.batch)
    needed = math.prod(shape)
    epochs = [rng.permutation(rows) for _ in range(-(-needed // rows))]
    return np.concatenate(epochs)[:needed].reshape(shape)


def _batch(sets: Sequence[Rows], chosen: Sequence[np.ndarray]) -> Rows:
    """Rows [E, K, A, N, T] of the next K updates of A microbatches."""
    pairs = zip(sets, chosen, strict=True)
    parts = [[np.asarray(x)[rows] for x in mine] for mine, rows in pairs]
    return Rows(*(np.stack(x) for x in zip(*parts, strict=True)))


def _key_of(base, sets: Sequence[Rows], seed, places, recipe: Recipe) -> str:
    rows = [[checkpoint.fingerprint({"x": x.tolist()}) for x in s] for s in sets]
    return checkpoint.fingerprint(
        {
            "base": bases.digest(base),
            "rows": rows,
            "seed": [seed, *places],
            "lora": dataclasses.asdict(recipe.lora),
            "train": dataclasses.asdict(recipe.train) | {"together": 0},
            "dtype": recipe.dtype,
            "code": CODE,
            **provenance.program(),
        }
    )
