"""Merges of tiny and of huge deltas are those of usual ones, or are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge, testing
from jaxlora.merge import groups, magnitude
from jaxlora.testing import libraries

RTOL = 1e-4  # a division by a power of two is exact; the order of sums may change
QUICK = {"mean", "wudi", "karcher"}
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in merge.names()
]
POWERS = [(40, 30, 20), (-40, -30, -6), (0, 100, 0), (-60, 90, 20), (30, 60, 90)]
"""Of a, b and scale: deltas of 2**90, 2**-76, 2**100, 2**50, and beyond float32."""

DRAWN = "random masks: only the mean over draws is the adapter"
TRIMMED = "keeps a share of its entries; the adapter at density 1"
LEARNED = "times one number, which is the data"
ALONE = {
    **dict.fromkeys(("dare", "dare-ties", "della"), DRAWN),
    **dict.fromkeys(("dare[mergekit]", "dare_ties[mergekit]"), DRAWN),
    **dict.fromkeys(("della[mergekit]", "dare_linear[peft]", "dare_ties[peft]"), DRAWN),
    **dict.fromkeys(("dare_linear_svd[peft]", "dare_ties_svd[peft]"), DRAWN),
    **dict.fromkeys(("prune", "ties", "knots-ties", "delta-ties"), TRIMMED),
    **dict.fromkeys(("factor-ties", "breadcrumbs", "ties[peft]"), TRIMMED),
    **dict.fromkeys(("ties_svd[peft]", "magnitude_prune[peft]"), TRIMMED),
    **dict.fromkeys(("magnitude_prune_svd[peft]", "breadcrumbs[mergekit]"), TRIMMED),
    **dict.fromkeys(("ties[original]", "ties[fusion_bench]", "ties[mttl]"), TRIMMED),
    **dict.fromkeys(("cat", "lorahub", "lorahub[original]"), LEARNED),
    **dict.fromkeys(("random-mean", "random-sum"), "random directions"),
    "permuted-mean": "moved to other layers",
    "iso-c": "all singular values become their mean",
}
"""Merges of one adapter that are not that adapter, and why."""


def scaled(library, powers):
    """The library with its a, b and scale multiplied by powers of two."""
    return magnitude.divided(library, magnitude.Exponents(*(-n for n in powers)))


def dense(merged):
    """Deltas in float64, which no delta here leaves."""
    return {
        name: np.asarray(w.scale, np.float64)[..., None, None]
        * (np.asarray(w.a, np.float64) @ np.asarray(w.b, np.float64))
        for name, w in merged.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_powers_of_two_go_through_or_are_refused(name):
    method = merge.preset(name, **({"steps": 3} if "adam" in name else {}))
    library = lora.sites(testing.small_library(layers=3))
    data = libraries.data_for(method, None, library) or None
    weights = [1.0, 0.5, 0.25][: 2 if name == "slerp" else 3]
    weights += [0.0] * (3 - len(weights))
    options = {"weights": weights, "data": data, "seed": 1}
    usual = dense(groups.merge_groups(method, library, **options))
    for powers in POWERS:
        try:
            merged = groups.merge_groups(method, scaled(library, powers), **options)
            magnitude.check_finite(merged)
        except ValueError:
            assert sum(powers) > 110 or not method.homogeneous
            continue
        assert sum(powers) < 120
        if method.homogeneous:
            for site, delta in dense(merged).items():
                want = usual[site] * 2.0 ** sum(powers)
                size = np.abs(want).max()
                np.testing.assert_allclose(delta / size, want / size, atol=RTOL)


def test_usual_sizes_are_left_as_they_are():
    library = lora.sites(testing.small_library())
    powers = magnitude.exponents(merge.preset("wudi"), library, [1.0] * 3)
    assert powers == magnitude.Exponents()
    assert magnitude.divided(library, powers) is library


def test_adapters_too_far_apart_are_refused_unless_left_out():
    library = lora.sites(testing.small_library())
    far = jax.tree.map(lambda x: x.at[1].multiply(1e-30), library)
    with pytest.raises(ValueError, match=r"differ in size by a factor of about 2\*\*"):
        groups.merge_groups(merge.preset("karcher"), far, [1.0, 1.0, 1.0])
    powers = magnitude.exponents(merge.preset("karcher"), far, [1.0, 0.0, 1.0])
    assert powers == magnitude.Exponents()
    zero = jax.tree.map(lambda x: x.at[1].multiply(0.0), library)
    assert not any(magnitude.exponents(merge.preset("karcher"), zero, [1.0] * 3))


def test_one_adapter_is_that_adapter_but_for_known_reasons():
    # The battery of presets holds each of the others to the law.
    without = {n for n in merge.names() if "identity" not in merge.preset(n).laws}
    assert without == set(ALONE)


@pytest.mark.parametrize("name", ["sce", "sce[mergekit]"])
def test_sce_of_one_adapter_is_that_adapter(name):
    library = jax.tree.map(lambda x: x[:1], testing.small_library(sites=1))
    method = merge.preset(name, density=0.1)
    for weights, adapters in (([1.0], library), ([1.0, 0.0], twice(library))):
        merged = jax.jit(method)(adapters, jnp.asarray(weights))["k_proj"]["kernel"]
        want = lora.delta(library["k_proj"]["kernel"])[0]
        np.testing.assert_allclose(lora.delta(merged), want, atol=1e-5)


def twice(library):
    """The expert, and another that is left out."""
    return jax.tree.map(lambda x: jnp.concatenate([x, x + 1]), library)
