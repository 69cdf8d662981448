"""Experts of a user's own module and loss: learned, apart, frozen where promised."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlora import lora
from jaxlora.lora import LoraConfig
from jaxlora.models import apply_with_lora, dense_kernels, init
from jaxlora.train import Steps, cross_entropy, fit, fit_experts, fresh

E, N, STEPS = 3, 8, 60
KEYS = jax.random.split(jax.random.key(0), E)
OPT = optax.adam(2e-2)
ATOL = 1e-4  # 60 Adam steps amplify the rounding of batched products


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(8, name="up")(x))
        return nn.Dense(3, name="down")(x)


NET = Net()


def loss(base, adapter, rows):
    out = apply_with_lora(NET, {"params": base}, adapter, rows["x"])
    return jnp.mean((out - rows["y"]) ** 2)


def noisy(base, adapter, rows, key):
    x = rows["x"] + 0.1 * jax.random.normal(key, rows["x"].shape)
    return loss(base, adapter, {**rows, "x": x})


@pytest.fixture(scope="module")
def base():
    return NET.init(jax.random.key(1), jnp.ones((1, 4)))["params"]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(E, N, 4)).astype(np.float32)
    slopes = rng.normal(size=(E, 4, 3)).astype(np.float32)
    return {"x": x, "y": np.sin(x @ slopes)}


@pytest.fixture(scope="module")
def start(base):
    names = dense_kernels(NET, {"params": base}, jnp.ones((1, 4)))
    return fresh(KEYS, base, LoraConfig(rank=2, alpha=3.0, targets=names))


@pytest.fixture(scope="module")
def trained(base, start, data):
    return fit(loss, base, start, data, OPT, steps=STEPS)


def pick(tree, *chosen):
    return jax.tree.map(lambda x: x[np.array(chosen)], tree)


def test_each_expert_learns_its_rows_and_not_its_neighbours(base, data, trained):
    library, losses = trained
    assert losses.shape == (E, STEPS)
    assert (losses[:, -1] < 0.5 * losses[:, 0]).all()
    ask = jax.vmap(loss, (None, 0, 0))
    np.testing.assert_array_less(
        2 * ask(base, library, data), ask(base, pick(library, 1, 2, 0), data)
    )


def test_the_first_loss_is_that_of_the_base(base, data, trained):
    for i in range(E):
        out = NET.apply({"params": base}, data["x"][i])
        want = np.mean((np.asarray(out) - data["y"][i]) ** 2)
        np.testing.assert_allclose(trained[1][i, 0], want, rtol=1e-5)


def test_scales_are_bit_unchanged_and_the_base_untouched(base, start, data, trained):
    before = jax.tree.map(np.array, base)
    library, _ = fit(loss, base, start, data, optax.adamw(0.1), steps=3)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, base), before)
    for tree in (library, trained[0]):
        for w in lora.sites(tree).values():
            assert (w.scale == 1.5).all()
            assert not (w.b == 0).all(axis=(1, 2)).any()


def test_it_is_the_loop_written_by_hand(base, start, data, trained):
    expert = 1
    adapter, rows = pick(start, expert), pick(data, expert)
    adapter, rows = jax.tree.map(lambda x: x[0], (adapter, rows))
    factors, scales = lora.split(adapter)
    state = OPT.init(factors)

    @jax.jit
    def step(factors, state):
        def value(factors):
            return loss(base, lora.combine(factors, scales), rows)

        updates, state = OPT.update(jax.grad(value)(factors), state, factors)
        return optax.apply_updates(factors, updates), state

    for _ in range(STEPS):
        factors, state = step(factors, state)
    got = jax.tree.map(lambda x: x[expert], trained[0])
    chex.assert_trees_all_close(got, lora.combine(factors, scales), atol=ATOL)


@pytest.mark.parametrize("steps", [STEPS, Steps(STEPS, draw=2)], ids=["all", "draw"])
def test_alone_is_as_beside_others(base, start, data, steps):
    every, _ = fit(noisy, base, start, data, OPT, steps=steps, keys=KEYS)
    given = pick((start, data), 2)
    alone, _ = fit(noisy, base, *given, OPT, steps=steps, keys=KEYS[2:])
    chex.assert_trees_all_close(pick(every, 2), alone, atol=ATOL)


def test_draws_are_of_their_keys_and_of_all_rows_in_the_end(base, start):
    """The loss tells which row was drawn: it is nearly the row's number."""

    def number(base, adapter, rows, key):
        del key
        drag = sum(jnp.sum(w.a**2) for w in lora.sites(adapter).values())
        return jnp.mean(rows) + 1e-3 * drag

    rows = jnp.tile(jnp.arange(float(N)), (E, 1))

    def seen(keys):
        given = base, start, rows, optax.sgd(1.0)
        return fit(number, *given, steps=Steps(200, draw=1), keys=keys)[1].round()

    losses = seen(KEYS)
    for expert in losses:
        assert set(expert.tolist()) == set(range(N))
    assert (losses[0] != losses[1]).any()
    assert (losses == seen(KEYS)).all()
    assert (losses != seen(KEYS[::-1])).any()


def test_it_compiles_once(base, start, data):
    @chex.assert_max_traces(n=3)  # two checks of shapes, one program
    def counted(base, adapter, rows):
        return loss(base, adapter, rows)

    fit(counted, base, start, data, OPT, steps=3)
    fit(counted, base, start, jax.tree.map(np.copy, data), OPT, steps=3)


@pytest.mark.slow
def test_a_decoder_trains_as_by_fit_experts(model, rows):
    decoder_base, few = jax.jit(init, static_argnums=1)(KEYS[0], model), pick(rows, 0)
    keys, config = KEYS[:1], LoraConfig(rank=2)

    def entropy(base, adapter, batch):
        total, count = cross_entropy(model, base, batch, adapter=adapter, pad=0)
        return total / count

    want, _ = fit_experts(model, OPT, config, 5, 0, decoder_base, few, keys)
    begin = fresh(keys, decoder_base, config)
    got, _ = fit(entropy, decoder_base, begin, few, OPT, steps=5)
    chex.assert_trees_all_close(got, want, atol=ATOL)
    assert not (lora.sites(got)["layers/attn/q_proj/kernel"].b == 0).all()


# Bad input: one sentence each.


def test_variables_for_params_are_refused(base, start, data):
    variables = {"params": base, "batch_stats": {}}
    for call in (
        lambda: fresh(KEYS, variables, LoraConfig(rank=2, targets=(".*kernel",))),
        lambda: fit(loss, variables, start, data, OPT, steps=1),
    ):
        with pytest.raises(
            ValueError, match=r"holds 'params', 'batch_stats'.*'up/kernel'"
        ):
            call()


def test_a_base_without_kernels_or_without_matches_says_what_there_is(base):
    with pytest.raises(ValueError, match=r"no kernel to adapt.*'scale'"):
        fresh(KEYS, {"scale": jnp.ones(3)}, LoraConfig(rank=2))
    with pytest.raises(ValueError, match=r"matches none.*'(up|down)/kernel'"):
        fresh(KEYS, base, LoraConfig(rank=2))


def test_a_library_of_another_base_is_refused(base, start, data):
    other = {"head": start["up"]}
    with pytest.raises(ValueError, match=r"'head/kernel' that the base lacks.*'up/"):
        fit(loss, base, other, data, OPT, steps=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: pick(d, 0, 1), r"'x' have shape \(2, 8, 4\), expected \[E, N"),
        (lambda d: {**d, "y": d["y"][0]}, r"'y' have shape \(8, 3\).*E = 3"),
        (lambda d: {**d, "w": jnp.ones(E)}, r"'w' have shape \(3,\), expected"),
        (lambda d: {**d, "y": d["y"][:, :5]}, r"'y' have 5 rows an expert, expected 8"),
        (lambda d: {}, "data are empty"),
    ],
    ids=["experts", "stacked", "rows", "counts", "empty"],
)
def test_data_that_do_not_fit_are_refused(base, start, data, change, words):
    with pytest.raises(ValueError, match=words):
        fit(loss, base, start, change(data), OPT, steps=1)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda base, ad, rows: jnp.ones(N), r"float32 of shape \(8,\), expected one"),
        (lambda base, ad, rows: jnp.int32(1), r"int32 of shape \(\), expected one"),
        (lambda base, ad, rows: (1.0, 2.0), r"returns a tuple, expected one float"),
        (noisy, r"cannot be called as loss\(base, adapter, rows\).*'key'"),
        (lambda base, ad, rows: jnp.mean(rows["x"]), "No expert moved"),
    ],
    ids=["rows", "integer", "pair", "key", "unused"],
)
def test_a_loss_that_is_none_is_refused(base, start, data, bad, words):
    with pytest.raises(ValueError, match=words):
        fit(bad, base, start, data, OPT, steps=1)


@pytest.mark.parametrize(
    ("steps", "keys", "words"),
    [
        (0, None, "expected a count of 1"),
        (Steps(1, draw=9), KEYS, "draw of at most 8"),
        (Steps(1, draw=2), None, "no keys"),
        (1, KEYS[:2], r"shape \(2,\), expected one for each of 3"),
        (1, KEYS[0], r"shape \(\), expected one for each of 3"),
    ],
)
def test_draws_and_keys_that_do_not_fit_are_refused(
    base, start, data, steps, keys, words
):
    with pytest.raises(ValueError, match=words):
        fit(noisy, base, start, data, OPT, steps=steps, keys=keys)
