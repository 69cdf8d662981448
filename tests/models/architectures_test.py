import json
from pathlib import Path

import pytest

from jaxlora.models import RopeScaling, architectures, fields
from jaxlora.models.architectures import from_json

DATA = Path(__file__).parents[1] / "data" / "hf"
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")
TINY = {
    "vocab_size": 8,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 32,
}
LLAMA = TINY | {"model_type": "llama"}
QWEN = TINY | {"model_type": "qwen2"}
GEMMA = TINY | {"model_type": "gemma"}
GEMMA2 = TINY | {"model_type": "gemma2"}
QWEN_MOE = TINY | {"model_type": "qwen3_moe"}
QWEN35 = TINY | {"model_type": "qwen3_5_text", "num_hidden_layers": 4}
GEMMA3 = TINY | {"model_type": "gemma3_text", "num_hidden_layers": 7}


def read(family):
    return json.loads((DATA / family / "base" / "config.json").read_text())


def older(raw):
    """The same config as transformers 4 spelt it."""
    raw = dict(raw)
    rope = dict(raw.pop("rope_parameters"))
    raw["torch_dtype"] = raw.pop("dtype")
    kind = raw["model_type"]
    if kind == "gemma3_text":
        raw["rope_theta"] = rope["full_attention"]["rope_theta"]
        raw["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        raw["rope_scaling"] = None
        raw["sliding_window_pattern"] = 2
        del raw["_sliding_window_pattern"]
    else:
        raw["rope_theta"] = rope.pop("rope_theta")
        raw["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    raw.pop("layer_types", None)
    return raw


@pytest.mark.parametrize("family", FAMILIES)
def test_old_form_is_the_same_decoder(family):
    raw = read(family)
    old = older(raw)
    assert "rope_parameters" not in old
    assert from_json(old) == from_json(raw)
    assert architectures.dtype(old) == architectures.dtype(raw) == "float32"


def test_fields_of_each_family():
    llama, qwen2, qwen3, gemma2, gemma3 = (from_json(read(name)) for name in FAMILIES)
    assert llama.rope_scaling == RopeScaling(
        kind="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_length=64,
    )
    assert not llama.tie_head
    assert (qwen2.attention_bias, qwen2.qk_norm, qwen2.rope_theta) == (True, False, 1e6)
    assert (qwen3.attention_bias, qwen3.qk_norm, qwen3.head_dim) == (False, True, 32)
    assert (gemma2.attn_softcap, gemma2.final_softcap) == (5.0, 10.0)
    assert gemma2.local_layers == (True, False)
    assert (gemma2.window, gemma2.query_scale) == (4, 24**-0.5)
    assert (gemma2.embed_scale, gemma2.norm_plus_one, gemma2.post_norms) == (8, 1, 1)
    assert (gemma3.rope_theta, gemma3.local_rope_theta) == (1e6, 1e4)
    assert (gemma3.attn_softcap, gemma3.qk_norm) == (0.0, True)


# Published config.json files in their old forms, shortened to what matters here.
LLAMA_32_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
QWEN25_3B = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "max_position_embeddings": 32768,
    "max_window_layers": 70,
    "model_type": "qwen2",
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
GEMMA3_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {"hidden_size": 1152},
}


def test_llama_with_scaled_rope_and_tied_head():
    config = from_json(LLAMA_32_1B)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (32, 8, 64)
    assert config.tie_head
    assert config.rope_theta == 500_000
    assert config.rope_scaling is not None
    assert config.rope_scaling.original_length == 8192
    assert architectures.dtype(LLAMA_32_1B) == "bfloat16"


def test_qwen_whose_window_is_switched_off():
    config = from_json(QWEN25_3B)
    assert (config.local_layers, config.window, config.head_dim) == ((), 0, 128)


def test_gemma_with_vision_is_its_text_model():
    config = from_json(GEMMA3_4B)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (8, 4, 256)
    assert config.vocab_size == 262_208
    assert config.rope_scaling == RopeScaling(kind="linear", factor=8.0)
    assert config.local_layers[:7] == (True,) * 5 + (False, True)
    assert (config.rope_theta, config.local_rope_theta) == (1e6, 1e4)
    assert config.query_scale == 1 / 16
    assert config.tie_head
    assert architectures.dtype(GEMMA3_4B) == "bfloat16"


@pytest.mark.parametrize(
    ("raw", "field", "value"),
    [
        (LLAMA, "tie_head", False),
        (LLAMA, "rope_theta", 1e4),
        (LLAMA | {"num_key_value_heads": None}, "num_kv_heads", 2),
        (LLAMA | {"head_dim": None, "hidden_size": 12}, "head_dim", 6),
        (LLAMA | {"hidden_act": "gelu"}, "activation", "gelu"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_theta", 1e4),
        (QWEN, "local_layers", ()),
        (
            QWEN | {"use_sliding_window": True, "max_window_layers": 1},
            "local_layers",
            (False, True),
        ),
        (QWEN | {"use_sliding_window": True}, "local_layers", ()),
        (
            QWEN | {"use_sliding_window": True, "max_window_layers": 0},
            "window",
            4096,
        ),
        (
            QWEN
            | {"use_sliding_window": True, "max_window_layers": 0, "rope_theta": 7.0},
            "local_rope_theta",
            7.0,
        ),
        (GEMMA2, "local_layers", (True, False)),
        # Gemma 2 alternates, whatever this says.
        (GEMMA2 | {"sliding_window_pattern": 6}, "local_layers", (True, False)),
        (GEMMA2, "attn_softcap", 50.0),
        (GEMMA2, "final_softcap", 30.0),
        (GEMMA2 | {"attn_logit_softcapping": None}, "attn_softcap", 0.0),
        (GEMMA2 | {"hidden_activation": None}, "activation", "gelu_tanh"),
        # Gemma 2 was first published with a hidden_act that does not count.
        (GEMMA2 | {"hidden_act": "gelu"}, "activation", "gelu_tanh"),
        # GPT-2 calls it n_inner, and nothing else.
        ({"model_type": "gpt2", "intermediate_size": 5}, "mlp_size", 4 * 768),
        ({"model_type": "gpt2", "n_inner": 5}, "mlp_size", 5),
        # Of Gemma 1 both are there, and either means the approximation.
        (GEMMA | {"hidden_act": "gelu"}, "activation", "gelu_tanh"),
        (
            GEMMA | {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"},
            "activation",
            "gelu_tanh",
        ),
        (GEMMA2, "tie_head", True),
        (GEMMA2 | {"rope_theta": 5.0}, "local_rope_theta", 5.0),
        (GEMMA3, "local_layers", (True,) * 5 + (False, True)),
        (GEMMA3, "rope_theta", 1e6),
        (GEMMA3, "local_rope_theta", 1e4),
        (GEMMA3, "final_softcap", 0.0),
        (GEMMA3 | {"rope_local_base_freq": 5.0}, "local_rope_theta", 5.0),
    ],
)
def test_absent_fields_have_the_defaults_of_transformers(raw, field, value):
    assert getattr(from_json(raw), field) == value


def test_llama3_scaling_without_a_length_is_of_the_whole_context():
    rope = {"rope_type": "llama3", "factor": 2, "low_freq_factor": 1}
    rope |= {"high_freq_factor": 4}
    scaling = from_json(LLAMA | {"rope_scaling": rope}).rope_scaling
    assert scaling is not None
    assert scaling.original_length == 32


LOCAL = {"use_sliding_window": True, "max_window_layers": 0}
LINEAR = {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model_type": "falcon"}, r"'falcon'.*supported are llama, qwen2, qwen3"),
        ({}, "model_type None"),
        (
            {"model_type": "gemma3", "quantization_config": {"a": 1}},
            "quantised weights",
        ),
        (
            LLAMA | {"quantization_config": {"quant_method": "gptq"}},
            "quantised weights",
        ),
        (QWEN | {"mlp_bias": True}, "mlp_bias True"),
        (TINY | {"model_type": "mistral", "attention_bias": True}, "attention_bias Tr"),
        ({"model_type": "qwen2_moe"}, "'qwen2_moe'.*not supported"),
        (QWEN_MOE | {"mlp_only_layers": [2]}, r"mlp_only_layers \[2\].*0 to 1"),
        (QWEN_MOE | {"mlp_only_layers": "all"}, "mlp_only_layers 'all'"),
        (QWEN_MOE | {"decoder_sparse_step": 0}, "decoder_sparse_step 0"),
        (QWEN35 | {"layer_types": ["full_attention"]}, "1 layer_types for 4 layers"),
        (
            QWEN35 | {"layer_types": ["sliding_attention"] * 4},
            "linear_attention and full_attention; others are not supported",
        ),
        (QWEN35 | {"attn_output_gate": False}, "attn_output_gate False"),
        (QWEN35 | {"linear_num_value_heads": 17}, "value_heads is 17"),
        (QWEN35 | {"linear_num_key_heads": 0}, "linear_num_key_heads 0"),
        (QWEN35 | {"full_attention_interval": 0}, "full_attention_interval 0"),
        (GEMMA3 | {"use_bidirectional_attention": True}, "later tokens"),
        (LLAMA | {"hidden_act": "relu"}, "hidden_act 'relu'.*supported are silu"),
        (GEMMA2 | {"hidden_activation": "silu2"}, "hidden_activation 'silu2'"),
        (
            {"model_type": "llama", "hidden_size": 2, "num_attention_heads": 4},
            "hidden_size 2 for 4 heads",
        ),
        (LLAMA | {"rope_scaling": {"type": "ntk", "factor": 4}}, "rope type 'ntk'"),
        (LLAMA | {"rope_parameters": {"rope_type": "dynamic"}}, "factor None"),
        (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        (LLAMA | {"rope_scaling": {"type": "linear"}}, "factor None"),
        (LLAMA | {"rope_scaling": [1]}, r"rope parameters \[1\]"),
        (GEMMA3 | {"rope_parameters": "x"}, "rope parameters 'x'"),
        (GEMMA3 | {"rope_parameters": {"full_attention": 1}}, "full_attention"),
        (GEMMA3 | {"rope_scaling": "x"}, "rope parameters 'x'"),
        (LLAMA | {"hidden_act": ["silu"]}, r"hidden_act \['silu'\]"),
        ({"model_type": ["llama"]}, r"model_type \['llama'\]"),
        (LLAMA | {"rope_theta": 0}, "rope_theta 0"),
        (LLAMA | {"rope_theta": "1e6"}, "rope_theta '1e6'"),
        (GEMMA3 | {"rope_parameters": {"sliding_attention": LINEAR}}, "sliding layers"),
        (GEMMA3 | {"rope_parameters": {"rope_theta": 5.0}}, "one set for each"),
        (QWEN | {"rope_parameters": {"full_attention": {}}}, "by layer type"),
        (QWEN | {"layer_types": ["full_attention"]}, "1 layer_types for 2 layers"),
        (
            QWEN | {"layer_types": ["sliding_attention"] * 2},
            "use_sliding_window is fal",
        ),
        (GEMMA2 | {"layer_types": ["chunked_attention"] * 2}, "chunked_attention"),
        (GEMMA2 | {"sliding_window": None}, "sliding_window None"),
        (GEMMA2 | {"query_pre_attn_scalar": -1}, "query_pre_attn_scalar -1"),
        (GEMMA2 | {"attn_logit_softcapping": 0}, "attn_logit_softcapping 0"),
        (LLAMA | {"hidden_size": "64"}, "hidden_size '64'"),
        (LLAMA | {"hidden_size": True}, "hidden_size True"),
        (LLAMA | {"num_hidden_layers": 0}, "num_hidden_layers 0"),
        (
            LLAMA | {"num_attention_heads": 3, "num_key_value_heads": 2},
            "num_kv_heads 2",
        ),
        (LLAMA | {"rms_norm_eps": float("nan")}, "rms_norm_eps nan"),
        (LLAMA | {"tie_word_embeddings": "yes"}, "tie_word_embeddings 'yes'"),
    ],
)
def test_refused_by_name(raw, message):
    with pytest.raises(ValueError, match=message):
        from_json(raw)


@pytest.mark.parametrize("raw", [QWEN | LOCAL, GEMMA2])
def test_stretch_of_sliding_layers_is_that_of_all(raw):
    config = from_json(raw | {"rope_scaling": LINEAR})
    assert (config.rope_scaling.kind, config.local_rope_theta) == ("linear", None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "torch.float16"}, "float16"),
        ({"dtype": "float32", "torch_dtype": "bfloat16"}, "float32"),
    ],
)
def test_dtype(fields, expected):
    assert architectures.dtype(LLAMA | fields) == expected


def test_dtype_that_is_none():
    with pytest.raises(ValueError, match="dtype 'int8', expected float32"):
        architectures.dtype(LLAMA | {"dtype": "int8"})


@pytest.mark.parametrize(
    "value", [10**6 * 10**6, 2**63, 10**39, True, "4", 4.0, -1, []]
)
@pytest.mark.parametrize("field", [*fields.MOST, "max_position_embeddings"])
def test_sizes_are_bounded_before_they_are_used(field, value):
    with pytest.raises(
        ValueError, match=f"config.json has {field} .*, expected a whole"
    ):
        architectures.from_json({"model_type": "qwen3", field: value})


@pytest.mark.parametrize("value", [10**39, 1e300, 1e-300, 0, -1.0, True, "1", []])
@pytest.mark.parametrize("field", ["rms_norm_eps", "rope_theta"])
def test_numbers_are_bounded_before_they_are_used(field, value):
    with pytest.raises(
        ValueError, match=f"config.json has {field} .*, expected a posit"
    ):
        architectures.from_json({"model_type": "llama", field: value})
