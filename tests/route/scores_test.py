"""Scores of gates, and the mixing of few experts, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import route
from jaxlora.lora import LoraWeight
from jaxlora.route import chosen

E, D, R, F, N = 5, 6, 2, 4, 9
RNG = np.random.default_rng(3)
X = RNG.standard_normal((N, D)).astype(np.float32)
KEYS = RNG.standard_normal((E, D)).astype(np.float32)
SITE = LoraWeight(
    *(jnp.asarray(RNG.standard_normal(s), jnp.float32) for s in ((E, D, R), (E, R, F))),
    scale=jnp.asarray(RNG.uniform(0.5, 2, E), jnp.float32),
)
DELTAS = np.asarray(SITE.scale)[:, None, None] * np.asarray(SITE.a) @ np.asarray(SITE.b)
KEY = jax.random.key(0)


def plain(x):
    """Mean 0 and variance 1 over the last axis."""
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


def test_spectr_is_the_norm_of_the_update():
    gate = route.preset("spectr").gate
    got = gate.score(gate.keys(SITE, KEY, None), jnp.asarray(X))
    want = np.linalg.norm(np.einsum("nd,edf->nef", X, DELTAS), axis=-1)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_smile_is_the_norm_of_the_projection_and_arrow_its_first():
    u = np.linalg.svd(DELTAS)[0]
    for k, name in ((1, "arrow"), (2, "smile")):
        gate = route.preset(name, rank=k).gate
        got = gate.score(gate.keys(SITE, KEY, None), jnp.asarray(X))
        want = np.linalg.norm(np.einsum("nd,edk->nek", X, u[..., :k]), axis=-1)
        np.testing.assert_allclose(got, want, rtol=1e-4)


def test_phatgoose_compares_after_layer_norm():
    how = route.preset("phatgoose", top_k=None)
    state = route.State(jnp.asarray(KEYS), jnp.ones(E, bool), jnp.zeros(E))
    scores = plain(X) @ plain(KEYS).T / np.sqrt(D)
    want = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(how.weights(state, jnp.asarray(X)), want, atol=1e-4)


def test_average_activation_and_retrieval_compare_directions():
    unit = KEYS / np.linalg.norm(KEYS, axis=-1, keepdims=True)
    mean = route.Mean()
    got = mean.score(mean.keys(SITE, KEY, jnp.asarray(7 * KEYS)), jnp.asarray(X))
    np.testing.assert_allclose(got, X @ unit.T, rtol=1e-4, atol=1e-5)
    examples = RNG.standard_normal((E, 3, D)).astype(np.float32)
    near, empty = (
        route.Nearest(),
        LoraWeight(jnp.zeros((E, D, 0)), jnp.zeros((E, 0, D)), jnp.ones(E)),
    )
    got = near.score(near.keys(empty, KEY, jnp.asarray(examples)), jnp.asarray(X))
    size = np.linalg.norm(examples, axis=-1) * np.linalg.norm(X, axis=-1)[:, None, None]
    want = (np.einsum("nd,emd->nem", X, examples) / size).max(-1)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_lora_flow_adds_its_bias_to_the_kept():
    keys = {"kernel": jnp.asarray(KEYS), "bias": jnp.arange(E, dtype=jnp.float32) - 2}
    state = route.State(keys, jnp.arange(E) > 0, jnp.zeros(E))
    scores = X @ KEYS[1:].T
    share = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    got = route.Route(gate=route.Flow()).weights(state, jnp.asarray(X))
    np.testing.assert_allclose(got[:, 1:], share + np.arange(1, E) - 2, atol=1e-5)
    assert (got[:, 0] == 0).all()


@pytest.mark.parametrize(("n", "k"), [(2, 3), (70, 1)])
def test_few_chosen_experts_mix_as_all_do(n, k):
    """One token gathers its experts; many are sorted into blocks."""
    x = jnp.asarray(RNG.standard_normal((n, D)), jnp.float32)
    scores = jnp.asarray(RNG.standard_normal((n, E)), jnp.float32)
    weights = route.weigh(scores, jnp.ones(E, bool), k).weights

    def total(mix, *given):
        return jnp.sum(mix(*given) ** 3)

    few = jax.jit(lambda w, x, g: chosen.mix_chosen(w, x, g, k))
    np.testing.assert_allclose(
        few(SITE, x, weights), route.mix(SITE, x, weights), rtol=1e-4, atol=1e-5
    )
    grads = [
        jax.grad(lambda *given, mix=mix: total(mix, *given), argnums=(0, 1, 2))
        for mix in (few, route.mix)
    ]
    got, want = (grad(SITE, x, weights) for grad in grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), got, want)


def test_blocks_hold_every_token_once_with_its_expert():
    expert = jnp.asarray(RNG.integers(0, E, 50))
    result = chosen.blocks(expert, E, 8)
    slots = np.asarray(result.slots)
    assert len(set(slots.tolist())) == 50
    assert (np.asarray(result.filled).ravel()[slots] == np.arange(50)).all()
    assert (np.asarray(result.owner)[slots // 8] == np.asarray(expert)).all()


def test_a_route_multiplies_only_the_kept_of_many(monkeypatch):
    seen = []
    monkeypatch.setattr(chosen, "mix_chosen", lambda *given: seen.append(given[3]))
    many = jax.tree.map(lambda x: jnp.concatenate([x] * 4), SITE)  # 20 experts
    weights = jnp.zeros((N, 20))
    for how in (
        route.preset("top-1"),
        route.preset("arrow", top_k=2),
        route.preset("arrow"),
        route.preset("arrow", top_k=1, mixing="factors"),
    ):
        how.mix(many, jnp.asarray(X), weights)
    assert seen == [1]
