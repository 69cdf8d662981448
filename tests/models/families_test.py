"""Families of checkpoints: what transformers and PEFT compute of tiny ones."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlora import lora, models
from jaxlora import tree as named
from jaxlora.models import adapters, architectures, config_out, names, pretrained

DATA = pathlib.Path(__file__).parents[1] / "data" / "families"
FAMILIES = sorted(path.name for path in DATA.iterdir() if path.is_dir())
CLOSE = 5e-5
"""Logits are of size 8; float32 sums in another order differ by 2e-5."""


def reference(family):
    meta = json.loads((DATA / family / "reference.json").read_text())
    return meta, load_file(DATA / family / "reference.safetensors")


def experts(family, base):
    """A library of no change, and of the two adapters."""
    both = [adapters.load(DATA / family / f"adapter{i}", base) for i in (1, 2)]
    none = lora.lora_map(
        lambda w: lora.LoraWeight(w.a, w.b, jnp.zeros_like(w.scale)), both[0]
    )
    return lora.stack([none, *both])


SLOW = ["mistral_plain", "yarn", "qwen3_5_moe_text", "qwen3_moe_some"]
"""What other families hold, in another mixture."""


@pytest.mark.parametrize(
    "family",
    [pytest.param(x, marks=[pytest.mark.slow] if x in SLOW else []) for x in FAMILIES],
)
def test_logits_are_those_of_transformers_and_peft(family):
    meta, stored = reference(family)
    model, base = pretrained.load(DATA / family / "base")
    tokens = jnp.asarray(meta["input_ids"], jnp.int32)
    library = experts(family, base)
    with jax.default_matmul_precision("highest"):
        call = jax.jit(jax.vmap(lambda x: models.apply(model, base, tokens, adapter=x)))
        ours = call(library)
        if model.config.rope_scaling and model.config.rope_scaling.by_length:
            got = jax.jit(models.apply, static_argnums=0)(model, base, tokens[:, :7])
            np.testing.assert_allclose(got, stored["short"], atol=CLOSE)
    for i, name in enumerate(("base", "adapter1", "adapter2")):
        np.testing.assert_allclose(ours[i], stored[name], atol=CLOSE)
        assert i == 0 or np.abs(stored[name] - stored["base"]).max() > 1


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_an_adapter_of_each_mlp_of_a_layer_is_that_of_peft(family):
    meta, stored = reference(family)
    model, base = pretrained.load(DATA / family / "base")
    adapter = adapters.load(DATA / family / "experts", base)
    tokens = jnp.asarray(meta["input_ids"], jnp.int32)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(models.apply, static_argnums=0)(
            model, base, tokens, adapter=adapter
        )
    np.testing.assert_allclose(got, stored["experts"], atol=CLOSE)
    assert np.abs(stored["experts"] - stored["base"]).max() > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_config_is_written_so_that_it_is_read_again(family):
    raw = json.loads((DATA / family / "base" / "config.json").read_text())
    config = architectures.from_json(raw)
    written = config_out.to_json(config)
    plain = family == "mistral_plain"  # computes what a Llama does
    assert written["model_type"] == ("llama" if plain else raw["model_type"])
    assert architectures.from_json(written) == config


@pytest.mark.parametrize(("scaled", "factor"), [(True, None), (False, 1.0)])
def test_scores_of_gpt2_may_be_unscaled(scaled, factor):
    raw = json.loads((DATA / "gpt2" / "base" / "config.json").read_text())
    config = architectures.from_json(raw | {"scale_attn_weights": scaled})
    assert config.query_scale == factor
    assert architectures.from_json(config_out.to_json(config)) == config


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_those_of_the_checkpoint(family):
    raw = json.loads((DATA / family / "base" / "config.json").read_text())
    config = architectures.from_json(raw)
    shapes = jax.eval_shape(
        lambda: models.init(jax.random.key(0), models.Decoder(config))
    )
    stored = load_file(DATA / family / "base" / "model.safetensors")
    assert set(names.places(config, named.flatten(shapes))) == set(stored)


WRITTEN = ["gpt2", "mixtral", "phi3"]


@pytest.mark.parametrize(
    "family",
    [pytest.param(x, marks=[] if x in WRITTEN else pytest.mark.slow) for x in FAMILIES],
)
def test_what_is_written_is_what_was_read(family, tmp_path):
    source = DATA / family / "base" / "model.safetensors"
    model, base = pretrained.load(source.parent)
    pretrained.save(tmp_path / "out", model, base)
    again = load_file(tmp_path / "out" / "model.safetensors")
    for name, values in load_file(source).items():
        np.testing.assert_array_equal(again[name], values.astype(np.float32))
    adapter = adapters.load(DATA / family / "adapter1", base)
    adapters.save(tmp_path / "adapter", adapter, config=model.config)
    theirs = load_file(DATA / family / "adapter1" / "adapter_model.safetensors")
    ours = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values)
    targets = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    for path in {name.rpartition(".lora_")[0] for name in theirs}:
        assert any(path.endswith(f".{x}") for x in targets["target_modules"])


def greedy_without_cache(model, base, inputs, steps):
    """The most likely tokens, each of the text so far as if it were a new prompt."""
    start, rows = inputs.tokens.shape[1], jnp.arange(inputs.tokens.shape[1] + steps)
    tokens, mask = (jnp.pad(x, ((0, 0), (0, steps))) for x in inputs[:2])
    call = jax.jit(models.apply, static_argnums=0)
    for end in range(start, start + steps):
        seen = mask | ((rows >= start) & (rows < end))[None]
        positions = jnp.maximum(jnp.cumsum(seen, axis=1) - 1, 0)
        scores = call(model, base, models.Inputs(tokens, seen, positions=positions))
        tokens = tokens.at[:, end].set(scores[:, end - 1].argmax(-1))
    return tokens[:, start:]


def test_a_text_may_pass_the_trained_length_while_it_is_generated():
    """Its keys are then made anew; padding and tokens to come do not count."""
    model, base = pretrained.load(DATA / "phi3" / "base")
    assert model.config.rope_scaling.original_length == 8
    tokens = jnp.asarray(reference("phi3")[0]["input_ids"], jnp.int32)[:, :9]
    inputs = models.Inputs(tokens, mask=jnp.arange(9)[None] >= jnp.asarray([[4], [6]]))
    new = models.generate(model, base, inputs, models.Decoding(8)).tokens
    want = greedy_without_cache(model, base, inputs, 8)
    np.testing.assert_array_equal(new, want)


GREEDY = ["gpt2", "mixtral"]


@pytest.mark.parametrize(
    "family",
    [pytest.param(x, marks=[] if x in GREEDY else pytest.mark.slow) for x in FAMILIES],
)
def test_generation_is_that_of_transformers(family):
    meta, _ = reference(family)
    model, base = pretrained.load(DATA / family / "base")
    tokens, want = jnp.asarray(meta["input_ids"], jnp.int32), meta["greedy"]
    # Padding on the left moves positions and masks, and must change nothing.
    padded = jnp.pad(tokens, ((0, 0), (2, 0)))
    inputs = models.Inputs(padded, mask=jnp.arange(16)[None] >= jnp.asarray([[2], [2]]))
    decoding = models.Decoding(len(want[0]), stop=(2,))
    with jax.default_matmul_precision("highest"):
        new = models.generate(model, base, inputs, decoding)
    assert new.tokens.tolist() == want
