"""The residual stream: what is read is what the model has, what is replaced acts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TEXT, TINY, WINDOW
from jaxlora import lora, models, route
from jaxlora.models import Decoder, Inputs, residual
from jaxlora.models.residual import Patch

TOKENS = jnp.array([[1, 2, 3, 4], [9, 0, 5, 5]], jnp.int32)
OTHER = jnp.array([[7, 2, 11, 6], [3, 8, 10, 1]], jnp.int32)
MASK = jnp.array([[0, 1, 1, 1], [1, 1, 1, 1]], bool)
CONFIGS = {
    "learned": TINY,
    "rope and window": WINDOW,
    "looped memory": dataclasses.replace(TEXT, shared_mlp=True, passes=2),
}
ATOL = 2e-5
run = jax.jit(models.apply, static_argnums=0)
hidden = jax.jit(models.hidden, static_argnums=0)
trace = jax.jit(residual.trace, static_argnums=0)
resume = jax.jit(residual.resume, static_argnums=0)
patched = jax.jit(residual.patched, static_argnums=0)
lens = jax.jit(residual.lens, static_argnums=0)
sweep = jax.jit(residual.sweep, static_argnums=(0, 4))


def whole(x):
    """Reads all of the final hidden states."""
    return x


@pytest.fixture(scope="module", params=CONFIGS)
def world(request):
    model = Decoder(CONFIGS[request.param])
    base = decoders.shaken(model)
    return model, base, decoders.adapter(base)


def steps(model):
    return model.config.num_layers * model.config.passes


def test_the_last_state_gives_the_logits(world):
    model, base, adapter = world
    places = Inputs(TOKENS, MASK, positions=jnp.array([[0, 0, 1, 2], [3, 4, 5, 6]]))
    for inputs, mine in (
        (TOKENS, None),
        (Inputs(TOKENS, MASK), adapter),
        (places, adapter),
    ):
        states = trace(model, base, inputs, mine)
        assert states.shape == (steps(model) + 1, 2, 4, 8)
        every = lens(model, base, states)
        want = run(model, base, inputs, adapter=mine)
        np.testing.assert_allclose(every[-1], want, atol=ATOL)
    assert every.shape == (*states.shape[:-1], 13)
    gaps = np.abs(np.diff(every, axis=0)).max((1, 2, 3))
    assert (gaps > 1e-3).all()  # each step changes what the lens reads


def test_each_step_is_one_more_layer_of_a_shorter_model():
    """The state before step s is what a model of the first s layers ends with."""
    base = decoders.shaken(Decoder(TINY))
    adapter = decoders.adapter(base)
    states = trace(Decoder(TINY), base, TOKENS, adapter)
    first = jax.tree.map(lambda x: x[:1], (base["layers"], adapter["layers"]))
    short = Decoder(dataclasses.replace(TINY, num_layers=1))
    want = hidden(
        short, base | {"layers": first[0]}, TOKENS, adapter={"layers": first[1]}
    )
    got = resume(Decoder(TINY), base, TOKENS, states[1], 2)
    np.testing.assert_allclose(got, want, atol=ATOL)
    embeddings = base["embed"]["embedding"][TOKENS] + base["positions"][None, :4]
    np.testing.assert_allclose(states[0], embeddings, atol=1e-6)


def test_a_run_goes_on_from_each_of_its_states(world):
    model, base, adapter = world
    inputs = Inputs(TOKENS, MASK)
    states = trace(model, base, inputs, adapter)
    want = hidden(model, base, inputs, adapter=adapter)
    for step in range(steps(model) + 1):
        got = resume(model, base, inputs, states[step], step, adapter)
        np.testing.assert_allclose(got, want, atol=ATOL)
    # The tokens are not read again: only the stream counts.
    got = resume(model, base, Inputs(OTHER, MASK), states[1], 1, adapter)
    np.testing.assert_allclose(got, want, atol=ATOL)
    numbers = jnp.arange(steps(model) + 1)
    every = jax.vmap(lambda x, s: residual.resume(model, base, inputs, x, s, adapter))
    for got in jax.jit(every)(states, numbers):
        np.testing.assert_allclose(got, want, atol=ATOL)


def test_states_of_the_same_run_change_nothing(world):
    model, base, adapter = world
    states = trace(model, base, TOKENS, adapter)
    grid = sweep(model, base, TOKENS, states, whole, adapter)
    assert grid.shape == (steps(model) + 1, 4, 2, 4, 8)
    want = hidden(model, base, TOKENS, adapter=adapter)
    np.testing.assert_allclose(grid, np.broadcast_to(want, grid.shape), atol=ATOL)


def test_a_patch_of_embeddings_is_another_token(world):
    model, base, adapter = world
    other = trace(model, base, OTHER, adapter)
    grid = sweep(model, base, TOKENS, other, whole, adapter)
    for t in range(4):
        swapped = TOKENS.at[:, t].set(OTHER[:, t])
        want = hidden(model, base, swapped, adapter=adapter)
        np.testing.assert_allclose(grid[0, t], want, atol=ATOL)


def test_a_patch_acts_at_its_position_and_later_and_all_the_way_at_the_end(world):
    model, base, adapter = world
    mine, theirs = (hidden(model, base, x, adapter=adapter) for x in (TOKENS, OTHER))
    grid = sweep(
        model, base, TOKENS, trace(model, base, OTHER, adapter), whole, adapter
    )
    for t in range(4):
        np.testing.assert_allclose(grid[-1, t, :, t], theirs[:, t], atol=ATOL)
        untouched = np.delete(np.asarray(grid[-1, t]), t, axis=1)
        np.testing.assert_allclose(
            untouched, np.delete(np.asarray(mine), t, axis=1), atol=ATOL
        )
        before = np.broadcast_to(mine[:, :t], grid[:, t, :, :t].shape)
        np.testing.assert_allclose(grid[:, t, :, :t], before, atol=ATOL)
        moved = np.abs(grid[:-1, t, :, t:] - mine[None, :, t:]).max((1, 3))
        assert (moved > 1e-3).all()  # at each step before the last, all later tokens


def test_patches_of_rows_at_positions_of_their_own(world):
    model, base, _ = world
    other = trace(model, base, OTHER)
    patch = Patch(1, jnp.array([2, 0]), other[1][jnp.arange(2), jnp.array([2, 0])])
    got = patched(model, base, TOKENS, patch)
    grid = sweep(model, base, TOKENS, other, whole)
    np.testing.assert_allclose(got[0], grid[1, 2, 0], atol=ATOL)
    np.testing.assert_allclose(got[1], grid[1, 0, 1], atol=ATOL)


@pytest.mark.slow
def test_a_patch_has_a_gradient(world):
    model, base, adapter = world

    def score(vectors):
        x = residual.patched(model, base, TOKENS, Patch(1, 1, vectors), adapter)
        return models.unembed(model, base, x[:, -1])[:, 3].sum()

    at = trace(model, base, TOKENS, adapter)[1, :, 1]
    slope = jax.jit(jax.grad(score))(at)
    way = jax.random.normal(jax.random.key(0), at.shape)
    ahead, behind = (jax.jit(score)(at + s * 1e-2 * way) for s in (1, -1))
    want = (ahead - behind) / 2e-2
    np.testing.assert_allclose(jnp.vdot(slope, way), want, rtol=2e-2, atol=2e-3)
    assert np.abs(slope).max() > 1e-3


def test_all_experts_at_once(world):
    model, base, _ = world
    library = decoders.library(base, 3)
    every = jax.vmap(lambda adapter: residual.trace(model, base, TOKENS, adapter))
    for got, adapter in zip(
        jax.jit(every)(library), lora.unstack(library), strict=True
    ):
        np.testing.assert_allclose(got, trace(model, base, TOKENS, adapter), atol=ATOL)


def test_an_ablated_layer_is_as_if_it_had_no_adapter():
    model = Decoder(WINDOW)
    base = decoders.shaken(model)
    adapter = decoders.adapter(base)

    def ablated(kept):
        return models.apply(model, base, TOKENS, adapter=residual.ablate(adapter, kept))

    every = jax.jit(jax.vmap(ablated))
    none, upper, lower, both = every(jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    np.testing.assert_allclose(none, run(model, base, TOKENS), atol=ATOL)
    np.testing.assert_allclose(
        both, run(model, base, TOKENS, adapter=adapter), atol=ATOL
    )
    for got, layer in ((upper, 0), (lower, 1)):
        zero = lora.lora_map(
            lambda w, layer=layer: w.replace(b=w.b.at[layer].set(0)), adapter
        )
        want = run(model, base, TOKENS, adapter=zero)
        np.testing.assert_allclose(got, want, atol=ATOL)
    library = decoders.library(base, 2)
    low = residual.ablate(library, jnp.array([1, 0]))
    scales = [w.scale for w in lora.sites(low).values()]
    assert all((s[:, 0] > 0).all() and not s[:, 1].any() for s in scales)


@pytest.mark.parametrize("lead", [(2, 2), (3, 2, 2)], ids=["adapter", "library"])
def test_a_layer_of_several_mlps_is_ablated_with_all_of_them(lead):
    a, b = jnp.ones((*lead, 3, 1)), jnp.ones((*lead, 1, 3))
    weight = lora.LoraWeight(a, b, jnp.full(lead, 2.0))
    adapter = {"layers": {"moe": {"up": {"kernel": weight}}}}
    low = residual.ablate(adapter, jnp.array([1, 0]))
    scale = low["layers"]["moe"]["up"]["kernel"].scale
    assert (scale[..., 0, :] == 2).all()
    assert not scale[..., 1, :].any()
    with pytest.raises(ValueError, match=r"expected \[L\] = \(2,\)"):
        residual.ablate(adapter, jnp.ones(3))


def test_what_does_not_fit_is_refused():
    model = Decoder(TINY)
    base = decoders.fresh(model)
    routed = Decoder(TINY, route.Route(gate=route.arrow))
    with pytest.raises(ValueError, match="has a route, whose residual stream"):
        residual.trace(routed, base, TOKENS)
    state = trace(model, base, TOKENS)
    with pytest.raises(ValueError, match="step is 3, expected 0 to 2"):
        residual.resume(model, base, TOKENS, state[0], 3)
    with pytest.raises(ValueError, match="step is -1, expected 0 to 2"):
        residual.patched(model, base, TOKENS, Patch(-1, 0, state[0, :, 0]))
    with pytest.raises(ValueError, match=r"hidden has shape \(2, 3, 8\), expected"):
        residual.resume(model, base, TOKENS, state[0][:, :3], 1)
    with pytest.raises(ValueError, match=r"source has shape \(2, 2, 4, 8\), expected"):
        residual.sweep(model, base, TOKENS, state[:2], whole)
    adapter = decoders.adapter(base)
    with pytest.raises(ValueError, match=r"mask has shape \(3,\), expected \[L\]"):
        residual.ablate(adapter, jnp.ones(3))
    memory = decoders.fresh(Decoder(CONFIGS["looped memory"]))
    with pytest.raises(ValueError, match="'memory/down_proj/kernel' lies in no layer"):
        residual.ablate(decoders.adapter(memory), jnp.ones(2))
    elsewhere = {"layers": {"attn": {"p_proj": adapter["layers"]["attn"]["q_proj"]}}}
    with pytest.raises(ValueError, match="that the base lacks"):
        residual.trace(model, base, TOKENS, elsewhere)
