import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora import lora
from jaxlora.commands import train_output
from jaxlora.lora import LoraConfig, LoraWeight

L, D, F = 2, 6, 4
KEY = jax.random.key(0)
CONFIG = LoraConfig(rank=3, alpha=6.0, targets=(r"layers/.*/kernel",))


def make_base(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.standard_normal((L, D, F)), dtype)
    square = jnp.asarray(rng.standard_normal((L, D, D)), dtype)
    return {
        "bias": jnp.ones(F, dtype),
        "embed": {"embedding": jnp.ones((5, D), dtype)},
        "layers": {
            "norm": {"scale": jnp.ones((L, D), dtype)},
            "o_proj": {"kernel": square},
            "q_proj": {"kernel": kernel},
        },
    }


def trained(seed=0, rank=3):
    """An adapter of which no part is zero."""
    rng = np.random.default_rng(seed)

    def site(kernel):
        _, d, f = kernel.shape
        return LoraWeight(
            a=jnp.asarray(rng.standard_normal((L, d, rank)), jnp.float32),
            b=jnp.asarray(rng.standard_normal((L, rank, f)), jnp.float32),
            scale=jnp.asarray(rng.uniform(0.5, 2.0, L), jnp.float32),
        )

    layers = make_base()["layers"]
    return {
        "layers": {
            k: {"kernel": site(layers[k]["kernel"])} for k in ("o_proj", "q_proj")
        }
    }


def dense(weight):
    a, b, s = (np.asarray(x, np.float64) for x in (weight.a, weight.b, weight.scale))
    return s[..., None, None] * (a @ b)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_fresh_adapter_leaves_the_base_bit_equal(dtype):
    base = make_base(dtype)
    fresh = lora.init(KEY, base, CONFIG)
    chex.assert_trees_all_equal(lora.fuse(base, fresh), base)
    assert all((np.asarray(w.a) != 0).all() for w in lora.sites(fresh).values())


def test_init_mirrors_the_targeted_kernels():
    adapter = lora.init(KEY, make_base(), CONFIG)
    assert list(lora.sites(adapter)) == ["layers/o_proj/kernel", "layers/q_proj/kernel"]
    q = adapter["layers"]["q_proj"]["kernel"]
    assert (q.a.shape, q.b.shape, q.scale.shape) == ((L, D, 3), (L, 3, F), (L,))
    np.testing.assert_array_equal(q.scale, 2.0)
    assert q.rank == 3
    lora.check(make_base(), adapter)


def test_init_draws_with_variance_one_over_d_and_apart_for_each_site():
    base = {name: {"kernel": jnp.ones((400, 100))} for name in ("k", "q")}
    adapter = lora.init(KEY, base, LoraConfig(rank=50, targets=(".*",)))
    k, q = adapter["k"]["kernel"].a, adapter["q"]["kernel"].a
    assert float(jnp.var(k)) == pytest.approx(1 / 400, rel=0.05)
    assert abs(np.corrcoef(np.ravel(k), np.ravel(q))[0, 1]) < 0.05
    again = lora.init(KEY, base, LoraConfig(rank=50, targets=(".*",)))
    chex.assert_trees_all_equal(adapter, again)


def test_init_follows_the_dtype_and_keeps_the_scale_in_float32():
    config = LoraConfig(rank=3, targets=CONFIG.targets, dtype="bfloat16")
    w = lora.init(KEY, make_base(), config)["layers"]["q_proj"]["kernel"]
    assert (w.a.dtype, w.b.dtype, w.scale.dtype) == (
        jnp.bfloat16,
        jnp.bfloat16,
        jnp.float32,
    )


@pytest.mark.parametrize("use_rslora", [False, True])
def test_delta_is_alpha_over_rank_times_a_b(use_rslora):
    config = LoraConfig(
        rank=4, alpha=10.0, use_rslora=use_rslora, targets=CONFIG.targets
    )
    adapter = lora.init(KEY, make_base(), config)
    w = adapter["layers"]["q_proj"]["kernel"]
    w = w.replace(b=jnp.ones_like(w.b))
    divisor = math.sqrt(4) if use_rslora else 4
    want = 10.0 / divisor * (np.asarray(w.a, np.float64) @ np.ones((L, 4, F)))
    np.testing.assert_allclose(lora.delta(w), want, rtol=1e-5, atol=1e-6)


def test_fuse_adds_every_delta_into_its_kernel_and_nothing_else():
    base, adapter = make_base(), trained()
    fused = lora.fuse(base, adapter)
    for name in ("o_proj", "q_proj"):
        kernel = base["layers"][name]["kernel"]
        want = np.asarray(kernel, np.float64) + dense(adapter["layers"][name]["kernel"])
        got = fused["layers"][name]["kernel"]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        assert not np.allclose(got, kernel, atol=0.1)
    chex.assert_trees_all_equal(fused["embed"], base["embed"])
    chex.assert_trees_all_equal(fused["layers"]["norm"], base["layers"]["norm"])


def test_fuse_rounds_once_to_the_dtype_of_the_base():
    base, adapter = make_base(jnp.bfloat16), trained()
    fused = lora.fuse(base, adapter)
    chex.assert_trees_all_equal_dtypes(fused, base)
    kernel = base["layers"]["q_proj"]["kernel"].astype(jnp.float32)
    want = kernel + lora.delta(adapter["layers"]["q_proj"]["kernel"])
    chex.assert_trees_all_equal(
        fused["layers"]["q_proj"]["kernel"], want.astype(jnp.bfloat16)
    )


def test_delta_of_bfloat16_factors_is_computed_in_float32():
    w = trained()["layers"]["q_proj"]["kernel"]
    half = w.replace(a=w.a.astype(jnp.bfloat16), b=w.b.astype(jnp.bfloat16))
    assert lora.delta(half).dtype == jnp.float32
    np.testing.assert_allclose(lora.delta(half), dense(half), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fn", [jax.jit, lambda f: jax.vmap(f, in_axes=(None, 0))])
def test_fuse_transforms(fn):
    base, adapters = make_base(), [trained(0), trained(1)]
    if fn is jax.jit:
        got, want = fn(lora.fuse)(base, adapters[0]), lora.fuse(base, adapters[0])
    else:
        got = fn(lora.fuse)(base, lora.stack(adapters))
        fused = [lora.fuse(base, adapter) for adapter in adapters]
        want = jax.tree.map(lambda *x: jnp.stack(x), *fused)
    chex.assert_trees_all_close(got, want, rtol=1e-6, atol=1e-6)


def test_stack_and_unstack_round_trip():
    adapters = [trained(seed) for seed in range(3)]
    library = lora.stack(adapters)
    assert lora.num_experts(library) == 3
    lora.check(make_base(), library, experts=3)
    for before, after in zip(adapters, lora.unstack(library), strict=True):
        chex.assert_trees_all_equal(before, after)


def assert_same_delta(x: LoraWeight, y: LoraWeight) -> None:
    # A sum with zeros at its end may be added up in another order.
    rounding = 4 * np.finfo(np.float32).eps
    np.testing.assert_allclose(lora.delta(x), lora.delta(y), rounding, rounding)


def test_stack_pads_mixed_ranks_and_keeps_every_delta_and_scale():
    adapters = [trained(seed, rank) for seed, rank in enumerate((1, 4, 2))]
    for before, after in zip(adapters, lora.unstack(lora.stack(adapters)), strict=True):
        for name, w in lora.sites(before).items():
            padded = lora.sites(after)[name]
            assert padded.rank == 4
            np.testing.assert_array_equal(padded.scale, w.scale)
            assert_same_delta(padded, w)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), extra=st.integers(0, 2))
def test_pad_keeps_the_delta_and_the_scale(seed, extra):
    before = trained(seed)
    for name, w in lora.sites(lora.pad(before, 3 + extra)).items():
        original = lora.sites(before)[name]
        assert w.rank == 3 + extra
        assert_same_delta(w, original)
        chex.assert_trees_all_equal(w.scale, original.scale)
        assert not np.asarray(w.a[..., 3:]).any()
        assert not np.asarray(w.b[..., 3:, :]).any()


@pytest.mark.parametrize("kept", [(True, False), (False, True), (False, False)])
def test_confine_sets_the_factors_of_other_layers_to_zero(kept):
    before = trained()
    after = lora.confine(before, jnp.array(kept))
    for name, w in lora.sites(after).items():
        original = lora.sites(before)[name]
        np.testing.assert_array_equal(w.scale, original.scale)
        for layer in range(L):
            for factor, was in ((w.a, original.a), (w.b, original.b)):
                want = was[layer] if kept[layer] else jnp.zeros_like(was[layer])
                np.testing.assert_array_equal(factor[layer], want)


def test_confine_to_all_layers_changes_nothing_and_keeps_dtypes():
    w = trained()["layers"]["q_proj"]["kernel"]
    half = w.replace(a=w.a.astype(jnp.bfloat16), b=w.b.astype(jnp.bfloat16))
    same = lora.confine({"kernel": half}, jnp.ones(L, bool))
    chex.assert_trees_all_equal(same, {"kernel": half})
    chex.assert_trees_all_equal_dtypes(same, {"kernel": half})


def test_count_leaves_the_scale_out():
    assert lora.count(trained()) == L * 3 * ((D + D) + (D + F))


def test_targets_report_what_each_pattern_claims():
    claimed = lora.targets(make_base(), [".*/q_proj/kernel", ".*"])
    assert claimed == {
        ".*/q_proj/kernel": ("layers/q_proj/kernel",),
        ".*": ("layers/o_proj/kernel",),
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rank": 0}, r"rank is 0, expected 1 to 6: the kernel 'layers/o_proj/kernel'"),
        ({"rank": 5}, r"rank is 5, expected 1 to 4: .*q_proj/kernel' is 6 x 4"),
        ({"alpha": 0.0}, r"alpha is 0\.0, expected a positive number"),
        ({"alpha": -1.0}, r"alpha is -1\.0, expected a positive number"),
        ({"alpha": math.nan}, "alpha is nan, expected a positive number"),
        ({"alpha": math.inf}, "alpha is inf, expected a positive number"),
        ({"targets": ("layers/.*_poj/kernel",)}, r"_poj/kernel' matches none of 2"),
        ({"targets": (".*/scale",)}, r"'\.\*/scale' matches none of 2 leaves"),
    ],
)
def test_init_refuses(config, message):
    fields = {"rank": 3, "alpha": 6.0, "targets": CONFIG.targets, **config}
    with pytest.raises(ValueError, match=message):
        lora.init(KEY, make_base(), LoraConfig(**fields))


def rename(adapter):
    layers = dict(adapter["layers"])
    layers["q_porj"] = layers.pop("q_proj")
    return {"layers": layers}


def edit(**changes):
    def change(adapter):
        w = adapter["layers"]["q_proj"]["kernel"]
        w = w.replace(**{name: fn(getattr(w, name)) for name, fn in changes.items()})
        return {"layers": {"q_proj": {"kernel": w}}}

    return change


@pytest.mark.parametrize("entry", [lora.check, lora.fuse])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {}, "adapter is empty"),
        (rename, r"site 'layers/q_porj/kernel' that the base lacks; .*q_proj/kernel'"),
        (
            lambda _: {"layers": {"q_proj": {"kernel": jnp.ones(3)}}},
            r"'layers/q_proj/kernel' is a ArrayImpl, expected a LoraWeight",
        ),
        (
            lambda _: {"bias": trained()["layers"]["q_proj"]["kernel"]},
            r"'bias' has the shape \(4,\) in the base, expected a kernel",
        ),
        (edit(a=lambda a: a[:, 1:]), r"\(2, 5, 3\).*expected \(\(2, 6, 3\)"),
        (edit(b=lambda b: b[:, 1:]), r"\(2, 2, 4\).*expected .*\(2, 3, 4\)"),
        (edit(b=lambda b: b[..., 1:]), r"\(2, 3, 3\).*for a kernel of shape"),
        (edit(scale=lambda s: s[0]), r"\(\)\), expected"),
        (edit(a=lambda a: a[0], b=lambda b: b[0]), r"'layers/q_proj/kernel' has a, b"),
    ],
)
def test_check_and_fuse_refuse_what_does_not_fit(entry, change, message):
    with pytest.raises(ValueError, match=message):
        entry(make_base(), change(trained()))


def test_check_knows_a_library_from_an_adapter():
    adapters = [trained(seed) for seed in range(L)]
    library = lora.stack(adapters)
    lora.check(make_base(), library, experts=L)
    with pytest.raises(ValueError, match="has a, b, scale of shapes"):
        lora.check(make_base(), library)
    with pytest.raises(ValueError, match="and 3 experts"):
        lora.check(make_base(), library, experts=3)
    with pytest.raises(ValueError, match="and 2 experts"):
        lora.check(make_base(), adapters[0], experts=L)


def test_stack_refuses_none_and_other_sites():
    with pytest.raises(ValueError, match="empty sequence"):
        lora.stack([])
    other = {"layers": {"q_proj": trained()["layers"]["q_proj"]}}
    with pytest.raises(ValueError, match=r"Adapter 1 .*differ in layers/o_proj/kernel"):
        lora.stack([trained(), other])


def test_pad_refuses_a_lower_rank():
    with pytest.raises(ValueError, match="Cannot pad a site of rank 3 down to 2"):
        lora.pad(trained(), 2)


def test_num_experts_refuses_what_is_no_library():
    w = LoraWeight(jnp.ones((D, 1)), jnp.ones((1, F)), jnp.ones(()))
    two = LoraWeight(jnp.ones((2, D, 1)), jnp.ones((2, 1, F)), jnp.ones(2))
    three = LoraWeight(jnp.ones((3, D, 1)), jnp.ones((3, 1, F)), jnp.ones(3))
    for tree in ({}, {"q": w}, {"q": two, "k": three}):
        with pytest.raises(ValueError, match="Not a library"):
            lora.num_experts(tree)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["q_proj", "v_proj"], ["attn/q_proj", "attn/v_proj"]),
        (["self_attn.q_proj"], ["attn/q_proj"]),
        (["mlp.up_proj", "layers/attn/k.*"], ["attn/k_proj", "mlp/up_proj"]),
        (["shared_expert.up_proj"], ["moe/shared/up_proj"]),
        (
            ["all-linear"],
            [
                *("attn/k_proj", "attn/q_proj", "attn/v_proj"),
                *("mlp/up_proj", "moe/shared/up_proj"),
            ],
        ),
    ],
)
def test_targets_may_be_named_as_peft_does(given, expected):
    kernel = {"kernel": jnp.ones((2, 4, 4))}
    names = ("q_proj", "k_proj", "v_proj")
    layers = {"attn": dict.fromkeys(names, kernel), "mlp": {"up_proj": kernel}}
    layers["moe"] = {"shared": {"up_proj": kernel}}
    base = {"layers": layers, "head": {"kernel": jnp.ones((4, 9))}}
    claimed = lora.targets(base, given)
    chosen = sorted(name for some in claimed.values() for name in some)
    assert chosen == [f"layers/{name}/kernel" for name in expected]
    for odd in ("proj", "o_proj", "model.layers.0.self_attn.q_proj"):
        with pytest.raises(ValueError, match=odd):
            lora.targets(base, [odd])


@pytest.mark.parametrize("tied", [False, True])
def test_table_and_head_are_adapted_by_their_names_alone(tied):
    base = make_base() | ({} if tied else {"head": jnp.ones((D, 5))})
    names = ("lm_head", "embed_tokens", "q_proj")
    claimed = lora.targets(base, names)
    assert claimed["lm_head"] == ("head",)
    assert claimed["embed_tokens"] == ("embed/embedding",)
    config = LoraConfig(rank=2, alpha=3.0, targets=names)
    fresh = lora.sites(lora.init(KEY, base, config))
    assert fresh["head"].a.shape == (D, 2)
    assert fresh["head"].b.shape == (2, 5)
    table = fresh["embed/embedding"]
    assert table.a.shape == (5, 2)
    assert float(table.scale) == 1.5
    assert not table.a.any()  # as in PEFT, the factor that rows are looked up in
    assert table.b.any()
    assert not any(lora.delta(w).any() for w in fresh.values())
    for patterns in (("all-linear",), (".*kernel",)):
        claimed = lora.targets(
            base | {"layers": {"q_proj": base["layers"]["q_proj"]}}, patterns
        )
        assert {"head", "embed/embedding"}.isdisjoint(*claimed.values())


def test_a_base_without_a_table_has_no_head():
    base = {"q_proj": {"kernel": jnp.ones((4, 6))}}
    with pytest.raises(ValueError, match="lm_head"):
        lora.targets(base, ("lm_head",))


def test_gates_too_narrow_for_the_rank_are_left_out_unless_they_are_named():
    layer = {
        x: {"kernel": jnp.ones((2, 8, n))}
        for x, n in (("in_proj_a", 4), ("in_proj_qkv", 24), ("out_proj", 8))
    }
    base = {"layers": {"delta": layer}}
    a = "layers/delta/in_proj_a/kernel"
    config = LoraConfig(rank=6)
    assert {*lora.sites(lora.init(KEY, base, LoraConfig(rank=4)))} > {a}
    wide = {*lora.sites(lora.init(KEY, base, config))}
    assert wide == {
        name.replace("in_proj_a", x) for name in [a] for x in list(layer)[1:]
    }
    (sentence,) = train_output.left_out(base, config)
    assert sentence.startswith(f"{a} have fewer")
    assert "rank of 4 at most" in sentence
    for named in (("in_proj_a",), ("in_proj_a", "out_proj")):
        with pytest.raises(ValueError, match="LoRA rank is 6, expected 1 to 4"):
            lora.init(KEY, base, dataclasses.replace(config, targets=named))
    with pytest.raises(ValueError, match="LoRA rank is 9"):
        lora.init(KEY, base, LoraConfig(rank=9))
