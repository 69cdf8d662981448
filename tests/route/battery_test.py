"""One battery for all presets: a new route joins the list and is tested."""

import dataclasses

import pytest

from jaxlora import route, testing
from jaxlora.route import LAWS, Route

BROKEN = 1e-3

SAME_PARTS = {
    *("uniform", "arrow-cosine", "top-1", "spectr", "average-activation", "linear"),
    *("arrow[peft]", "arrow[mttl]", "arrow[phatgoose]", "genknowsub[peft]"),
    *("random-arrow", "genknowsub", "phatgoose"),
}
"""Made of gates, mixings and preparations that others have: compiled when slow."""

IN_DECODER = {"smear", "lora-flow", "retrieval"}
"""One per site (by sequence), layer (by token) and model; the others run in a decoder
when slow. A token's route per site, Arrow's, is held in tests/models: by generation,
step by step, and by packed rows."""

TRAINED = {
    f"training of {name}": route.describe(name).training
    for name in route.names()
    if route.describe(name).training not in (None, route.describe(name).route)
}
"""Routes that keys are trained with, where they are others."""

HIGHER = {
    "linear, once a layer, by sequence": Route(
        gate=route.Linear(per="layer"), granularity="sequence", top_k=2
    ),
    "linear, once a model": Route(gate=route.Linear(per="model")),
    "uniform, once a layer": Route(gate=route.Uniform(per="layer")),
    "arrow, of two experts, by sequence": Route(
        gate=route.arrow, top_k=2, weighting="unit", granularity="sequence"
    ),
}
ROUTES = {n: route.preset(n) for n in route.names()} | TRAINED | HIGHER
QUICK = set(route.names()) - SAME_PARTS | set(TRAINED)
NAMES = [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in ROUTES]
DEEP = [n for n in ROUTES if n not in QUICK or n not in IN_DECODER]


@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_laws_it_declares_and_no_other(name):
    battery = testing.GateBattery(ROUTES[name], decoder=name in IN_DECODER)
    battery.check()
    undeclared = set(LAWS) - battery.route.laws
    for law, size in battery.violations(undeclared).items():
        assert size > BROKEN, f"{name} keeps {law}: {size:.2g}"


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_keeps_its_laws_in_a_decoder_too(name):
    battery = testing.GateBattery(ROUTES[name])
    declared = {"batch", "decode"} & battery.route.laws
    for law, size in battery.violations(declared).items():
        assert size < testing.gates.RTOL, f"{name} breaks {law}: {size:.2g}"


def test_every_per_and_granularity_is_in_the_quick_part():
    quick = [ROUTES[name] for name in IN_DECODER]
    assert {way.per for way in quick} == {"site", "layer", "model"}
    assert {way.granularity for way in quick} == {"token", "sequence"}


def test_an_undeclared_law_can_be_declared_in_vain():
    @dataclasses.dataclass(frozen=True)
    class Claims(route.Random):
        laws = frozenset(LAWS)

    with pytest.raises(AssertionError, match="breaks the law permutation"):
        testing.check_gate(Claims(), decoder=False)
