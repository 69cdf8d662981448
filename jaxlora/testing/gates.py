"""One battery for any route: the laws it declares, and what every route must do.

A law is tested on small libraries that are made here, and its *violation* is a number:
the distance of weights or updates that should be equal, relative to their norm, at the
worst place. On arrays (``Route.weigh`` and ``mix`` at every site) all that the laws
compare is stacked and run by one compiled program; what it is compared with runs step
by step, under ``jax.disable_jit``. The laws of batches and of decoding also run in a
decoder of two layers.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import Library
from jaxlora.route import LAWS, Gate, Route
from jaxlora.testing import gate_calls as calls
from jaxlora.testing import gate_worlds as worlds
from jaxlora.testing import laws as common
from jaxlora.testing.gate_decoder import InDecoder
from jaxlora.testing.gate_worlds import Call, MakeGateData, apart

RTOL = 1e-4
"""Default tolerance: some hundred roundings of float32, as decompositions make them."""
BF16 = 0.05
"""The same for bfloat16, of some ten roundings."""


def check_gate(
    route: Route | Gate,
    *,
    laws: Iterable[str] | None = None,
    key: jax.Array | None = None,
    data: MakeGateData | None = None,
    decoder: bool = True,
    rtol: float = RTOL,
) -> None:
    """Asserts that a route keeps its laws, and does what every route must.

    Every route must: give finite weights [N, E] in float32, also where inputs are NaN
    or infinite, and say where (``nonfinite``); give the same under jit and without, and
    under vmap over libraries and in a loop; weigh in bfloat16 as the rounded values are
    weighed in float32; have finite gradients by library, keys and inputs; compile once;
    and be a value, hashable and equal to its copy.

    Args:
      route: any :class:`~jaxlora.route.Route`, or a gate, for a route of its defaults.
      laws: those to test; by default the ones that the route declares.
      key: for gates that draw; all libraries of a law get the same.
      data: for gates that see data, ``data(library) -> {path: arrays [E, ...]}``, as
        their ``init`` takes them. Gates of ``jaxlora.route`` need none given here.
      decoder: also test the laws batch and decode in a decoder, which is most of the
        time; without it, decode is not tested.
      rtol: the largest violation that is a rounding error.

    Raises:
      AssertionError: naming the law and the size of the violation.
      ValueError: if a law is unknown, or data are needed and not given.

    >>> from jaxlora import route
    >>> check_gate(route.arrow, laws=["gauge"], decoder=False)
    """
    GateBattery(route, key=key, data=data, decoder=decoder).check(laws, rtol)


def gate_violations(
    route: Route | Gate,
    *,
    laws: Iterable[str] | None = None,
    key: jax.Array | None = None,
    data: MakeGateData | None = None,
    decoder: bool = True,
) -> dict[str, float]:
    """How far a route is from each law, declared or not: the size by name.

    0 is a law that is kept to the last bit, 1 a difference as large as the result, inf
    a result that is not finite.

    Args:
      route: any route or gate.
      laws: by default all of them.
      key: for gates that draw; all libraries of a law get the same.
      data: for gates that see data, ``data(library) -> {path: arrays [E, ...]}``, as
        their ``init`` takes them. Gates of ``jaxlora.route`` need none given here.
      decoder: also measure the laws batch and decode in a decoder; without it, decode
        is left out.

    >>> from jaxlora import route
    >>> sizes = gate_violations(route.random, laws=["permutation", "gauge"])
    >>> (sizes["permutation"] > 0.1, sizes["gauge"] < 1e-5)
    (True, True)
    """
    return GateBattery(route, key=key, data=data, decoder=decoder).violations(laws)


class GateBattery:
    """What both share: one compiled program on arrays, and two of a decoder."""

    def __init__(
        self,
        route: Route | Gate,
        *,
        key: jax.Array | None = None,
        data: MakeGateData | None = None,
        decoder: bool = True,
    ):
        self.route = Route(gate=route) if isinstance(route, Gate) else route
        self.key = jax.random.key(0) if key is None else key
        self.library: Library = worlds.gate_library()
        self.data = worlds.gate_data(self.route, data, self.library)
        self.call = calls.plain(self.library, self.data)
        self.decoder = decoder
        self.traces = 0

    def check(self, laws: Iterable[str] | None = None, rtol: float = RTOL) -> None:
        """Asserts what :func:`check_gate` does.

        Args:
          laws: those to test; by default the ones that the route declares.
          rtol: the largest violation that is a rounding error.
        """
        common.assert_value(self.route, "Gates are frozen dataclasses.")
        self._check_weights()
        self._check_nonfinite()
        self._check_gradients()
        self._check_runs(rtol)
        sizes = self.violations(self.route.laws if laws is None else laws)
        common.assert_kept(self.route, sizes, LAWS, rtol)

    def violations(self, laws: Iterable[str] | None = None) -> dict[str, float]:
        """Returns the size of each law's violation, by name.

        Args:
          laws: by default all of them.
        """
        chosen = LAWS if laws is None else list(laws)
        if not self.decoder:
            chosen = [law for law in chosen if law != "decode"]
        return common.sizes(chosen, LAWS, lambda law: getattr(self, f"_{law}")())

    # One method for each law.

    def _permutation(self) -> float:
        plain = self._shown("plain", experts=list(calls.ORDER))
        return apart(self._shown("permuted"), plain)

    def _identity(self) -> float:
        only = self._eagerly(calls.some(self.call, [1]))["updates"]
        return apart(only, calls.alone(self.call, 1))

    def _absent(self) -> float:
        rest = calls.shown(self._eagerly(calls.some(self.call, [0, 1, 2])))
        worst = 0.0
        for variant in ("absent", "poisoned"):
            last = [w[..., 3] for w in self._shown(variant)["weights"].values()]
            # A weight of its own is a violation even where it multiplies zeros.
            weight = float(np.max(np.abs(last)))
            weight = weight if np.isfinite(weight) else float("inf")
            kept = self._shown(variant, experts=[0, 1, 2])
            worst = max(worst, weight, apart(kept, rest))
        return worst

    def _gauge(self) -> float:
        return apart(self._shown("regauged"), self._shown("plain"))

    def _batch(self) -> float:
        sound = [n for n in range(worlds.N) if n not in calls.LOST]
        rows = apart(self._shown("lost", sound), self._shown("plain", sound))
        return max(rows, self.in_decoder.rows()) if self.decoder else rows

    def _decode(self) -> float:
        return self.in_decoder.steps()

    # What every route must do.

    def _check_weights(self) -> None:
        for variant, run in self.runs.items():
            for name, weights in run["weights"].items():
                chex.assert_shape(weights, (worlds.L, worlds.N, worlds.E))
                chex.assert_type(weights, jnp.float32)
                if not np.isfinite(weights).all():
                    raise AssertionError(
                        f"{self.route!r} gives weights at {name!r} that are not "
                        f"finite, for a library that is {variant}."
                    )

    def _check_nonfinite(self) -> None:
        plain, lost = self.runs["plain"], self.runs["lost"]
        for name, flags in lost["nonfinite"].items():
            weights = plain["weights"][name]
            # Weights that are the same everywhere need not look at the input.
            looks = bool(np.ptp(weights, axis=1).max() > 1e-6)
            if plain["nonfinite"][name].any():
                raise AssertionError(f"{self.route!r} calls finite inputs nonfinite.")
            if looks and not flags[:, list(calls.LOST)].all():
                raise AssertionError(
                    f"{self.route!r} passes over inputs at {name!r} that are NaN or "
                    f"infinite, and does not say so: `nonfinite` is false. Scores of "
                    f"such inputs must not be finite."
                )

    def _check_gradients(self) -> None:
        for variant in ("plain", "absent", "zero"):
            for leaf in jax.tree.leaves(self.runs[variant]["gradient"]):
                if not np.isfinite(leaf).all():
                    raise AssertionError(
                        f"{self.route!r} has gradients that are not finite, in the "
                        f"case {variant!r}; a root or a norm at zero needs care."
                    )

    def _check_runs(self, rtol: float) -> None:
        plain = calls.shown(self._eagerly(self.call))
        self._same("jit and vmap = eager", self._shown("plain"), plain, rtol)
        loop = calls.shown(self._eagerly(calls.some(self.call, calls.ORDER)))
        self._same("vmap over libraries = loop", self._shown("permuted"), loop, rtol)
        # Rounded values in float32 are what bfloat16 may be compared with.
        low = calls.shown(self._eagerly(calls.half(self.call)))
        chex.assert_type(list(low["weights"].values()), jnp.float32)
        self._same("bfloat16 = rounded values", low, self._shown("rounded"), BF16)
        common.assert_compiled_once(self.route, self.traces)

    def _same(self, what: str, got: Any, want: Any, rtol: float) -> None:
        common.assert_small(f"{self.route!r} breaks {what}", apart(got, want), rtol)

    # On arrays.

    @functools.cached_property
    def runs(self) -> dict[str, dict[str, Any]]:
        """What comes of each of the calls that laws compare, in NumPy."""
        variants = calls.variants(self.call)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *variants.values())

        @functools.partial(jax.jit, static_argnums=0)
        def run(route: Route, calls: Call, key: jax.Array):
            self.traces += 1  # runs while tracing, and never again
            return jax.vmap(functools.partial(worlds.on_arrays, route, key))(calls)

        results = jax.device_get(run(self.route, stacked, self.key))
        # An equal route and other numbers: the program that there is must do.
        run(dataclasses.replace(self.route), stacked, jax.random.key(1))
        return {
            name: jax.tree.map(lambda x, i=i: x[i], results)
            for i, name in enumerate(variants)
        }

    def _eagerly(self, call: Call) -> dict[str, Any]:
        experts = lora.num_experts(call.library)
        with jax.disable_jit():
            return worlds.on_arrays(self.route.fit(experts), self.key, call, False)

    def _shown(self, variant: str, rows=None, experts=None) -> dict[str, Any]:
        return calls.shown(self.runs[variant], rows, experts)

    @functools.cached_property
    def in_decoder(self) -> InDecoder:
        """The same route in a decoder, compiled where a law asks for it."""
        return InDecoder(self.route, self.library, self.data, self.key)
