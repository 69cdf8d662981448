"""The oracle's labels, and that its route is never chosen on whom it scores."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, models, route
from jaxlora.evaluate.schema import Arm
from jaxlora.evaluate.scoring import Questions
from jaxlora.studies.two_hop.items import Key, Split
from jaxlora.studies.two_hop.symbols import lessons, oracle, oracle_score

L, N, K, PAD, VOCAB = 2, 5, 2, 11, 12
CELLS = ("R-OO", "R-OO", "F-OO")
# Two groups of one cell, the second smaller, and one of another.
GROUPS = tuple(
    SimpleNamespace(cell=cell, size=size)
    for cell, size in zip(CELLS, (N, N - 1, N), strict=True)
)
FIRST, SECOND, NONE = [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]
ATOL = 1e-5
CONFIG = models.DecoderConfig(
    vocab_size=VOCAB,
    hidden_size=8,
    num_layers=L,
    mlp_size=8,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    max_length=9,
)
# Enough for the rough landscape of an untrained model.
LOCAL = oracle.Search(starts=7, climbers=12, sweeps=6)
ALL = oracle.Search(mode="exhaustive")


@pytest.fixture(scope="module")
def base():
    model = models.Decoder(CONFIG)
    params = jax.jit(models.init, static_argnums=1)(jax.random.key(0), model)
    return SimpleNamespace(model=model, params=params, pad=PAD, seed=0)


@pytest.fixture(scope="module")
def stacked(base):
    """Experts that change answers, [G, 2, ...]."""
    rng = np.random.default_rng(0)
    # Two sites of six: most of the time here is compilation.
    sites = (r"layers/attn/v_proj/kernel", r"layers/mlp/up_proj/kernel")
    config = lora.LoraConfig(rank=2, targets=sites)
    fresh = lora.init(jax.random.key(1), base.params, config)

    def draw(x):
        return jnp.asarray(
            0.4 * rng.standard_normal((len(CELLS), 2, *x.shape)), x.dtype
        )

    return jax.tree.map(draw, fresh)


def asked_of(answers: np.ndarray) -> SimpleNamespace:
    """Questions with these right answers to the two-hop prompts, [G, N]."""
    rng = np.random.default_rng(1)
    shapes = ((3 * N + K, 3), (N, 5), (N, 9))
    tokens = [rng.integers(0, PAD, (len(CELLS), *x)).astype(np.int32) for x in shapes]
    nobody = np.full(N, -1)
    keys = tuple(
        {Split.TWO_HOP: Key(x, nobody, nobody, np.roll(x, 1))} for x in answers
    )
    at = np.full(tokens[0].shape[:2], 2)
    questions = Questions(*map(jnp.asarray, (*tokens, at)))
    return SimpleNamespace(
        questions=questions, people=N, familiar=K, keys=keys, groups=GROUPS
    )


@pytest.fixture(scope="module")
def right():
    return np.random.default_rng(2).integers(0, PAD, (len(CELLS), N))


def search(base, stacked, right, how=LOCAL, library=Arm.PAIR, progress=None):
    given = lessons.examples(asked_of(right), library)
    progress = progress or (lambda *_: None)
    return oracle.search(base, stacked, given, GROUPS, how, progress)


def test_starts_are_every_split_of_two_kinds():
    found = oracle.by_hand(3)
    assert len(np.unique(found, axis=0)) == len(found) == 7
    for split in range(4):
        expected = [0 if layer < split else 1 for layer in range(3)]
        plain = found[2 * split]
        assert plain[:, 2].tolist() == expected
        assert not plain[:, :2].any()
        if split < 3:
            for token in range(3):
                assert found[2 * split + 1][:, token].tolist() == expected


def test_labels_are_those_of_each_kind_of_question():
    rng = np.random.default_rng(0)
    routes = rng.integers(0, 3, (4, 2, 3, 3))
    labels = oracle.labels(routes, N, K)
    assert labels.direct.shape == (4, 3, 3 * N + K, 3, 2)
    hop1, hop2, two_hop, familiar = np.split(
        np.asarray(labels.direct), [N, 2 * N, 3 * N], axis=2
    )
    assert (hop1 == FIRST).all()
    assert (hop2 == SECOND).all()
    assert familiar.shape[2] == K
    assert not familiar.any()
    assert labels.context.shape == (4, 3, N, 9, 2)
    assert not np.asarray(labels.context).any()
    for g, layer, person, token in np.ndindex(4, 3, N, 3):
        value = routes[g, person % 2, layer, token]
        expected = (FIRST, SECOND, NONE)[value]
        assert two_hop[g, layer, person, token].tolist() == expected
    # Tokens: A, S, Z, <think>, then the bridge.
    assert labels.written.shape == (4, 3, N, 5, 2)
    for token, expert in enumerate([FIRST, FIRST, SECOND, FIRST, SECOND]):
        assert (np.asarray(labels.written)[:, :, :, token] == expert).all()


def reference(base, stacked, examples, routes):
    """Right answers and mean loss of routes [C, 2, P, L, T], a prompt at a time."""
    model = models.Decoder(CONFIG, route.Route(gate=route.oracle))
    ask = jax.jit(models.apply, static_argnums=0)
    numbers = [0, 0, 1]
    right = np.zeros(routes.shape[:3], int)
    loss, count = np.zeros(routes.shape[:3]), np.zeros(routes.shape[:3])
    for g, half, p in np.ndindex(len(CELLS), 2, routes.shape[2]):
        c = numbers[g]
        values = np.array([FIRST, SECOND, NONE], np.float32)[routes[c, half, p]]
        for i, tokens in enumerate(examples.tokens[g, half]):
            if examples.weights[g, half, i] == 0:
                continue
            library = jax.tree.map(lambda x, g=g: x[g], stacked)
            told = jnp.asarray(values[:, None])
            logits = ask(model, base.params, tokens[None], library=library, labels=told)
            said = np.asarray(logits[0, 2], np.float64)
            target = int(examples.targets[g, half, i])
            right[c, half, p] += said.argmax() == target
            loss[c, half, p] += np.log(np.exp(said).sum()) - said[target]
            count[c, half, p] += 1
    return right, loss / count


@pytest.mark.slow
def test_scores_are_those_of_one_prompt_at_a_time(base, stacked, right):
    examples = lessons.examples(asked_of(right), Arm.PAIR)
    routes = np.random.default_rng(3).integers(0, 3, (2, 2, 3, L, 3)).astype(np.int32)
    problem = oracle_score.Problem(base.params, stacked, examples, jnp.array([0, 0, 1]))
    model = models.Decoder(CONFIG, route.Route(gate=route.oracle))
    score = jax.jit(oracle_score.of_routes, static_argnums=(0, 1))
    found = score(model, PAD, problem, jnp.asarray(routes))
    hits, loss = reference(base, stacked, examples, routes)
    np.testing.assert_array_equal(found.right, hits)
    np.testing.assert_allclose(found.loss, loss, atol=1e-4)
    assert len(np.unique(loss.round(6))) == loss.size  # every route says another thing


@pytest.mark.slow
def test_local_search_finds_what_trying_everything_finds(base, stacked, right):
    calls = []
    every = search(base, stacked, right, ALL, progress=lambda *now: calls.append(now))
    assert every.best.tried == 3 ** (3 * L) == 729
    assert calls == [(i, 729) for i in range(0, 729, oracle_score.CHUNK)]
    local = search(base, stacked, right)
    assert local.cells == every.cells == ("R-OO", "F-OO")
    np.testing.assert_array_equal(local.best.score.right, every.best.score.right)
    # And nearly its loss: of two routes that are as often right, it may miss the best.
    worse = np.asarray(local.best.score.loss - every.best.score.loss)
    assert ((worse > -ATOL) & (worse < 0.05)).all()
    same = (local.best.routes == every.best.routes).all((-1, -2))
    assert same.sum() >= 3


@pytest.mark.parametrize("how", [LOCAL, ALL], ids=["local", "exhaustive"])
def test_an_answer_never_moves_the_route_of_its_own_person(base, stacked, right, how):
    """Other answers of the even people: they are told the same, the others are not."""
    other = right.copy()
    other[:, ::2] = (right[:, ::2] + 3) % PAD
    before, after = (search(base, stacked, x, how) for x in (right, other))
    a, b = (
        np.asarray(oracle.answers(base, stacked, asked_of(right), x).direct)
        for x in (before, after)
    )
    even, odd = 2 * N + np.arange(0, N, 2), 2 * N + np.arange(1, N, 2)
    np.testing.assert_array_equal(a[:, even], b[:, even])
    assert (a[:, odd] != b[:, odd]).any()
    np.testing.assert_array_equal(a[:, : 2 * N], b[:, : 2 * N])


def test_people_are_asked_under_the_route_of_their_half(base, stacked, right):
    found = search(base, stacked, right)
    asked = asked_of(right)
    answers = oracle.answers(base, stacked, asked, found)
    model = models.Decoder(CONFIG, route.Route(gate=route.oracle))
    ask = jax.jit(models.apply, static_argnums=0)
    for g, person in ((0, 0), (1, 1), (2, 2), (2, 3)):
        chosen = np.asarray(found.best.routes)[(0, 0, 1)[g], person % 2]
        told = jnp.asarray(np.array([FIRST, SECOND, NONE], np.float32)[chosen][:, None])
        tokens = asked.questions.direct[g, 2 * N + person][None]
        library = jax.tree.map(lambda x, g=g: x[g], stacked)
        logits = ask(model, base.params, tokens, library=library, labels=told)
        np.testing.assert_allclose(
            answers.direct[g, 2 * N + person], logits[0, 2], atol=ATOL
        )


def test_counterfactual_experts_are_led_to_their_own_answer(base, stacked, right):
    library = Arm.COUNTERFACTUAL1
    moved = search(base, stacked, right, library=library)
    rolled = np.stack([np.roll(x, 1) for x in right])
    same = search(base, stacked, rolled)
    np.testing.assert_array_equal(moved.best.routes, same.best.routes)
    true = search(base, stacked, right)
    assert (np.asarray(moved.best.routes) != np.asarray(true.best.routes)).any()


def test_another_library_and_seed_compile_nothing_new(base, stacked, right):
    search(base, stacked, right)
    asked = asked_of(right)
    oracle.answers(base, stacked, asked, search(base, stacked, right, ALL))
    programs = (oracle_score.climb, oracle_score.look, oracle._ask)
    before = [program._cache_size() for program in programs]
    other = jax.tree.map(lambda x: x[:, ::-1], stacked)
    base = SimpleNamespace(**(vars(base) | {"seed": 1}))
    for how in (dataclasses.replace(LOCAL, sweeps=1), ALL):
        found = search(base, other, right[:, ::-1], how)
        oracle.answers(base, other, asked, found)
    assert [program._cache_size() for program in programs] == before


def test_notes_say_what_was_tried_and_what_was_chosen(base, stacked, right):
    given = lessons.examples(asked_of(right), Arm.PAIR)
    found = oracle.search(base, stacked, given, GROUPS, LOCAL)
    notes = oracle.notes(found, given, LOCAL)
    assert notes.pop("search") == {
        "mode": "local",
        "starts": 7,
        "climbers": 12,
        "sweeps": 6,
        "none": True,
        "routes": 729,
        "tried": int(found.best.tried),
    }
    assert list(notes) == [f"{c}, half {h}" for c in ("R-OO", "F-OO") for h in (0, 1)]
    # Of 5 + 4 people, the odd ones choose for half 0; of 5 alone, 2.
    assert [note["of"] for note in notes.values()] == [4, 5, 2, 3]
    names = [*oracle.EXPERTS, "none"]
    for i, note in enumerate(notes.values()):
        route = np.asarray(found.best.routes).reshape(-1, L, 3)[i]
        for t, token in enumerate(oracle.TOKENS):
            assert note["route"][token] == [names[value] for value in route[:, t]]
        assert note["right"] == found.best.score.right.reshape(-1)[i] <= note["of"]


def test_rows_are_those_of_the_cells_other_half(base, stacked, right):
    given = lessons.examples(asked_of(right), Arm.PAIR)
    found = oracle.search(base, stacked, given, GROUPS, LOCAL)
    # Of 5 + 4 people, the odd ones choose for half 0; of 5 alone, 2.
    assert oracle.rows(found, given, GROUPS) == {"R-OO": [4, 5], "F-OO": [2, 3]}
