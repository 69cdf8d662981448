"""What an expert's own data say of it: the data that some merges and gates need.

- :func:`input_grams`: second moments of each kernel's inputs, for RegMean.
- :func:`squared_gradients`: the importance of each entry, for Fisher merging.
- :func:`mean_inputs`: means of each kernel's inputs, for routing by average activation.
- :func:`embeddings`: one vector for each example, for routing by retrieval.

The first three are of one expert on its rows; ``jax.vmap`` over a library gives
[E, ...].
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Adapter
from jaxlora.models import sites
from jaxlora.models.decoder import Decoder
from jaxlora.models.inputs import Tokens, inputs_of
from jaxlora.models.layers import Projection
from jaxlora.models.mlp import site_of
from jaxlora.models.moe import refuse_stacked
from jaxlora.tree import Tree


def input_grams(
    model: Decoder,
    base: Tree,
    inputs: Tokens,
    weights: jax.Array,
    *,
    adapter: Adapter,
) -> dict[str, jax.Array]:
    """Returns ``E[x x^T]`` of the inputs x of every adapted kernel, [L, D, D].

    The expectation is over the tokens of all rows, weighted: ``sum_t w_t x_t x_t^T /
    sum_t w_t``, on the base with the adapter.

    Args:
      model: a decoder without a route.
      base: params tree.
      inputs: token ids [B, T], or :class:`Inputs` with a mask.
      weights: [B, T], 0 where a token does not count; not all 0.
      adapter: the expert, [L, D, R]; it also says which kernels are meant.

    Raises:
      ValueError: if the adapter does not fit the base.
    """
    return _of_inputs(_gram, model, base, inputs, weights, adapter)


def mean_inputs(
    model: Decoder,
    base: Tree,
    inputs: Tokens,
    weights: jax.Array,
    *,
    adapter: Adapter,
) -> dict[str, jax.Array]:
    """Returns the mean input ``E[x]`` of every adapted kernel, [L, D].

    The expectation is over the tokens of all rows, weighted, on the base with the
    adapter. Weights that are 1 at the last token of each prompt give the mean over
    examples that Phatgoose's baseline, average activation, compares with.

    Args:
      model: a decoder without a route.
      base: params tree.
      inputs: token ids [B, T], or :class:`Inputs` with a mask.
      weights: [B, T], 0 where a token does not count; not all 0.
      adapter: the expert, [L, D, R]; it also says which kernels are meant.

    Raises:
      ValueError: if the adapter does not fit the base.
    """
    return _of_inputs(_mean, model, base, inputs, weights, adapter)


def _gram(share: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.matmul((share * x).T, x, precision="highest")


def _mean(share: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(share * x, axis=0)


def _of_inputs(statistic, model, base, inputs: Tokens, weights, adapter):
    """``statistic(share [N, 1], x [N, D])`` at every adapted kernel, [L, ...].

    It is the mean over the passes of a loop, and over the layers that share an MLP.
    """
    sites.check_kernels(adapter, "statistics of its inputs")
    lora.check(base, adapter)
    refuse_stacked(lora.sites(adapter), "a mean over the inputs of a site")
    flat = weights.reshape(-1, 1)
    share = flat / jnp.sum(flat)

    def measure(call, args, kwargs, context):
        layer = context.module
        if isinstance(layer, Projection) and context.method_name == "__call__":
            # Sown where gates sow their weights: the scan over layers stacks that.
            layer.sow("routes", "kernel", statistic(share, args[0].astype(jnp.float32)))
        return call(*args, **kwargs)

    variables = {"params": base, "lora": adapter}
    with nn.intercept_methods(measure):
        _, sown = model.apply(variables, inputs_of(inputs), mutable=["routes"])
    leaves = named.flatten(sown["routes"], lambda leaf: isinstance(leaf, tuple))
    means = {
        site_of(name): jnp.mean(jnp.stack(leaf), 0) for name, leaf in leaves.items()
    }
    # The memory is read in every layer, and has no axis of layers.
    return {
        name: jnp.mean(means[name], 0) if w.a.ndim == 2 else means[name]
        for name, w in lora.sites(adapter).items()
    }


class _Embedding(Decoder):
    """What a decoder's first layer gets, and nothing after it."""

    @nn.compact
    def __call__(self, tokens):
        return self._embed(tokens, None)


def embeddings(
    model: Decoder, base: Tree, tokens: jax.Array, mask: jax.Array
) -> jax.Array:
    """Returns the mean embedding of each example, [M, D], float32.

    It is what a gate of the whole model sees at the last token of that sequence: the
    mean over its tokens of what the first layer gets.

    Args:
      model: a decoder; a route of it is not used.
      base: params tree.
      tokens: [M, T].
      mask: [M, T], true where a token counts; at least one in each row.
    """
    parts = {name: base[name] for name in ("embed", "positions") if name in base}
    x = _Embedding(model.config).apply({"params": parts}, tokens)
    rows = jnp.where(mask[:, :, None], jnp.asarray(x, jnp.float32), 0.0)
    return jnp.sum(rows, axis=1) / jnp.sum(mask, axis=1).astype(jnp.float32)[:, None]


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
    >>> means = squared_gradients(score, base, rows, jnp.ones(2), adapter=adapter)
    >>> means["q_proj/kernel"].tolist()
    [[5.0], [2.0]]
    """
    params = named.flatten(lora.fuse(base, adapter))
    kernels = {name: params[name] for name in lora.sites(adapter)}

    def gradient(row: Any) -> dict[str, jax.Array]:
        def of(kernels: dict[str, jax.Array]) -> jax.Array:
            return score(named.unflatten(params | kernels), row)

        return jax.grad(of)(kernels)

    def add(total: dict[str, jax.Array], this: Any):
        row, share = this
        squares = jax.tree.map(lambda g: g.astype(jnp.float32) ** 2, gradient(row))
        return jax.tree.map(lambda sum_, x: sum_ + share * x, total, squares), None

    # One row after another: the memory of one gradient is enough.
    start = {name: jnp.zeros(w.shape, jnp.float32) for name, w in kernels.items()}
    return jax.lax.scan(add, start, (rows, weights / jnp.sum(weights)))[0]
