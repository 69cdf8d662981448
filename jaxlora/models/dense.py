"""What the ``nn.Dense`` layers of any Linen module are: their kernels and inputs.

Kernels are the targets of an adapter (:mod:`jaxlora.models.intercept`); inputs are what
gates and merges that see an expert's own data are made of.

>>> net, x = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(3)]), jnp.ones((2, 5))
>>> variables = net.init(jax.random.key(0), x)
>>> dense_kernels(net, variables, x)
('layers_0/kernel', 'layers_2/kernel')
>>> {name: x.shape for name, x in dense_inputs(net, variables, x).items()}
{'layers_0/kernel': (2, 5), 'layers_2/kernel': (2, 4)}
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora import tree as named
from jaxlora.tree import Tree

INPUTS = "inputs"
"""The collection in which the inputs of layers are noted."""


def params_of(variables: Mapping[str, Tree]) -> Tree:
    """Returns the params of a module's variables.

    Args:
      variables: collections by name.

    Raises:
      ValueError: if there are none, as in a tree that is itself the params.
    """
    if "params" not in variables:
        raise ValueError(
            f"The variables have no 'params', only {', '.join(map(repr, variables))}: "
            f"if these are the params, give {{'params': params}}."
        )
    return variables["params"]


def dense_kernels(
    module: nn.Module, variables: Mapping[str, Tree], *args: Any, **kwargs: Any
) -> tuple[str, ...]:
    """The kernels that a call multiplies by in an ``nn.Dense``: what can be adapted.

    Names are full paths below ``params``, ready for ``LoraConfig(targets=...)``. Only
    shapes are computed.

    Args:
      module: any Linen module.
      variables: its collections, ``params`` among them.
      *args: arguments of the module.
      **kwargs: as in ``module.apply``.

    Raises:
      ValueError: if there is no ``params``, or the call uses no ``nn.Dense``.
    """
    params = params_of(variables)
    names: list[str] = []

    def call(variables: Any) -> Any:
        return module.apply(variables, *args, **kwargs)

    with nn.intercept_methods(_noting(lambda name, *_: names.append(name))):
        jax.eval_shape(call, dict(variables))
    if not names:
        kernels = [name for name in named.flatten(params) if name.endswith("kernel")]
        raise ValueError(
            f"This call of {type(module).__name__} used no nn.Dense, expected one or "
            f"more to adapt. Its params have the kernels "
            f"{', '.join(map(repr, kernels)) or 'none'}; other layers (DenseGeneral, "
            f"Conv), and modules under nn.jit, take an adapter by lora.fuse."
        )
    return tuple(dict.fromkeys(names))


def dense_inputs(
    module: nn.Module, variables: Mapping[str, Tree], *args: Any, **kwargs: Any
) -> dict[str, jax.Array]:
    """What enters each ``nn.Dense`` in a call, by the name of its kernel.

    For an expert, fuse it first: ``{"params": lora.fuse(params, adapter)}``. Means over
    N are the data of the route ``average-activation``, ``x.mT @ x / N`` those of the
    merge ``regmean``. An ``nn.scan`` names ``inputs`` in its ``variable_axes``.

    Args:
      module: any Linen module.
      variables: its collections, ``params`` among them.
      *args: arguments of the module.
      **kwargs: as in ``module.apply``, but ``mutable``.

    Returns:
      [..., N, D] a kernel [..., D, F]; N counts all rows, and all calls of a layer.

    Raises:
      ValueError: as :func:`dense_kernels`, or if a transform dropped the inputs.
    """
    kernels = named.flatten(params_of(variables))
    names = dense_kernels(module, variables, *args, **kwargs)

    def note(name: str, layer: nn.Dense, x: jax.Array) -> None:
        layer.sow(INPUTS, "kernel", x)

    with nn.intercept_methods(_noting(note)):
        _, sown = module.apply(dict(variables), *args, mutable=[INPUTS], **kwargs)
    calls = named.flatten(sown.get(INPUTS, {}), lambda leaf: isinstance(leaf, tuple))
    for name in names:
        if name not in calls:
            raise ValueError(
                f"The inputs of {name!r} were dropped by an nn.scan or nn.vmap, "
                f"expected {INPUTS!r} in its variable_axes, with axis 0."
            )
    return {name: _rows(calls[name], kernels[name].ndim - 2) for name in names}


def _rows(calls: tuple[jax.Array, ...], lead: int) -> jax.Array:
    flat = [x.reshape(*x.shape[:lead], -1, x.shape[-1]) for x in calls]
    return jnp.concatenate(flat, axis=-2)


def _noting(note: Callable[[str, nn.Dense, jax.Array], None]) -> Callable:
    """An interceptor that shows each call of an ``nn.Dense``, and changes nothing."""

    def show(call, args, kwargs, context):
        layer = context.module
        if isinstance(layer, nn.Dense) and context.method_name == "__call__":
            x = jnp.asarray(args[0] if args else kwargs["inputs"])
            note("/".join((*layer.path, "kernel")), layer, x)
        return call(*args, **kwargs)

    return show
