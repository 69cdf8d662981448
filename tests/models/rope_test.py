"""Rotary frequencies, beside those of transformers' ``ROPE_INIT_FUNCTIONS``."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora.models import architectures, rope
from jaxlora.models.config import DecoderConfig, RopeScaling

STORED = pathlib.Path(__file__).parents[1] / "data" / "rope" / "reference.json"
CASES = json.loads(STORED.read_text())


@pytest.mark.parametrize(
    "case", CASES, ids=lambda x: x["config"]["rope_scaling"]["rope_type"]
)
def test_frequencies_are_those_of_transformers(case):
    config = architectures.from_json(case["config"])
    scaling = config.rope_scaling
    assert scaling.attention_factor == pytest.approx(case["attention_factor"], 1e-6)
    traced = jax.jit(
        lambda n: rope.frequencies(config.rotated, config.rope_theta, scaling, n)
    )
    for length, want in case["frequencies"].items():
        for count in (int(length), jnp.int32(int(length))):
            got = rope.frequencies(config.rotated, config.rope_theta, scaling, count)
            np.testing.assert_allclose(got, want, rtol=3e-6)
    if scaling.by_length:
        np.testing.assert_allclose(traced(jnp.int32(500)), want, rtol=3e-6)
        assert not np.allclose(case["frequencies"]["16"], want, rtol=1e-2)


def test_without_a_length_a_sequence_is_short():
    scaling = RopeScaling(
        kind="longrope", factor=1.0, short_factors=(1.0, 2.0), long_factors=(3.0, 4.0)
    )
    got = rope.frequencies(4, 100.0, scaling)
    np.testing.assert_allclose(got, [1.0, 0.05], rtol=1e-6)


def test_rotation_of_a_part_leaves_the_rest():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 6))
    where, speed = jnp.arange(3)[None], jnp.asarray([1.0, 0.1])
    got = rope.rotate(x, where, speed, 2.0)
    np.testing.assert_array_equal(got[..., 4:], x[..., 4:])
    np.testing.assert_allclose(
        got[..., :4], 2 * rope.rotate(x[..., :4], where, speed), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rotary_dim": 3}, "rotary_dim is 3"),
        ({"rotary_dim": 34}, "rotary_dim is 34, expected an even number up to 32"),
        ({"head_dim": 5}, "head_dim is 5"),
        ({"rotary_layers": (True,)}, "rotary_layers has 1 entries"),
        (
            {
                "rope_scaling": RopeScaling(
                    kind="longrope",
                    factor=1.0,
                    short_factors=(1.0,),
                    long_factors=(2.0,),
                )
            },
            "longrope has 1 factors, expected 16",
        ),
        (
            {"rotary_dim": 2, "rope_scaling": RopeScaling(kind="dynamic", factor=2.0)},
            "2 rotated channels",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig(positions="rope", **fields)


@pytest.mark.parametrize("factors", [{}, {"short_factors": (1.0, 2.0)}])
def test_longrope_needs_both_lists(factors):
    with pytest.raises(ValueError, match="short and 0 long"):
        RopeScaling(kind="longrope", factor=1.0, **factors)
