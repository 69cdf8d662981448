"""Decisions per layer where layers are of several kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, route
from jaxlora import tree as named
from jaxlora.lora import LoraWeight
from jaxlora.route import Flow, Linear, Route, Uniform

E, L, P, D = 3, 6, 3, 4


@pytest.fixture(scope="module")
def stack():
    """Experts at two sites of all layers; one does nothing in one of them."""
    rng = np.random.default_rng(0)

    def site(f):
        shapes = (E, L, D, 2), (E, L, 2, f)
        a, b = (rng.standard_normal(x).astype(np.float32) for x in shapes)
        b[1, 4] = 0
        return LoraWeight(jnp.asarray(a), jnp.asarray(b), jnp.ones((E, L)))

    return {"layers": {"q": {"kernel": site(5)}, "v": {"kernel": site(3)}}}


def kinds(library, some=range(P)):
    return named.unflatten(
        {
            f"layers/{n}/{name.removeprefix('layers/')}": jax.tree.map(
                lambda x, n=n: x[:, n::P], weight
            )
            for name, weight in lora.sites(library).items()
            for n in some
        }
    )


@pytest.mark.parametrize(
    ("gate", "data"),
    [
        (Uniform(per="layer"), None),
        (Linear(per="layer", start="normal"), None),
        (Linear(per="layer"), jnp.arange(E * L * D, dtype=jnp.float32)),
        (Flow(), None),
    ],
)
@pytest.mark.parametrize("some", [(0, 1, 2), (0, 2)])
def test_kinds_that_are_alike_have_the_gates_of_a_plain_stack(stack, gate, data, some):
    data = None if data is None else {"router": data.reshape(E, L, D)}
    given = {"key": jax.random.key(3), "data": data, "width": D}
    want = route.states(gate.init(stack, **given))["layers/router"]
    library = kinds(stack, some)
    got = gate.init(library, **given, period=P)
    route.check(Route(gate=gate), got, library)
    assert [*route.states(got)] == [f"layers/{n}/router" for n in some]
    for n in some:
        mine = jax.tree.map(lambda x, n=n: x[:, n::P], want)
        jax.tree.map(
            np.testing.assert_array_equal, route.states(got)[f"layers/{n}/router"], mine
        )


def test_a_gate_of_other_experts_or_kinds_is_refused(stack):
    gate = Uniform(per="layer")
    state = gate.init(kinds(stack), width=D, period=P)
    other = kinds(lora.lora_map(lambda w: w.replace(a=2 * w.a), stack))
    with pytest.raises(route.StateError, match="0/router' was made for another"):
        route.check(Route(gate=gate), state, other)
    with pytest.raises(route.StateError, match="differ in layers/1/router"):
        route.check(Route(gate=gate), state, kinds(stack, (0, 2)))
    with pytest.raises(ValueError, match="needs period= for its init"):
        gate.init(kinds(stack), width=D)
