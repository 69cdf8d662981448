"""Prompts that are padded and continued together, against each alone by argmax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora
from jaxlora.models import Inputs
from jaxlora.models.decoder import logits
from jaxlora.studies.word_problems import design, questions, solving, worlds
from jaxlora.tasks.word_problems import reading


@pytest.fixture(scope="module")
def asked(base, tiny):
    every = questions.ask(base.world, design.pairs(tiny.world))
    return questions.prompts(every, base.world, worlds.OTHER)


@pytest.fixture(scope="module")
def adapters(base, tiny):
    """One a pair, each moved far enough from 0 that it changes what is written."""
    keys = jax.random.split(jax.random.key(3), 3)
    some = jax.vmap(lambda k: lora.init(k, base.params, tiny.lora))(keys)
    leaves, shape = jax.tree.flatten(some)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    more = [x + jax.random.normal(k, x.shape, x.dtype) for k, x in pairs]
    return jax.tree.unflatten(shape, more)


def alone(base, params, tokens, steps):
    """One prompt without padding, continued by the arg max of whole forward passes."""
    vocab, text = base.world.vocab, tokens.tolist()
    start = len(text)
    width = base.world.length + 1
    for _ in range(steps):
        row = np.full((1, width), vocab.pad, np.int32)
        row[0, : len(text)] = text
        mask = np.arange(width)[None] < len(text)
        scores = forward(base.model, params, jnp.asarray(row), jnp.asarray(mask))
        text.append(int(scores[0, len(text) - 1].argmax()))
        if text[-1] == vocab.end:
            break
    written = text[start:]
    return written + [vocab.pad] * (steps - len(written))


@functools.partial(jax.jit, static_argnums=0)
def forward(model, params, row, mask):
    hidden = model.apply({"params": params}, Inputs(row, mask)).hidden
    return logits(model.config, hidden, params["head"])


def test_padded_prompts_are_continued_as_each_is_alone(base, asked):
    got = solving.of_params(base.model, base.world.vocab, base.params, asked, False)
    assert got.shape == (3, asked.tokens.shape[1], 3 * 3 + 1)
    lengths = asked.mask.sum(-1)
    rng, compared = np.random.default_rng(0), set()
    for m, q in zip(
        rng.integers(3, size=40), rng.permutation(got.shape[1]), strict=False
    ):
        tokens = asked.tokens[m, q][asked.mask[m, q]]
        assert got[m, q].tolist() == alone(base, base.params, tokens, got.shape[2])
        compared.add(int(lengths[m, q]))
    assert compared == {5, 7, 9}


def test_adapters_and_fused_parameters_write_the_same(base, adapters, asked):
    fused = jax.vmap(lora.fuse, in_axes=(None, 0))(base.params, adapters)
    given = base.model, base.world.vocab
    by_adapter = solving.of_adapters(*given, base.params, adapters, asked)
    by_params = solving.of_params(*given, fused, asked, True)
    # Rounding may turn a close call.
    assert (by_adapter == by_params).all(-1).mean() > 0.99
    plain = solving.of_params(*given, base.params, asked, False)
    assert (plain != by_params).any((1, 2)).all()


def test_one_tree_for_all_is_that_tree_for_each(base, asked):
    given = base.model, base.world.vocab
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 3), base.params)
    one_for_all = solving.of_params(*given, base.params, asked, False)
    for_each = solving.of_params(*given, stacked, asked, True)
    assert (one_for_all == for_each).all(-1).mean() > 0.99


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_as_many_tokens_as_the_longest_solution_has(base, levels):
    world = base.world
    problems = worlds.held_out(world, 1, 5)
    asked = solving.prompts(problems, 0, world.vocab, levels)
    assert asked.tokens.shape == (5, 3 + 2 * levels)
    how = solving.decoding(world.vocab, asked)
    assert how.max_new_tokens == 3 * levels + 1
    assert how.stop == (world.vocab.end,)


def test_prompts_of_all_formats_are_read_back(base):
    world = base.world
    problems = worlds.held_out(world, 2, 6)
    formats = np.array([0, 1, 2, 2, 1, 0])
    tokens, mask = solving.prompts(problems, formats, world.vocab, 3)
    assert tokens.dtype == np.int32
    assert (mask.sum(1) == 7).all()
    assert (tokens[:, 2] - world.vocab.formats).tolist() == formats.tolist()
    again = reading.prompts(tokens[:, 2:], mask.sum(1), world.vocab)
    np.testing.assert_array_equal(again.operations, problems.operations[:, :2])
