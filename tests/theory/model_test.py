"""The one-layer model against NumPy; merges and gates act on its edits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import merge, route
from jaxlora.theory import limit, memory, model, world
from jaxlora.theory.world import Sizes

SIZES = Sizes(6, 48, 512)


@pytest.fixture(scope="module")
def case():
    return jax.jit(world.make, static_argnums=1)(jax.random.key(0), SIZES)


def test_a_key_is_the_formula(case):
    base, prompts = case.base, np.asarray(case.truth.two_hop)
    e, r, v, u = (
        np.asarray(x, np.float64)
        for x in (base.entities, base.relations, base.value, base.up)
    )
    x = e[prompts[:, 0]] @ v + r[0] + r[1]
    expected = np.maximum(x @ u, 0)
    np.testing.assert_allclose(model.keys(base, prompts), expected, atol=1e-5)
    np.testing.assert_allclose(v @ v.T, np.eye(len(v)), atol=1e-5)


def test_truth_composes(case):
    truth = jax.tree.map(np.asarray, case.truth)
    n = SIZES.people
    assert (truth.new1 != truth.old1).all()
    assert (truth.new2 != truth.old2).all()
    for answers in (truth.new1, truth.old1):
        assert sorted(answers) == list(range(n, 2 * n))
    np.testing.assert_array_equal(truth.composed, truth.new2[truth.new1 - n])
    np.testing.assert_array_equal(truth.stale, truth.old2[truth.new1 - n])


def test_what_is_written_is_linear_in_the_gate(case):
    v = model.keys(case.base, case.truth.two_hop)
    w = case.library["memory"]["kernel"]
    parts = np.einsum("nm,emr,erd->end", v, w.a, w.b)
    gate = jnp.asarray([0.3, -2.0])
    expected = v @ case.base.kernel + 0.3 * parts[0] - 2.0 * parts[1]
    result = memory.write(case.base, v, case.library, gate)
    np.testing.assert_allclose(result, expected, atol=1e-4)
    mixed = route.mix(w, v, jnp.broadcast_to(gate, (len(v), 2)))
    np.testing.assert_allclose(result - v @ case.base.kernel, mixed, atol=1e-4)


@pytest.mark.parametrize(("name", "gate"), [("sum", 1.0), ("mean", 0.5)])
def test_a_linear_merge_is_a_gate(case, name, gate):
    merged = merge.preset(name)(case.library)
    single = memory.logits(case.base, case.truth.hop1, merged)
    gates = jnp.asarray([gate, gate])
    two = memory.logits(case.base, case.truth.hop1, case.library, gates)
    np.testing.assert_allclose(single, two, atol=1e-4)


@pytest.mark.parametrize("name", ["ties", "tsv", "slerp"])
def test_other_merges_take_the_edits_as_they_are(case, name):
    merged = merge.preset(name)(case.library)
    result = memory.answer(case.base, case.truth.two_hop, merged)
    assert not np.any(result == case.truth.composed)


def test_wide_models_tend_to_the_limit():
    x = jax.random.normal(jax.random.key(1), (4, 32))
    up = jax.random.normal(jax.random.key(2), (32, 40_000)) * np.float32(
        np.sqrt(2 / 40_000)
    )
    v = np.asarray(jax.nn.relu(x @ up), np.float64)
    np.testing.assert_allclose(v @ v.T, limit.overlap(x, x), rtol=0.05)


def test_the_limit_answers_its_own_facts_at_any_rank():
    case = world.expected(jax.random.key(0), SIZES)
    x = model.stream(case.base, case.truth.hop1)
    first = case.experts[0]
    written = limit.write(x, case.known, [first])
    np.testing.assert_array_equal(
        np.argmax(memory.read(case.base, written), -1), case.truth.new1
    )
    low = first._replace(change=limit.truncate(first.change, 2))
    change = limit.write(x, case.known, [low]) - limit.write(x, case.known)
    np.testing.assert_allclose(change, low.change, atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"entities": 1}, "entities >= 2"),
        ({"width": 1}, "width >= 2"),
        ({"hidden": 0}, "hidden >= 1"),
        ({"relations": 0}, "relations >= 1"),
        ({"strength": 0.0}, "strength > 0"),
    ],
)
def test_sizes_that_cannot_be_name_the_inequality(wrong, message):
    sizes = {"entities": 4, "width": 8, "hidden": 16} | wrong
    with pytest.raises(ValueError, match=message):
        model.init(jax.random.key(0), **sizes)


def test_worlds_that_cannot_be_are_refused(case):
    with pytest.raises(ValueError, match="2 N <= M fails"):
        Sizes(10, 8, 19)
    with pytest.raises(ValueError, match="N >= 3"):
        Sizes(2, 8, 19)
    with pytest.raises(ValueError, match="No memory 'hopfield'"):
        memory.remember(case.base, case.truth.hop1, case.truth.old1, "hopfield")
