"""Adapters that replace leaves of a base, on a mesh: what one device has and says."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlora import models, parallel, reuse
from jaxlora import tree as named
from jaxlora.reuse import calls

DATA = pathlib.Path(__file__).parents[1] / "data" / "adapters"
THEIRS = load_file(DATA / "logits.safetensors")
IDS = THEIRS.pop("ids")
FAST = "untied/saved"
CLOSE = 1e-5


@pytest.fixture(scope="module")
def mesh():
    return parallel.mesh(expert=2, fsdp=2, devices=jax.devices()[:4])


def loaded(mesh, *kinds, **combining):
    base = DATA / kinds[0].partition("/")[0] / "base"
    return reuse.load(base, [DATA / kind for kind in kinds], mesh=mesh, **combining)


def logits(reused):
    return np.concatenate(list(calls.logits(reused, IDS, len(IDS))))


def check_base(cut, alone, mesh):
    """The same leaves, each cut as its rule says."""
    where, leaves = parallel.shardings(mesh, cut.base), named.flatten(alone.base)
    assert named.flatten(cut.base).keys() == leaves.keys()
    for name, leaf in named.flatten(cut.base).items():
        assert leaf.sharding.is_equivalent_to(where[name], leaf.ndim), name
        assert leaf.sharding.device_set == set(mesh.devices.flat), name
        np.testing.assert_array_equal(leaf, leaves[name], err_msg=name)
    assert cut.model == alone.model


@pytest.mark.parametrize(
    "kind",
    [FAST, *(pytest.param(x, marks=pytest.mark.slow) for x in THEIRS if x != FAST)],
)
def test_a_base_with_replaced_leaves_answers_as_on_one_device(mesh, kind):
    alone, cut = loaded(None, kind), loaded(mesh, kind)
    check_base(cut, alone, mesh)
    assert cut.notes == alone.notes
    here = logits(cut)
    np.testing.assert_allclose(here, logits(alone), rtol=0, atol=CLOSE)
    # One row on two devices: it is computed on both.
    (single,) = calls.logits(cut, IDS[:1], 1)
    np.testing.assert_allclose(single, here[:1], rtol=0, atol=CLOSE)
    plain = logits(reuse.load(DATA / kind.partition("/")[0] / "base"))
    assert np.abs(plain - here[..., : plain.shape[-1]]).max() > 1


@pytest.mark.slow
def test_a_library_beside_replaced_leaves_generates_as_on_one_device(mesh):
    kinds, how = ("untied/saved", "untied/olora"), {"route": "arrow", "top_k": 1}
    alone, cut = (loaded(where, *kinds, **how) for where in (None, mesh))
    check_base(cut, alone, mesh)
    assert alone.base["head"].shape == (16, 32)
    assert {x.data.shape for x in cut.base["head"].addressable_shards} == {(8, 32)}
    for leaf in jax.tree.leaves(cut.library):
        assert leaf.sharding.spec[0] == "expert"
    np.testing.assert_allclose(logits(cut), logits(alone), rtol=0, atol=CLOSE)
    tokens = [generated(reused) for reused in (alone, cut)]
    np.testing.assert_array_equal(*tokens)
    assert len(np.unique(tokens)) > 2


def generated(reused):
    """Four tokens after each row."""
    with parallel.using(reused.mesh):
        answer = models.generate(
            reused.model,
            reused.base,
            reused.rows(jnp.asarray(IDS, jnp.int32)),
            models.Decoding(4),
            **reused.arguments(),
        )
    return np.asarray(answer.tokens)
