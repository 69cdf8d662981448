"""Every merge and route by name, of many libraries: what each sees, and of whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from jaxlora import lora, merge, models, route
from jaxlora.models import Inputs, statistics
from jaxlora.train import combine, learned, left_out, library_gates, own_statistics
from jaxlora.train.step import GATE, Batch

M, E, Q, T, V, PAD, L = 3, 2, 4, 3, 12, 0, 2
SITE = "layers/mlp/up_proj/kernel"
SEEN = ("regmean", "fisher")
LEARNED = ("cat", "lorahub", "lorahub[original]")
# One of each kind is tried every time, all of them with the slow tests.
SOME_MERGES = ("mean", "dare", "regmean", "cat")
SOME_ROUTES = ("random-arrow", "genknowsub", "phatgoose", "linear")


def marked(names, some):
    return [pytest.param(x, marks=() if x in some else pytest.mark.slow) for x in names]


MERGES = marked(merge.names(), SOME_MERGES)
ROUTES = marked([x for x in route.names() if x != "oracle"], SOME_ROUTES)


def prompts(*lead):
    rng = np.random.default_rng(len(lead))
    return jnp.asarray(rng.integers(1, V, (*lead, T)), jnp.int32)


def asked(tokens, answers):
    """Rows that are answered at the end."""
    end = jnp.arange(T) == T - 1
    targets = jnp.where(end, answers[..., None], 0).astype(jnp.int32)
    weights = jnp.broadcast_to(end.astype(jnp.float32), tokens.shape)
    return Batch(tokens, targets, weights)


@pytest.fixture(scope="module")
def given(model, base):
    """Three libraries of two experts; everywhere the second one knows the answers."""
    flat = decoders.library(base, M * E, targets=(SITE, "layers/attn/q_proj/kernel"))
    flat = lora.lora_map(lambda w: w.replace(b=3 * w.b), flat)
    libraries = jax.tree.map(lambda x: x.reshape(M, E, *x.shape[1:]), flat)
    tokens, questions = prompts(M, E, Q), prompts(M, Q)

    @jax.jit
    def answers(adapters):
        def task(adapter, tokens):
            inputs = Inputs(tokens, tokens != PAD)
            return models.apply(model, base, inputs, adapter=adapter)[:, -1]

        return jnp.argmax(jax.vmap(task)(adapters, questions), -1)

    knows = answers(jax.tree.map(lambda x: x[:, 1], libraries))
    rows = asked(tokens, tokens[..., 1])
    keys = jax.random.split(jax.random.key(0), M)
    target = asked(questions, knows)
    return combine.Given(model, PAD, base, libraries, rows, target, keys)


@functools.cache
def program(how):
    return jax.jit(lambda library, key: how(library, key=key))


def of(tree, m):
    return jax.tree.map(lambda x: x[m], tree)


def differs(before, after):
    """Which of M results have changed in any bit."""
    pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    same = [[np.array_equal(x[m], y[m]) for x, y in pairs] for m in range(M)]
    return [not all(each) for each in same]


@pytest.mark.parametrize("name", MERGES)
def test_every_merge_combines_every_library(given, name):
    how, merged = merge.preset(name), combine.merged(given, name)
    assert set(lora.sites(merged)) == set(lora.sites(given.libraries))
    for site, weight in lora.sites(merged).items():
        library = lora.sites(given.libraries)[site]
        assert weight.a.shape[:3] == (M, L, library.a.shape[-2])
        assert weight.b.shape[::3] == (M, library.b.shape[-1])
        delta = np.asarray(lora.delta(weight))
        assert np.isfinite(delta).all()
        # A search may end where it began, at no experts at all.
        assert delta.any(axis=(1, 2, 3)).all() or name not in (*SEEN, "cat")
    if how.data != "free":
        return
    for m in range(M):
        alone = program(how)(of(given.libraries, m), given.keys[m])
        for site, weight in lora.sites(alone).items():
            got = lora.delta(of(lora.sites(merged)[site], m))
            np.testing.assert_allclose(got, lora.delta(weight), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ROUTES)
def test_every_route_combines_every_library(given, name):
    routed = combine.routed(given, name)
    how = route.preset(name)
    assert routed.model.route == how.fit(E)
    library = routed.libraries if how.prepare else given.libraries
    assert jax.tree.map(jnp.shape, routed.libraries) == jax.tree.map(jnp.shape, library)

    @jax.jit
    def logits(libraries, states, tokens):
        def task(library, gate, tokens):
            inputs = Inputs(tokens, tokens != PAD)
            return models.apply(
                routed.model, given.base, inputs, library=library, gate=gate
            )

        return jax.vmap(task)(libraries, states, tokens)

    got = np.asarray(logits(routed.libraries, routed.states, given.target.tokens))
    assert got.shape == (M, Q, T, V)
    assert np.isfinite(got).all()
    absent = jax.tree.map(jnp.zeros_like, routed.libraries)
    without = np.asarray(logits(absent, routed.states, given.target.tokens))
    used = np.abs(got - without).max(axis=(1, 2, 3)) > 1e-3
    # Two experts less their mean are opposite, and equally large: they cancel, but for
    # products of factors that are mixed one by one.
    cancels = how.prepare and (how.prepare, how.mixing) != ("factor", "outputs")
    assert (~used if cancels else used).all()


def changed(batch, m):
    """The same rows, but other answers for task m."""
    targets = batch.targets.at[m].set((batch.targets[m] + 5) % V)
    return batch._replace(targets=targets)


@pytest.mark.parametrize(
    "name",
    marked(("cat", "linear", "lorahub", "smear", "lora-flow"), ("cat", "linear")),
)
def test_ones_own_questions_teach_others_alone(given, name):
    """What is learned for library 1 is the same to the bit whatever its answers are."""

    def learn(given):
        if name in merge.names():
            return combine.merged(given, name)
        return GATE.split(combine.routed(given, name).states)[0]

    other = given._replace(target=changed(given.target, 1))
    moved = differs(learn(given), learn(other))
    # A search may find the same place twice.
    assert moved == [True, False, True] or (name == "lorahub" and not moved[1])


def test_what_others_teach_is_of_use(given):
    """In the other libraries the second expert knows the answers: so does m's."""

    def loss(adapters):
        rows = jax.tree.map(lambda x: x[:, None], given.target)
        ask = functools.partial(learned.loss, given.model, PAD, given.base)
        each = jax.tree.map(lambda x: x[:, None], adapters)
        return np.asarray(jax.jit(jax.vmap(ask))(each, rows))

    mean, cat = (loss(combine.merged(given, name)) for name in ("mean", "cat"))
    assert cat.mean() < mean.mean() - 0.1
    data = left_out.scales(*given[:4], given.target)
    weights = np.mean([x.mean(-1) for x in data.values()], axis=0)
    assert (weights[:, 1] > weights[:, 0] + 0.2).all()
    keys = combine.routed(given, "linear").states
    site = route.states(keys)[SITE]
    seen = statistics.mean_inputs(
        given.model,
        given.base,
        given.target.tokens.reshape(-1, T),
        given.target.weights.reshape(-1, T),
        adapter=of(of(given.libraries, 0), 0),
    )[SITE]
    scores = np.einsum("meld,ld->me", site.keys, seen)
    assert (scores[:, 1] > scores[:, 0]).all()


@pytest.mark.parametrize(
    "name", ["regmean", "fisher", "average-activation", "phatgoose", "retrieval"]
)
def test_own_rows_are_those_of_each_expert(given, name):
    """Other rows of library 1 change the result of library 1 and no other's."""

    def see(given):
        if name in merge.names():
            return combine.merged(given, name)
        return combine.routed(given, name).states

    tokens = given.rows.tokens.at[1].set(given.rows.tokens[1] % (V - 1) + 1)
    other = given._replace(rows=given.rows._replace(tokens=tokens))
    assert differs(see(given), see(other)) == [False, True, False]


def test_grams_are_those_of_every_expert_alone(given):
    rows = [jax.tree.map(lambda x, e=e: x[:, e], given.rows) for e in range(E)]
    grams = own_statistics.measured("regmean", *given[:4], iter(rows))[SITE]
    assert grams.shape == (M, E, L, 16, 16)
    by_hand = jax.jit(
        lambda adapter, tokens: statistics.input_grams(
            given.model, given.base, tokens, jnp.ones((Q, T)), adapter=adapter
        )[SITE]
    )
    for m in range(M):
        for e in range(E):
            adapter = of(of(given.libraries, m), e)
            want = by_hand(adapter, given.rows.tokens[m, e])
            np.testing.assert_allclose(grams[m, e], want, rtol=1e-4, atol=1e-6)


def test_a_second_seed_compiles_nothing_new(given):
    programs = (combine.merge_each, left_out.scales, learned.candidates, left_out.gates)

    def everything(given):
        combine.merged(given, "dare")
        combine.merged(given, "cat")
        combine.merged(given, "lorahub")
        combine.routed(given, "linear")
        return [each._cache_size() for each in programs]

    keys = jax.random.split(jax.random.key(1), M)
    target = changed(given.target, 2)
    assert everything(given) == everything(given._replace(keys=keys, target=target))


def test_keys_are_each_librarys(given):
    """What draws for library 1 draws by the key of library 1."""
    keys = given.keys.at[1].set(jax.random.key(9))
    other = given._replace(keys=keys)
    dare = [combine.merged(x, "dare") for x in (given, other)]
    assert differs(*dare) == [False, True, False]
    arrow = [combine.routed(x, "random-arrow").states for x in (given, other)]
    assert differs(*arrow) == [False, True, False]


def test_with_one_library_there_is_nothing_to_learn_from(given):
    first = jax.tree.map(lambda x: x[:1], given[3:])
    only = combine.Given(*given[:3], *first)
    with pytest.raises(
        ValueError, match=r"'cat' learns for each library .* got 1 library"
    ):
        combine.merged(only, "cat")
    with pytest.raises(ValueError, match="'smear' learns for each library"):
        combine.routed(only, "smear")
    assert lora.sites(combine.merged(only, "mean"))[SITE].a.shape[0] == 1


def test_what_does_not_fit_is_refused(given):
    two = jax.tree.map(lambda x: x[:2], given.target)
    with pytest.raises(ValueError, match=r"'target' has leading axes \[2\].*\[3\]"):
        combine.merged(given._replace(target=two), "mean")
    swapped = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), given.rows)
    with pytest.raises(ValueError, match=r"'rows' has leading axes \[2, 3\]"):
        combine.routed(given._replace(rows=swapped), "arrow")
    silent = given.rows._replace(weights=given.rows.weights.at[2, 1].set(0))
    for ask, name in ((combine.merged, "fisher"), (combine.routed, "retrieval")):
        with pytest.raises(ValueError, match=f"'{name}' .* expert 1 of library 2"):
            ask(given._replace(rows=silent), name)


def test_what_cannot_be_made_is_refused(given):
    with pytest.raises(ValueError, match="'oracle' has no gate to make"):
        combine.routed(given, "oracle")
    with pytest.raises(ValueError, match="'arow'"):
        combine.routed(given, "arow")
    with pytest.raises(ValueError, match="'mena'"):
        combine.merged(given, "mena")
    with pytest.raises(ValueError, match="'mean' sees data of the target task"):
        learned.check("mean")
    with pytest.raises(ValueError, match="'arrow' sees data of the target task"):
        library_gates.training_of("arrow")
    with pytest.raises(ValueError, match="'ties' sees the experts' own data"):
        own_statistics.measured("ties", *given[:4], [])


def test_every_method_that_sees_data_is_given_some():
    sees = {name: merge.preset(name).data for name in merge.names()}
    assert {x for x, y in sees.items() if y == "own"} == set(SEEN)
    assert set(own_statistics.MEASURES) == set(SEEN)
    assert {x for x, y in sees.items() if y == "target"} == set(LEARNED)
    assert {*learned.SCALED, *learned.SEARCHED} == set(LEARNED)
    gates = [x for x in route.names() if route.describe(x).data == "target"]
    assert all(library_gates.training_of(name) for name in gates)


def test_an_obstacle_is_what_a_merge_would_raise(given):
    assert "two experts" in combine.obstacle("slerp", 3, 4)
    assert "Got 5 experts for 4 layers" in combine.obstacle("placed-sum", 5, 4)
    assert combine.obstacle("placed-sum", 4, 4) == ""
    assert "has one layer" in combine.obstacle("permuted-mean", 2, 1)
    with pytest.raises(ValueError, match="'slurp'"):
        combine.obstacle("slurp", 2, 4)
    for name in (*merge.names(), *route.names()):
        assert combine.obstacle(name, E, L) == ""
    library = decoders.library(given.base, 3, targets=(SITE,))
    for name in ("slerp", "placed-sum"):
        with pytest.raises(ValueError, match=combine.obstacle(name, 3, L)[:30]):
            merge.preset(name)(library)
