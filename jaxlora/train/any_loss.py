"""Experts of any model and any loss: a function of the base, an adapter and rows.

Nothing here knows of decoders, tokens or Flax: the base is any params tree, the rows
are any pytree, and the loss says what they mean. As in ``full_batch``, one program
trains all experts, and the result of each depends on its rows and key alone.

>>> import optax
>>> from jaxlora.lora import delta
>>> base = {"kernel": jnp.zeros((2, 2))}
>>> def loss(base, adapter, rows):  # the kernel is to become the rows
...     return jnp.mean((base["kernel"] + delta(adapter["kernel"]) - rows[0]) ** 2)
>>> config = LoraConfig(rank=1, targets=("kernel",))
>>> library = fresh(jax.random.split(jax.random.key(0), 3), base, config)
>>> rows = jnp.arange(1.0, 4.0)[:, None, None, None] * jnp.ones((3, 1, 2, 2))
>>> with jax.numpy_dtype_promotion("standard"):  # JAX's default, which optax needs
...     library, losses = fit(loss, base, library, rows, optax.adam(0.03), steps=300)
>>> delta(library["kernel"])[:, 0, 0].round(1).tolist(), losses.shape
([1.0, 2.0, 3.0], (3, 300))
"""

import functools
import inspect
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Adapter, Library, LoraConfig
from jaxlora.train.full_batch import Steps
from jaxlora.train.step import ADAPTER, Fit, step
from jaxlora.tree import Tree

Loss: TypeAlias = Callable[..., jax.Array]
"""``loss(base, adapter, rows)``, or with keys ``loss(base, adapter, rows, key)``."""


def fresh(keys: jax.Array, base: Tree, config: LoraConfig) -> Library:
    """A fresh adapter for each key: a library of deltas that are zero.

    Args:
      keys: [E] PRNG keys.
      base: bare params, kernels [..., D, F].
      config: rank, scale and targets, such as those of ``models.dense_kernels``.

    Raises:
      ValueError: if the base holds no bare params or no kernel, or as
        :func:`jaxlora.lora.init`.
    """
    return jax.vmap(lambda key: lora.init(key, base, config))(keys)


def fit(
    loss: Loss,
    base: Tree,
    library: Library,
    data: Tree,
    opt: optax.GradientTransformation,
    *,
    steps: int | Steps,
    keys: jax.Array | None = None,
) -> tuple[Library, jax.Array]:
    """Trains every expert of a library on rows of its own, all in one program.

    Factors learn; the base and the scales never reach the optimizer. A call compiles
    anew for another ``loss`` or ``opt`` object: define both once.

    Args:
      loss: ``loss(base, adapter, rows) -> scalar`` of one expert, its rows [N, ...];
        with ``keys``, ``loss(base, adapter, rows, key)``, the key new at each step.
      base: bare params, frozen.
      library: [E, ...], where training starts; :func:`fresh` makes one.
      data: any pytree of arrays [E, N, ...], the rows of each expert.
      opt: an optax optimizer; each expert has a state of its own.
      steps: their number, each on all rows; or with how many rows each draws.
      keys: [E] PRNG keys of draws and of the loss; needed for draws.

    Returns:
      The library [E, ...], and the loss of each expert before each step, [E, S].

    Raises:
      ValueError: if base, library, data and keys do not fit each other, the loss is no
        scalar, or nothing was learned because the loss does not use the adapter.
    """
    how = Steps(steps) if isinstance(steps, int) else steps
    named.check_bare(base)
    experts = lora.num_experts(library)
    lora.check(base, library, experts)
    rows = _check_rows(data, experts)
    _check_draws(how, rows, experts, keys)
    _check_loss(loss, base, library, data, keys)
    learned, losses = _fit_all(loss, opt, how, base, library, data, keys)
    _check_moved(library, learned)
    return learned, losses


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _fit_all(loss: Loss, opt, steps: Steps, base, library, data, keys):
    def expert(adapter: Adapter, rows: Tree, key: jax.Array | None):
        return _fit(loss, opt, steps, base, adapter, rows, key)

    return jax.vmap(expert)(library, data, keys)


def _fit(loss: Loss, opt, steps: Steps, base, adapter, rows, key):
    """Returns an adapter and the losses [S] of its steps."""
    factors, scales = ADAPTER.split(adapter)

    def value(factors: Tree, batch: tuple[Tree, tuple]) -> jax.Array:
        rows, key = batch
        return loss(base, ADAPTER.join(factors, scales), rows, *key)

    def body(fit: Fit, number: jax.Array) -> tuple[Fit, jax.Array]:
        batch = _batch(rows, key, number, steps.draw)
        return step(jax.value_and_grad(value), opt, fit, batch)

    start = Fit(factors, opt.init(factors))
    end, losses = jax.lax.scan(body, start, jnp.arange(steps.count))
    return ADAPTER.join(end.params, scales), losses


def _batch(rows: Tree, key, number: jax.Array, draw: int) -> tuple[Tree, tuple]:
    """The rows of one step, and the key of its loss if there is one."""
    if key is None:
        return rows, ()
    of_draw, of_loss = jax.random.split(jax.random.fold_in(key, number))
    count = len(jax.tree.leaves(rows)[0])
    if 0 < draw < count:
        chosen = jax.random.permutation(of_draw, count)[:draw]
        rows = jax.tree.map(lambda x: x[chosen], rows)
    return rows, (of_loss,)


def _check_rows(data: Tree, experts: int) -> int:
    """Returns N, the rows of each expert."""
    shapes = {name: jnp.shape(x) for name, x in named.flatten(data).items()}
    if not shapes:
        raise ValueError("The data are empty, expected a pytree of arrays [E, N, ...].")
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        where = f"Data {name!r} have" if name else "The data have"
        if shape[:1] != (experts,) or len(shape) < 2:
            raise ValueError(
                f"{where} shape {shape}, expected [E, N, ...] with E = {experts}, the "
                f"experts of the library: rows are stacked expert by expert."
            )
        if shape[1] != first[1] or not shape[1]:
            raise ValueError(
                f"{where} {shape[1]} rows an expert, expected {first[1] or 'some'} as "
                f"in the first array: every leaf holds the same rows."
            )
    return first[1]


def _check_draws(steps: Steps, rows: int, experts: int, keys) -> None:
    if steps.count < 1 or not 0 <= steps.draw <= rows:
        raise ValueError(
            f"Got {steps}, expected a count of 1 or more and a draw of at most {rows} "
            f"rows, which is what an expert has; 0 draws all."
        )
    if keys is None:
        if steps.draw:
            raise ValueError(
                f"Got a draw of {steps.draw} rows a step and no keys, expected keys "
                f"[E]: jax.random.split(key, {experts})."
            )
    elif jnp.shape(keys)[:1] != (experts,):
        raise ValueError(
            f"Keys have shape {jnp.shape(keys)}, expected one for each of {experts} "
            f"experts: jax.random.split(key, {experts})."
        )


def _check_loss(loss: Loss, base, library, data, keys) -> None:
    args = jax.tree.map(lambda x: x[0], (library, data, keys))
    given = (base, *(args if keys is not None else args[:2]))
    words = "base, adapter, rows" + (", key" if keys is not None else "")
    try:
        inspect.signature(loss).bind(*given)
    except TypeError as error:
        raise ValueError(
            f"The loss cannot be called as loss({words}): {error}; it takes a key "
            f"if, and only if, fit is given keys."
        ) from None
    out = jax.eval_shape(loss, *given)
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        what = f"{dtype} of shape {shape}" if dtype else f"a {type(out).__name__}"
        raise ValueError(
            f"The loss returns {what}, expected one float: the mean over rows of what "
            f"each loses."
        )


def _check_moved(before: Library, after: Library) -> None:
    pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    if any(isinstance(leaf, jax.core.Tracer) for pair in pairs for leaf in pair):
        return
    if all(bool(jnp.array_equal(x, y)) for x, y in pairs):
        raise ValueError(
            "No expert moved in any step: its gradient was zero throughout. The loss "
            "does not use the adapter (models.apply_with_lora does), a and b are both "
            "zero, or the optimizer's rate is."
        )
