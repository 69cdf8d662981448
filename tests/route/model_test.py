"""Routes inside a decoder."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TINY
from jaxlora import lora, merge, route
from jaxlora.models import Decoder, apply
from jaxlora.route import Route

E, L, T = 2, 3, 4
CONFIG = dataclasses.replace(TINY, num_layers=L, max_length=T)
TOKENS = jnp.array([[1, 2, 3, 4], [8, 7, 7, 0]], jnp.int32)
ATOL = 1e-4
run = jax.jit(apply, static_argnums=0)


def model(name, **fields):
    return Decoder(CONFIG, Route(gate=getattr(route, name), **fields))


@pytest.fixture(scope="module")
def base():
    return decoders.fresh(Decoder(CONFIG))


@pytest.fixture(scope="module")
def library(base):
    return decoders.library(base, E)


def test_the_uniform_route_is_the_exact_mean_merge(base, library):
    got = run(model("uniform"), base, TOKENS, library=library)
    mean = merge.preset("mean")(library)
    np.testing.assert_allclose(
        got, run(Decoder(CONFIG), base, TOKENS, adapter=mean), atol=ATOL
    )
    assert np.abs(got - run(Decoder(CONFIG), base, TOKENS)).max() > 0.1


def test_equal_experts_are_one_expert_under_arrow(base, library):
    same = jax.tree.map(lambda x: jnp.stack([x[0], x[0]]), library)
    alone = lora.unstack(library)[0]
    got = run(model("arrow"), base, TOKENS, library=same)
    want = run(Decoder(CONFIG), base, TOKENS, adapter=alone)
    np.testing.assert_allclose(got, want, atol=ATOL)


def test_arrow_routes_every_token_and_site_by_its_own_input(base, library):
    # Only q_proj of layer 0 is adapted, so that its input is known by hand.
    q = library["layers"]["attn"]["q_proj"]["kernel"]
    first = (jnp.arange(L) == 0).astype(jnp.float32)[None]
    only = {
        "layers": {"attn": {"q_proj": {"kernel": q.replace(scale=q.scale * first)}}}
    }
    got = run(model("arrow", top_k=1), base, TOKENS, library=only)
    x = np.asarray(base["embed"]["embedding"])[TOKENS] + np.asarray(base["positions"])
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + CONFIG.norm_eps)
    delta = np.asarray(q.a[:, 0]) @ np.asarray(q.b[:, 0])
    top = np.linalg.svd(delta)[0][..., 0]
    chosen = np.abs(x @ top.T).argmax(-1)
    assert set(chosen.ravel()) == {0, 1}
    labels = jnp.asarray(np.broadcast_to(np.eye(E)[chosen], (L, 2, T, E)), jnp.float32)
    want = run(model("oracle"), base, TOKENS, library=only, labels=labels)
    np.testing.assert_allclose(got, want, atol=ATOL)


def labels_of(*changes):
    """Expert 0 everywhere, but expert 1 at the given [layer, sequence, token]s."""
    chosen = np.zeros((L, 2, T), int)
    for where in changes:
        chosen[where] = 1
    return jnp.asarray(np.eye(E)[chosen], jnp.float32)


def test_oracle_labels_act_at_their_token(base, library):
    way = model("oracle")
    plain = np.asarray(run(way, base, TOKENS, library=library, labels=labels_of()))
    for where in [(0, 0, 2), (1, 1, 1), (2, 0, 3)]:
        labels = labels_of(where)
        got = np.asarray(run(way, base, TOKENS, library=library, labels=labels))
        _, sequence, token = where
        changed = np.abs(got - plain).max(-1) > 1e-4
        want = np.zeros((2, T), bool)
        # At the last layer nothing after it attends, so only the token itself changes.
        stop = token + 1 if where[0] == L - 1 else T
        want[sequence, token:stop] = True
        np.testing.assert_array_equal(changed, want)
        same = ~want
        np.testing.assert_array_equal(got[same], plain[same])


def test_oracle_labels_act_at_their_layer(base, library):
    way = model("oracle")
    for layer in range(L):
        labels = labels_of((layer,))
        got = run(way, base, TOKENS, library=library, labels=labels)
        mixed = jax.tree.map(lambda x, i=layer: x[0].at[i].set(x[1, i]), library)
        want = run(Decoder(CONFIG), base, TOKENS, adapter=mixed)
        np.testing.assert_allclose(got, want, atol=ATOL)


def test_a_given_gate_state_is_used(base, library):
    way = model("arrow", top_k=1)
    state = route.arrow.init(library)
    got = run(way, base, TOKENS, library=library, gate=state)
    chex.assert_trees_all_close(got, run(way, base, TOKENS, library=library), atol=1e-5)
    keys = jax.tree.map(lambda s: s.keys[::-1], state, is_leaf=route.is_state)
    swapped = jax.tree.map(
        lambda s, k: dataclasses.replace(s, keys=k), state, keys, is_leaf=route.is_state
    )
    other = run(way, base, TOKENS, library=library, gate=swapped)
    assert np.abs(other - got).max() > 0.1


def test_vmap_over_libraries_without_recompiling(base, library):
    many = jax.tree.map(lambda x: jnp.stack([x, x[::-1] * 0.5]), library)
    way = model("arrow")

    @jax.jit
    @chex.assert_max_traces(n=1)
    def asked(many, tokens):
        return jax.vmap(lambda lib: apply(way, base, tokens, library=lib))(many)

    asked(many, TOKENS[::-1])
    got = asked(many, TOKENS)
    for i in range(2):
        single = jax.tree.map(lambda x, i=i: x[i], many)
        want = run(way, base, TOKENS, library=single)
        np.testing.assert_allclose(got[i], want, atol=ATOL)
