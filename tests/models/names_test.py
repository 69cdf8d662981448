import json
from pathlib import Path

import jax
import pytest
from safetensors import safe_open

from jaxlora import tree as named
from jaxlora.models import Decoder, DecoderConfig, architectures, init, names
from jaxlora.models.names import Place

DATA = Path(__file__).parents[1] / "data" / "hf"
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")


def places(family):
    raw = json.loads((DATA / family / "base" / "config.json").read_text())
    config = architectures.from_json(raw)
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), Decoder(config)))
    return names.places(config, named.flatten(shapes))


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_those_of_the_checkpoint(family):
    with safe_open(DATA / family / "base" / "model.safetensors", "numpy") as file:
        assert set(places(family)) == set(file.keys())


def test_norms_of_gemma_mean_something_else():
    name = "model.layers.1.post_attention_layernorm.weight"
    assert places("llama")[name] == Place("layers/mlp_norm/scale", (1,), False)
    assert places("gemma2")[name] == Place("layers/attn_post_norm/scale", (1,), False)


def test_what_is_turned():
    turned = {name for name, place in places("llama").items() if place.turned}
    assert "lm_head.weight" in turned
    assert "model.embed_tokens.weight" not in turned
    assert len(turned) == 1 + 2 * 7


def test_leaf_without_a_place():
    with pytest.raises(ValueError, match="'positions' has no place"):
        names.places(DecoderConfig(), {"positions": None})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.language_model.layers.0.x.weight", "model.layers.0.x.weight"),
        ("language_model.model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("layers.0.x", "model.layers.0.x"),
        ("model.norm.weight", "model.norm.weight"),
        ("model.layers.0.norm.weight", "model.layers.0.norm.weight"),
        ("score.weight", "score.weight"),
        ("normal.weight", "normal.weight"),
    ],
)
def test_canonical(name, expected):
    assert names.canonical(name) == expected


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", False, True),
        ("model.rotary_emb.inv_freq", False, True),
        ("vision_tower.x.weight", False, False),
        ("vision_tower.x.weight", True, True),
        ("model.multi_modal_projector.x", True, True),
        ("model.layers.0.mlp.up_proj.weight", True, False),
        ("mtp.layers.0.self_attn.q_proj.weight", True, True),
        ("mtp.fc.weight", False, False),
    ],
)
def test_ignored(name, more, expected):
    assert names.is_ignored(name, more=more) is expected


@pytest.mark.parametrize("site", names.KERNELS)
def test_modules_and_sites_are_inverse(site):
    path = names.module(f"{site}/kernel", 11)
    assert names.site(path)[:2] == (f"{site}/kernel", 11)


@pytest.mark.parametrize(
    "path",
    [
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.mlp",
        "model.layers.x.mlp.up_proj",
    ],
)
def test_path_that_is_no_linear_layer(path):
    assert names.site(path) is None


def test_site_that_is_no_linear_layer():
    with pytest.raises(ValueError, match="'layers/mlp/fc/kernel' is no linear layer"):
        names.module("layers/mlp/fc/kernel", 0)
