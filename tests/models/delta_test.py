"""Decoders whose layers are of two kinds: attention, and a gated delta rule."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import MIXED
from jaxlora import lora, models, parallel, route
from jaxlora import tree as named
from jaxlora.merge import preset
from jaxlora.models import Decoder, Decoding, Inputs, cache, delta_rule, residual
from jaxlora.models import adapters as peft_adapters
from jaxlora.models.attention import layer_positions
from jaxlora.parallel import rules
from jaxlora.plan import costs, memory
from jaxlora.plan.work import Work
from jaxlora.route import Route

MODEL = Decoder(MIXED)
TOKENS = jnp.array([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]], jnp.int32)
ATOL = 4e-5  # float32, logits of order 1; an ulp of each weight moves them by 2e-5
run = jax.jit(models.apply, static_argnums=0)
more = jax.jit(models.extend, static_argnums=0)


@pytest.fixture(scope="module", autouse=True)
def _chunks():
    """Of three tokens: what these tests are of goes through several."""
    patch = pytest.MonkeyPatch()
    patch.setattr(delta_rule, "CHUNK", 3)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def base():
    return decoders.shaken(MODEL)


@pytest.fixture(scope="module")
def adapter(base):
    return decoders.adapter(base)


@pytest.fixture(scope="module")
def alone(base, adapter):
    """Logits of each row, with the adapter."""
    return np.asarray(run(MODEL, base, TOKENS, adapter=adapter))


def test_leaves_have_the_numbers_of_their_places(base, adapter):
    shapes = {x: leaf.shape for x, leaf in named.flatten(base).items()}
    assert shapes["layers/0/delta/in_proj_qkv/kernel"] == (2, 8, 28)
    assert shapes["layers/0/delta/conv/kernel"] == (2, 4, 1, 28)
    assert shapes["layers/1/attn/q_proj/kernel"] == (2, 8, 16)
    assert "layers/1/delta/in_proj_qkv/kernel" not in shapes
    assert len(lora.sites(adapter)) == 8 + 7


def test_kinds_come_again_and_have_slots_of_their_own():
    delta = (True, True, False) * 2
    config = dataclasses.replace(MIXED, num_layers=6, delta_layers=delta)
    assert [kind.delta for kind in config.kinds] == [True, True, False]
    assert layer_positions(config, jnp.arange(6)).slot.tolist() == [0, 1, 0, 2, 3, 1]
    odd = dataclasses.replace(config, delta_layers=(True, *delta[:5]))
    assert len(odd.kinds) == 6


def spread(rows, places):
    """Tokens [2, 9], padded wherever they have no place, with their positions."""
    wide, mask = np.full((2, 9), 11, np.int32), np.zeros((2, 9), bool)
    for b, (row, where) in enumerate(zip(rows, places, strict=True)):
        wide[b, where], mask[b, where] = row, True
    counted = np.maximum(np.cumsum(mask, axis=1) - 1, 0).astype(np.int32)
    return Inputs(*map(jnp.asarray, (wide, mask)), positions=jnp.asarray(counted))


def test_padding_on_either_side_and_between_changes_nothing(base, adapter, alone):
    for where in ([*range(7)], [*range(2, 9)], [0, 2, 3, 4, 6, 7, 8]):
        got = run(MODEL, base, spread(TOKENS, [where] * 2), adapter=adapter)
        np.testing.assert_allclose(got[:, np.asarray(where)], alone, atol=ATOL)


def test_examples_of_a_row_each_begin_anew(base, adapter, alone):
    row = jnp.concatenate([TOKENS[0, :5], TOKENS[1, :6], jnp.zeros(1, jnp.int32)])
    segments = jnp.array([[1] * 5 + [2] * 6 + [0]], jnp.int32)
    positions = jnp.array([[*range(5), *range(6), 0]], jnp.int32)
    packed = Inputs(row[None], segments=segments, positions=positions)
    got = run(MODEL, base, packed, adapter=adapter)[0]
    np.testing.assert_allclose(got[:5], alone[0, :5], atol=ATOL)
    np.testing.assert_allclose(got[5:11], alone[1, :6], atol=ATOL)


def test_pieces_through_a_cache_are_the_text_at_once(base, adapter, alone):
    """The rows are padded on the left, by one and by none, in each of the pieces."""
    left, out = cache.empty(MIXED, 2, 9), []
    pieces = [((0, 3), (0, 3)), ((3, 4), (3, 4)), ((4, 6), (4, 7)), ((6, 7), (7, 7))]
    for spans in pieces[:3]:
        size = max(last - first for first, last in spans)
        tokens, mask = np.zeros((2, size), np.int32), np.zeros((2, size), bool)
        for b, (first, last) in enumerate(spans):
            tokens[b, size - (last - first) :] = TOKENS[b, first:last]
            mask[b, size - (last - first) :] = True
        inputs = Inputs(jnp.asarray(tokens), jnp.asarray(mask))
        x, left = more(MODEL, base, inputs, left, adapter=adapter)
        out.append((np.asarray(models.unembed(MODEL, base, x, adapter)), mask))
    for b in range(2):
        got = np.concatenate([x[b][mask[b]] for x, mask in out])
        np.testing.assert_allclose(got, alone[b, : len(got)], atol=ATOL)
    assert left.keys.shape[0] == 2
    assert left.state.matrices.shape == (2, 2, 4, 4, 3)


@pytest.mark.slow
def test_every_expert_generates_what_it_would_from_the_text_so_far(base, adapter):
    fresh = lora.lora_map(lambda w: w.replace(scale=0 * w.scale), adapter)
    library = lora.stack([fresh, adapter])
    inputs = Inputs(TOKENS[:, :4], jnp.array([[0, 0, 1, 1], [1, 1, 1, 1]], bool))
    got = models.generate(MODEL, base, inputs, Decoding(3), library=library).tokens
    for e, mine in enumerate((fresh, adapter)):
        texts = [TOKENS[0, 2:4].tolist(), TOKENS[1, :4].tolist()]
        for step in range(3):
            places = [[*range(len(text))] for text in texts]
            scores = run(MODEL, base, spread(texts, places), adapter=mine)
            for b, text in enumerate(texts):
                text.append(int(np.argmax(scores[b, len(text) - 1])))
                assert text[-1] == got[e, b, step]


@pytest.mark.slow
def test_steps_are_those_of_the_decoder(base, adapter, alone):
    states = jax.jit(residual.trace, static_argnums=0)(MODEL, base, TOKENS, adapter)
    assert states.shape[0] == 5
    got = residual.lens(MODEL, base, states[-1])
    np.testing.assert_allclose(got, alone, atol=ATOL)
    kept = jnp.arange(4) >= 2
    off = residual.ablate(adapter, kept)
    resumed = residual.resume(MODEL, base, TOKENS, states[2], 2, off)
    np.testing.assert_allclose(models.unembed(MODEL, base, resumed), alone, atol=ATOL)
    scales = {x: w.scale.tolist() for x, w in lora.sites(off).items()}
    for site in ("layers/0/delta/out_proj/kernel", "layers/1/attn/q_proj/kernel"):
        assert [scale != 0 for scale in scales[site]] == [False, True]


@pytest.mark.slow
def test_a_routed_library_of_one_expert_is_that_expert(base, adapter, alone):
    library = lora.stack([adapter, decoders.adapter(base, 1)])
    oracle = Decoder(MIXED, Route(gate=route.oracle))
    labels = jnp.zeros((2, 7, 2)).at[..., 0].set(1.0)
    got = run(oracle, base, TOKENS, library=library, labels=labels)
    np.testing.assert_allclose(got, alone, atol=ATOL)


@pytest.mark.slow
def test_a_spread_model_is_as_on_one_device(base, adapter, alone):
    mesh = parallel.mesh(data=2, fsdp=2, tensor=2)
    where = rules.shardings(mesh, base)
    spread = {x: jax.device_put(v, where[x]) for x, v in named.flatten(base).items()}
    cut = spread["layers/0/delta/in_proj_qkv/kernel"].sharding.spec
    assert tuple(cut) == (None, "fsdp")
    with parallel.using(mesh):
        got = jax.jit(models.apply, static_argnums=0)(
            MODEL, named.unflatten(spread), TOKENS, adapter=adapter
        )
    np.testing.assert_allclose(got, alone, atol=ATOL)


@pytest.mark.slow
def test_rematerialised_layers_have_the_same_gradient(base, adapter):
    factors, scales = lora.split(adapter)

    def slope(model):
        def loss(factors):
            mine = lora.combine(factors, scales)
            return jnp.mean(models.apply(model, base, TOKENS, adapter=mine) ** 2)

        return jax.jit(jax.grad(loss))(factors)

    again = Decoder(dataclasses.replace(MIXED, remat=True))
    for x, y in zip(*map(jax.tree.leaves, (slope(MODEL), slope(again))), strict=True):
        assert np.abs(y).max() > 0
        np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max())


def test_an_adapter_is_written_and_read_again(base, adapter, tmp_path):
    peft_adapters.save(tmp_path / "a", adapter, config=MIXED)
    again = peft_adapters.load(tmp_path / "a", base)
    for (site, x), (_, y) in zip(
        *(lora.sites(tree).items() for tree in (again, adapter)), strict=True
    ):
        np.testing.assert_array_equal(lora.delta(x), lora.delta(y), err_msg=site)


def test_a_plan_counts_what_its_layers_do(base, adapter):
    work = Work(config=MIXED, batch=1, length=8, lora=lora.LoraConfig(rank=2))
    leaves = named.flatten(base)
    kernels = sum(np.prod(x.shape) for n, x in leaves.items() if n.endswith("kernel"))
    learns = sum(x.size for x in jax.tree.leaves(lora.split(adapter)[0]))
    # Of chunks of 64: products of queries and of keys with keys; half of a triangular
    # system, what is attended to, and the state read twice and written once.
    rule = 2 * (2 * 64 * 4 * 2 + 4 * (64 * (4 + 3) // 2 + 64 * 3 + 3 * 4 * 3))
    pairs = 2 * 8 * 2 * 4 * 2
    each = 2 * kernels + 3 * (pairs + rule) + 3 * (learns + 8 * 13)
    assert costs.operations(work) == 2 * 8 * each


@pytest.mark.slow
def test_a_plan_of_rematerialised_layers_needs_less_memory():
    work = Work(config=MIXED, batch=1, length=8, lora=lora.LoraConfig(rank=2))
    remat = dataclasses.replace(work, config=dataclasses.replace(MIXED, remat=True))
    least = memory.estimate(remat, {})["activations"]
    assert 0 < least < memory.estimate(work, {})["activations"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": None}, "delta is None with 2 delta_layers"),
        ({"delta_layers": ()}, "with 0 delta_layers"),
        ({"passes": 2}, "passes=2"),
        ({"delta_layers": (True,)}, "delta_layers has 1 entries"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MIXED, **changes)


def test_a_tree_is_refused(base):
    tree = Inputs(TOKENS, tree=jnp.tril(jnp.ones((7, 7), bool)), positions=TOKENS)
    with pytest.raises(ValueError, match="one continuation a row"):
        models.extend(MODEL, base, tree, cache.empty(MIXED, 2, 7))


def by_layer(library, shares):
    """The adapter that adds experts by shares [E, L], with NumPy, layer by layer."""
    out = {}
    for name, w in lora.sites(library).items():
        mine = shares[:, int(name.split("/")[1]) :: 2]
        a = np.concatenate(list(np.asarray(w.a)), axis=-1)
        b = np.asarray(w.b) * (mine * np.asarray(w.scale))[..., None, None]
        b = np.concatenate(list(b), axis=-2).astype(np.float32)
        out[name] = lora.LoraWeight(*map(jnp.asarray, (a, b, np.ones(len(a), "f4"))))
    return named.unflatten(out)


def delta_net_alone(adapter):
    """Without the sites of attention and of its layers: no layer of that kind."""
    sites = {x: w for x, w in lora.sites(adapter).items() if x.startswith("layers/0")}
    return named.unflatten(sites)


@pytest.fixture(scope="module")
def pair(base, adapter):
    return lora.stack([adapter, decoders.adapter(base, 1)])


@pytest.mark.parametrize("some", [lambda x: x, delta_net_alone])
def test_a_gate_per_layer_weighs_each_layer_by_its_own(base, pair, some):
    library, rng = some(pair), np.random.default_rng(0)
    bias = rng.normal(size=(2, 4)).astype(np.float32)
    data = {"router": {"kernel": jnp.zeros((2, 4, 8)), "bias": jnp.asarray(bias)}}
    model = Decoder(MIXED, Route(gate=route.Flow()))
    gate = models.gate_state(model, library, data=data)
    got = run(model, base, TOKENS, library=library, gate=gate)
    want = run(MODEL, base, TOKENS, adapter=by_layer(library, 0.5 + bias))
    np.testing.assert_allclose(got, want, atol=ATOL)
    alike = run(MODEL, base, TOKENS, adapter=by_layer(library, 0.5 + bias[:, ::-1]))
    assert np.abs(alike - want).max() > 100 * ATOL


@pytest.mark.slow
def test_a_gate_per_layer_decodes_as_it_reads(base, pair):
    data = {"router": jax.random.normal(jax.random.key(0), (2, 4, 8))}
    way = Route(gate=route.Linear(per="layer"), granularity="sequence")
    model = Decoder(MIXED, way)
    given = {"library": pair, "gate": models.gate_state(model, pair, data=data)}
    got = models.generate(model, base, TOKENS[:, :3], Decoding(4), **given).tokens
    full = jnp.concatenate([TOKENS[:, :3], got], axis=1)
    scores = run(model, base, full, **given)
    np.testing.assert_array_equal(np.argmax(scores[:, 2:-1], axis=-1), got)


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("placed-sum", [[1, 1, 0, 0], [0, 0, 1, 1]]),
        ("placed-both", [[1, 0.5, 0.5, 1], [1, 0.5, 0.5, 1]]),
    ],
)
@pytest.mark.parametrize("some", [lambda x: x, delta_net_alone])
def test_merges_by_layer_count_the_layers_of_all_kinds(pair, name, shares, some):
    library = some(pair)
    with pytest.raises(ValueError, match=r"merge\.at"):
        preset(name)(library)
    got = preset(name).at(models.layer_places(MIXED, library))(library)
    want = by_layer(library, np.asarray(shares, np.float32))
    for site, weight in lora.sites(want).items():
        delta = lora.delta(lora.sites(got)[site])
        np.testing.assert_allclose(delta, lora.delta(weight), atol=1e-5, err_msg=site)
