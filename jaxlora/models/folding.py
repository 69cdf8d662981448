"""Functions of rows, which ``jax.vmap`` gives more rows and not another axis.

cuDNN's attention knows rows [B, ...] alone, and JAX's own rule for a mapped call gives
up on a mask that all heads share. Experts that train side by side are more rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def folded(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The same function of rows, mapped by folding the mapped axis into the rows.

    Its gradient computes the value again: what ``fn`` keeps for it has no known rows.

    Args:
      fn: of arrays [B, ...], to an array [B, ...]; each row is of that row alone. Its
        gradient is that of the floating-point ones.

    >>> total = folded(lambda x, y: jnp.sum(x * y, axis=1, keepdims=True))
    >>> x, y = jnp.ones((3, 2, 4)), 2 * jnp.ones((2, 4))
    >>> jax.vmap(total, in_axes=(0, None))(x, y).shape
    (3, 2, 1)
    """

    def back(*args: Any) -> tuple[jax.Array, ...]:
        *given, slope = args
        free = _free(given)

        def value(*free: jax.Array) -> jax.Array:
            values = iter(free)
            return fn(*(next(values) if _is_free(x) else x for x in given))

        _, pull = jax.vjp(value, *free)
        return pull(slope)

    forward, backward = _mapped(fn), _mapped(back)

    @jax.custom_vjp
    def call(*args: jax.Array) -> jax.Array:
        return forward(*args)

    def after(given: tuple[jax.Array, ...], slope: jax.Array) -> tuple[Any, ...]:
        slopes = iter(backward(*given, slope))
        return tuple(next(slopes) if _is_free(x) else None for x in given)

    call.defvjp(lambda *args: (forward(*args), args), after)
    return call


def _is_free(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _free(args: Any) -> list[jax.Array]:
    return [x for x in args if _is_free(x)]


def _mapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    call = jax.custom_batching.custom_vmap(fn)

    @call.def_vmap
    def fold(size: int, mapped: list[bool], *args: jax.Array):
        every = [
            x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))
            for x, is_mapped in zip(args, mapped, strict=True)
        ]
        out = call(*(x.reshape(-1, *x.shape[2:]) for x in every))
        parts = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), out)
        return parts, jax.tree.map(lambda _: True, parts)

    return call
