"""An adapter on any Linen module that uses ``nn.Dense``, without changing it.

The adapter travels as the ``lora`` collection, and a method interceptor adds its update
to the output of each ``nn.Dense``. Lifted transforms treat the collection as any other:
``nn.remat`` passes it on, ``nn.scan`` and ``nn.vmap`` slice it if their
``variable_axes`` name it. ``nn.jit`` inside a module hides a repeated call from the
interceptor, and is refused then; ``jax.jit`` around the whole call is fine.

>>> class Mlp(nn.Module):
...     @nn.compact
...     def __call__(self, x):
...         return nn.Dense(3, name="down")(nn.relu(nn.Dense(4, name="up")(x)))
>>> x = jnp.ones((2, 5))
>>> variables = Mlp().init(jax.random.key(0), x)
>>> config = lora.LoraConfig(rank=2, targets=("up/kernel",))
>>> adapter = lora.init(jax.random.key(1), variables["params"], config)
>>> apply_with_lora(Mlp(), variables, adapter, x).shape
(2, 3)
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora.lora import Adapter
from jaxlora.models.layers import apply_lora
from jaxlora.tree import Tree


def apply_with_lora(
    module: nn.Module,
    variables: Mapping[str, Tree],
    adapter: Adapter,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """As ``module.apply(variables, *args, **kwargs)``, with an adapter.

    Every ``nn.Dense`` at a path of the adapter returns ``x W + bias + scale * x a b``.
    Works under ``jit``, ``grad`` and ``vmap`` over a library.

    Args:
      module: any Linen module.
      variables: its collections, ``params`` among them.
      adapter: mirrors ``params``, with a :class:`LoraWeight` at each adapted kernel.
      *args: arguments of the module.
      **kwargs: as in ``module.apply``, for example ``rngs``, ``mutable``, ``method``.

    Raises:
      ValueError: if the adapter does not fit ``params``, or a site of it is no kernel
        of an ``nn.Dense`` that this call used: it would have had no effect.
    """
    if "lora" in variables:
        raise ValueError(
            "The variables already hold a 'lora' collection; give the adapter once."
        )
    lora.check(variables["params"], adapter)
    seen: dict[str, bool] = {}

    def add(call, args, kwargs, context):
        y = call(*args, **kwargs)
        layer = context.module
        if not isinstance(layer, nn.Dense) or context.method_name != "__call__":
            return y
        name = "/".join((*layer.path, "kernel"))
        adapted = layer.has_variable("lora", "kernel")
        seen[name] = seen.get(name, False) or adapted
        if not adapted:
            return y
        x = jnp.asarray(args[0] if args else kwargs["inputs"])
        return y + _update(name, layer, x).astype(y.dtype)

    with nn.intercept_methods(add):
        out = module.apply({**variables, "lora": adapter}, *args, **kwargs)
    _refuse_unused(adapter, seen)
    return out


def _update(name: str, layer: nn.Dense, x: jax.Array) -> jax.Array:
    weight = layer.get_variable("lora", "kernel")
    if weight.a.ndim != 2:
        raise ValueError(
            f"Site {name!r} reached its layer with a of shape {weight.a.shape}, "
            f"expected [D, R]: nn.scan or nn.vmap slices the kernel but not the "
            f"adapter. Add 'lora' to its variable_axes, beside 'params'."
        )
    return apply_lora(weight, x)


def _refuse_unused(adapter: Adapter, seen: Mapping[str, bool]) -> None:
    idle = [name for name in lora.sites(adapter) if not seen.get(name)]
    if not idle:
        return
    if idle[0] in seen:
        raise ValueError(
            f"The adapter's site {idle[0]!r} did not reach its layer: nn.scan or "
            f"nn.vmap drops collections that its variable_axes do not name. Add "
            f"'lora' beside 'params', or put lora.fuse(params, adapter) in variables."
        )
    raise ValueError(
        f"The adapter's sites {', '.join(map(repr, idle))} had no effect: this call "
        f"used no nn.Dense there. It used {', '.join(map(repr, seen)) or 'none'}; "
        f"other layers (DenseGeneral, Conv), and modules under nn.jit, take an adapter "
        f"by lora.fuse."
    )
