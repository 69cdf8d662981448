"""A gate: a pair of pure functions that scores the experts of a library.

``init(library) -> state`` reads the library once; ``score(keys, x) -> scores`` is what
runs for every token. The state has a :class:`State` at every place where a decision
is made: one per ``site`` (an adapted kernel), per ``layer`` or per ``model``. Gates
know nothing of models: they see arrays, and the paths of an adapter tree.
"""

import dataclasses
from typing import Any, ClassVar

import jax

from jaxlora import lora, periods
from jaxlora import tree as named
from jaxlora.lora import Library, LoraWeight
from jaxlora.route.deltas import ROUTER, Per, places, routers
from jaxlora.tree import Tree

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
    fingerprint: jax.Array
    """[E, L], a number that tells one delta from another; not changed by its gauge."""


def is_state(leaf: Any) -> bool:
    """``is_leaf`` for trees whose leaves are :class:`State`."""
    return isinstance(leaf, State)


def states(gate: Tree) -> dict[str, State]:
    """Returns ``{path: State}`` of a gate's state tree.

    Args:
      gate: as :meth:`Gate.init` returns it.
    """
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
    supports: ClassVar[tuple[Per, ...]] = ("site", "layer", "model")
    """Values of ``per`` that the gate can work with."""
    per: Per = dataclasses.field(default="site", kw_only=True)
    """One decision per site, layer or model: how far weights are shared."""

    def __post_init__(self):
        if self.per not in self.supports:
            raise ValueError(
                f"{type(self).__name__} decides per {self.per!r}, expected one of "
                f"{', '.join(map(repr, self.supports))}."
            )

    def keys(self, weight: LoraWeight, key: jax.Array, data: Any) -> Any:
        """Returns the keys of one place, arrays that start with [E, L].

        Args:
          weight: the library there; of a decision per layer or model, an empty one
            whose a is [E, L, D, 0], D the model's width.
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
        """Last word on the weights; by default they stay as they are.

        Args:
          keys: of one layer, arrays [E, ...].
          weights: [N, E], as the route made them of the scores.

        Returns:
          [N, E], float32.
        """
        del keys
        return weights

    def width(self, keys: Any) -> int | None:
        """In-features D that the keys are made for, or None for any.

        Args:
          keys: of one layer, arrays [E, ...].
        """
        del keys
        return None

    def init(
        self,
        library: Library,
        *,
        key: jax.Array | None = None,
        data: Any = None,
        width: int | None = None,
        period: int | None = None,
    ) -> Tree:
        """Returns the state of a library, a tree of :class:`State`.

        Args:
          library: [E, ...].
          key: PRNG key, for gates that draw; by default that of seed 0.
          data: ``{path: array [E, L, ...]}``, for gates that need some; ``router`` is
            the path of a decision per layer or model.
          width: the model's width, for a decision per layer or model.
          period: kinds of layers in a row, for a decision per layer where there are
            several; data and draws are of all layers in their order.

        Raises:
          ValueError: if the library is empty, or data, width or period are needed and
            missing.
        """
        lora.num_experts(library)
        key = jax.random.key(0) if key is None else key
        every = places(self.per, library, width, period)
        out = {}
        for i, (path, place) in enumerate(sorted(every.items())):
            given = _given(self, path, data)
            keys = self.keys(place.weight, jax.random.fold_in(key, i), given)
            out[path] = State(keys, place.live, place.fingerprint)
        if self.per == "layer":
            (state,), paths = out.values(), routers(library)
            out = {path: _of_kind(path, state, period) for path in paths}
        return named.unflatten(out)


def _of_kind(path: str, state: State, period: int | None) -> State:
    """Of a state of all layers [E, L, ...] that of the layers at a path."""
    number = periods.split(path)[1]
    if number is None:
        return state
    return jax.tree.map(lambda x: x[:, number::period], state)


def _given(gate: Gate, path: str, data: Any) -> Any:
    if data is None or path in data:
        return None if data is None else data[path]
    if gate.per != "site" and ROUTER in data:
        return data[ROUTER]
    raise ValueError(
        f"{gate!r} got no data for {path!r}, expected an array for every place; there "
        f"are data for {', '.join(map(repr, data))}."
    )
