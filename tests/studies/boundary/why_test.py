"""Why a combination composes: the three measurements on a tiny decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TINY
from jaxlora import lora, models
from jaxlora.evaluate.schema import Method
from jaxlora.models import Decoder
from jaxlora.studies.boundary import donors, why, why_rows
from jaxlora.studies.boundary.donors import Query
from jaxlora.tasks.two_hop.records import PAD, Record, Vocab

ATOL = 2e-5
MODEL = Decoder(TINY)
G, N, LAYERS = 2, 3, TINY.num_layers
run = jax.jit(models.apply, static_argnums=0)
A = np.array([[0, 1, 2], [3, 4, 5]])
R1, R2, THINK = 8, 9, 10


def tokens(*columns):
    rows = [np.broadcast_to(x, A.shape) for x in columns]
    return jnp.asarray(np.stack(rows, axis=-1), jnp.int32)


def query(written):
    bridge, answer = jnp.asarray((A + 1) % 6), jnp.asarray((A + 2) % 6)
    end = (THINK, bridge) if written else ()
    return Query(tokens(A, R1, R2, *end), bridge, answer)


@pytest.fixture(scope="module")
def world():
    base = decoders.shaken(MODEL)
    experts = [
        lora.stack([decoders.adapter(base, 10 * e + g) for g in range(G)])
        for e in range(2)
    ]
    return base, donors.joined(experts)


@pytest.fixture(params=(False, True), ids=("direct", "written"))
def asked(request, world):
    base, libraries = world
    adapters = why.combine(Method.SUM, libraries)
    return adapters, why.write(MODEL, base, adapters, query(request.param))


def logits(base, adapters, rows):
    """Of the last token, one group after another, [G, N, V]."""
    # A loop, not vmap: the reference is one group at a time.
    parts = [(rows[g], jax.tree.map(lambda x, g=g: x[g], adapters)) for g in range(G)]
    every = [run(MODEL, base, asked, adapter=x) for asked, x in parts]
    return np.stack(every)[:, :, -1]


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def picked(logp, ids):
    return np.take_along_axis(logp, np.asarray(ids)[..., None], axis=-1)[..., 0]


def test_the_lens_at_the_last_layer_is_what_the_model_answers(world, asked):
    base, (adapters, q) = world[0], asked
    seen = why.lens(MODEL, base, adapters, q)
    want = log_softmax(logits(base, adapters, q.tokens))
    shape = (G, N, LAYERS + 1, q.tokens.shape[-1])
    assert all(x.shape == shape for x in seen)
    for logp, rank, top, ids in (
        (seen.bridge_logp, seen.bridge_rank, seen.bridge, q.bridge),
        (seen.answer_logp, seen.answer_rank, seen.answer, q.answer),
    ):
        mine = picked(want, ids)
        np.testing.assert_allclose(logp[..., -1, -1], mine, atol=ATOL)
        above = (want > mine[..., None]).sum(-1)
        np.testing.assert_array_equal(rank[..., -1, -1], 1 + above)
        np.testing.assert_array_equal(top[..., -1, -1], above == 0)
    best = q._replace(answer=jnp.asarray(want.argmax(-1)))
    assert why.lens(MODEL, base, adapters, best).answer[..., -1, -1].all()


def test_a_token_is_its_own_subject_before_the_first_layer(world):
    base, _ = world
    # Without positions the first state is the embedding itself.
    base = base | {"positions": jnp.zeros_like(base["positions"])}
    nothing = donors.off(why.combine(Method.SUM, world[1]))
    seen = why.lens(MODEL, base, nothing, query(True))
    assert seen.subject[..., 0, 4].all()
    assert not seen.subject[..., 0, :4].any()  # none of the others is the bridge


def test_patching_a_run_by_itself_changes_nothing(world, asked):
    base, (adapters, q) = world[0], asked
    did = why.patch(MODEL, base, adapters, q, donors.same(q, adapters))
    want = log_softmax(logits(base, adapters, q.tokens))
    mine = picked(want, q.answer)[..., None, None]
    np.testing.assert_allclose(
        did.logp, np.broadcast_to(mine, did.logp.shape), atol=ATOL
    )
    right = want.argmax(-1) == q.answer
    np.testing.assert_array_equal(did.donor, right)
    assert (did.follows == right[..., None, None]).all()


def test_another_persons_embedding_is_another_persons_question(world, asked):
    base, (adapters, q) = world[0], asked
    did = why.patch(MODEL, base, adapters, q, donors.others(q, adapters))
    mine, last = log_softmax(logits(base, adapters, q.tokens)), q.tokens.shape[-1] - 1
    theirs = np.roll(picked(mine, q.answer), -1, axis=1)
    np.testing.assert_allclose(did.logp[..., -1, last], theirs, atol=ATOL)
    swapped = q.tokens.at[..., 0].set(jnp.roll(q.tokens[..., 0], -1, axis=1))
    want = log_softmax(logits(base, adapters, swapped))
    want = picked(want, jnp.roll(q.answer, -1, axis=1))
    np.testing.assert_allclose(did.logp[..., 0, 0], want, atol=ATOL)
    # The relations are the same in both runs: their embeddings carry no person.
    own = picked(mine, jnp.roll(q.answer, -1, axis=1))
    np.testing.assert_allclose(did.logp[..., 0, 1], own, atol=ATOL)


def test_the_bridge_as_a_subject_comes_from_its_direct_question(world, asked):
    base, (adapters, q) = world[0], asked
    donor = donors.subjects(q, adapters)
    did = why.patch(MODEL, base, adapters, q, donor)
    direct = log_softmax(logits(base, adapters, tokens(q.bridge, R2)))
    np.testing.assert_array_equal(did.donor, direct.argmax(-1) == q.answer)
    mine = picked(log_softmax(logits(base, adapters, q.tokens)), q.answer)
    unused = np.broadcast_to(mine[..., None], did.logp[..., 0].shape)
    np.testing.assert_allclose(did.logp[..., 0], unused, atol=ATOL)
    if q.written:
        as_subject = why.lens(MODEL, base, adapters, q._replace(tokens=donor.tokens))
        want = as_subject.answer_logp[..., -1, 0]
    else:
        want = picked(direct, q.answer)
    np.testing.assert_allclose(did.logp[..., -1, -1], want, atol=ATOL)


def test_ablating_all_layers_leaves_the_other_expert_alone(world, asked):
    (base, libraries), (adapters, q) = world, asked
    every = why_rows.masks(LAYERS)
    kept = jnp.asarray(np.stack([*every.values(), np.zeros((2, LAYERS))]), jnp.float32)
    did = why.ablate(MODEL, Method.SUM, base, libraries, q, kept)
    names = [*every, "all"]
    experts = [jax.tree.map(lambda x, e=e: x[:, e], libraries) for e in range(2)]
    cases = {
        ("none", ()): adapters,
        ("A->B", (0, 1)): experts[1],
        ("B->C", (0, 1)): experts[0],
        "all": donors.off(experts[0]),
    }
    for name, model in cases.items():
        i = names.index(name)
        for got, rows, ids in (
            (did.hop1, q.tokens[..., :2], q.bridge),
            (did.hop2, tokens(q.bridge, R2), q.answer),
            (did.two_hop, why.write(MODEL, base, model, q).tokens, q.answer),
            (did.right_bridge, q.tokens, q.answer),
        ):
            want = logits(base, model, rows).argmax(-1) == ids
            np.testing.assert_array_equal(got[i], want)
    assert did.bridge.any() == q.written  # by construction the query is as written


def test_an_ablated_layer_moves_the_combination(world):
    _, libraries = world
    full = why.combine(Method.MEAN, libraries)
    low = why.combine(Method.MEAN, libraries, jnp.array([[0.0, 1.0], [1.0, 1.0]]))
    for name, site in lora.sites(full).items():
        mine, experts = lora.sites(low)[name], lora.sites(libraries)[name]
        want = lora.delta(jax.tree.map(lambda x: x[:, 0], experts))
        gap = lora.delta(site) - lora.delta(mine)
        np.testing.assert_allclose(gap[:, 0], want[:, 0] / 2, atol=ATOL)
        np.testing.assert_allclose(gap[:, 1], 0 * want[:, 1], atol=ATOL)
        assert np.abs(gap[:, 0]).max() > 1e-3


def test_the_bridge_that_is_written_is_the_models(world):
    (base, libraries), direct, q = world, query(False), query(True)
    adapters = why.combine(Method.SUM, libraries)
    same = why.write(MODEL, base, adapters, direct)
    np.testing.assert_array_equal(same.tokens, direct.tokens)
    got = why.write(MODEL, base, adapters, q).tokens
    want = logits(base, adapters, q.tokens[..., :4]).argmax(-1)
    np.testing.assert_array_equal(got[..., 4], want)
    assert (want != q.bridge).any()
    np.testing.assert_array_equal(donors.right_bridge(q).tokens, q.tokens)


VOCAB = Vocab(tuple("abcdef"), ("r", "s", "t"), familiar=6)


def fact(head, relation, tail):
    return Record(kind="one_hop", prompt=(head, relation), answer=(tail,))


def two_hop(head, first, second, bridge, tail):
    return Record(
        kind="two_hop", prompt=(head, first, second), answer=(tail,), bridge=bridge
    )


def test_questions_are_made_with_the_right_bridge():
    people = [[two_hop("a", "r", "s", "b", "c"), two_hop("d", "r", "s", "e", "f")]]
    ids = VOCAB.ids
    direct, written = (donors.ask(people, VOCAB, x) for x in (False, True))
    assert direct.tokens.tolist() == [
        [[ids[x] for x in "ars"], [ids[x] for x in "drs"]]
    ]
    assert written.tokens[0, 1].tolist() == [
        ids[x] for x in ("d", "r", "s", "<think>", "e")
    ]
    assert written.bridge.tolist() == [[1, 4]]
    assert written.answer.tolist() == [[2, 5]]


def test_a_familiar_first_fact_ends_in_the_bridge_by_another_relation(world):
    people = [[two_hop("a", "r", "s", "b", "c"), two_hop("d", "r", "s", "e", "f")]]
    asked = donors.ask(people, VOCAB, False)
    facts = [fact("c", "t", "b"), fact("d", "r", "b"), fact("f", "s", "b")]
    donor = donors.familiar_first(asked, None, VOCAB, facts, 0)
    ids = VOCAB.ids
    assert donor.tokens[0, 0].tolist() == [ids["c"], ids["t"], ids["s"]]
    assert donor.tokens[0, 1].tolist() == [ids[PAD], ids[PAD], ids["s"]]


def test_familiar_queries_share_their_relations():
    some = [two_hop(x, "r", "s", "b", "c") for x in "abc"]
    some += [two_hop(x, "s", "t", "b", "c") for x in "de"]
    groups = donors.familiar(some, 2, 2)
    assert [{x.prompt[1:] for x in group} for group in groups] == [
        {("r", "s")},
        {("s", "t")},
    ]
    with pytest.raises(
        ValueError, match="expected 2 pairs of relations with 3 queries"
    ):
        donors.familiar(some, 2, 3)


def test_shares_are_means_over_the_people_of_a_cell():
    shape = (G, N, LAYERS + 1, 3)
    values = np.arange(np.prod(shape)).reshape(shape)
    alone = np.array([[True, False, True], [False, True, False]])
    did = why.Patched(values, values, alone)
    records = list(why_rows.shares(did, ["x", "y"], "others"))
    assert len(records) == 2 * (3 * (LAYERS + 1) * 3 + 1)
    wanted = {"cell": "y", "quantity": "logp", "layer": 2, "position": "r1"}
    (record,) = (x for x in records if wanted.items() <= x.items())
    assert record["value"] == values[1, :, 2, 1].mean()
    assert record["n"] == N
    alone = next(x for x in records if x["quantity"] == "donor" and x["cell"] == "x")
    assert alone["value"] == 2 / 3
    assert "layer" not in alone
    (record,) = (
        x
        for x in records
        if (wanted | {"quantity": "follows right"}).items() <= x.items()
    )
    assert (record["value"], record["n"]) == (values[1, 1, 2, 1], 1)


def test_needs_are_a_record_for_each_mask():
    of = list(why_rows.masks(2))
    values = np.random.default_rng(0).random((len(of), G, N)) < 0.5
    records = list(why_rows.needs(why.Ablated(*[values] * 5), of, ["x", "x"]))
    assert len(records) == 5 * len(of)
    (record,) = (
        x
        for x in records
        if x["quantity"] == "hop2" and (x["expert"], x["off"]) == ("B->C", "0-1")
    )
    assert record["value"] == values[of.index(("B->C", (0, 1)))].mean()
