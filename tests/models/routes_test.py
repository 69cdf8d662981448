"""What a gate chose: the weights that ``routes`` brings out are those used."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TINY
from jaxlora import lora, models, route

LAYERS, EXPERTS = 2, 3
TOKENS = jnp.array([[1, 2, 3], [4, 5, 6]])


@pytest.fixture(scope="module")
def world():
    base = decoders.fresh(models.Decoder(TINY))
    return base, decoders.library(base, EXPERTS)


def test_an_oracles_weights_come_out_as_they_went_in(world):
    base, library = world
    model = models.Decoder(TINY, route.Route(gate=route.oracle))
    shape = (LAYERS, *TOKENS.shape, EXPERTS)
    labels = jax.random.uniform(jax.random.key(3), shape)
    found = models.routes(model, base, TOKENS, library=library, labels=labels)
    assert len(jax.tree.leaves(found.weights)) == 6
    for weights in jax.tree.leaves(found.weights):
        np.testing.assert_array_equal(weights, labels)


def test_arrow_keeps_two_experts_per_token_and_site_that_sum_to_one(world):
    base, library = world
    arrow = models.Decoder(TINY, route.Route(gate=route.arrow, top_k=2))
    found = models.routes(arrow, base, TOKENS, library=library)
    chex.assert_trees_all_equal_structs(
        found.weights, lora.lora_map(lambda w: w.scale, library)
    )
    for weights in jax.tree.leaves(found.weights):
        chex.assert_shape(weights, (LAYERS, *TOKENS.shape, EXPERTS))
        np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
        assert ((weights > 0).sum(-1) == 2).all()
    sites = jax.tree.leaves(found.weights)
    assert any((sites[0] != other).any() for other in sites[1:])
    assert not any(x.any() for x in jax.tree.leaves(found.nonfinite))


def test_activations_that_are_no_number_are_said(world):
    base, library = world
    embed = base["embed"] | {"embedding": base["embed"]["embedding"].at[5].set(jnp.nan)}
    arrow = models.Decoder(TINY, route.Route(gate=route.arrow, top_k=2))
    found = models.routes(arrow, base | {"embed": embed}, TOKENS, library=library)
    for weights in jax.tree.leaves(found.weights):
        assert np.isfinite(weights).all()
    for strayed in jax.tree.leaves(found.nonfinite):
        assert strayed[:, 1, 1].all()  # token 5
        assert not strayed[:, 0].any()


def test_a_model_without_a_route_has_none_to_show(world):
    base, library = world
    with pytest.raises(ValueError, match="has no route"):
        models.routes(models.Decoder(TINY), base, TOKENS, library=library)
