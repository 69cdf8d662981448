import dataclasses

import pytest

from jaxlora.models import DecoderConfig, RopeScaling


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"vocab_size": 0}, "vocab_size is 0, expected >= 1"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_layers": -1}, "num_layers is -1"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"unroll": 0}, "unroll is 0"),
        ({"mlp_size": 0}, "mlp_size is 0, expected >= 1"),
        ({"num_heads": 0}, "num_heads is 0, expected >= 1"),
        ({"num_heads": -4}, "num_heads is -4, expected >= 1"),
        ({"max_length": 0}, "max_length is 0, expected >= 1"),
        ({"num_heads": 4, "num_kv_heads": 3}, "num_heads is 4 and num_kv_heads 3"),
        ({"num_kv_heads": 0}, "num_kv_heads is 0, expected >= 1"),
        (
            {"positions": "rope", "head_dim": 5},
            "head_dim is 5, expected an even number",
        ),
        (
            {"num_layers": 3, "local_layers": (True, False), "window": 2},
            "local_layers has 2 entries, expected one for each of 3 layers",
        ),
        (
            {"num_layers": 2, "local_layers": (True, False)},
            "window is 0, expected >= 1: some layers are local",
        ),
        (
            {"attention": "flash", "attn_softcap": 5.0},
            "attention is 'flash', but attn_softcap is set",
        ),
    ],
)
def test_what_no_decoder_can_be_is_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        DecoderConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"kind": "linear", "factor": 0.0}, "factor is 0.0, expected a positive"),
        ({"kind": "llama3", "factor": -8.0}, "factor is -8.0, expected a positive"),
        (
            {"kind": "llama3", "factor": 8.0, "high_freq_factor": 1.0},
            "high_freq_factor is 1.0, expected more than low_freq_factor, 1.0",
        ),
    ],
)
def test_no_stretch_of_rotary_positions_is_of_that_kind(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        RopeScaling(**fields)


def test_what_a_rule_does_not_read_is_not_refused():
    RopeScaling(kind="linear", factor=8.0, high_freq_factor=0.0)
    DecoderConfig(num_layers=2, local_layers=(False, False))
    DecoderConfig(attention="plain", attn_softcap=5.0)


def test_equal_configs_are_one_static_argument():
    def make(factor=8.0):
        scaling = RopeScaling(kind="llama3", factor=factor)
        return DecoderConfig(
            num_layers=2, rope_scaling=scaling, local_layers=(True, False), window=4
        )

    assert hash(make()) == hash(make())
    assert make() == make()
    assert make() != make(4.0)
    assert make() != dataclasses.replace(make(), remat=True)
