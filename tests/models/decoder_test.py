"""The decoder without adapters, against NumPy and against what must not matter."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decoders import TINY
from jaxlora import tree
from jaxlora.models import Decoder, Inputs, RopeScaling, apply, init
from jaxlora.models.decoder import logits
from jaxlora.models.rope import frequencies, rotate

PLAIN = dataclasses.replace(TINY, num_layers=3, max_length=5)
RICH = dataclasses.replace(
    PLAIN,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp="gated",
    activation="silu",
    positions="rope",
    rope_theta=100.0,
    tie_head=True,
    attention_bias=True,
    qk_norm=True,
    norm_eps=1e-3,
)
CONFIGS = {"plain": PLAIN, "rich": RICH}
GEMMA = dataclasses.replace(
    RICH,
    activation="gelu_tanh",
    attention_bias=False,
    local_layers=(True, False, True),
    window=2,
    local_rope_theta=3.0,
    rope_scaling=RopeScaling(kind="linear", factor=4.0),
    query_scale=0.7,
    attn_softcap=1.5,
    final_softcap=6.0,
    embed_scale=8**0.5,
    norm_plus_one=True,
    post_norms=True,
)
LLAMA = dataclasses.replace(
    RICH,
    attention_bias=False,
    qk_norm=False,
    head_dim=8,
    rope_theta=20.0,
    rope_scaling=RopeScaling(
        kind="llama3",
        factor=8.0,
        low_freq_factor=0.5,
        high_freq_factor=3.0,
        original_length=20,
    ),
)
FAMILIES = {
    "gemma": GEMMA,
    "flash": dataclasses.replace(GEMMA, attn_softcap=0.0, attention="flash"),
    "llama": LLAMA,
}
TOKENS = jnp.array([[1, 2, 3, 4], [9, 0, 5, 5], [7, 8, 10, 6]], jnp.int32)
MASK = jnp.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1]], bool)
ATOL = 2e-5  # float32 through three layers, against float64
run = jax.jit(apply, static_argnums=0)


@pytest.fixture(scope="module", params=CONFIGS)
def net(request, make_base):
    model = Decoder(CONFIGS[request.param])
    return model, make_base(model)


def norm(c, x, p):
    scale = p["scale"] + 1 if c.norm_plus_one else p["scale"]
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_eps) * scale


def cap(x, most):
    return most * np.tanh(x / most) if most else x


def act(name, x):
    if name == "silu":
        return x / (1 + np.exp(-x))
    if name == "gelu":
        return x * np.vectorize(lambda z: (1 + math.erf(z / math.sqrt(2))) / 2)(x)
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def wavelengths(c, local):
    """Tokens per turn, pair by pair, after the rule of transformers' rope utilities."""
    theta = c.local_rope_theta if local else c.rope_theta
    found = [
        2 * math.pi * theta ** (2 * i / c.head_dim) for i in range(c.head_dim // 2)
    ]
    s = c.rope_scaling
    if local or s is None:
        return found
    if s.kind == "linear":
        return [wave * s.factor for wave in found]

    def stretched(wave):
        if wave < s.original_length / s.high_freq_factor:
            return wave
        if wave > s.original_length / s.low_freq_factor:
            return wave * s.factor
        smooth = s.original_length / wave - s.low_freq_factor
        smooth /= s.high_freq_factor - s.low_freq_factor
        return 1 / ((1 - smooth) / (wave * s.factor) + smooth / wave)

    return [stretched(wave) for wave in found]


def turn(x, position, waves):
    """Rotary positions of one head [K], as products of complex numbers."""
    half = len(x) // 2
    angle = 2 * np.pi * position / np.array(waves)
    turned = (x[:half] + 1j * x[half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag])


def attention(c, p, x, mask, local):
    """One sequence [T, D], one query and one head at a time."""
    waves = wavelengths(c, local)
    scale = c.head_dim**-0.5 if c.query_scale is None else c.query_scale
    q, k, v = (
        x @ p[f"{n}_proj"]["kernel"] + p[f"{n}_proj"].get("bias", 0) for n in "qkv"
    )
    q, k, v = (z.reshape(len(x), -1, c.head_dim) for z in (q, k, v))
    if c.qk_norm:
        q, k = norm(c, q, p["q_norm"]), norm(c, k, p["k_norm"])
    out = np.zeros_like(q)
    for t, head in np.ndindex(*q.shape[:2]):
        group = head * c.num_kv_heads // c.num_heads
        first = max(0, t + 1 - c.window) if local else 0
        seen = [s for s in range(first, t + 1) if mask[s]]
        if not seen:
            continue
        query, keys = q[t, head], k[seen, group]
        if c.positions == "rope":
            query = turn(query, t, waves)
            keys = [turn(key, s, waves) for s, key in zip(seen, keys, strict=True)]
        scores = scale * np.array([query @ key for key in keys])
        share = np.exp(cap(scores, c.attn_softcap))
        out[t, head] = share / share.sum() @ v[seen, group]
    return out.reshape(len(x), -1) @ p["o_proj"]["kernel"]


def mlp(c, p, x):
    up = x @ p["up_proj"]["kernel"]
    if c.mlp == "gated":
        up = act(c.activation, x @ p["gate_proj"]["kernel"]) * up
    else:
        up = act(c.activation, up)
    return up @ p["down_proj"]["kernel"]


def forward(c, params, tokens, mask):
    """The reference: float64, one sequence at a time."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    out = []
    for ids, keep in zip(np.asarray(tokens), np.asarray(mask), strict=True):
        x = params["embed"]["embedding"][ids] * c.embed_scale
        if c.positions == "learned":
            x = x + params["positions"][: len(ids)]
        for i in range(c.num_layers):
            p = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
            local = bool(c.local_layers) and c.local_layers[i]
            h = attention(c, p["attn"], norm(c, x, p["attn_norm"]), keep, local)
            x = x + (norm(c, h, p["attn_post_norm"]) if c.post_norms else h)
            h = mlp(c, p["mlp"], norm(c, x, p["mlp_norm"]))
            x = x + (norm(c, h, p["mlp_post_norm"]) if c.post_norms else h)
        x = norm(c, x, params["final_norm"])
        head = params["embed"]["embedding"].T if c.tie_head else params["head"]
        out.append(cap(x @ head, c.final_softcap))
    return np.stack(out)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_it_equals_numpy(net, mask):
    model, base = net
    got = run(model, base, Inputs(TOKENS, mask))
    keep = np.ones(TOKENS.shape, bool) if mask is None else mask
    want = forward(model.config, base, TOKENS, keep)
    np.testing.assert_allclose(got, want, atol=ATOL * np.abs(want).max())
    assert got.dtype == jnp.float32


def test_the_exact_gelu_equals_numpy(make_base):
    config = dataclasses.replace(PLAIN, activation="gelu", num_layers=1)
    base = make_base(Decoder(config))
    got = run(Decoder(config), base, TOKENS)
    want = forward(config, base, TOKENS, np.ones(TOKENS.shape, bool))
    np.testing.assert_allclose(got, want, atol=ATOL * np.abs(want).max())


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, make_base):
    config = FAMILIES[request.param]
    return config, make_base(Decoder(config))


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_gemma_and_llama_equal_numpy(family, mask):
    config, base = family
    got = run(Decoder(config), base, Inputs(TOKENS, mask))
    keep = np.ones(TOKENS.shape, bool) if mask is None else mask
    want = forward(config, base, TOKENS, keep)
    np.testing.assert_allclose(got, want, atol=ATOL * np.abs(want).max())


@pytest.mark.parametrize(
    "change",
    [
        {"local_layers": (False, True, False)},
        {"window": 3},
        {"local_rope_theta": 100.0},
        {"rope_scaling": None},
        {"query_scale": None},
        {"attn_softcap": 0.0},
        {"final_softcap": 0.0},
        {"embed_scale": 1.0},
        {"norm_plus_one": False},
        {"activation": "silu"},
    ],
    ids=lambda change: "".join(change),
)
def test_each_choice_of_gemma_shows_in_the_reference(make_base, change):
    # Otherwise equality with NumPy would say nothing about it.
    base = make_base(Decoder(GEMMA))
    keep = np.ones(TOKENS.shape, bool)
    want = forward(GEMMA, base, TOKENS, keep)
    other = forward(dataclasses.replace(GEMMA, **change), base, TOKENS, keep)
    assert np.abs(other - want).max() > 100 * ATOL * np.abs(want).max()


@pytest.mark.parametrize("config", [GEMMA, LLAMA], ids=["linear", "llama3"])
def test_frequencies_equal_the_rule_by_wavelength(config):
    for width, local in ((8, False), (64, False), (8, True)):
        c = dataclasses.replace(config, head_dim=width)
        scaling = None if local else c.rope_scaling
        theta = c.local_rope_theta if local else c.rope_theta
        got = 2 * np.pi / frequencies(width, theta, scaling).astype(np.float64)
        np.testing.assert_allclose(got, wavelengths(c, local), rtol=1e-6)
    if config is LLAMA:  # kept, between, and divided by the factor are all there
        plain = wavelengths(dataclasses.replace(config, rope_scaling=None), False)
        ratio = np.divide(wavelengths(config, False), plain)
        assert ratio[0] == 1
        assert 1 < ratio[2] < ratio[3] == 8


def test_post_norms_are_leaves_of_their_own_that_start_as_the_identity():
    fresh = jax.jit(init, static_argnums=1)(jax.random.key(0), Decoder(GEMMA))
    names = {name: leaf for name, leaf in tree.flatten(fresh).items() if "norm" in name}
    assert len(names) == 7
    assert all(not np.asarray(leaf).any() for leaf in names.values())
    assert names["layers/attn_post_norm/scale"].shape == (3, 8)


def test_leaves_are_what_the_config_says(net):
    model, base = net
    c, rich = model.config, model.config.qk_norm
    shapes = {name: leaf.shape for name, leaf in tree.flatten(base).items()}
    assert ("head" in shapes) != c.tie_head
    assert ("positions" in shapes) == (c.positions == "learned")
    assert ("layers/attn/q_proj/bias" in shapes) == c.attention_bias
    assert ("layers/mlp/gate_proj/kernel" in shapes) == (c.mlp == "gated")
    assert ("layers/attn/q_norm/scale" in shapes) == rich
    width = c.num_kv_heads * c.head_dim
    assert shapes["layers/attn/k_proj/kernel"] == (3, 8, width)
    assert shapes["layers/attn/o_proj/kernel"] == (3, c.num_heads * c.head_dim, 8)


def test_fresh_layers_and_keys_differ():
    fresh = jax.jit(init, static_argnums=1)
    one, two = (fresh(jax.random.key(i), Decoder(PLAIN)) for i in (0, 1))
    kernel = np.asarray(one["layers"]["attn"]["q_proj"]["kernel"])
    assert (kernel[0] != kernel[1]).all()
    assert (two["layers"]["attn"]["q_proj"]["kernel"] != kernel).all()


def test_causality_by_gradients(make_base):
    # All tokens differ and the head is untied, so a row of the embedding is a position.
    model = Decoder(dataclasses.replace(RICH, tie_head=False))
    base = make_base(model)
    tokens = jnp.array([[1, 2, 3, 4]])

    def logits(table):
        params = {**base, "embed": {"embedding": table}}
        return apply(model, params, tokens)[0]

    slope = jax.jit(jax.jacrev(logits))(base["embed"]["embedding"])
    depends = np.asarray(jnp.abs(slope[:, :, 1:5]).max((1, 3)))  # [T out, T in]
    assert (depends[np.triu_indices(4, 1)] == 0).all()
    assert (depends[np.tril_indices(4)] > 1e-4).all()


def test_a_masked_token_changes_no_other_output(net):
    model, base = net
    other = jnp.where(MASK, TOKENS, (TOKENS + 3) % 11)
    got, want = (run(model, base, Inputs(x, MASK)) for x in (other, TOKENS))
    keep = np.asarray(MASK)
    assert (got[keep] == want[keep]).all()
    assert (np.asarray(got)[~keep] != np.asarray(want)[~keep]).any()
    unmasked = run(model, base, Inputs(other, jnp.ones_like(MASK)))
    assert (np.asarray(unmasked)[1, 2:] != np.asarray(want)[1, 2:]).all()


def test_right_padding_leaves_earlier_outputs(net):
    model, base = net
    short = run(model, base, TOKENS[:, :3])
    long = run(model, base, Inputs(TOKENS, jnp.array([[1, 1, 1, 0]] * 3, bool)))
    np.testing.assert_allclose(long[:, :3], short, atol=ATOL)


def test_a_row_of_padding_alone_is_finite(make_base):
    model = Decoder(RICH)
    base = make_base(model)
    mask = MASK.at[0].set(False)

    def total(base):
        logits = apply(model, base, Inputs(TOKENS, mask))
        return jnp.sum(jax.nn.log_softmax(logits)[..., 0])

    grads = jax.jit(jax.grad(total))(base)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    got, want = (np.asarray(run(model, base, Inputs(TOKENS, m))) for m in (mask, MASK))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[1:], want[1:], atol=ATOL)


def graph(base, **changes):
    """Logits, gradients and program of another way to run the same layers."""
    model = Decoder(dataclasses.replace(PLAIN, **changes))

    def total(base):
        logits = apply(model, base, Inputs(TOKENS, MASK))
        return jnp.sum(jnp.sin(logits)), logits

    traced = jax.jit(jax.value_and_grad(total, has_aux=True)).trace(base)
    (_, logits), grads = traced.lower().compile()(base)
    return logits, grads, str(traced.jaxpr)


@pytest.fixture(scope="module")
def scanned(make_base):
    base = make_base(Decoder(PLAIN))
    return *graph(base), base


@pytest.mark.parametrize(
    "changes",
    [{"remat": True}, {"unroll": 3}, {"remat": True, "attention": "flash"}],
    ids=str,
)
def test_remat_and_unroll_change_nothing_but_the_program(scanned, changes):
    logits, grads, text = graph(scanned[3], **changes)
    np.testing.assert_allclose(logits, scanned[0], atol=1e-5)
    for got, want in zip(
        jax.tree.leaves(grads), jax.tree.leaves(scanned[1]), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=1e-4 * max(1, np.abs(want).max()))
    assert text != scanned[2]
    if "remat" in changes:
        assert "remat" in text
        assert "remat" not in scanned[2]


def test_bfloat16_is_close(net):
    model, base = net
    param_dtype = "bfloat16" if model.config.tie_head else "float32"
    half = dataclasses.replace(model.config, dtype="bfloat16", param_dtype=param_dtype)
    fresh = jax.eval_shape(lambda key: init(key, Decoder(half)), jax.random.key(0))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(fresh)} == {param_dtype}
    low = jax.tree.map(lambda x: x.astype(param_dtype), base)
    got, want = run(Decoder(half), low, TOKENS), run(model, base, TOKENS)
    assert got.dtype == jnp.float32
    error = np.abs(got - want).max() / np.abs(want).max()
    assert 1e-6 < error < 0.05  # eight bits of mantissa: 2^-8 a rounding


def test_rotations_and_logits_of_bfloat16_are_computed_in_float32():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 6), jnp.bfloat16)
    where, fast = jnp.array([[3, 500, 30_000]]), jnp.asarray(frequencies(6, 100.0))
    exact = rotate(x.astype(jnp.float32), where, fast)
    np.testing.assert_array_equal(rotate(x, where, fast), exact.astype(jnp.bfloat16))
    # 257 is no number of bfloat16.
    config = dataclasses.replace(PLAIN, dtype="bfloat16", param_dtype="bfloat16")
    ones = jnp.asarray([[16.0, 1.0]], jnp.bfloat16)
    assert logits(config, ones, ones.T).tolist() == [[257.0]]


def test_the_second_call_does_not_trace_again(make_base):
    traces = []

    @jax.jit
    def call(base, tokens):
        traces.append(1)
        return apply(Decoder(dataclasses.replace(PLAIN)), base, tokens)

    base = make_base(Decoder(PLAIN))
    call(base, TOKENS)
    call(base, TOKENS + 1)
    assert len(traces) == 1
    assert hash(Decoder(PLAIN)) == hash(Decoder(dataclasses.replace(PLAIN)))


def test_too_long_a_sequence_is_refused():
    base = jax.eval_shape(lambda: init(jax.random.key(0), Decoder(PLAIN)))
    with pytest.raises(ValueError, match=r"6 tokens, but the model has .* for 5"):
        apply(Decoder(PLAIN), base, jnp.zeros((1, 6), jnp.int32))


def test_rotary_positions_have_no_longest_sequence(make_base):
    base = make_base(Decoder(RICH))
    tokens = jnp.tile(TOKENS, (1, 2))
    got = run(Decoder(RICH), base, tokens)
    want = forward(RICH, base, tokens, np.ones(tokens.shape, bool))
    np.testing.assert_allclose(got, want, atol=ATOL * np.abs(want).max())
