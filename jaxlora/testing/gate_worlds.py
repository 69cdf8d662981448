"""Libraries, data and calls for the battery of gates: on arrays, and in a decoder."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Library, LoraWeight
from jaxlora.models import Adapted, Decoder, DecoderConfig, Inputs, cache, init, routing
from jaxlora.models.variables import spread, variables
from jaxlora.route import ROUTER, Flow, Linear, Nearest, Route, State, is_state
from jaxlora.testing.libraries import distance
from jaxlora.tree import Tree

MakeGateData = Callable[[Library], Any]

E, L, D, N, RANK = 4, 2, 8, 5, 2
CONFIG = DecoderConfig(
    vocab_size=11,
    hidden_size=D,
    num_layers=L,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    mlp_size=D,
    positions="rope",
)
SITES = {
    "layers/attn/q_proj/kernel": (D, D),
    "layers/mlp/down_proj/kernel": (D, D),
}


class Call(NamedTuple):
    """What a route is called with on arrays; the arguments of :func:`on_arrays`."""

    library: Library
    """[E, L, ...]."""
    data: Any
    """As ``Gate.init`` takes them, {} for none."""
    x: dict[str, jax.Array]
    """Inputs [L, N, D] of every site, and of ``router``."""
    labels: jax.Array
    """[L, N, E], for the oracle."""
    poison: jax.Array
    """[E], true where keys are made NaN once they are there."""


def gate_library(seed: int = 0) -> Library:
    """Four experts of rank 2 at two sites of a small decoder, of unequal scales.

    Args:
      seed: of the numbers.

    >>> {name: w.a.shape for name, w in lora.sites(gate_library()).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'layers/attn/q_proj/kernel': (4, 2, 8, 2),
     'layers/mlp/down_proj/kernel': (4, 2, 8, 2)}
    """
    rng = np.random.default_rng(seed)

    def draw(d: int, f: int) -> LoraWeight:
        a = rng.standard_normal((E, L, d, RANK))
        b = rng.standard_normal((E, L, RANK, f))
        scale = rng.uniform(0.5, 2.0, (E, L))
        return LoraWeight(*(jnp.asarray(z, jnp.float32) for z in (a, b, scale)))

    return named.unflatten({name: draw(*size) for name, size in SITES.items()})


def without(library: Library, expert: int) -> Library:
    """The library with zeros in place of an expert, as padding leaves them.

    Args:
      library: leaves [E, ...].
      expert: its number.
    """
    return jax.tree.map(lambda x: x.at[expert].set(0), library)


def site_inputs(seed: int = 0) -> dict[str, jax.Array]:
    """Inputs [L, N, D] of every site, and of a router above them.

    Args:
      seed: of the numbers.
    """
    rng = np.random.default_rng(seed)
    sizes = {name: d for name, (d, _) in SITES.items()} | {ROUTER: D}
    return {
        name: jnp.asarray(rng.standard_normal((L, N, d)), jnp.float32)
        for name, d in sizes.items()
    }


def labels_of(*shape: int, seed: int = 0) -> jax.Array:
    """Positive labels for the oracle, that do not sum to one.

    Args:
      *shape: of the labels, experts last.
      seed: of the numbers.
    """
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(0.1, 1.0, shape), jnp.float32)


def gate_data(route: Route, data: MakeGateData | None, library: Library) -> Any:
    """Data of a gate: the given, or random keys for gates that are known here.

    Args:
      route: whose gate.
      data: a function ``library -> {path: arrays [E, ...]}``, or None.
      library: the data are for, leaves [E, ...].
    """
    gate = route.gate
    if gate.data in ("free", "labels"):
        return {}
    if data is not None:
        return jax.tree.map(jnp.asarray, data(library))
    rng, out = np.random.default_rng(0), {}

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    for path, lead, width in _places(route):
        if isinstance(gate, Flow):
            out[path] = {"kernel": draw(*lead, width), "bias": draw(*lead)}
        elif isinstance(gate, Nearest):
            out[path] = draw(*lead, 3, width)
        elif isinstance(gate, Linear):
            out[path] = draw(*lead, width)
        else:
            raise ValueError(
                f"{gate!r} sees {gate.data} data, and what they look like is not known "
                f"here: pass data, a function library -> {{path: arrays [E, ...]}}, as "
                f"its init takes them."
            )
    return out


def _places(route: Route) -> list[tuple[str, tuple[int, ...], int]]:
    if route.per == "site":
        return [(name, (E, L), d) for name, (d, _) in SITES.items()]
    if route.per == "layer":
        return [(f"layers/{ROUTER}", (E, L), D)]
    return [(ROUTER, (E,), D)]


def state_of(route: Route, library: Library, data: Any, key: jax.Array) -> Tree:
    """The gate's state, as a model of width 8 has it.

    Args:
      route: whose gate.
      library: leaves [E, L, ...].
      data: as ``Gate.init`` takes them, {} for none.
      key: PRNG key, for gates that draw.
    """
    return route.init(library, key=key, data=data or None, width=D)


def on_arrays(
    route: Route, key: jax.Array, call: Call, slopes: bool = True
) -> dict[str, Any]:
    """Weighs and mixes at every site and layer, and takes gradients if asked to.

    Args:
      route: is tested.
      key: PRNG key, for gates that draw.
      call: library, data, inputs and labels.
      slopes: whether gradients are taken.

    Returns:
      ``weights`` [L, N, E], ``updates`` [L, N, F], ``nonfinite`` [L, N], each by path,
      and ``gradient``: of the squared updates, by library, keys and inputs.
    """
    library = route.library(call.library)
    state = state_of(route, library, call.data, key)
    if not slopes:
        return _weigh_all(route, library, state, call.x, call.labels)
    # Only floats have gradients; flags of live experts are put back as they were.
    leaves, form = jax.tree.flatten(state)
    bad = [_poisoned(leaf, call.poison) for leaf in leaves]
    floats = [
        i for i, leaf in enumerate(bad) if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]

    def loss(library, keys, x):
        filled = dict(zip(floats, keys, strict=True))
        full = [filled.get(i, leaf) for i, leaf in enumerate(bad)]
        run = _weigh_all(route, library, form.unflatten(full), x, call.labels)
        squares = [jnp.sum(y.astype(jnp.float32) ** 2) for y in run["updates"].values()]
        return sum(squares, jnp.float32(0)), run

    slope = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
    gradient, run = slope(library, [bad[i] for i in floats], call.x)
    return run | {"gradient": gradient}


def _poisoned(leaf: jax.Array, poison: jax.Array) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    where = poison.reshape(-1, *(1,) * (leaf.ndim - 1))
    return jnp.where(where, jnp.nan, leaf)


def _weigh_all(route: Route, library: Library, state: Tree, x, labels):
    states = named.flatten(state, is_state)
    weights, nonfinite, updates = {}, {}, {}
    for path, (place, above) in {n: _state_at(route, states, n) for n in SITES}.items():
        key = ROUTER if above else path
        if key not in weights:
            weights[key], nonfinite[key] = _by_layer(route, place, x[key], labels)
        updates[path] = jax.vmap(route.mix, in_axes=(1, 0, 0))(
            lora.sites(library)[path], x[path], weights[key]
        )
    return {"weights": weights, "nonfinite": nonfinite, "updates": updates}


def _state_at(route: Route, states, name: str) -> tuple[State | None, bool]:
    if route.per == "site":
        return states.get(name), False
    return states[ROUTER if route.per == "model" else f"layers/{ROUTER}"], True


def _by_layer(route: Route, state: State | None, x: jax.Array, labels: jax.Array):
    if route.per == "model":  # weighed once, for all layers
        weighed = route.weigh(state, x[0], labels[0])
        return tuple(jnp.broadcast_to(z, (L, *z.shape)) for z in weighed)
    axis = None if state is None else 1
    return tuple(jax.vmap(route.weigh, in_axes=(axis, 0, 0))(state, x, labels))


# In a decoder.


def base_of(seed: int = 0) -> Tree:
    """Params of the small decoder, drawn in NumPy.

    Args:
      seed: of the numbers.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), Decoder(CONFIG)))

    def draw(name: str, leaf: Any) -> jax.Array:
        drawn = rng.standard_normal(leaf.shape)
        fan = leaf.shape[-2] if name.endswith("kernel") else 1.0
        value = 1 + 0.1 * drawn if name.endswith("scale") else drawn * fan**-0.5
        return jnp.asarray(value, leaf.dtype)

    return named.map_named(draw, shapes)


def in_decoder(route: Route, base, library, gate, tokens, segments, positions, labels):
    """One call of all tokens: hidden states [B, T, D], and the weights by site."""
    model = Decoder(CONFIG, route)
    given = variables(model, base, tokens, Adapted(None, library, gate), labels)
    labels = spread(model, tokens, labels)
    inputs = Inputs(tokens, None, segments, positions)
    out, sown = model.apply(given, inputs, labels, mutable=["routes"])
    return {"hidden": out.hidden} | _chosen(sown, tokens)


def in_steps(route: Route, base, library, gate, tokens, stored: cache.Cache, mask):
    """The next tokens of a cached call: the same, and the next cache."""
    model = Decoder(CONFIG, route)
    given = variables(model, base, tokens, Adapted(None, library, gate))
    if stored.pooled is not None:
        given[routing.POOLED] = stored.pooled
    sowing = ["routes", routing.POOLED]
    inputs = Inputs(tokens, mask)
    (x, after), sown = model.apply(given, inputs, cache=stored, mutable=sowing)
    after = after.replace(pooled=sown.get(routing.POOLED, stored.pooled))
    return {"hidden": x} | _chosen(sown, tokens), after


def _chosen(kept, tokens) -> dict[str, jax.Array]:
    sown = named.flatten(kept["routes"], lambda leaf: isinstance(leaf, tuple))
    return {
        name: jnp.moveaxis(leaf[0].reshape(L, *tokens.shape, -1), 0, 2)  # [B, T, L, E]
        for name, leaf in sown.items()
        if name.endswith("kernel")
    }


def apart(got: dict[str, Any], want: dict[str, Any]) -> float:
    """The relative distance of two results, at the worst of their arrays.

    Args:
      got: arrays by name, nested or not.
      want: arrays of the same names and shapes.
    """

    def flat(tree: Any) -> dict[str, np.ndarray]:
        return {k: np.asarray(v, np.float64) for k, v in named.flatten(tree).items()}

    return distance(flat(got), flat(want))
