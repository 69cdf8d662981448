"""Several examples in one row: each is as it would be alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TINY, WINDOW
from jaxlora import route
from jaxlora.models import Decoder, Inputs, apply, hidden, unembed
from jaxlora.route import Route

T, E = 9, 2
FLASH = dataclasses.replace(WINDOW, attn_softcap=0.0, attention="flash")
MODELS = {
    "rope": Decoder(WINDOW),
    "flash": Decoder(FLASH),
    "learned": Decoder(TINY),
    "routed": Decoder(WINDOW, Route(gate=route.arrow, top_k=1)),
}
ROWS = (((3, 1, 4), (1, 5), (9, 2, 6)), ((5, 3, 5, 8), (9, 7, 9, 3)))
FLAT = [example for row in ROWS for example in row]
ATOL = 2e-6  # other shapes, other order of sums; logits are of order 1
run = jax.jit(apply, static_argnums=0)


def packed():
    """Tokens, segments and positions [2, T]; the last slot is padding."""
    out = np.zeros((3, len(ROWS), T), np.int32)
    for b, row in enumerate(ROWS):
        at = 0
        for i, example in enumerate(row):
            here = slice(at, at + len(example))
            out[0, b, here] = example
            out[1, b, here] = i + 1
            out[2, b, here] = range(len(example))
            at += len(example)
    return map(jnp.asarray, out)


TOKENS, SEGMENTS, POSITIONS = packed()
PACKED = Inputs(TOKENS, segments=SEGMENTS, positions=POSITIONS)


def separate():
    """The same examples [5, T], one a row, padded on the right."""
    tokens = np.zeros((len(FLAT), T), np.int32)
    for line, example in zip(tokens, FLAT, strict=True):
        line[: len(example)] = example
    return jnp.asarray(tokens)


def unpack(out):
    """Cuts [2, T, ...] into the examples' parts."""
    return [
        np.asarray(out)[b, np.asarray(SEGMENTS)[b] == i + 1]
        for b, row in enumerate(ROWS)
        for i in range(len(row))
    ]


@pytest.fixture(scope="module", params=MODELS)
def net(request, make_base):
    """A model, its base, and the adapter or library as arguments."""
    model = MODELS[request.param]
    base = make_base(Decoder(model.config))
    if model.route is None:
        return model, base, {"adapter": decoders.adapter(base)}
    library = decoders.library(base, E)
    gate = jax.jit(route.arrow.init)(library)
    return model, base, {"library": library, "gate": gate}


def test_every_example_of_a_row_is_as_it_is_alone(net):
    model, base, given = net
    got = run(model, base, PACKED, **given)
    alone = np.asarray(run(model, base, separate(), **given))
    for one, row in zip(unpack(got), alone, strict=True):
        want = row[: len(one)]
        np.testing.assert_allclose(one, want, atol=ATOL * np.abs(alone).max())
    merged = np.asarray(run(model, base, Inputs(TOKENS, positions=POSITIONS), **given))
    assert np.abs(unpack(merged)[1] - alone[1, :2]).max() > 1e-2


def test_a_neighbour_changes_not_a_bit(net):
    model, base, given = net
    want = np.asarray(run(model, base, PACKED, **given))
    other = np.asarray(SEGMENTS) != 2
    changed = PACKED._replace(tokens=jnp.where(other, 11, TOKENS))
    got = np.asarray(run(model, base, changed, **given))
    np.testing.assert_array_equal(got[~other], want[~other])
    assert (got[other] != want[other]).any(-1).all()


@pytest.mark.parametrize("net", ["rope", "flash"], indirect=True)
def test_gradients_of_a_row_are_the_sum_of_its_examples(net):
    model, base, given = net

    @jax.jit
    @jax.grad
    def grad(trained, inputs, weights):
        base, given = trained
        scores = jax.nn.log_softmax(apply(model, base, inputs, **given))
        return jnp.sum(scores[..., 3] * weights)

    weights = (SEGMENTS > 0).astype(jnp.float32)
    got = grad((base, given), PACKED, weights)
    used = jnp.array([len(example) for example in FLAT])[:, None]
    weights = (jnp.arange(T)[None] < used).astype(jnp.float32)
    want = grad((base, given), Inputs(separate()), weights)
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, two, atol=2e-5 * max(1, np.abs(two).max()))


def test_rotary_positions_need_no_restart_and_learned_ones_do(net):
    model, base, given = net
    want = run(model, base, PACKED, **given)
    counted = jnp.broadcast_to(jnp.arange(T)[None], TOKENS.shape)
    got = run(model, base, PACKED._replace(positions=counted), **given)
    same = np.allclose(unpack(got)[1], unpack(want)[1], atol=1e-4)
    assert same == (model.config.positions == "rope")


def test_segments_are_names_not_numbers(net):
    model, base, given = net
    want = unpack(run(model, base, PACKED, **given))
    names = jnp.array([0, 7, 2, 40])[SEGMENTS]
    got = unpack(run(model, base, PACKED._replace(segments=names), **given))
    for one, two in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, two)


def test_hidden_states_unembedded_are_the_logits(net):
    model, base, given = net
    x = jax.jit(hidden, static_argnums=0)(model, base, PACKED, **given)
    assert x.shape == (2, T, 8)
    got = unembed(model, base, x)
    assert got.dtype == jnp.float32
    want = run(model, base, PACKED, **given)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(unembed(model, base, x[1, 2]), want[1, 2], atol=1e-5)


@pytest.mark.parametrize("net", ["rope"], indirect=True)
@pytest.mark.parametrize("fn", [apply, hidden])
def test_masks_and_segments_of_another_shape_or_together_are_refused(net, fn):
    model, base, given = net
    mask = SEGMENTS > 0
    with pytest.raises(ValueError, match="both mask and segments; segments say both"):
        fn(model, base, Inputs(TOKENS, mask, SEGMENTS), **given)
    for wrong in ({"mask": mask[:1]}, {"segments": SEGMENTS[:, 1:]}):
        with pytest.raises(ValueError, match=r"shape .*, expected that of the tokens"):
            fn(model, base, Inputs(TOKENS, **wrong), **given)


def test_a_segment_of_all_is_seen_by_those_after_it(make_base):
    """What examples begin with, once in a row, is as if each began with it."""
    opening, rests = (2, 7), ((3, 1, 4), (1, 5))
    model = MODELS["rope"]
    model = Decoder(dataclasses.replace(model.config, local_layers=(), window=0))
    base = make_base(model)
    tokens = jnp.array([[*opening, *(x for rest in rests for x in rest)]])
    segments = jnp.array([[-1, -1, 1, 1, 1, 2, 2]])
    positions = jnp.array([[0, 1, 2, 3, 4, 2, 3]])
    shared = run(model, base, Inputs(tokens, segments=segments, positions=positions))
    at = 2
    for rest in rests:
        alone = run(model, base, jnp.array([[*opening, *rest]]))
        here = shared[0, at : at + len(rest)]
        np.testing.assert_allclose(here, alone[0, 2:], atol=ATOL)
        at += len(rest)


def test_a_tree_is_read_side_by_side(make_base):
    """Two continuations of one beginning, in one call."""
    model = MODELS["rope"]
    model = Decoder(dataclasses.replace(model.config, local_layers=(), window=0))
    base = make_base(model)
    sees = np.tril(np.ones((5, 5), bool))
    sees[3:, 2] = False  # 2 is one continuation; 3 and 4 are another
    tree = Inputs(
        jnp.array([[3, 1, 4, 1, 5]]),
        positions=jnp.array([[0, 1, 2, 2, 3]]),
        tree=jnp.asarray(sees),
    )
    got = run(model, base, tree)[0]
    one = run(model, base, jnp.array([[3, 1, 4]]))[0]
    two = run(model, base, jnp.array([[3, 1, 1, 5]]))[0]
    np.testing.assert_allclose(got[:3], one, atol=ATOL)
    np.testing.assert_allclose(got[3:], two[2:], atol=ATOL)
