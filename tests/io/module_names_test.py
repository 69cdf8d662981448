import itertools

import pytest

from jaxlora.io import module_names

PLAIN = "model.layers.3.self_attn.q_proj"
REST = "layers.3.self_attn.q_proj"
OUTER = ("", "model.", "model.language_model.", "language_model.model.", "llm.model.")
OUTER += ("model.text_model.", "language_model.", "pretrained_model.model.")
WRAPPERS = ("", "_orig_mod.", "module.", "_forward_module.", "module._orig_mod.")
WRAPPERS += ("_fsdp_wrapped_module.", "model.", "pretrained_model.")
PEFT = ("", "base_model.model.", "base_model.model.base_model.model.")


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_way_to_name_a_module_is_one_name(wrapper):
    for peft, outer in itertools.product(PEFT, OUTER):
        for name in (wrapper + peft + outer + REST, peft + wrapper + outer + REST):
            assert module_names.canonical(name) == PLAIN, name


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.3._fsdp_wrapped_module.self_attn.q_proj",
        "model.layers.3._checkpoint_wrapped_module.self_attn.q_proj",
        "model._orig_mod.layers.3._orig_mod.self_attn._orig_mod.q_proj",
        "model.layers._fsdp_wrapped_module.3.self_attn.q_proj",
        "model.layers.3.module.self_attn.q_proj._fsdp_wrapped_module",
        "_module.model.layers.3.self_attn.q_proj",
        "model.module.layers.3.self_attn.q_proj",
        "model.layers.3.self_attn.module.q_proj",
        "thinker.model.layers.3.self_attn.q_proj",
        "model.layers.3._fsdp_wrapped_module._checkpoint_wrapped_module.self_attn."
        "q_proj",
        "_fsdp_wrapped_module._fpw_module.model.layers.3.self_attn.q_proj",
    ],
)
def test_wrappers_stand_anywhere(name):
    assert module_names.canonical(name) == PLAIN
    assert "_mod" not in module_names.unwrapped(name)


@pytest.mark.parametrize(
    "name",
    [
        "model.decoder.layers.0.self_attn.q_proj",
        "encoder.layers.0.self_attn.q_proj",
        "gpt_neox.layers.0.attention.query_key_value",
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj",
        "visual.blocks.0.attn.qkv",
        "model.language_model.visual_head",
        "text_model.encoder.layers.0.mlp.fc1",
        "layers.attn.q_proj",
        "model",
        "lm_head",
        "transformer.h.0.attn.c_attn",
        "model.layers.0.mlp.experts.module_list.w1",
    ],
)
def test_names_of_other_models_stay(name):
    assert module_names.canonical(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("language_model.lm_head", "lm_head"),
        ("model.language_model.lm_head.weight", "lm_head.weight"),
        ("embed_tokens.weight", "model.embed_tokens.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("h.0.attn.c_attn", "transformer.h.0.attn.c_attn"),
        ("model.transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_attn"),
        ("wte.weight", "transformer.wte.weight"),
        ("model.visual.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv"),
        ("base_model.model", "base_model.model"),
        ("_orig_mod", "_orig_mod"),
    ],
)
def test_names_of_parts(name, expected):
    assert module_names.canonical(name) == expected


def test_an_adapted_tower_keeps_its_name():
    name = "model.vision_tower.base_model.model.layers.0.q_proj"
    assert module_names.canonical(name) == "vision_tower.layers.0.q_proj"
    name = "language_model.base_model.model.layers.0.q_proj"
    assert module_names.canonical(name) == "model.layers.0.q_proj"


def test_a_module_called_module_within_a_model_is_no_wrapper():
    assert module_names.unwrapped("model.module.q") == "model.module.q"
