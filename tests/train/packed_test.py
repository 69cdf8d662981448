"""LoRA training on packed text, against optax, one example at a time, and PEFT."""

import dataclasses
import functools
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from decoders import TEXT
from jaxlora import lora, parallel
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, adapters, apply, init, pretrained
from jaxlora.tasks.packing import Rows
from jaxlora.train.packed import Program, Run, start, updates
from jaxlora.train.step import Logits, cross_entropy
from jaxlora.train.training import Plan, optimizer, rate

E, K, A, N, T, V = 8, 3, 2, 2, 8, 13
MODEL = Decoder(TEXT)
LORA = LoraConfig(rank=2, alpha=4.0)
OPT = optimizer(weight_decay=0.01)
KEYS = jax.random.split(jax.random.key(5), E)
PROGRAM = Program(MODEL, OPT, E)
PLAN = Plan(*(jnp.full(E, x) for x in (1e-2, 2.0, 8.0, 0.5)))
ATOL = 1e-4  # Adam divides by the gradient's size, and so doubles no error of rounding


def example(rng, length):
    """Tokens, targets, weights [length] of one example: its second half is learnt."""
    tokens = rng.integers(1, V, length)
    weights = (np.arange(length) >= length // 2) & (np.arange(length) < length - 1)
    return tokens, np.append(tokens[1:], 0), weights


def fill(rows):
    """Rows [N, T] of lists of examples."""
    out = Rows(*(np.zeros((len(rows), T), np.int32) for _ in Rows._fields))
    for b, row in enumerate(rows):
        at = 0
        for i, one in enumerate(row):
            here = slice(at, at + len(one[0]))
            for field, value in zip(
                out, (*one, i + 1, range(len(one[0]))), strict=True
            ):
                field[b, here] = value
            at += len(one[0])
    return out._replace(weights=out.weights.astype(np.float32))


def draw(*shape):
    """Rows [*shape, N, T], each of two examples of 3 to 5 tokens."""
    rng = np.random.default_rng(0)
    count = int(np.prod(shape)) * N
    sizes = [int(rng.integers(3, 6)) for _ in range(count)]
    flat = fill([[example(rng, n), example(rng, T - n)] for n in sizes])
    return jax.tree.map(lambda x: jnp.asarray(x.reshape(*shape, N, T)), flat)


ROWS = draw(E, K, A)


@pytest.fixture(scope="module")
def net():
    fresh = jax.jit(init, static_argnums=1)
    return fresh(jax.random.key(0), MODEL)


def begin(base, keys=KEYS, opt=OPT):
    return start(base, LORA, opt, keys)


def pick(tree, *chosen):
    return jax.tree.map(lambda x: x[jnp.array(chosen)], tree)


def fit(base, rows=ROWS, *, model=MODEL, together=E, plan=PLAN, keys=KEYS):
    program = Program(model, OPT, together)
    return updates(program, base, begin(base, keys), plan, rows)


@pytest.fixture(scope="module")
def done(net):
    return fit(net)


def close(one, two, atol=ATOL):
    chex.assert_trees_all_close(jax.device_get(one), jax.device_get(two), atol=atol)


@pytest.mark.parametrize("decay", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_the_rate_equals_optax(warmup, decay):
    plan = Plan(*map(jnp.float32, (0.3, warmup, 9, decay)))
    parts = [
        optax.linear_schedule(0.3 / max(warmup, 1), 0.3, max(warmup - 1, 1)),
        optax.linear_schedule(0.3, 0.3 * (1 - decay), 9 - warmup),
    ]
    want = optax.join_schedules(parts, [warmup])
    for step in range(12):
        got = rate(plan, jnp.int32(step))
        np.testing.assert_allclose(got, want(step), atol=1e-7)


def alone(rows):
    """Each example of rows [..., T] in a row of its own, [M, T]."""
    found = []
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, T), rows)
    for b, i in np.ndindex(len(flat.tokens), 2):
        keep = flat.segments[b] == i + 1
        found.append([tuple(field[b, keep] for field in flat[:3])])
    return fill(found)


def reference(base, adapter, rows, plan, steps):
    """Updates by optax, one example a row: losses, norms and the adapter."""
    factors, scales = lora.split(adapter)
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(plan.peak / 2, plan.peak, 1),
            optax.linear_schedule(
                plan.peak, plan.peak * (1 - plan.decay), int(plan.total - plan.warmup)
            ),
        ],
        [int(plan.warmup)],
    )
    opt = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01)
    )

    @jax.jit
    @jax.value_and_grad
    def value(factors, rows):
        whole = lora.combine(factors, scales)
        scores = jax.nn.log_softmax(apply(MODEL, base, rows.tokens, adapter=whole))
        each = -jnp.sum(scores * jax.nn.one_hot(rows.targets, V), axis=-1)
        return jnp.sum(each * rows.weights) / jnp.sum(rows.weights)

    state, told = opt.init(factors), []
    for step in range(steps):
        loss, grads = value(factors, alone(Rows(*(field[step] for field in rows))))
        told.append((float(loss), float(optax.tree.norm(grads))))
        change, state = opt.update(grads, state, factors)
        factors = optax.apply_updates(factors, change)
    return np.array(told), lora.combine(factors, scales)


def test_updates_equal_optax_on_one_example_a_row(net, done):
    first = begin(net).trained
    for e in range(2):
        one = functools.partial(jax.tree.map, lambda x, e=e: x[e])
        told, adapter = reference(net, one(first), one(ROWS), one(PLAN), K)
        got = np.stack([done[1].loss[e], done[1].norm[e]], axis=1)
        np.testing.assert_allclose(got, told, rtol=1e-4)
        close(one(done[0].trained), adapter)
    moved = lora.sites(done[0].trained)["layers/attn/q_proj/kernel"]
    assert np.abs(moved.b).max() > 50 * ATOL
    assert done[0].step == K


def test_microbatches_are_one_large_batch(net, done):
    large = jax.tree.map(lambda x: x.reshape(E, K, 1, A * N, T), ROWS)
    close(fit(net, large, together=2), done)
    counts = ROWS.weights.sum((-1, -2))
    assert (counts[..., 0] != counts[..., 1]).any()  # no mean of means


def test_one_after_another_is_all_at_once(net, done):
    close(fit(net, together=1), done)


def test_an_expert_is_the_same_alone(net, done):
    got = fit(net, pick(ROWS, 2), together=1, plan=pick(PLAN, 2), keys=KEYS[2:3])
    close((got[0].trained, got[1]), pick((done[0].trained, done[1]), 2))


def test_neighbours_change_not_a_bit(net, done):
    other = jax.tree.map(lambda x: x.at[1].set(x[0]), ROWS)
    plan = PLAN._replace(peak=PLAN.peak.at[1].set(0.3), total=PLAN.total.at[1].set(1.0))
    got, told = fit(net, other, plan=plan)
    kept = (0, *range(2, E))
    chex.assert_trees_all_equal(
        pick((got.trained, got.opt_state, told), *kept),
        pick((done[0].trained, done[0].opt_state, done[1]), *kept),
    )
    w, v = (x.trained["layers"]["attn"]["q_proj"]["kernel"] for x in (got, done[0]))
    assert np.abs(w.a[1] - v.a[1]).max() > 1e-3


def one_by_one(base, plan):
    """The run on the host after each of K calls of one update, and what they told."""
    run, found = begin(base), []
    for k in range(K):
        part = jax.tree.map(lambda x, k=k: x[:, k : k + 1], ROWS)
        run, told = updates(PROGRAM, base, run, plan, part)
        found.append(jax.device_get((run, told)))
    runs, told = zip(*found, strict=True)
    return runs, jax.tree.map(lambda *x: np.concatenate(x, axis=1), *told)


def test_a_call_for_each_update_is_one_call_for_all(net, done):
    runs, told = one_by_one(net, PLAN)
    chex.assert_trees_all_equal((runs[-1], told), jax.device_get(done))


def test_a_finished_expert_stays_as_it_is_while_the_others_go_on(net, done):
    ends = np.array([1.0, 8.0, 2.0, *[8.0] * (E - 3)])
    runs, _ = one_by_one(net, PLAN._replace(total=jnp.asarray(ends, jnp.float32)))
    kept = [(run.trained, run.opt_state) for run in runs]
    for e, last in ((0, 0), (2, 1)):
        for later in kept[last:]:
            chex.assert_trees_all_equal(pick(later, e), pick(kept[last], e))
    going = [e for e in range(E) if ends[e] == 8]
    whole = (done[0].trained, done[0].opt_state)
    chex.assert_trees_all_equal(pick(kept[-1], *going), pick(whole, *going))
    before, after = (
        lora.sites(run.trained)["layers/mlp/up_proj/kernel"] for run in runs[:2]
    )
    assert (before.b[2] != after.b[2]).any()


def test_scales_and_the_base_are_untouched_and_the_run_is_given_away(net):
    before, run = jax.tree.map(np.array, net), begin(net)
    given = jax.tree.leaves((run.trained, run.opt_state))
    after, _ = updates(PROGRAM, net, run, PLAN, ROWS)
    assert all(leaf.is_deleted() for leaf in given)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, net), before)
    for w in lora.sites(after.trained).values():
        np.testing.assert_array_equal(w.scale, np.full((E, 2), 2.0))
        assert np.asarray(w.b).any(axis=(1, 2, 3)).all()


def test_rows_without_an_answer_teach_nothing(net):
    empty = ROWS._replace(weights=jnp.zeros_like(ROWS.weights))
    first = jax.device_get(begin(net).trained)
    run, told = fit(net, empty)
    assert not np.asarray(told.loss).any()
    assert not np.asarray(told.norm).any()
    # Only weight decay is left, which takes its share of each update's rate.
    rates = [rate(pick(PLAN, 0), jnp.int32(k))[0] for k in range(K)]
    left = np.prod([1 - 0.01 * float(r) for r in rates])
    want = lora.lora_map(lambda w: w.replace(a=w.a * left, b=w.b * left), first)
    chex.assert_trees_all_close(jax.device_get(run.trained), want, rtol=1e-6)


def test_one_program_serves_other_rows_and_plans(net, done):
    size = updates._cache_size()
    plan = jax.tree.map(lambda x: x / 2, PLAN)
    fit(net, jax.tree.map(lambda x: x[:, ::-1], ROWS), plan=plan)
    assert updates._cache_size() == size


@functools.partial(jax.jit, static_argnums=(0, 4))
@functools.partial(jax.value_and_grad, argnums=3, has_aux=True)
def sloped(model, base, rows, adapter, chunk):
    return cross_entropy(model, base, rows, adapter=adapter, scored=Logits(chunk=chunk))


@pytest.fixture(scope="module")
def one(net, done):
    """Rows [N, T], an adapter, and their loss and gradient at once."""
    rows = jax.tree.map(lambda x: x[0, 0, 0], ROWS)
    adapter = lora.unstack(done[0].trained)[0]
    return rows, adapter, sloped(MODEL, net, rows, adapter, 0)


def test_cross_entropy_equals_examples_one_by_one(net, one):
    rows, adapter, ((total, count), _) = one
    tokens, targets, weights, *_ = alone(rows)
    scores = apply(MODEL, net, jnp.asarray(tokens), adapter=adapter)
    scores = np.asarray(jax.nn.log_softmax(scores))
    each = -np.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(total, (each * weights).sum(), rtol=1e-5)
    assert count == weights.sum() > 0


def test_learned_positions_restart_in_every_example(one):
    model = Decoder(dataclasses.replace(TEXT, positions="learned", max_length=T))
    base = jax.jit(init, static_argnums=1)(jax.random.key(0), model)
    count = jax.jit(cross_entropy, static_argnums=0)
    got, want = (count(model, base, rows)[0] for rows in (one[0], alone(one[0])))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_chunks_of_logits_add_up(net, one):
    rows, adapter, want = one
    got = sloped(MODEL, net, rows, adapter, 5)  # does not divide the tokens
    close(got, want, 1e-5)
    in_fives = functools.partial(
        cross_entropy, MODEL, adapter=adapter, scored=Logits(chunk=5)
    )
    text = str(jax.make_jaxpr(in_fives)(net, rows))
    assert f"[5,{V}]" in text
    assert f"[{N * T},{V}]" not in text


def test_remat_changes_nothing(net, one):
    rows, adapter, want = one
    model = Decoder(dataclasses.replace(TEXT, remat=True))
    close(sloped(model, net, rows, adapter, 0), want, 1e-5)


def test_float32_adapters_on_a_bfloat16_base(net, one):
    rows, adapter, ((want, _), _) = one
    model = Decoder(dataclasses.replace(TEXT, dtype="bfloat16", param_dtype="bfloat16"))
    base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), net)
    (got, _), grads = sloped(model, base, rows, adapter, 0)
    assert got.dtype == jnp.float32
    assert 1e-6 < abs(got / want - 1) < 0.02
    for leaf in jax.tree.leaves(grads):
        assert leaf.dtype == jnp.float32
        assert np.isfinite(leaf).all()
    run = begin(base)
    step = functools.partial(updates, Program(model, OPT, E))
    after, told = jax.eval_shape(step, base, run, PLAN, ROWS)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, run)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((after.trained, told))} == {
        "float32"
    }


def test_experts_over_eight_devices_are_the_same_experts(net, done):
    mesh, run = parallel.mesh(expert=E), begin(net)
    whole = NamedSharding(mesh, PartitionSpec())
    base, step = jax.device_put((net, run.step), whole)
    library, state, plan, rows = parallel.shard_experts(
        (run.trained, run.opt_state, PLAN, ROWS), mesh
    )
    got = updates(PROGRAM, base, Run(library, state, step), plan, rows)
    wanted = NamedSharding(mesh, PartitionSpec("expert"))
    for leaf in jax.tree.leaves((got[0].trained, got[0].opt_state)):
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
    close(got, done)


HF = pathlib.Path(__file__).parents[1] / "data" / "hf"
# Every forward pass is held to transformers in tests/models, and its gradient follows;
# these two have all that the others have.
QUICK = ("llama", "gemma3_text")
FAMILIES = (
    *QUICK,
    *(pytest.param(x, marks=pytest.mark.slow) for x in ("qwen2", "qwen3", "gemma2")),
)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_first_gradient_are_those_of_peft(family):
    model, base = pretrained.load(HF / family / "base")
    plain = adapters.load(HF / family / "plain", base)
    told = json.loads((HF / family / "reference.json").read_text())
    want = told["train"]
    ids = jnp.asarray(told["input_ids"], jnp.int32)
    rows = Rows(
        tokens=ids,
        targets=jnp.roll(ids, -1, axis=1),
        weights=jnp.ones(ids.shape, jnp.float32).at[:, -1].set(0.0),
        segments=jnp.ones_like(ids),
        positions=jnp.broadcast_to(jnp.arange(8)[None], ids.shape),
    )
    steps = len(want["losses"])
    rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (1, steps, 1, *x.shape)), rows)
    opt = optimizer(
        b1=want["betas"][0],
        b2=want["betas"][1],
        eps=want["eps"],
        weight_decay=want["weight_decay"],
        clip=0.0,
    )
    library = lora.stack([plain])
    state = jax.vmap(opt.init)(lora.split(library)[0])
    plan = Plan(*(jnp.full(1, x) for x in (want["lr"], 0.0, 5.0, 0.0)))
    run = Run(library, state, jnp.int32(0))
    _, got = updates(Program(model, opt, 1), base, run, plan, rows)
    np.testing.assert_allclose(got.loss[0], want["losses"], atol=2e-5)
    np.testing.assert_allclose(got.norm[0, 0], want["first_grad_norm"], rtol=2e-5)
