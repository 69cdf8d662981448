"""Answers of many models at once, against one model and one question at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TINY
from jaxlora import route
from jaxlora.evaluate import scoring
from jaxlora.models import Decoder, Inputs, apply
from jaxlora.route import Route

V, PAD, L, M, Q, N, E = 13, 0, 2, 3, 4, 2, 2
MODEL = Decoder(TINY)
ATOL = 1e-4
run = jax.jit(apply, static_argnums=0)


@pytest.fixture(scope="module")
def base():
    return decoders.fresh(MODEL)


@pytest.fixture(scope="module")
def adapters(base):
    """[M * E, ...], of which no part is zero."""
    return decoders.library(base, M * E)


@pytest.fixture(scope="module")
def asked():
    rng = np.random.default_rng(1)

    def tokens(*shape):
        return rng.integers(1, V, (M, *shape)).astype(np.int32)

    direct, written, context = tokens(Q, 3), tokens(N, 5), tokens(N, 9)
    direct[:, 0, 2] = PAD  # a fact is asked as h r <pad>
    written[:, :, 4] = PAD
    at = np.full((M, Q), 2)
    at[:, 0], at[1, 1] = 1, 1  # and answered at r, or at the pad
    return scoring.Questions(*map(jnp.asarray, (direct, written, context, at)))


def alone(i, asked, forward):
    """The answers of model i, question by question; ``forward(tokens, kind, q)``."""
    read = np.asarray(asked.at[i])
    direct = [forward(asked.direct[i, q], "direct", q)[read[q]] for q in range(Q)]
    bridge, written = [], []
    for n in range(N):
        row = np.array(asked.written[i, n])
        bridge.append(int(np.argmax(forward(row, "written", n)[3])))
        row[4] = bridge[-1]
        written.append(forward(row, "written", n)[4])
    context = [forward(asked.context[i, n], "context", n)[8] for n in range(N)]
    return direct, bridge, written, context


def assert_answers(got, asked, forward):
    assert got.direct.shape == (M, Q, V)
    assert got.written.shape == got.context.shape == (M, N, V)
    for i in range(M):
        want = alone(i, asked, lambda *a, i=i: forward(i, *a))
        assert got.bridge[i].tolist() == want[1]
        for part, name in ((0, "direct"), (2, "written"), (3, "context")):
            np.testing.assert_allclose(getattr(got, name)[i], want[part], atol=ATOL)


def pick(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def single(model, params, row, **given):
    """Logits of one row, asked alone and padded on the right to nine tokens."""
    tokens = np.full((1, 9), PAD, np.int32)
    tokens[0, : len(row)] = row
    return np.asarray(run(model, params, Inputs(tokens, tokens != PAD), **given)[0])


def test_of_adapters(base, adapters, asked):
    three = pick(adapters, slice(M))
    got = scoring.of_adapters(MODEL, PAD, base, three, asked)
    each = [pick(three, i) for i in range(M)]
    assert_answers(
        got, asked, lambda i, row, *_: single(MODEL, base, row, adapter=each[i])
    )
    assert len({tuple(bridge) for bridge in got.bridge.tolist()}) > 1


@pytest.mark.parametrize("stacked", [False, True])
def test_of_params(base, asked, stacked):
    def factor(i):
        return 1.0 + 0.5 * i * stacked

    each = [jax.tree.map(lambda x, i=i: x * factor(i), base) for i in range(M)]
    params = jax.tree.map(lambda *x: jnp.stack(x), *each) if stacked else base
    got = scoring.of_params(MODEL, PAD, params, asked, stacked)
    assert_answers(got, asked, lambda i, row, *_: single(MODEL, each[i], row))


def test_of_libraries_with_labels(base, adapters, asked):
    libraries = jax.tree.map(lambda x: x.reshape(M, E, *x.shape[1:]), adapters)
    rng = np.random.default_rng(2)

    def draw(n, t):
        return jnp.asarray(rng.uniform(0, 1, (L, n, t, E)), jnp.float32)

    labels = scoring.Labels(draw(Q, 3), draw(N, 5), draw(N, 9))
    routed = Decoder(TINY, Route(gate=route.oracle))
    got = scoring.of_libraries(routed, PAD, base, libraries, asked, labels)

    each = [pick(libraries, i) for i in range(M)]

    def forward(i, row, kind, q):
        given = np.zeros((L, 1, 9, E), np.float32)
        given[:, 0, : len(row)] = getattr(labels, kind)[:, q]
        return single(routed, base, row, library=each[i], labels=given)

    assert_answers(got, asked, forward)


def test_of_libraries_makes_each_library_its_own_gate(base, adapters, asked):
    libraries = jax.tree.map(lambda x: x.reshape(M, E, *x.shape[1:]), adapters)
    routed = Decoder(TINY, Route(gate=route.arrow, top_k=1))
    got = scoring.of_libraries(routed, PAD, base, libraries, asked)
    states = jax.jit(route.arrow.init)(libraries)  # batched over M as over E
    each = [{"library": pick(libraries, i), "gate": pick(states, i)} for i in range(M)]
    assert_answers(got, asked, lambda i, row, *_: single(routed, base, row, **each[i]))


def test_a_row_is_right_if_every_weighted_target_is_the_argmax(base, adapters, asked):
    tokens, adapter = asked.context[0], pick(adapters, 0)
    logits = run(MODEL, base, Inputs(tokens, tokens != PAD), adapter=adapter)
    best = jnp.argmax(logits, -1)

    def right(targets, weights):
        return scoring.right(
            MODEL, PAD, base, tokens, targets, weights, adapter=adapter
        ).tolist()

    every = jnp.ones(best.shape)
    assert right(best, every) == [True, True]
    wrong = best.at[1, 6].add(1)
    assert right(wrong, every) == [True, False]
    assert right(wrong, every.at[1, 6].set(0.0)) == [True, True]
    assert right(wrong, every.at[1, 6].set(0.1)) == [True, False]
    assert scoring.right(MODEL, PAD, base, tokens, best, every).tolist() != [True, True]
