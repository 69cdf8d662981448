"""A gate: a pair of pure functions that scores the experts of a library.

``init(library) -> state`` reads the library once; ``score(keys, x) -> scores`` is what
runs for every token. The state has a :class:`State` at every place where weights are
computed: at each adapted kernel (level ``site``), once a layer, or once a model.
Gates know nothing of models: they see arrays, and the paths of an adapter tree.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Library, LoraWeight
from jaxlora.tree import Tree

ROUTER = "router"
"""The name of a state that several sites share: ``layers/router``, or ``router``."""

Level = Literal["site", "layer", "model"]

LAWS = {
    "permutation": "other order of the experts, same order of the weights",
    "identity": "a library of one expert routes as that adapter",
    "absent": "an expert of zero delta has weight zero, and changes nothing",
    "gauge": "other factors of the same deltas, same output",
    "batch": "a row depends on no other row, and not on its padding",
    "decode": "prompt and cached steps route as one call of all tokens does",
}
"""What a route may promise; ``jaxlora.testing.check_gate`` tests it."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a gate keeps of a library at one place; its arrays start with E (and L)."""

    keys: Any
    """What the gate compares an input with: arrays [E, L, ...], trained or computed."""
    live: jax.Array
    """[E, L], false where an expert's delta is zero: it is never chosen there."""
    mark: jax.Array
    """[E, L], a number that tells one delta from another; not changed by its gauge."""


def is_state(leaf: Any) -> bool:
    """``is_leaf`` for trees whose leaves are :class:`State`."""
    return isinstance(leaf, State)


def states(gate: Tree) -> dict[str, State]:
    """Returns ``{path: State}`` of a gate's state tree."""
    return named.flatten(gate, is_state)


@dataclasses.dataclass(frozen=True)
class Gate:
    """The base of all gates: subclass it, and say how keys are made and scored.

    A gate is a value, hashable and equal to its copy, so that it can be a static field
    of a model; its fields are its hyper-parameters.
    """

    data: ClassVar[str] = "free"
    """What ``init`` must see: nothing ("free"), the experts' "own" data, data of the
    "target" task, or "labels" in every call."""
    laws: ClassVar[frozenset[str]] = frozenset(LAWS)
    """Those of ``LAWS`` that it keeps, if nothing else of its route breaks them."""
    levels: ClassVar[tuple[Level, ...]] = ("site", "layer", "model")
    """Levels that the gate can work at."""
    level: Level = dataclasses.field(default="site", kw_only=True)
    """Where weights are computed: at every site, once a layer, or once a model."""

    def __post_init__(self):
        if self.level not in self.levels:
            raise ValueError(
                f"{type(self).__name__} got the level {self.level!r}, expected one of "
                f"{', '.join(map(repr, self.levels))}."
            )

    def keys(self, weight: LoraWeight, key: jax.Array, data: Any) -> Any:
        """Returns the keys of one place, arrays that start with [E, L].

        Args:
          weight: the library there; above the level of sites, an empty one whose a is
            [E, L, D, 0], D the model's width.
          key: PRNG key of the place.
          data: what was given for this place, or None.
        """
        raise NotImplementedError

    def score(self, keys: Any, x: jax.Array) -> jax.Array:
        """Scores the experts of one place for N inputs.

        Args:
          keys: of one layer, arrays [E, ...].
          x: [N, D], float32, normalised as the route says.

        Returns:
          [N, E], float32; higher is better.
        """
        raise NotImplementedError

    def finish(self, keys: Any, weights: jax.Array) -> jax.Array:
        """Last word on the weights [N, E]; by default they stay as they are."""
        del keys
        return weights

    def width(self, keys: Any) -> int | None:
        """In-features D that the keys are made for, or None for any."""
        del keys
        return None

    def init(
        self,
        library: Library,
        *,
        key: jax.Array | None = None,
        data: Any = None,
        width: int | None = None,
    ) -> Tree:
        """Returns the state of a library, a tree of :class:`State`.

        Args:
          library: [E, ...].
          key: PRNG key, for gates that draw; by default that of seed 0.
          data: ``{path: array [E, L, ...]}``, for gates that need some; ``router`` is
            the path of a gate above the level of sites.
          width: the model's width, for gates above the level of sites.

        Raises:
          ValueError: if the library is empty, or data or the width are needed and
            missing.
        """
        lora.num_experts(library)
        key = jax.random.key(0) if key is None else key
        places = _places(self, library, width)
        out = {}
        for i, (path, (weight, live, mark)) in enumerate(sorted(places.items())):
            given = _given(self, path, data)
            made = self.keys(weight, jax.random.fold_in(key, i), given)
            out[path] = State(made, live, mark)
        return named.unflatten(out)


def live(weight: LoraWeight) -> jax.Array:
    """Where an expert's delta is not zero, [E, L].

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 3)), jnp.arange(2.0))
    >>> live(w).tolist()
    [False, True]
    """
    a, b = (jnp.any(x != 0, axis=(-2, -1)) for x in (weight.a, weight.b))
    return a & b & (weight.scale != 0)


def mark(weight: LoraWeight) -> jax.Array:
    """A number for each delta, ``u^T delta v`` of two fixed waves u and v; [E, L]."""
    a, b = weight.a.astype(jnp.float32), weight.b.astype(jnp.float32)
    left = _wave(a.shape[-2], 1.0) @ a
    right = b @ _wave(b.shape[-1], 0.7)
    return weight.scale.astype(jnp.float32) * jnp.sum(left * right, axis=-1)


def marks_of(level: Level, library: Library) -> dict[str, jax.Array]:
    """``{path: mark}`` of every place of a level; above the sites, their sums."""
    sites = lora.sites(library)
    if level == "site":
        return {path: mark(w) for path, w in sites.items()}
    total = jnp.stack([mark(w) for w in sites.values()]).sum(axis=0)
    if level == "layer":
        return {f"layers/{ROUTER}": total}
    return {ROUTER: total.sum(axis=tuple(range(1, total.ndim)))}


def _wave(size: int, step: float) -> jax.Array:
    return jnp.cos(step * jnp.arange(size, dtype=jnp.float32) + 0.3)


def _given(gate: Gate, path: str, data: Any) -> Any:
    if data is None or path in data:
        return None if data is None else data[path]
    if gate.level != "site" and ROUTER in data:
        return data[ROUTER]
    raise ValueError(
        f"{gate!r} got no data for {path!r}, expected an array for every place; there "
        f"are data for {', '.join(map(repr, data))}."
    )


def _places(gate: Gate, library: Library, width: int | None):
    """``{path: (library there, live, mark)}`` for every place of a gate's level."""
    sites = lora.sites(library)
    if gate.level == "site":
        return {path: (w, live(w), mark(w)) for path, w in sites.items()}
    if width is None:
        raise ValueError(
            f"{gate!r} works at the level of the {gate.level}, so its init needs "
            f"width=, the model's hidden size; models.gate_state gives it."
        )
    # Sites of one stack share their leading axes [E, L].
    alive = jnp.stack([live(w) for w in sites.values()]).any(axis=0)
    if gate.level == "model":
        alive = alive.any(axis=tuple(range(1, alive.ndim)))
    ((path, marks),) = marks_of(gate.level, library).items()
    empty = LoraWeight(
        a=jnp.zeros((*alive.shape, width, 0)),
        b=jnp.zeros((*alive.shape, 0, width)),
        scale=jnp.ones(alive.shape),
    )
    return {path: (empty, alive, marks)}
