"""What is built runs as the parts that it was built from."""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TINY
from jaxlora import lora, merge, models, parallel, reuse, route, tree
from jaxlora.models import Decoder
from jaxlora.parallel import layout
from jaxlora.reuse import calls
from jaxlora.reuse import reuse as module

MODEL = Decoder(TINY)
TOKENS = jnp.asarray(np.arange(12).reshape(2, 6), jnp.int32)
RUN = jax.jit(models.apply, static_argnums=0)
TARGETS = ("layers/.*_proj/kernel",)


@pytest.fixture(scope="module")
def base(make_base):
    return make_base(MODEL)


@pytest.fixture(scope="module")
def make(base):
    return functools.partial(decoders.adapter, base, targets=TARGETS)


def logits(found):
    return RUN(found.model, found.base, TOKENS, **found.arguments())


def fused(base, parts):
    """Logits of a base to which w * delta of every adapter is added, in NumPy."""
    kernels = dict(tree.flatten(base))
    for weight, adapter in parts:
        for name, site in lora.sites(adapter).items():
            a, b, scale = map(np.asarray, (site.a, site.b, site.scale))
            delta = np.einsum("ldr,lrf,l->ldf", a, b, scale)
            kernels[name] = kernels[name] + jnp.asarray(weight * delta, jnp.float32)
    return RUN(MODEL, tree.unflatten(kernels), TOKENS)


def close(x, y):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def test_no_adapter_is_the_base(base):
    found = reuse.build(MODEL, base, [])
    assert found.arguments() == {}
    close(logits(found), RUN(MODEL, base, TOKENS))


def test_one_adapter_is_that_adapter(base, make):
    adapter = make(1)
    found = reuse.build(MODEL, base, [adapter])
    assert found.arguments() == {"adapter": adapter}
    close(logits(found), fused(base, [(1, adapter)]))
    assert abs(logits(found) - RUN(MODEL, base, TOKENS)).max() > 0.1


def test_a_sum_takes_weights_ranks_and_sites_as_they_come(base, make):
    parts = [make(1), make(2, rank=3, targets=("layers/attn/[qv]_proj/kernel",))]
    parts.append(make(3, rank=1, targets=("layers/mlp/down_proj/kernel",)))
    found = reuse.build(MODEL, base, parts, merge="sum", weights=[1.0, -0.5, 2.0])
    close(logits(found), fused(base, list(zip([1.0, -0.5, 2.0], parts, strict=True))))


def test_an_adapter_without_a_site_counts_as_zero_there(base, make):
    parts = [make(2, targets=("layers/attn/q_proj/kernel",)), make(1)]
    found = reuse.build(MODEL, base, parts, merge="mean")
    close(logits(found), fused(base, [(0.5, part) for part in parts]))


@pytest.mark.parametrize("name", ["mean", "sum", "svd"])
def test_a_merge_of_one_adapter_is_that_adapter(base, make, name):
    adapter = make(1)
    found = reuse.build(MODEL, base, [adapter], merge=name)
    close(logits(found), fused(base, [(1, adapter)]))


@pytest.mark.parametrize("name", ["mean", "factor-mean", "ties[peft]", "dare"])
def test_merges_are_those_of_merge(base, make, name):
    targets = ("layers/attn/q_proj/kernel",)
    parts, key = [make(i, targets=targets) for i in (1, 2)], jax.random.key(3)
    found = reuse.build(MODEL, base, parts, merge=name, weights=[0.25, 0.75], key=key)
    wanted = jax.jit(merge.preset(name))(
        lora.stack(parts), jnp.asarray([0.25, 0.75]), key=key
    )
    close(logits(found), RUN(MODEL, base, TOKENS, adapter=wanted))


def test_a_merge_that_draws_needs_a_key(base, make):
    with pytest.raises(ValueError, match="needs a PRNG key"):
        reuse.build(MODEL, base, [make(1), make(2)], merge="dare")


MINE = merge.preset("sum")


def test_a_merge_of_your_own(base, make):
    parts = [make(1), make(2)]
    found = reuse.build(MODEL, base, parts, merge=f"{__name__}:MINE")
    close(logits(found), fused(base, [(1, part) for part in parts]))


ROUTES = ("smile", "genknowsub", "arrow[mttl]")


@pytest.mark.parametrize("name", ROUTES)
def test_routes_are_those_of_route(base, make, name):
    rank = 2 if name == "arrow[mttl]" else 3
    parts = [make(1), make(2, rank=rank), make(3)]
    found = reuse.build(MODEL, base, parts, route=name, top_k=2, temperature=0.5)
    chosen = route.preset(name, top_k=2, temperature=0.5)
    assert found.model.route == chosen
    library = chosen.library(lora.stack(parts))
    close(logits(found), RUN(Decoder(TINY, chosen), base, TOKENS, library=library))


def test_routes_without_data_can_be_built(base, make):
    for name in reuse.route_names()[::4]:  # all are built in tests/route
        found = reuse.build(MODEL, base, [make(1)], route=name)
        assert found.model.route == route.preset(name).fit(1)


def test_uniform_is_the_mean(base, make):
    parts = [make(1), make(2)]
    found = reuse.build(MODEL, base, parts, route="uniform")
    close(logits(found), logits(reuse.build(MODEL, base, parts, merge="mean")))


def test_it_generates(base, make):
    for options in ({"merge": "mean"}, {"route": "arrow"}):
        found = reuse.build(MODEL, base, [make(1), make(2)], **options)
        made = models.generate(
            found.model, base, TOKENS[:, :3], models.Decoding(2), **found.arguments()
        )
        first = jnp.argmax(logits(found)[:, 2], axis=-1)
        assert made.tokens[:, 0].tolist() == first.tolist()


@pytest.mark.parametrize(
    ("adapters", "options", "expected"),
    [
        (2, {}, "Got 2 adapters, but nothing that combines them; name a merge"),
        (2, {"merge": "sum", "route": "arrow"}, "a merge leaves one adapter"),
        (2, {"merge": "smu"}, "Unknown merge 'smu'; did you mean 'sum'"),
        (2, {"merge": "uniform"}, "'uniform' is a route, not a merge"),
        (2, {"merge": "regmean"}, "'regmean' needs data of its own, which there is no"),
        (2, {"merge": "nowhere:mine"}, "Cannot import the merge"),
        (2, {"route": "mean"}, "'mean' is a merge, not a route"),
        (
            2,
            {"route": "oracle"},
            "nothing tells it here; there are uniform, random-arrow",
        ),
        (2, {"route": "aroww"}, "did you mean 'arrow'"),
        (0, {"merge": "sum"}, "no adapter to merge"),
        (0, {"route": "arrow"}, "no adapter to route to"),
        (1, {"weights": [2.0]}, "Got 1 weights but no merge"),
        (2, {"route": "arrow", "weights": [1, 1]}, "no merge that uses them"),
        (2, {"merge": "sum", "weights": [1.0]}, "Got 1 weights for 2 adapters"),
        (2, {"merge": "mean", "weights": [1.0, -1.0]}, "sum to 0"),
        (2, {"merge": "sum", "top_k": 1}, "but no route; there are"),
        (1, {"temperature": 0.5}, "temperature 0.5, which say how a route"),
        (2, {"route": "arrow", "top_k": 3}, "Got top_k 3 for 2 adapters"),
        (2, {"route": "arrow", "top_k": -1}, "top_k is -1"),
        (2, {"route": "arrow", "temperature": 0.0}, "expected a positive number"),
    ],
)
def test_what_cannot_be_built_is_refused(base, make, adapters, options, expected):
    parts = [make(i) for i in range(adapters)]
    with pytest.raises(ValueError, match=expected):
        reuse.build(MODEL, base, parts, **options)


def test_adapters_of_other_sites_are_routed_where_they_are_and_it_is_said(base, make):
    parts = [make(1), make(2, targets=("layers/attn/q_proj/kernel",))]
    found = reuse.build(MODEL, base, parts, route="arrow")
    assert len(found.notes) == 1
    assert found.notes[0].startswith("Adapter 2 of 2 does not adapt layers/attn/")
    chosen = models.routes(found.model, base, TOKENS, **found.arguments()).weights
    for name, weights in tree.flatten(chosen).items():
        if name == "layers/attn/q_proj/kernel":
            assert (weights > 0).all()
        else:
            np.testing.assert_array_equal(weights[..., 1], 0)
            np.testing.assert_array_equal(weights[..., 0], 1)
    assert reuse.build(MODEL, base, parts[:1] * 2, route="arrow").notes == ()


def test_a_gate_of_other_adapters_is_refused(base, make):
    parts = [make(1), make(2)]
    routed = Decoder(TINY, route.preset("linear"))
    state = models.gate_state(routed, lora.stack(parts))
    found = reuse.build(MODEL, base, parts, route="linear", gate=state)
    assert found.gate is state
    with pytest.raises(ValueError, match=r"made for another library: expert 0 is not"):
        reuse.build(MODEL, base, parts[::-1], route="linear", gate=state)


def test_an_adapter_of_another_model_is_refused(base, make, make_base):
    other = Decoder(dataclasses.replace(TINY, mlp_size=32))
    with pytest.raises(ValueError, match="expected"):
        reuse.build(other, make_base(other), [make(1)], merge="sum")


class Opened(NamedTuple):
    """An adapter's folder, of which nothing is read."""

    folder: pathlib.Path


def test_loading_says_what_is_read(tmp_path, base, make, monkeypatch):
    told, made = [], {"a": make(1), "b": make(2)}

    def load(folder, *, dtype, param_dtype, mesh, progress):
        progress(3, 4)
        assert (dtype, param_dtype) == ("bfloat16", "bfloat16")
        return MODEL, base

    monkeypatch.setattr(module.pretrained, "load", load)
    monkeypatch.setattr(module.peft, "open_folder", lambda path: Opened(path))
    monkeypatch.setattr(module, "replace", lambda model, base, *_: (model, base, ()))
    trees = module.adapter_trees
    monkeypatch.setattr(trees, "from_file", lambda file, base: made[file.folder.name])
    monkeypatch.setattr(trees, "left_out", lambda path: iter(()))
    named = {"a": "org/model", "b": "org/chat"}
    monkeypatch.setattr(
        module, "bases", lambda paths: {x.name: named[x.name] for x in paths}
    )
    found = reuse.load(
        tmp_path / "model",
        [tmp_path / "a", tmp_path / "b"],
        merge="sum",
        weights=[1.0, -1.0],
        dtype="bfloat16",
        progress=lambda *words: told.append(words),
    )
    assert told == [("model", 3, 4), ("a", 0, 2), ("b", 1, 2)]
    close(logits(found), fused(base, [(1, made["a"]), (-1, made["b"])]))
    (note,) = found.notes
    assert "b is of org/chat" in note


def test_a_bad_request_is_refused_before_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(module.pretrained, "load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match="Got 2 weights for 1"):
        reuse.load(tmp_path, [tmp_path], merge="sum", weights=[1, 2])


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_one_folder_where_a_list_is_meant_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(module.pretrained, "load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"adapter_folders is .*expected a list"):
        reuse.load(tmp_path, kind("adapter"))
    with pytest.raises(ValueError, match=r"general_folders is .*expected a list"):
        reuse.load(tmp_path, ["a", "b"], route="genknowsub", general_folders=kind("g"))


def test_one_adapter_where_a_list_is_meant_is_refused(base, make):
    with pytest.raises(ValueError, match=r"one tree with 'layers', expected a list"):
        reuse.build(MODEL, base, make(1))


def test_how_an_adapter_is_stored_costs_no_precision(base, make):
    """Stored in bfloat16, on a model in float32: as its values in float32 do."""
    low = [make(i, dtype="bfloat16") for i in (1, 2)]
    wide = [jax.tree.map(lambda x: x.astype("float32"), x) for x in low]
    for how in ({}, {"route": "uniform"}):
        pair = slice(0, 2 if how else 1)
        built = [reuse.build(MODEL, base, some[pair], **how) for some in (low, wide)]
        np.testing.assert_array_equal(*map(logits, built))
    direct = RUN(MODEL, base, TOKENS, adapter=low[0])
    np.testing.assert_array_equal(direct, RUN(MODEL, base, TOKENS, adapter=wide[0]))
    np.testing.assert_allclose(
        direct, RUN(MODEL, lora.fuse(base, low[0]), TOKENS), rtol=1e-5, atol=1e-5
    )


def test_a_routed_library_is_cut_over_experts_and_gives_the_same(monkeypatch):
    folder = pathlib.Path(__file__).parents[1] / "data/hf/llama"
    given = (folder / "base", [folder / "plain", folder / "plain2"])
    mesh = parallel.mesh(expert=2, data=2, devices=jax.devices()[:4])
    alone, cut = (
        reuse.load(*given, route="arrow", top_k=1, mesh=where) for where in (None, mesh)
    )
    for leaf in jax.tree.leaves(cut.library):
        assert leaf.sharding.spec[0] == "expert"
    tokens = np.arange(1, 9).reshape(2, 4)
    expected, here = (next(calls.logits(x, tokens, 2)) for x in (alone, cut))
    close(here, expected)
    seen = []  # by the layers, when the choices are traced
    cuts = layout.cuts_experts
    monkeypatch.setattr(layout, "cuts_experts", lambda: seen.append(cuts()) or cuts())
    weights, _ = calls.routed(cut, [1, 2, 3])
    assert set(seen) == {True}
    assert {w.shape[1:] for w in weights.values()} == {(3, 2)}
