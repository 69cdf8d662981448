"""Layers of several MLPs: a router, and adapters of them."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, models, route
from jaxlora import tree as named
from jaxlora.models import adapters, calls, grouped, moe, names, sites, statistics
from jaxlora.models.config import DecoderConfig
from jaxlora.parallel import rules

SPARSE = DecoderConfig(
    vocab_size=13,
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    mlp_size=6,
    mlp="gated",
    positions="rope",
    moe_mlps=4,
    moe_top_k=2,
)
MODEL = models.Decoder(SPARSE)
TOKENS = jnp.asarray([[1, 5, 3, 7, 2]])


@pytest.fixture(scope="module")
def base():
    return jax.jit(models.init, static_argnums=1)(jax.random.key(0), MODEL)


@pytest.fixture(scope="module")
def adapter(base):
    """Of every MLP and the router, none of it zero."""
    config = lora.LoraConfig(rank=2, targets=(r"layers/moe/.*kernel",))
    fresh = lora.init(jax.random.key(1), base, config)
    return jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), fresh
    )


def groups(rows, count):
    rng = np.random.default_rng(rows)
    which = np.sort(rng.integers(0, count, rows))
    x, stack = rng.normal(size=(rows, 6)), rng.normal(size=(count, 6, 5))
    sizes = jnp.asarray(np.bincount(which, minlength=count), jnp.int32)
    want = np.stack([a @ stack[i] for a, i in zip(x, which, strict=True)])
    return *(jnp.asarray(y, jnp.float32) for y in (x, stack)), sizes, want, which


@pytest.mark.parametrize("how", ["ragged", "blocks"])
def test_rows_meet_the_matrix_of_their_group(how):
    x, stack, sizes, want, which = groups(40, 4)

    def loss(x, stack):
        y = grouped.grouped(lambda g, x: g.dot(x, stack), x, sizes, how)
        return jnp.sum(y**2), y

    # Over adapters the stack is shared, as base kernels are.
    call = jax.jit(jax.vmap(jax.grad(loss, (0, 1), has_aux=True), in_axes=(0, None)))
    (got_x, got_stack), y = call(jnp.stack([x, 2 * x]), stack)
    np.testing.assert_allclose(y[0], want, atol=1e-5)
    np.testing.assert_allclose(y[1], 2 * want, atol=1e-5)
    back = np.stack([2 * y @ stack[i].T for y, i in zip(want, which, strict=True)])
    np.testing.assert_allclose(got_x[0], back, atol=1e-4)
    outer = np.zeros(stack.shape)
    for row, y, i in zip(np.asarray(x), want, which, strict=True):
        outer[i] += 2 * np.outer(row, y)
    np.testing.assert_allclose(got_stack[0], outer, atol=1e-4)


@pytest.mark.parametrize("count", [4, 64])
def test_work_grows_with_the_rows_and_not_with_the_groups(count):
    x, stack, sizes, *_ = groups(512, count)
    blocks = []

    def product(groups, x):
        blocks.append(len(x))
        return groups.dot(x, stack)

    traced = jax.make_jaxpr(lambda x: grouped.grouped(product, x, sizes, "blocks"))(x)
    (length,) = (e.params["length"] for e in traced.eqns if e.primitive.name == "scan")
    assert blocks[0] * length <= 2 * 512


def test_the_sum_is_that_of_a_loop_over_tokens(base):
    x = jax.random.normal(jax.random.key(2), (5, 8))
    scores = x @ base["layers"]["moe"]["router"]["kernel"][0]
    choice = moe.pick(SPARSE, scores)
    kernels = {n: base["layers"]["moe"][n]["kernel"][0] for n in ("gate", "up", "down")}
    run = jax.jit(lambda x, w: moe.mixed(SPARSE, x, choice, w))
    rng = np.random.default_rng(1)
    rows = {n: rng.normal(size=(4, 1, k.shape[-1])) for n, k in kernels.items()}
    ones = jnp.ones((4, 1, 1))
    low = {
        n: lora.LoraWeight(ones, jnp.asarray(r, jnp.float32), ones[:, 0, 0])
        for n, r in rows.items()
    }
    parts = {n: {"gain": x, "bias": x.replace(b=2 * x.b)} for n, x in low.items()}
    got = run(x, {n: (k, parts[n]) for n, k in kernels.items()})
    share = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    for row in range(5):
        best = np.argsort(-share[row])[:2]
        total = 0.0
        for i in best:
            gate, up, down = (
                lambda x, k=kernels[n][i], r=rows[n][i, 0]: x @ k * (1 + r) + 2 * r
                for n in ("gate", "up", "down")
            )
            hidden = jax.nn.gelu(gate(x[row])) * up(x[row])
            total += share[row, i] / share[row, best].sum() * down(hidden)
        np.testing.assert_allclose(got[row], total, atol=1e-5)


def test_an_adapter_of_the_mlps_is_fused_exactly(base, adapter):
    both = lora.stack([adapter, jax.tree.map(jnp.zeros_like, adapter)])
    ask = jax.jit(jax.vmap(lambda x: models.apply(MODEL, base, TOKENS, adapter=x)))
    alone = jax.jit(lambda p: models.apply(MODEL, p, TOKENS))
    got = ask(both)
    want = alone(lora.fuse(base, adapter))
    np.testing.assert_allclose(got[0], want, atol=2e-5)
    np.testing.assert_allclose(got[1], alone(base), atol=1e-5)
    assert jnp.abs(got[0] - got[1]).max() > 0.1


def test_an_adapter_of_the_mlps_is_written_by_mlp(base, adapter, tmp_path):
    adapters.save(tmp_path / "out", adapter, config=SPARSE)
    jax.tree.map(
        np.testing.assert_array_equal, adapters.load(tmp_path / "out", base), adapter
    )
    written = adapters.to_peft(adapter, config=SPARSE).modules
    assert "model.layers.1.block_sparse_moe.experts.3.w2" in written
    assert len(written) == 2 * (4 * 3 + 1)
    odd = adapters.to_peft(adapter, config=SPARSE)
    modules = dict(odd.modules)
    last = modules.pop("model.layers.1.block_sparse_moe.experts.3.w2")
    modules["model.layers.1.block_sparse_moe.experts.4.w2"] = last
    with pytest.raises(ValueError, match="4 MLPs, 0 to 3"):
        adapters.from_peft(type(odd)(modules=modules), base)


@pytest.mark.parametrize(
    "other",
    [{"moe_shared": 5, "moe_normalize": False}, {"dense_layers": (True, False)}],
    ids=["shared", "dense"],
)
def test_mlps_are_told_from_another_one_of_their_model(other, tmp_path):
    """A target down_proj would be of that one, too."""
    more = {"dense_size": 7} if "dense_layers" in other else {}
    config = dataclasses.replace(SPARSE, qk_norm=True, **other, **more)
    model, rng = models.Decoder(config), np.random.default_rng(0)
    kernels = {
        name: jnp.zeros(leaf.shape)
        for name, leaf in calls.leaf_shapes(model).items()
        if re.search("moe/(gate|up|down)/kernel", name)
    }

    def factors(kernel):
        *lead, d, f = kernel.shape
        a, b = rng.normal(size=(*lead, d, 2)), rng.normal(size=(*lead, 2, f))
        return lora.LoraWeight(*map(jnp.float32, (a, b, np.ones(lead))))

    adapter = named.unflatten({x: factors(kernel) for x, kernel in kernels.items()})
    adapters.save(tmp_path / "out", adapter, config=config)
    adapters.check(tmp_path / "out", adapter, config=config)
    raw = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert "mlp.experts.3.down_proj" in raw["target_modules"]
    assert len(raw["target_modules"]) == 3 * 4


def test_dora_and_biases_of_the_mlps_are_exact_and_written_again(base, adapter):
    odd = adapters.to_peft(adapter, config=SPARSE)
    rng = np.random.default_rng(0)
    modules = {
        path: dataclasses.replace(
            x,
            magnitude=rng.uniform(1, 2, len(x.b)).astype("f4"),
            bias=rng.normal(size=len(x.b)).astype("f4"),
        )
        for path, x in odd.modules.items()
    }
    tree = adapters.from_peft(type(odd)(modules=modules), base)
    sites.check(base, tree)
    fused = lora.sites(tree)
    for site, name in (("up", "w3"), ("down", "w2")):  # wide, and narrow
        module = modules[f"model.layers.1.block_sparse_moe.experts.3.{name}"]
        kernel = np.asarray(base["layers"]["moe"][site]["kernel"][1, 3], np.float64)
        total = kernel.T + module.scale * module.b.astype(np.float64) @ module.a
        norm = np.linalg.norm(total, axis=1, keepdims=True)
        want = (module.magnitude[:, None] * total / norm).T
        here = f"layers/moe/{site}"
        got = sites.fused(
            base["layers"]["moe"][site]["kernel"], f"{here}/kernel", fused
        )
        np.testing.assert_allclose(got[1, 3], want, atol=1e-5)
        bias = lora.delta(fused[f"{here}/bias"])[1, 3, 0]
        np.testing.assert_allclose(bias, module.scale * module.bias, rtol=1e-5)
    again = adapters.to_peft(tree, config=SPARSE, base=base).modules
    for path, module in modules.items():
        for part in ("a", "b", "magnitude", "bias"):
            got, want = (getattr(x, part) for x in (again[path], module))
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_attention_is_what_is_adapted_by_default(base):
    sites = lora.sites(lora.init(jax.random.key(0), base, lora.LoraConfig(rank=2)))
    assert {name.split("/")[1] for name in sites} == {"attn"}


def test_a_library_is_not_written_as_one_adapter(base):
    dense = lora.init(jax.random.key(0), base, lora.LoraConfig(rank=2))
    dense = jax.tree.map(jnp.ones_like, dense)
    with pytest.raises(ValueError, match="2 axes before its factors, expected 1"):
        adapters.to_peft(lora.stack([dense] * 2), config=SPARSE, base=base)


def test_what_needs_every_token_is_refused_by_name(base, adapter):
    routed = models.Decoder(SPARSE, route.preset("arrow", top_k=1))
    library = lora.stack([adapter, adapter])
    with pytest.raises(ValueError, match="where a route is not"):
        models.apply(routed, base, TOKENS, library=library)
    with pytest.raises(ValueError, match="a mean over the inputs"):
        statistics.input_grams(MODEL, base, TOKENS, jnp.ones((1, 5)), adapter=adapter)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"moe_top_k": 5}, "moe_top_k is 5, expected 1 to 4"),
        ({"mlp": "plain"}, "expected gated MLPs"),
        ({"mlp_bias": True}, "mlp_bias=True"),
    ],
)
def test_configs_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPARSE, **fields)


def test_stacked_kernels_are_cut_like_others():
    mesh = jax.make_mesh((2, 2), ("fsdp", "tensor"))
    shapes = jax.eval_shape(lambda: models.init(jax.random.key(0), MODEL))
    cut = rules.shardings(mesh, shapes)
    assert tuple(cut["layers/moe/up/kernel"].spec) == (None, None, "fsdp", "tensor")
    assert tuple(cut["layers/moe/down/kernel"].spec) == (None, None, "tensor", "fsdp")


def test_other_names_of_the_same_mlps():
    site = names.site("model.layers.2.mlp.experts.7.gate_proj")
    assert site == ("layers/moe/gate/kernel", 2, 7)
    assert names.site("model.layers.2.mlp.gate") == (
        "layers/moe/router/kernel",
        2,
        None,
    )
