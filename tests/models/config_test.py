import dataclasses

import pytest

from jaxlora.models import DecoderConfig


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
    ],
)
def test_what_no_decoder_can_be_is_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        DecoderConfig(**fields)


def test_equal_configs_are_one_static_argument():
    one, two = DecoderConfig(num_layers=2), DecoderConfig(num_layers=2)
    assert hash(one) == hash(two)
    assert one != dataclasses.replace(two, remat=True)
