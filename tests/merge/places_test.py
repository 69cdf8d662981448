"""Merges by layer are the same where sites are of some layers only."""

import re

import jax
import numpy as np
import pytest

from jaxlora import lora, merge
from jaxlora.merge import Places, in_periods

LAYERS = 6


def in_kinds(library, period=2):
    """The sites of a stack of layers, as those of kinds that come in turn."""
    return {
        f"layers/{n}/{name}": jax.tree.map(lambda x, n=n: x[:, n::period], weight)
        for name, weight in lora.sites(library).items()
        for n in range(period)
    }


@pytest.mark.parametrize(
    ("name", "fields", "rank"),
    [
        ("placed-sum", {}, 2),
        ("placed-sum", {"layers": ("0,3", "low", "5")}, None),
        ("placed-both", {}, None),
    ],
)
def test_kinds_that_are_alike_merge_as_a_plain_stack(
    make_library, dense, name, fields, rank
):
    library, how = make_library(layers=LAYERS), merge.preset(name, **fields)
    placed = how.at(in_periods(in_kinds(library), 2, LAYERS))

    @jax.jit
    def run(library):
        kinds = placed(in_kinds(library), rank=rank)
        return (how(library, rank=rank), kinds)

    plain, kinds = map(dense, run(library))
    for site, deltas in plain.items():
        for n in (0, 1):
            got = kinds[f"layers/{n}/{site}"]
            np.testing.assert_allclose(got, deltas[n::2], atol=1e-5)


def test_several_entries_may_be_of_one_layer(make_library, dense):
    library = make_library(layers=3)
    names = [*lora.sites(library)]
    places = Places(2, tuple((name, (0, 0, 1)) for name in names))
    how = merge.preset("placed-sum", layers=("0", "1", "all")).at(places)
    want, got = dense(library), dense(jax.jit(how)(library))
    kept = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1]])
    for name in names:
        total = np.einsum("el,eldf->ldf", kept, want[name])
        np.testing.assert_allclose(got[name], total, rtol=1e-4, atol=1e-4)


def test_sites_of_several_mlps_have_one_layer_each(make_library, dense):
    flat = make_library(layers=6)
    deep = jax.tree.map(lambda x: x.reshape(3, 3, 2, *x.shape[2:]), flat)
    for name in ("placed-sum", "placed-both"):
        got = jax.jit(merge.preset(name))(deep)
        places = Places(3, tuple((x, (0, 0, 1, 1, 2, 2)) for x in lora.sites(flat)))
        want = dense(jax.jit(merge.preset(name).at(places))(flat))
        for site, delta in dense(got).items():
            np.testing.assert_allclose(
                delta.reshape(want[site].shape), want[site], rtol=1e-4, atol=1e-4
            )


def test_a_merge_that_treats_layers_alike_needs_no_places():
    assert merge.preset("ties").at(Places(2, ())) == merge.preset("ties")


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (Places(4, ()), "'q' lies in no layer that is known by number"),
        (Places(4, (("q", (0, 1)),)), "with L = 2, as its places say"),
    ],
)
@pytest.mark.parametrize("name", ["placed-sum", "placed-both"])
def test_places_that_do_not_fit_are_refused(make_library, name, places, message):
    (weight, *_) = lora.sites(make_library(layers=4)).values()
    with pytest.raises(ValueError, match=re.escape(message)):
        merge.preset(name).at(places)({"q": weight})
    with pytest.raises(ValueError, match="expected numbers from 0 to 1"):
        Places(2, (("q", (0, 2)),))


def test_a_part_of_your_own_must_know_places(make_library):
    class Own:
        by_layer = True

        def __call__(self, key, library):
            return library

    how = merge.chain(merge.weighted_sum(), space="delta", prepare=(Own(),))
    with pytest.raises(ValueError, match="has no field `places`"):
        how.at(Places(1, ()))(make_library())
