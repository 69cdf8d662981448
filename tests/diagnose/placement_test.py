"""Norms of layers against dense deltas; the order of layers."""

import jax.numpy as jnp
import numpy as np
import pytest

from decoders import TINY, adapter, fresh
from jaxlora import lora
from jaxlora.diagnose import placement
from jaxlora.diagnose.features import order
from jaxlora.models import Decoder

RTOL = 1e-5  # float32 products


@pytest.fixture(scope="module")
def trained():
    return adapter(fresh(Decoder(TINY)))


def test_norms_are_those_of_dense_deltas(trained):
    deltas = [np.asarray(lora.delta(w)) for w in lora.sites(trained).values()]
    wanted = [np.sqrt(sum((d[i] ** 2).sum() for d in deltas)) for i in range(2)]
    np.testing.assert_allclose(placement.layer_norms(trained), wanted, rtol=RTOL)


def test_a_confined_adapter_is_placed_where_it_is(trained):
    confined = lora.confine(trained, jnp.array([False, True]))
    norms = placement.layer_norms(confined)
    assert norms[0] == 0
    assert placement.used(norms) == (False, True)
    assert placement.spelled(placement.used(norms)) == "1"


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [("100", "011", 1), ("011", "100", -1), ("110", "011", 0), ("000", "111", 0)],
)
def test_order(first, second, wanted):
    masks = ([c == "1" for c in layers] for layers in (first, second))
    assert order(*masks) == wanted
