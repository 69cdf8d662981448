"""Features of symbols: by hand for one group, and what each part of a plan moves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import models
from jaxlora import tree as named
from jaxlora.diagnose import NAMES, Plan, effects, matrix, symbol_features, symbols
from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig, Inputs
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.experts import groups
from jaxlora.tasks.two_hop.practice import Practice, Practices
from jaxlora.tasks.two_hop.records import PAD
from jaxlora.theory import tangent

SMALL = world.WorldConfig(entities=16, relations=6, pairs=1, people=3, context_rows=8)
LORA = LoraConfig(rank=2, targets=(r"layers/attn/[qv]_proj/kernel",))
PRACTISED = Practices(second=Practice(rho=0.5))
# Float32 sums in another order.
RTOL = 2e-3


@pytest.fixture(scope="module")
def setting():
    """A base that was never trained, its world, and two groups."""
    made = world.generate(SMALL, 0)
    config = DecoderConfig(
        vocab_size=len(made.vocab.words),
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        mlp_size=32,
        max_length=9,
    )
    model = models.Decoder(config)
    base = jax.jit(models.init, static_argnums=1)(jax.random.key(0), model)
    some = [g for g in groups(made) if g.cell in (Cell.R_II, Cell.H_OO)]
    return model, base, made, some


def features(setting, **plan):
    return symbol_features(*setting, Plan(lora=LORA, **plan))


@pytest.fixture(scope="module")
def written(setting):
    return features(setting, ask="written")


def test_every_group_has_every_feature(setting, written):
    values = matrix(written)
    assert values.shape == (2, len(NAMES))
    assert np.isfinite(values).all()
    shares = values[:, [i for i, name in enumerate(NAMES) if "effect" not in name]]
    assert ((shares >= -1) & (shares <= 1)).all()


@pytest.mark.slow
def test_a_kernel_by_single_gradients(setting):
    """Person 1's rows at person 0's question, by two plain gradients."""
    model, base, made, (_, group) = setting
    plan = Plan(practices=PRACTISED, ask="written", lora=LORA)
    vocab = made.vocab
    lesson = symbols._lessons(vocab, [group], plan, 1)
    asked = symbols._asked(vocab, symbols._questions(group, "written", 1))
    metric = tangent.metric(base, LORA)
    kernel = effects.effects(
        model,
        base,
        jax.tree.map(lambda x: x[0], lesson),
        jax.tree.map(jnp.asarray, asked),
        metric,
    )
    ids, pad = vocab.ids, vocab.ids[PAD]
    head, r1, r2 = group.two_hop[0].prompt
    bridge = group.hop1[0].answer[0]
    prompt = jnp.array([[ids[w] for w in (head, r1, r2, "<think>", bridge)]])
    answer = ids[group.two_hop[1].answer[0]]

    def of(kernels, tokens):
        flat = named.flatten(base) | kernels
        params = named.unflatten(flat)
        inputs = Inputs(tokens, tokens != pad)
        return models.apply(model, params, inputs)

    def logit(kernels):
        return of(kernels, prompt)[0, 4, answer]

    def loss(kernels):
        rows = jax.tree.map(lambda x: x[0, 1], lesson)
        logs = jax.nn.log_softmax(of(kernels, rows.tokens))
        each = jnp.take_along_axis(logs, rows.targets[..., None], -1)[..., 0]
        used = (rows.weights.sum(-1) > 0).astype(jnp.float32).sum()
        return (each * rows.weights).sum() / used

    kernels = {name: named.flatten(base)[name] for name in metric}
    x, y = (jax.jit(jax.grad(f))(kernels) for f in (logit, loss))
    wanted = sum(float((x[name] * metric[name] * y[name]).sum()) for name in metric)
    assert float(kernel[0, 1]) == pytest.approx(wanted, rel=RTOL)


def test_rows_that_practise_the_role_change_the_second_expert_alone(setting, written):
    practised = features(setting, ask="written", practices=PRACTISED)
    for before, after in zip(written, practised, strict=True):
        assert after.second_effect != pytest.approx(before.second_effect, rel=1e-3)
        assert after.first_effect == pytest.approx(before.first_effect, rel=RTOL)


def test_the_weight_of_a_merge_scales_effects(setting, written):
    summed = features(setting, ask="written", weight=1.0)
    for half, full in zip(written, summed, strict=True):
        if min(half.second_effect, full.second_effect) > -2.9:
            assert full.second_effect - half.second_effect == pytest.approx(np.log10(2))
        assert full.second_selectivity == half.second_selectivity


@pytest.mark.parametrize(
    ("layers", "ordered"), [(((0,), (1,)), 1), (((1,), (0,)), -1), (((), ()), 0)]
)
def test_placement_is_a_feature(setting, layers, ordered):
    assert {f.ordered for f in features(setting, layers=layers)} == {ordered}


def test_a_layer_that_does_not_exist_is_refused(setting):
    with pytest.raises(ValueError, match="Layer 5 does not exist: the base has 2"):
        features(setting, layers=((5,), ()))


def test_groups_of_two_sizes_are_refused(setting):
    model, base, made, (first, second) = setting
    fewer = dataclasses.replace(
        second, **{x: getattr(second, x)[:2] for x in ("hop1", "hop2", "two_hop")}
    )
    with pytest.raises(ValueError, match=r"\[2, 3\] people"):
        symbol_features(model, base, made, [first, fewer], Plan(lora=LORA))
