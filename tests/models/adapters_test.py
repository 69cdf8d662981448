import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import lora, models
from jaxlora import tree as named
from jaxlora.io.peft import PeftAdapter, PeftModule
from jaxlora.lora import LoraWeight
from jaxlora.models import adapters, decoder, pretrained, sites

DATA = Path(__file__).parents[1] / "data" / "hf"
NAMES = ("plain", "plain2", "rslora", "pattern")
Q = "layers/attn/q_proj/kernel"


@pytest.fixture(scope="module")
def base():
    """Of llama: L 2, D 64, heads 4 x 16, key heads 2, MLP 128."""
    return pretrained.load(DATA / "llama" / "base")[1]


def one(site, weight):
    return named.unflatten({site: weight})


def random(shape_a, shape_b, scale):
    rng = np.random.default_rng(0)
    return LoraWeight(
        jnp.asarray(rng.standard_normal(shape_a), jnp.float32),
        jnp.asarray(rng.standard_normal(shape_b), jnp.float32),
        jnp.asarray(scale, jnp.float32),
    )


def test_stacked_deltas_by_numpy(base):
    stored = load_file(DATA / "llama" / "pattern" / "adapter_model.safetensors")
    sites = lora.sites(adapters.load(DATA / "llama" / "pattern", base))
    assert set(sites) == {
        Q,
        Q.replace("q_proj", "v_proj"),
        "layers/mlp/down_proj/kernel",
    }
    assert sites[Q].a.shape == (2, 64, 4)  # ranks 4 and 2
    assert sites[Q].scale.tolist() == [2.0, 4.0]
    for layer, scale in enumerate((2.0, 4.0)):
        key = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
        delta = scale * stored[f"{key}B.weight"] @ stored[f"{key}A.weight"]
        np.testing.assert_allclose(lora.delta(sites[Q])[layer], delta.T, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_written_adapter_has_the_tensors_of_the_original(base, name, tmp_path):
    adapter = adapters.load(DATA / "llama" / name, base)
    adapters.save(tmp_path / "out", adapter)
    ours, theirs = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (tmp_path / "out", DATA / "llama" / name)
    )
    assert set(ours) == set(theirs)
    for key, values in theirs.items():
        np.testing.assert_array_equal(ours[key], values)
    again = adapters.load(tmp_path / "out", base)
    jax.tree.map(np.testing.assert_array_equal, again, adapter)
    raw = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    config = json.loads((DATA / "llama" / name / "adapter_config.json").read_text())
    assert raw["target_modules"] == sorted(config["target_modules"])


def test_bfloat16_stays(base, tmp_path):
    adapter = adapters.load(DATA / "llama" / "plain", base)
    small = lora.lora_map(
        lambda w: LoraWeight(w.a.astype("bfloat16"), w.b.astype("bfloat16"), w.scale),
        adapter,
    )
    adapters.save(tmp_path / "out", small)
    jax.tree.map(
        np.testing.assert_array_equal, adapters.load(tmp_path / "out", base), small
    )


def test_padding_is_cut_off(base, tmp_path):
    adapter = adapters.load(DATA / "llama" / "pattern", base)
    adapters.save(tmp_path / "out", lora.pad(adapter, 16))
    again = adapters.load(tmp_path / "out", base)
    jax.tree.map(np.testing.assert_array_equal, again, adapter)


def test_fresh_adapter_keeps_its_rank(base):
    """b is zero, but a is not: training goes on from it."""
    config = lora.LoraConfig(rank=3)
    adapter = lora.init(jax.random.key(0), base, config)
    written = adapters.to_peft(adapter)
    assert {module.a.shape[0] for module in written.modules.values()} == {3}
    assert len(written.modules) == 2 * 7


def test_layer_without_factors_is_zero_and_not_written(base, tmp_path):
    weight = random((2, 64, 3), (2, 3, 64), [1.0, 0.5])
    path = "model.layers.1.self_attn.q_proj"
    half = PeftModule(np.asarray(weight.a[1].T), np.asarray(weight.b[1].T), 0.5)
    adapter = adapters.from_peft(PeftAdapter(modules={path: half}), base)
    site = lora.sites(adapter)[Q]
    assert site.scale.tolist() == [1.0, 0.5]
    delta = np.asarray(lora.delta(site))
    assert not delta[0].any()
    np.testing.assert_array_equal(delta[1], lora.delta(weight)[1])
    adapters.save(tmp_path / "out", adapter)
    raw = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert raw["target_modules"] == [path]
    jax.tree.map(
        np.testing.assert_array_equal, adapters.load(tmp_path / "out", base), adapter
    )


def test_base_name_is_written(base, tmp_path):
    adapter = adapters.load(DATA / "llama" / "plain", base)
    adapters.save(tmp_path / "out", adapter, base_name="some/base")
    raw = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert raw["base_model_name_or_path"] == "some/base"


@pytest.mark.parametrize("prefix", ["model.language_model", "language_model.model", ""])
def test_other_spellings_of_modules(base, prefix, tmp_path):
    folder = shutil.copytree(DATA / "llama" / "plain", tmp_path / "in")
    values = load_file(folder / "adapter_model.safetensors")
    dot = f"{prefix}." if prefix else ""
    values = {
        k.replace("model.model.layers", f"model.{dot}layers"): x
        for k, x in values.items()
    }
    save_file(values, folder / "adapter_model.safetensors")
    jax.tree.map(
        np.testing.assert_array_equal,
        adapters.load(folder, base),
        adapters.load(DATA / "llama" / "plain", base),
    )


def module(d, f):
    return PeftModule(np.ones((2, d), np.float32), np.ones((f, 2), np.float32), 1.0)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["lm_head"], "'lm_head' is from 64 to 128 .* expected 64 to 256"),
        (["model.embed_tokens"], "'model.embed_tokens' as a linear layer, which it"),
        (["model.layers.0.mlp.fc1"], r"'model.layers.0.mlp.fc1', .*self_attn.q_proj"),
        (["transformer.h.0.attn"], r"'transformer.h.0.attn', .*another model"),
        (["model.layers.2.mlp.up_proj"], "the base has 2 layers, 0 to 1"),
        (["model.layers.0.self_attn.k_proj"], "from 64 to 128 .* expected 64 to 32"),
        (["model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj"], "layer 0 of .* twice"),
    ],
)
def test_adapter_of_another_model(base, modules, message):
    adapter = PeftAdapter(modules={path: module(64, 128) for path in modules})
    with pytest.raises(ValueError, match=message):
        adapters.from_peft(adapter, base)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (one(Q, random((3, 2, 64, 4), (3, 2, 4, 64), np.ones((3, 2)))), "lora.unstack"),
        (
            one("layers/mlp/fc/kernel", random((2, 8, 2), (2, 2, 8), [1, 1])),
            "'layers/ml",
        ),
        (
            one(
                Q,
                lora.lora_map(
                    lambda w: w,
                    LoraWeight(
                        jnp.zeros((2, 64, 4)), jnp.zeros((2, 4, 64)), jnp.ones(2)
                    ),
                ),
            ),
            "no module",
        ),
    ],
)
def test_adapter_that_cannot_be_written(adapter, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        adapters.save(tmp_path / "out", adapter)
    assert not list(tmp_path.iterdir())


def test_what_peft_has_everywhere_or_nowhere(base, tmp_path):
    weight = random((2, 64, 1), (2, 1, 64), [1, 1])
    row = LoraWeight(jnp.ones((2, 1, 1)), jnp.ones((2, 1, 64)), jnp.ones(2))
    o_proj = {"o_proj": {"kernel": weight}}
    biased = {"layers": {"attn": {"q_proj": {"kernel": weight, "bias": row}} | o_proj}}
    adapters.save(tmp_path / "out", biased)
    again = lora.sites(adapters.load(tmp_path / "out", base))
    assert not lora.delta(again["layers/attn/o_proj/bias"]).any()
    np.testing.assert_array_equal(lora.delta(again["layers/attn/q_proj/bias"]), 1)
    table = LoraWeight(jnp.ones((9, 1)), jnp.ones((1, 64)), jnp.ones(()))
    with pytest.raises(ValueError, match=r"bias .* none of 'model.embed_tokens'"):
        adapters.to_peft(biased | {"embed": {"embedding": table}})
    gained = {"layers": {"attn": {"q_proj": {"kernel": weight, "gain": row}} | o_proj}}
    with pytest.raises(ValueError, match=r"magnitude .*q_proj' and none of .*o_proj'"):
        adapters.to_peft(gained, base=base)


def test_dora_is_a_gain_beside_the_kernel(base):
    """Magnitude and norm are of an output feature (arXiv 2402.09353, equation 5)."""
    adapter = lora.sites(adapters.load(DATA / "llama" / "dora", base))
    gain = adapter["layers/attn/q_proj/gain"]
    stored = load_file(DATA / "llama" / "dora" / "adapter_model.safetensors")
    kernel = np.asarray(base["layers"]["attn"]["q_proj"]["kernel"])
    for layer in range(2):
        key = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
        delta = 2.0 * stored[f"{key}B.weight"] @ stored[f"{key}A.weight"]
        norms = np.linalg.norm(kernel[layer].T + delta, axis=1)
        want = stored[f"{key}magnitude_vector"] / norms
        np.testing.assert_allclose(1 + lora.delta(gain)[layer, 0], want, rtol=1e-5)
        np.testing.assert_allclose(
            lora.delta(adapter[Q])[layer], delta.T * want, atol=1e-5
        )


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_has_magnitude_and_bias_as_other_layers(base, tied):
    rng = np.random.default_rng(0)
    weight = np.asarray(base["embed"]["embedding"] if tied else base["head"].T)
    a, b = rng.normal(size=(2, 64)), rng.normal(size=(len(weight), 2))
    m, bias = rng.uniform(1, 2, len(weight)), rng.normal(size=len(weight))
    module = PeftModule(*(np.asarray(x, "f4") for x in (a, b)), 2.0)
    beside = {"magnitude": m.astype("f4"), "bias": bias.astype("f4")}
    module = dataclasses.replace(module, **beside)
    held = {x: y for x, y in base.items() if x != "head"} if tied else base
    adapter = adapters.from_peft(PeftAdapter(modules={"lm_head": module}), held)
    sites.check(held, adapter)
    x = rng.normal(size=(3, 64))
    head = held["embed"]["embedding"] if tied else held["head"]
    config = models.DecoderConfig(tie_head=tied)
    got = decoder.logits(config, jnp.asarray(x, "f4"), head, sites.of_head(adapter))
    total = weight + 2.0 * b @ a
    total *= (m / np.linalg.norm(total, axis=1))[:, None]
    np.testing.assert_allclose(got, x @ total.T + 2.0 * bias, atol=1e-4)
    again = adapters.to_peft(adapter, base=held).modules["lm_head"]
    for part in ("a", "b", "magnitude", "bias"):
        got, want = getattr(again, part), getattr(module, part)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="whose magnitudes are norms"):
        adapters.to_peft(adapter)


@pytest.mark.parametrize("part", ["gain", "bias"])
def test_an_adapter_with_another_part_beside_its_factors_is_another(
    base, part, tmp_path
):
    weight = random((2, 64, 1), (2, 1, 64), [1, 1])
    row = LoraWeight(jnp.ones((2, 1, 1)), jnp.ones((2, 1, 64)), jnp.ones(2))
    adapter = {"layers": {"attn": {"q_proj": {"kernel": weight, part: row}}}}
    adapters.save(tmp_path / "out", adapter, base=base)
    adapters.check(tmp_path / "out", adapter, base=base)
    # PEFT stores the factors of DoRA without its gain, 1 + 1 before and 1 + 3 now.
    same = weight.replace(b=weight.b * (2 if part == "gain" else 1))
    turned = row.replace(scale=3 * row.scale)
    other = {"layers": {"attn": {"q_proj": {"kernel": same, part: turned}}}}
    with pytest.raises(ValueError, match="holds another adapter"):
        adapters.check(tmp_path / "out", other, base=base)
