import dataclasses
import json
from pathlib import Path

import pytest

from jaxlora.models import DecoderConfig, RopeScaling, config_out
from jaxlora.models.architectures import from_json

DATA = Path(__file__).parents[1] / "data" / "hf"
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")


def base(family):
    raw = json.loads((DATA / family / "base" / "config.json").read_text())
    return from_json(raw)


@pytest.mark.parametrize("family", FAMILIES)
def test_written_config_is_read_as_the_same_decoder(family):
    config = base(family)
    raw = config_out.to_json(config)
    assert raw["model_type"] == family
    assert from_json(json.loads(json.dumps(raw))) == config


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        (
            "qwen2",
            {"local_layers": (False, True), "window": 3, "local_rope_theta": 1e6},
        ),
        ("qwen2", {"local_layers": (), "tie_head": False, "max_length": 7}),
        ("llama", {"rope_scaling": None}),
        ("llama", {"rope_scaling": RopeScaling(kind="linear", factor=2.5)}),
        ("gemma3_text", {"rope_scaling": RopeScaling(kind="linear", factor=8.0)}),
        ("gemma3_text", {"attn_softcap": 3.0, "query_scale": 0.31}),
        ("gemma2", {"local_layers": (), "window": 0, "attn_softcap": 0.0}),
        ("qwen3", {"activation": "gelu", "norm_eps": 1e-5}),
    ],
)
def test_other_values_too(family, changes):
    config = dataclasses.replace(base(family), **changes)
    assert from_json(config_out.to_json(config)) == config


def test_no_local_layer_is_the_same_as_all_false():
    config = dataclasses.replace(base("qwen2"), local_layers=(False, False))
    read = from_json(config_out.to_json(config))
    assert read == dataclasses.replace(config, local_layers=())


def test_dtype_of_the_weights_is_written():
    config = dataclasses.replace(base("llama"), param_dtype="bfloat16")
    assert config_out.to_json(config)["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DecoderConfig(), "learned positions and a plain MLP"),
        (dataclasses.replace(base("llama"), embed_scale=2.0), "embed_scale: 2.0, 1.0"),
        (dataclasses.replace(base("qwen3"), attention_bias=True), "qk_norm: True"),
        (dataclasses.replace(base("gemma2"), norm_plus_one=False), "norm_plus_one"),
        (dataclasses.replace(base("qwen2"), final_softcap=3.0), "final_softcap"),
        (dataclasses.replace(base("gemma2"), local_rope_theta=3.0), "local_rope_theta"),
    ],
)
def test_decoder_without_an_architecture(config, message):
    with pytest.raises(ValueError, match=message):
        config_out.to_json(config)


def test_differences_do_not_count_how_it_is_computed():
    config = base("llama")
    other = dataclasses.replace(config, remat=True, dtype="bfloat16", attention="plain")
    assert config_out.differences(config, other) == []
    other = dataclasses.replace(config, window=3)
    assert config_out.differences(config, other) == ["window: 0, 3"]
