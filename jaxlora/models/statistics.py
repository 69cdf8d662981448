"""What an expert's own data say of its kernels: the data that some merges need.

- :func:`input_grams`: second moments of each kernel's inputs, for RegMean.
- :func:`squared_gradients`: the importance of each entry, for Fisher merging.

Both are of one expert on its rows; ``jax.vmap`` over a library gives [E, ...].
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Adapter
from jaxlora.models.decoder import Decoder
from jaxlora.models.layers import Projection
from jaxlora.tree import Tree


def input_grams(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    weights: jax.Array,
    *,
    adapter: Adapter,
    mask: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Returns ``E[x x^T]`` of the inputs x of every adapted kernel, [L, D, D].

    The expectation is over the tokens of all rows, weighted: ``sum_t w_t x_t x_t^T /
    sum_t w_t``, on the base with the adapter.

    Args:
      model: a decoder without a route.
      base: params tree.
      tokens: [B, T].
      weights: [B, T], 0 where a token does not count; not all 0.
      adapter: the expert, [L, D, R]; it also says which kernels are meant.
      mask: [B, T], true where a token may be attended to.

    Raises:
      ValueError: if the adapter does not fit the base.
    """
    lora.check(base, adapter)
    flat = weights.reshape(-1, 1)
    share = flat / jnp.sum(flat)

    def measure(call, args, kwargs, context):
        layer = context.module
        if isinstance(layer, Projection) and context.method_name == "__call__":
            x = args[0].astype(jnp.float32)
            gram = jnp.matmul((share * x).T, x, precision="highest")
            # The collection that the scan over layers stacks, as it does gate weights.
            layer.sow("routes", "kernel", gram)
        return call(*args, **kwargs)

    variables = {"params": base, "lora": adapter}
    with nn.intercept_methods(measure):
        _, found = model.apply(variables, tokens, mask, mutable=["routes"])
    grams = named.flatten(found["routes"], lambda leaf: isinstance(leaf, tuple))
    return {name: grams[name][0] for name in lora.sites(adapter)}


def squared_gradients(
    score: Callable[[Tree, Any], jax.Array],
    base: Tree,
    rows: Any,
    weights: jax.Array,
    *,
    adapter: Adapter,
) -> dict[str, jax.Array]:
    """Returns the mean over rows of ``(d score / d kernel)^2``, [L, D, F].

    The gradient is with respect to the dense kernel, base and delta together, of every
    adapted site. With the log-likelihood of a row's own labels as the score it is the
    diagonal of the empirical Fisher information.

    Args:
      score: ``score(params, row) -> scalar``.
      base: params tree.
      rows: a tree of arrays [N, ...]; one row at a time goes to ``score``.
      weights: [N], 0 where a row does not count; not all 0.
      adapter: the expert; it also says which kernels are meant.

    >>> base = {"q_proj": {"kernel": jnp.ones((2, 1))}}
    >>> config = lora.LoraConfig(rank=1, targets=(".*",))
    >>> adapter = lora.init(jax.random.key(0), base, config)
    >>> def score(params, x):
    ...     return jnp.sum(x @ params["q_proj"]["kernel"])
    >>> rows = jnp.asarray([[1.0, 0.0], [3.0, 2.0]])
    >>> found = squared_gradients(score, base, rows, jnp.ones(2), adapter=adapter)
    >>> found["q_proj/kernel"].tolist()
    [[5.0], [2.0]]
    """
    params = named.flatten(lora.fuse(base, adapter))
    kernels = {name: params[name] for name in lora.sites(adapter)}

    def one(row: Any) -> dict[str, jax.Array]:
        def of(kernels: dict[str, jax.Array]) -> jax.Array:
            return score(named.unflatten(params | kernels), row)

        return jax.grad(of)(kernels)

    def add(total: dict[str, jax.Array], this: Any):
        row, share = this
        squares = jax.tree.map(lambda g: g.astype(jnp.float32) ** 2, one(row))
        return jax.tree.map(lambda sum_, x: sum_ + share * x, total, squares), None

    # One row after another: the memory of one gradient is enough.
    start = {name: jnp.zeros(w.shape, jnp.float32) for name, w in kernels.items()}
    return jax.lax.scan(add, start, (rows, weights / jnp.sum(weights)))[0]
