"""Every claim holds, and fails when its assumption is broken on purpose."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge
from jaxlora.theory import (
    bounds,
    claims,
    edits,
    measure,
    measure_bounds,
    memory,
    model,
    predict,
    world,
)
from jaxlora.theory.claims_text import TEXTS
from jaxlora.theory.measure_bounds import Load
from jaxlora.theory.model import unit
from jaxlora.theory.world import Sizes

SIZES = Sizes(16, 128, 1024)
LOAD = Load(96, 128, 48)
KEYS = jax.random.split(jax.random.key(11), 5)


def share(items) -> float:
    return float(np.mean(items))


@pytest.fixture(scope="module")
def two_hop():
    return measure.over_seeds(measure.two_hop, KEYS, SIZES)


@pytest.fixture(scope="module")
def low_rank():
    return measure.over_seeds(measure_bounds.low_rank, KEYS, LOAD)


@pytest.fixture(scope="module")
def case():
    """One world, to be broken."""
    return jax.jit(world.make, static_argnums=1)(KEYS[0], SIZES)


TWO_HOP = [
    (claim, item)
    for claim in claims.CLAIMS
    if claim.program == "two-hop"
    for item in claim.items
    if item != "gate *"
]


@pytest.mark.parametrize(("claim", "item"), TWO_HOP, ids=[i for _, i in TWO_HOP])
def test_what_is_said_of_two_hops_is_measured(two_hop, claim, item):
    predicted = _PREDICTED[item]
    low, high = claims.interval(claim.items[item], predicted, 5 * SIZES.people)
    wide = 0.1 if predicted == 0.5 else 0.03  # 80 items: three more standard errors
    assert low - wide <= share(two_hop[item]) <= high + wide


_PREDICTED = {
    **dict.fromkeys(["expert 1", "expert 2", "sum: hop 1", "sum: hop 2"], 1.0),
    **dict.fromkeys(["sum: bridge", "written, stale 0", "written, stale 0.5"], 1.0),
    **dict.fromkeys(["second pass, gain 2", "second layer: old"], 1.0),
    **dict.fromkeys(["mean: hop 1", "mean: hop 2"], 0.5),
    **dict.fromkeys(["sum: composed", "written, stale 2", "second layer: new"], 0.0),
    **dict.fromkeys(["second pass, gain 0.5", "second pass, untied"], 0.0),
    "sum: composed among ends": 1 / SIZES.people,
    "mean: composed among ends": 1 / SIZES.people,
}


def test_the_limit_predicts_the_same():
    measured = predict.two_hop(SIZES)
    for item, value in _PREDICTED.items():
        assert measured[item] == pytest.approx(value, abs=1e-6), item


def test_no_gate_composes(two_hop):
    best = max(share(two_hop[name]) for name in two_hop if name.startswith("gate"))
    low, high = claims.interval(claims.Rule.CHANCE, 1 / 16, 80, 49)
    assert low <= best <= high


def test_an_edit_is_not_exact_for_more_facts_than_features(case):
    v = model.keys(case.base, case.truth.hop1)
    narrow = v[:, :12]  # 16 facts
    with pytest.raises(ValueError, match="N <= M fails"):
        edits.edit(narrow, case.base.entities[case.truth.new1])
    crowded = measure.over_seeds(measure_bounds.capacity, KEYS, Load(400, 48, 48))
    assert share(crowded["least squares"]) < 0.9


def test_a_sum_loses_a_hop_if_the_second_expert_edits_the_same_keys(case):
    truth, base = case.truth, case.base
    first = jax.tree.map(lambda x: x[0], case.library)
    other = jnp.roll(truth.new1, 3)
    rival = memory.adapter(world.rewrite(base, truth.hop1, other, truth.old1))
    total = merge.preset("sum")(lora.stack([first, rival]))
    assert share(memory.answer(base, truth.hop1, total) == truth.new1) < 0.9


@pytest.mark.slow
def test_the_bridge_is_no_longer_the_answer_if_it_is_like_its_person():
    same = measure.over_seeds(measure.alike, KEYS, SIZES, jnp.float32(0.99))
    assert share(same["bridge"]) < 0.9
    assert share(same["composed among ends"]) > 0.9
    apart = measure.over_seeds(measure.alike, KEYS, SIZES, jnp.float32(0.0))
    assert share(apart["bridge"]) >= 0.95
    assert share(apart["composed among ends"]) < 0.2


def test_mean_does_not_tie_where_there_is_no_rival(case):
    empty = dataclasses.replace(case.base, kernel=jnp.zeros_like(case.base.kernel))
    v = model.keys(empty, case.truth.hop1)
    added = memory.adapter(edits.edit(v, empty.entities[case.truth.new1]))
    second = jax.tree.map(lambda x: x[1], case.library)
    half = merge.preset("mean")(lora.stack([added, second]))
    assert share(memory.answer(empty, case.truth.hop1, half) == case.truth.new1) > 0.99


def test_a_gate_for_each_fact_composes_where_one_for_each_expert_cannot(case):
    truth, n = case.truth, SIZES.people
    w = jax.tree.map(lambda x: x[1], case.library)["memory"]["kernel"]
    v = model.keys(case.base, truth.two_hop)
    shares = jnp.matmul(v, w.a)
    gate = jax.nn.one_hot(truth.new1 - n, n) / shares  # an oracle knows the bridge
    logits = memory.read(case.base, jnp.matmul(gate * shares, w.b))
    ends = 2 * n + jnp.argmax(logits[:, 2 * n :], axis=-1)
    assert share(ends == truth.composed) > 0.95


def test_edits_apart_break_where_keys_overlap_by_more_than_half():
    for strength, least, most in ((0.3, 0.95, 1.0), (1.2, 0.0, 0.05)):
        measured = measure.over_seeds(measure.apart, KEYS, SIZES, jnp.float32(strength))
        assert least <= share(measured["together"]) <= most
        assert share(measured["one alone"]) == 1
        predicted = predict.apart(SIZES, strength)["together"]
        assert abs(predicted - share(measured["together"])) < 0.1


def test_the_relation_with_less_attention_loses():
    for weight, name in ((0.5, "r2 of X"), (2.0, "r1 of X")):
        measured = measure.over_seeds(
            measure.dominance, KEYS, SIZES, jnp.float32(weight)
        )
        assert share(measured[name]) > 0.9
        assert predict.dominance(SIZES, weight)[name] > 0.9


def correlated(monkeypatch):
    """All keys share a direction; their overlap is 0.8, not 0."""
    draw = measure_bounds._draw

    def broken(key, load, sets):
        keys, answers = draw(key, load, sets)
        return unit(keys + 2 * keys[:1]), answers

    monkeypatch.setattr(measure_bounds, "_draw", broken)


def _capacity(key, load):  # a function of its own: nothing is compiled already
    return measure_bounds.capacity(key, load)


def test_capacity_needs_keys_that_are_not_correlated(monkeypatch):
    load = Load(128, 64, 48)
    measured = measure.over_seeds(measure_bounds.capacity, KEYS, load)
    wanted = predict.capacity(load)
    for name, value in wanted.items():
        assert abs(share(measured[name]) - value) < 0.1
    correlated(monkeypatch)
    broken = measure.over_seeds(_capacity, KEYS, load)
    assert share(broken["outer products"]) < wanted["outer products"] - 0.3


def _interference(key, load):
    return measure_bounds.interference(key, load)


def test_interference_follows_the_leak_until_other_keys_are_the_edited_ones(
    monkeypatch,
):
    load = Load(40, 64, 48, 30)
    measured = measure.over_seeds(measure_bounds.interference, KEYS, load)
    assert abs(share(measured["kept"]) - predict.interference(load)["kept"]) < 0.1
    assert share(measured["leak"]) == pytest.approx(
        bounds.interference(40, 64), rel=0.2
    )
    draw = measure_bounds._draw

    def close(key, load, sets):
        keys, answers = draw(key, load, sets)
        n, more = load.facts, load.others
        keys = keys.at[n:].set(1.5 * keys[:more])
        return keys, answers

    monkeypatch.setattr(measure_bounds, "_draw", close)
    broken = measure.over_seeds(_interference, KEYS, load)
    assert share(broken["kept"]) < 0.2


def test_rank_to_add_is_too_little_to_overwrite(low_rank):
    added, over = (share(low_rank[f"{x}, rank 8"]) for x in ("adding", "overwriting"))
    assert added > 0.7
    assert over < 0.3
    assert share(low_rank["overwriting, rank 32"]) == 1


def test_what_a_merge_scales_is_no_matter_of_rank():
    for scale in (0.5, 0.75):
        given = (KEYS, LOAD, jnp.float32(scale))
        measured = measure.over_seeds(measure_bounds.scaled, *given)
        full = share(measured["overwriting, rank 1 D"])
        assert abs(full - (0.5 if scale == 0.5 else 1.0)) < 0.1
        assert share(measured["adding, rank 1 D"]) == 1
        low = share(measured["overwriting, rank 0.5 D"])
        assert low < (0.05 if scale == 0.5 else 1.0)


def test_added_hops_are_kept_and_the_bridge_needs_more_than_one_answer():
    shares = {}
    for answers in (1, 16):
        measured = measure.over_seeds(measure.added, KEYS, SIZES, jnp.float32(answers))
        assert share(measured["hop 1"]) > 0.97
        assert share(measured["hop 2"]) > 0.97
        shares[answers] = share(measured["bridge"])
    # With one answer on both sides the bridge and the end are nearly tied.
    assert shares[1] < shares[16]
    assert shares[16] > 0.9
    assert predict.added(SIZES, 16) == {"hop 1": 1.0, "hop 2": 1.0, "bridge": 1.0}


def test_a_claim_has_all_its_parts():
    assert [c.name for c in claims.CLAIMS] == list(TEXTS)
    for claim in claims.CLAIMS:
        assert claim.program in claims.PROGRAMS
        assert claim.statement
        assert claim.assumptions
        assert claim.proof
    with pytest.raises(ValueError, match="No claim 'magic'; there are 'edit is exact'"):
        claims.claim("magic")


@pytest.mark.parametrize("rule", [r for r in claims.Rule if r != "chance"])
@pytest.mark.parametrize("value", [0.0, 0.03, 0.5, 1.0])
def test_no_interval_is_wider_than_a_fifth(rule, value):
    low, high = claims.interval(rule, value, 10)
    assert 0 <= low <= value <= high <= 1
    assert high - low <= 0.2 + 1e-9
