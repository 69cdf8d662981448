"""Adapters and routed libraries on any Linen module, without changing it.

An adapter travels as the ``lora`` collection, and a method interceptor adds its update
to the output of each ``nn.Dense``; the state of a route is the collection ``gate``.
Lifted transforms treat them as any other: ``nn.remat`` passes them on, ``nn.scan`` and
``nn.vmap`` slice them if their ``variable_axes`` name them. ``nn.jit`` inside a module
hides a repeated call from the interceptor, and is refused then; ``jax.jit`` around the
whole call is fine.

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

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlora import lora, route
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.models.dense import params_of
from jaxlora.models.layers import apply_lora
from jaxlora.route import Route
from jaxlora.tree import Tree

Update: TypeAlias = Callable[[nn.Dense, LoraWeight, jax.Array], jax.Array]
"""What is added to the output of a layer, given its site and input [..., D]."""


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
    lora.check(_base_of(variables), adapter)

    call = module, {**variables, "lora": adapter}, args, kwargs
    return _applied(call, tuple(lora.sites(adapter)), lambda _, w, x: apply_lora(w, x))


def apply_with_route(
    module: nn.Module,
    variables: Mapping[str, Tree],
    way: Route,
    library: Library,
    gate: Tree,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """As :func:`apply_with_lora`, with a library whose experts a gate weighs.

    Every ``nn.Dense`` at a site of the library adds the updates of its experts, weighed
    for each row of its input. An ``nn.scan`` names ``lora`` and ``gate`` in its
    ``variable_axes``, with axis 0.

    Args:
      module: any Linen module.
      variables: its collections, ``params`` among them.
      way: a route by token with a decision per site.
      library: [E, ...], as the route uses it (``way.library``).
      gate: ``way.init(library)``.
      *args: arguments of the module.
      **kwargs: as in ``module.apply``.

    Raises:
      ValueError: as :func:`apply_with_lora`; also if the route needs more than the
        input of a site, or the gate's state was made for another library.

    >>> layer, x = nn.Dense(3), jnp.ones((2, 5))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> site = lora.LoraWeight(jnp.ones((2, 5, 1)), jnp.ones((2, 1, 3)), jnp.ones(2))
    >>> way, library = route.preset("arrow", top_k=1), {"kernel": site}
    >>> gate = jax.jit(way.init)(library)
    >>> apply_with_route(layer, variables, way, library, gate, x).shape
    (2, 3)
    """
    _check_way(way)
    experts = lora.num_experts(library)
    lora.check(_base_of(variables), library, experts)
    route.check(way, gate, library)
    fitted = way.fit(experts)

    def update(layer: nn.Dense, weight: LoraWeight, x: jax.Array) -> jax.Array:
        flat = x.reshape(-1, x.shape[-1])
        if not layer.has_variable("gate", "kernel"):
            raise ValueError(_not_sliced("gate", layer))
        weights = fitted.weights(layer.get_variable("gate", "kernel"), flat)
        return fitted.mix(weight, flat, weights).reshape(*x.shape[:-1], -1)

    # Layers first: a scan over them slices axis 0, and leaves all experts of a layer.
    moved = {
        "lora": lora.lora_map(lambda w: _experts_last(w, w.scale.ndim), library),
        "gate": jax.tree.map(
            lambda s: _experts_last(s, s.live.ndim), gate, is_leaf=route.is_state
        ),
    }
    call = module, {**variables, **moved}, args, kwargs
    return _applied(call, tuple(lora.sites(library)), update, experts)


def _base_of(variables: Mapping[str, Tree]) -> Tree:
    if "lora" in variables:
        raise ValueError(
            "The variables already hold a 'lora' collection; give the adapter once."
        )
    return params_of(variables)


def _check_way(way: Route) -> None:
    if way.per != "site" or way.granularity != "token" or way.gate.data == "labels":
        raise ValueError(
            f"The route decides per {way.per} and by {way.granularity}, and its gate "
            f"sees {way.gate.data!r}; expected a decision per 'site' and by 'token', "
            f"and no labels: a module of yours shows its sites, not its layers."
        )


def _experts_last(node: Any, lead: int) -> Any:
    """Moves E from the first to the last of ``lead`` axes, behind the layers."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, lead - 1), node)


def _applied(
    call: tuple, sites: tuple[str, ...], update: Update, experts: int | None = None
) -> Any:
    """Applies a module with an update at its sites, all of which must be used."""
    module, collections, args, kwargs = call
    seen: dict[str, bool] = {}

    lead = () if experts is None else (experts,)

    def site_update(layer: nn.Dense, x: jax.Array) -> jax.Array:
        weight = layer.get_variable("lora", "kernel")
        if weight.a.shape[:-2] != lead:
            raise ValueError(_not_sliced("lora", layer))
        return update(layer, weight, x)

    with nn.intercept_methods(_adding(seen, site_update)):
        out = module.apply(collections, *args, **kwargs)
    _refuse_unused(sites, seen)
    return out


def _adding(seen: dict[str, bool], update: Callable) -> Callable:
    """An interceptor that adds updates, and notes in ``seen`` which sites got one."""

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
        return y + update(layer, x).astype(y.dtype)

    return add


def _not_sliced(collection: str, layer: nn.Dense) -> str:
    name = "/".join((*layer.path, "kernel"))
    return (
        f"Site {name!r} reached its layer without its part of {collection!r}: nn.scan "
        f"or nn.vmap slices the kernel but not the adapter. Add {collection!r} to its "
        f"variable_axes, beside 'params', with axis 0."
    )


def _refuse_unused(sites: tuple[str, ...], seen: Mapping[str, bool]) -> None:
    idle = [name for name in sites if not seen.get(name)]
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
