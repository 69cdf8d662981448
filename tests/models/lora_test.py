"""The decoder with adapters: one, many at once, and a routed library."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TINY
from jaxlora import lora, route, tree
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig, apply
from jaxlora.route import Route

# E == L: nothing may be guessed from shapes.
E = L = 3
PLAIN = dataclasses.replace(TINY, num_layers=L, num_heads=4, mlp="gated")
MODEL = Decoder(PLAIN)
TOKENS = jnp.array([[1, 2, 3, 4], [9, 0, 5, 5]], jnp.int32)
ATOL = 1e-4  # float32; logits are of order 10
SITES = (
    *(f"layers/attn/{name}_proj/kernel" for name in "koqv"),
    *(f"layers/mlp/{name}_proj/kernel" for name in ("down", "gate", "up")),
)
run = jax.jit(apply, static_argnums=0)


@pytest.fixture(scope="module")
def base(make_base):
    return make_base(MODEL)


@pytest.fixture(scope="module")
def library(base):
    return decoders.library(base, E)


@pytest.fixture(scope="module")
def adapter(library):
    return lora.unstack(library)[0]


def far(x, y):
    return float(np.abs(x - y).max()) > 0.1


def test_every_projection_is_adapted(adapter):
    assert tuple(lora.sites(adapter)) == SITES


def test_a_fresh_adapter_is_bit_equal(base):
    fresh = lora.init(jax.random.key(1), base, LoraConfig(rank=2))
    assert (run(MODEL, base, TOKENS, adapter=fresh) == run(MODEL, base, TOKENS)).all()


def test_an_adapter_equals_its_fused_base(base, adapter):
    got = run(MODEL, base, TOKENS, adapter=adapter)
    np.testing.assert_allclose(
        got, run(MODEL, lora.fuse(base, adapter), TOKENS), atol=ATOL
    )
    assert far(got, run(MODEL, base, TOKENS))


def test_every_layer_of_every_site_acts_where_it_belongs(base, adapter):
    def only(site, layer):
        keep = (jnp.arange(L) == layer).astype(jnp.float32)
        return tree.map_named(
            lambda name, w: w.replace(scale=w.scale * keep * float(name == site)),
            adapter,
            is_leaf=lora.is_lora,
        )

    plain = run(MODEL, base, TOKENS)
    for site in SITES:
        for layer in range(L):
            one = only(site, layer)
            got = run(MODEL, base, TOKENS, adapter=one)
            want = run(MODEL, lora.fuse(base, one), TOKENS)
            np.testing.assert_allclose(got, want, atol=ATOL)
            assert float(np.abs(got - plain).max()) > 1e-3


def test_vmap_over_a_library_equals_a_loop(base, library):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def many(library):
        return jax.vmap(lambda ad: apply(MODEL, base, TOKENS, adapter=ad))(library)

    loop = [run(MODEL, base, TOKENS, adapter=ad) for ad in lora.unstack(library)]
    for _ in range(2):
        np.testing.assert_allclose(many(library), jnp.stack(loop), atol=ATOL)
    assert far(loop[0], loop[1])


def one_hot(*chosen):
    """Oracle labels [L, B, T, E] that give every layer and token one expert."""
    row = np.zeros((L, *TOKENS.shape, E), np.float32)
    for layer, expert in enumerate(chosen):
        row[layer, :, :, expert] = 1
    return jnp.asarray(row)


def test_a_routed_library_equals_a_loop_when_e_is_l(base, library):
    routed = Decoder(PLAIN, Route(gate=route.oracle))
    for e, one in enumerate(lora.unstack(library)):
        got = run(routed, base, TOKENS, library=library, labels=one_hot(e, e, e))
        want = run(MODEL, base, TOKENS, adapter=one)
        np.testing.assert_allclose(got, want, atol=ATOL)


def test_each_layer_routes_to_its_own_expert(base, library):
    routed = Decoder(PLAIN, Route(gate=route.oracle))
    got = run(routed, base, TOKENS, library=library, labels=one_hot(2, 0, 1))
    mixed = jax.tree.map(
        lambda x: jnp.stack([x[e, layer] for layer, e in enumerate((2, 0, 1))]), library
    )
    want = run(MODEL, base, TOKENS, adapter=mixed)
    np.testing.assert_allclose(got, want, atol=ATOL)
    assert far(got, run(routed, base, TOKENS, library=library, labels=one_hot(1, 0, 2)))


def test_only_the_adapter_has_gradients(base, adapter):
    def total(adapter):
        return jnp.sum(jnp.sin(apply(MODEL, base, TOKENS, adapter=adapter)))

    grads = jax.jit(jax.grad(total))(adapter)
    chex.assert_trees_all_equal_structs(grads, adapter)
    for name, w in lora.sites(grads).items():
        for layer in range(L):
            assert float(np.abs(w.a[layer]).max()) > 1e-5, name
            assert float(np.abs(w.b[layer]).max()) > 1e-5, name
    # Against central differences along the gradient itself.
    length = float(np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads))))
    step = [
        jax.jit(total)(
            jax.tree.map(lambda x, g, s=s: x + s * 1e-3 / length * g, adapter, grads)
        )
        for s in (-1, 1)
    ]
    assert (step[1] - step[0]) / 2e-3 == pytest.approx(length, rel=0.02)


def test_a_float32_adapter_on_a_bfloat16_base(base, adapter):
    half = Decoder(
        DecoderConfig(**{**vars(PLAIN), "dtype": "bfloat16", "param_dtype": "bfloat16"})
    )
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), base)
    got = run(half, low, TOKENS, adapter=adapter)
    want = run(MODEL, base, TOKENS, adapter=adapter)
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()
    assert far(got, run(half, low, TOKENS))


ROUTED = Decoder(PLAIN, Route(gate=route.oracle))
REFUSED = {
    "library, no route": (MODEL, ("library",), "has no route"),
    "gate, no route": (MODEL, ("gate",), "has no route"),
    "labels, no route": (MODEL, ("labels",), "has no route"),
    "no library": (ROUTED, ("labels",), "needs library"),
    "adapter and library": (ROUTED, ("adapter", "library"), "and no adapter"),
    "labels of other shape": (
        ROUTED,
        ("library", "long"),
        r"\[L, B, T, E\] = \(3, 2, 4",
    ),
    "no labels": (ROUTED, ("library",), "oracle gate needs labels"),
    "adapter for library": (ROUTED, ("one",), "(?s)of shapes.*and 3 experts"),
    "library for adapter": (MODEL, ("many",), "of shapes"),
    "misspelt": (
        MODEL,
        ("misspelt",),
        "'layers/attn/q_prj/kernel' that the base lacks",
    ),
    "head": (MODEL, ("head",), "Site 'head' has a, b, scale of shapes"),
    "norm": (MODEL, ("norm",), "only kernels take an adapter"),
    "empty": (MODEL, ("empty",), "The adapter is empty"),
    "wide": (
        MODEL,
        ("wide",),
        r"'layers/attn/q_proj/kernel' has a, b, scale of shapes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(base, library, adapter, case):
    q = adapter["layers"]["attn"]["q_proj"]
    head = lora.LoraWeight(jnp.ones((8, 2)), jnp.ones((2, 11)), jnp.ones(()))
    norm = lora.LoraWeight(jnp.ones((L, 2)), jnp.ones((2, 8)), jnp.ones(()))
    wide = jax.tree.map(lambda x: jnp.concatenate([x, x], -1), q["kernel"])
    given = {
        "library": {"library": library},
        "gate": {"gate": {}},
        "labels": {"labels": one_hot(0, 0, 0)},
        "long": {"labels": one_hot(0, 0, 0)[:, :, :3]},
        "adapter": {"adapter": adapter},
        "one": {"library": adapter},
        "many": {"adapter": library},
        "misspelt": {"adapter": {"layers": {"attn": {"q_prj": q}}}},
        "head": {"adapter": {"head": head}},
        "norm": {"adapter": {"layers": {"attn_norm": {"scale": norm}}}},
        "empty": {"adapter": {}},
        "wide": {"adapter": {"layers": {"attn": {"q_proj": {"kernel": wide}}}}},
    }
    model, names, sentence = REFUSED[case]
    arguments = {k: v for name in names for k, v in given[name].items()}
    with pytest.raises(ValueError, match=sentence):
        apply(model, base, TOKENS, **arguments)
