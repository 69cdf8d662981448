"""Gates learn which expert solves a task, and nothing else changes."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from decoders import TEXT
from jaxlora import lora, models, parallel, route, tree
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder
from jaxlora.tasks.packing import Rows
from jaxlora.train import gate_data, session
from jaxlora.train.full_batch import fit_gates
from jaxlora.train.session import Checkpoints, Gates
from jaxlora.train.step import GATE, Batch, cross_entropy
from jaxlora.train.training import Training

T, V, E, D = 8, 13, 3, 8
CONFIG = dataclasses.replace(TEXT, embed_std=1.0)
MODEL = Decoder(CONFIG)
ANSWERS = {"ann": 3, "bo": 5, "cy": 7}  # what each expert always says
SITES = ("layers/attn/v_proj/kernel", "layers/mlp/down_proj/kernel")
LORA = LoraConfig(rank=2, alpha=8.0, targets=SITES)
LINEAR = route.preset("linear")
ROUTED = Decoder(CONFIG, LINEAR)
TRAINING = Training(steps=40, learning_rate=0.1, batch=4)
CROSS_ENTROPY = jax.jit(cross_entropy, static_argnums=0)


def draw(answer, seed=0, count=8):
    """Rows whose second half is one token over and over."""
    tokens = np.random.default_rng(seed).integers(1, V, (count, T)).astype(np.int32)
    places = np.broadcast_to(np.arange(T, dtype=np.int32), (count, T))
    weights = ((places >= T // 2) & (places < T - 1)).astype(np.float32)
    tokens[:, T // 2 + 1 :] = answer
    targets = np.full((count, T), answer, np.int32)
    return Rows(tokens, targets, weights, np.ones_like(tokens), places.copy())


DATA = {name: draw(answer, answer) for name, answer in ANSWERS.items()}
TARGET = {"target": draw(ANSWERS["bo"], 99)}


@pytest.fixture(scope="module")
def base():
    return jax.jit(models.init, static_argnums=1)(jax.random.key(0), MODEL)


@pytest.fixture(scope="module")
def library(base):
    training = Training(steps=120, learning_rate=5e-2, batch=4)
    return session.train_experts(
        MODEL, base, DATA, LORA, training, checkpoints=Checkpoints(chunk=40)
    ).learned


@pytest.fixture(scope="module")
def oracle(base, library):
    """Loss on the target of the expert that solves it, and of the mean of all."""
    rows = jax.tree.map(jnp.asarray, TARGET["target"])
    solves = CROSS_ENTROPY(MODEL, base, rows, adapter=lora.unstack(library)[1])
    count = float(solves[1])
    (uniform,) = gate_data.losses(ROUTED, base, *begun(library), TARGET)
    assert float(solves[0]) / count < 0.5 < 1.2 < uniform
    return float(solves[0]) / count


def begun(library):
    """One library and its fresh state, each with an axis G of one."""
    state = models.gate_state(ROUTED, library)
    return jax.tree.map(lambda x: x[None], (library, state))


def chosen(base, library, state):
    """The share of answer tokens and sites where bo has the largest weight."""
    tokens = jnp.asarray(TARGET["target"].tokens)
    told = models.routes(ROUTED, base, tokens, library=library, gate=state)
    tops = [x.argmax(-1)[..., T // 2 :] for x in tree.flatten(told.weights).values()]
    return float(np.mean([np.mean(top == 1) for top in tops]))


def run(base, library, folder=None, **options):
    gates, saved = Gates(*begun(library)), Checkpoints(folder, chunk=10)
    return session.train_gates(
        ROUTED, base, TARGET, gates, TRAINING, checkpoints=saved, **options
    )


@pytest.fixture(scope="module")
def done(base, library):
    return run(base, library)


def test_a_gate_learns_which_expert_solves_its_task(base, library, oracle, done):
    libraries, _ = begun(library)
    (after,) = gate_data.losses(ROUTED, base, libraries, done.learned, TARGET)
    assert after < 1.1 * oracle + 0.05
    assert done.loss[0, -1] < 1.1 * oracle + 0.1 < 1.0 < done.loss[0, 0]
    state = jax.tree.map(lambda x: x[0], done.learned)
    route.check(LINEAR, state, library)
    assert chosen(base, library, state) > 0.6


@pytest.mark.slow
def test_two_gates_on_two_devices_are_the_same_gates(base, library):
    """Here the axis of devices cuts gates, and not the experts of each."""
    gates = Gates(*jax.tree.map(lambda x: jnp.repeat(x, 2, 0), begun(library)))
    data = TARGET | {"other": draw(ANSWERS["cy"], 98)}
    training = dataclasses.replace(TRAINING, steps=10)
    mesh = parallel.mesh(expert=2, fsdp=2, devices=jax.devices()[:4])
    placed = parallel.place(base, mesh, parallel.shardings(mesh, base))
    saved = Checkpoints(chunk=10)
    want = session.train_gates(ROUTED, base, data, gates, training, checkpoints=saved)
    got = session.train_gates(
        ROUTED, placed, data, gates, training, checkpoints=saved, mesh=mesh
    )
    np.testing.assert_allclose(got.loss, want.loss, atol=1e-4)


def test_so_does_the_loop_in_memory(base, library, oracle):
    rows = TARGET["target"]
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], Batch(*rows[:3]))
    opt, steps = optax.adam(0.1), 40
    states, last = fit_gates(ROUTED, opt, steps, 0, base, *begun(library), batch)
    assert float(last[0]) < 1.1 * oracle + 0.05
    state = jax.tree.map(lambda x: x[0], states)
    assert chosen(base, library, state) > 0.6


def test_base_experts_and_the_given_state_stay_as_they_are(base, library, done):
    libraries, states = begun(library)
    before = jax.tree.map(np.array, (base, libraries, states))
    after = session.train_gates(
        ROUTED,
        base,
        TARGET,
        Gates(libraries, states),
        TRAINING,
        checkpoints=Checkpoints(chunk=10),
    ).learned
    chex.assert_trees_all_equal(
        jax.tree.map(np.asarray, (base, libraries, states)), before
    )
    chex.assert_trees_all_equal(jax.device_get(after), jax.device_get(done.learned))
    for path, state in route.states(done.learned).items():
        start = route.states(states)[path]
        np.testing.assert_array_equal(state.live, start.live)
        np.testing.assert_array_equal(state.fingerprint, start.fingerprint)
        assert np.abs(state.keys).max() > 0.1


def products(jaxpr):
    """Shapes of what all matrix products of a program give."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn.outvars[0].aval.shape
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def test_the_frozen_parts_receive_no_gradient_work(base, library):
    rows = jax.tree.map(lambda x: jnp.asarray(x[:2]), TARGET["target"])
    state = models.gate_state(ROUTED, library)
    keys, rest = GATE.split(state)

    def value(keys, base, library):
        gate = GATE.join(keys, rest)
        return cross_entropy(ROUTED, base, rows, library=library, gate=gate)[0]

    # Kernels, and the factors of all experts side by side: [D, E R] and [E R, F].
    frozen = {x.shape[-2:] for x in jax.tree.leaves(base["layers"]) if x.ndim == 3}
    frozen |= {(w.a.shape[-2], E * 2) for w in lora.sites(library).values()}
    frozen |= {(E * 2, w.b.shape[-1]) for w in lora.sites(library).values()}
    frozen |= {shape[::-1] for shape in frozen}

    def work(of):
        program = jax.make_jaxpr(jax.grad(value, argnums=of))(keys, base, library)
        return frozen & set(products(program.jaxpr))

    assert work(0) == set()
    assert work(1)
    assert work(2)


@pytest.mark.slow
def test_an_interrupted_run_ends_bit_equal(base, library, done, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "SAVE_EVERY", -1.0)
    told = []

    def tell(*words):
        told.append(words)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(base, library, folder=tmp_path, progress=tell)
    got = run(base, library, folder=tmp_path)
    assert got.resumed == 20
    chex.assert_trees_all_equal(jax.device_get(got[:3]), jax.device_get(done[:3]))
    other = lora.lora_map(lambda w: w.replace(b=w.b * 1.5), library)
    with pytest.raises(ValueError, match="holds the checkpoint of another run"):
        run(base, other, folder=tmp_path)


def test_gates_of_single_experts_make_one_of_all(base, library):
    """Phatgoose: E gates on libraries of one, each on its expert's own rows."""
    entry = route.describe("phatgoose")
    alone = Decoder(CONFIG, entry.training)
    libraries = gate_data.singles(library)
    states = jax.vmap(lambda one: models.gate_state(alone, one))(libraries)
    training = dataclasses.replace(TRAINING, steps=4)
    found = session.train_gates(alone, base, DATA, Gates(libraries, states), training)
    assert found.loss.shape == (E, 4)
    before = gate_data.losses(alone, base, libraries, states, DATA)
    after = gate_data.losses(alone, base, libraries, found.learned, DATA)
    assert (after < before).all()  # from half the expert to more of it
    state = gate_data.join_singles(found.learned)
    route.check(entry.route, state, library)
    keys = {path: s.keys for path, s in route.states(state).items()}
    shapes = {x.shape for x in keys.values()}
    assert shapes == {(E, 2, D), (E, 2, 12)}
    one, two, _ = keys[SITES[0]]
    assert np.abs(one - two).max() > 1e-3


def test_as_many_data_sets_as_libraries(base, library):
    gates = Gates(*begun(library))
    with pytest.raises(ValueError, match=r"Got 3 data sets, and .* axes of \[1\]"):
        session.train_gates(ROUTED, base, DATA, gates, TRAINING)
    with pytest.raises(ValueError, match="expected one set at least"):
        session.train_gates(ROUTED, base, {}, gates, TRAINING)


def test_means_are_of_the_last_tokens_of_prompts(base, library):
    prompts = [[[1, 2, 3], [4]], [[5, 6]], [[7], [8, 9], [10, 11, 12]]]
    found = gate_data.means(MODEL, base, library, prompts, batch=2)
    for e, adapter in enumerate(lora.unstack(library)):
        for name in SITES:
            each = []
            for row in prompts[e]:
                tokens = jnp.asarray([row + [0] * (16 - len(row))], jnp.int32)
                last = (jnp.arange(16) == len(row) - 1).astype(jnp.float32)[None]
                one = gate_data._means(MODEL, base, tokens, last, adapter, tokens > 0)
                each.append(np.asarray(one[name]))
            np.testing.assert_allclose(
                found[name][e], np.mean(each, axis=0), rtol=1e-5, atol=1e-6
            )
    with pytest.raises(ValueError, match="2 sets of examples for 3 experts"):
        gate_data.means(MODEL, base, library, prompts[:2])


def test_fewer_prompts_than_devices_are_filled_up(base):
    mesh = parallel.mesh(data=4, devices=jax.devices()[:4])
    prompts = [[[1, 2, 3]], [[4, 5]]]
    cut = gate_data.examples(MODEL, base, prompts, batch=4, mesh=mesh)["router"]
    table = np.asarray(base["embed"]["embedding"], np.float64)
    want = [[table[row].mean(0) for row in some] for some in prompts]
    np.testing.assert_allclose(cut, want, rtol=1e-5, atol=1e-7)


def test_examples_are_mean_embeddings_and_fill_up_with_their_own(base):
    prompts = [[[1, 2, 3], [4]], [[5, 6]]]
    table = np.asarray(base["embed"]["embedding"], np.float64)
    want = [[table[row].mean(0) for row in some] for some in prompts]
    want[1] *= 2
    seen = []
    found = gate_data.examples(
        MODEL, base, prompts, batch=2, progress=lambda *words: seen.append(words)
    )
    np.testing.assert_allclose(found["router"], want, rtol=1e-5, atol=1e-7)
    assert seen == [(2, 3), (3, 3)]
    with pytest.raises(ValueError, match="of which 1 are empty"):
        gate_data.examples(MODEL, base, [[[1]], []])
    with pytest.raises(ValueError, match="has 9999 tokens, but the model's context is"):
        gate_data.examples(MODEL, base, [[[1] * 9999]])
