"""Merging by group gives the merge of the whole; totals are those of ``fidelity``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge
from jaxlora.merge import groups

E, L = 2, 2
WEIGHTS = [0.5, -0.25]


@pytest.fixture(scope="module")
def library():
    """Two groups of one shape but for their ranks, 8 and 3."""
    rng = np.random.default_rng(0)

    def group(rank):
        a, b = (
            rng.standard_normal((E, L, 24, rank)),
            rng.standard_normal((E, L, rank, 20)),
        )
        scale = rng.uniform(0.5, 2.0, (E, L))
        return lora.LoraWeight(*(jnp.asarray(x, jnp.float32) for x in (a, b, scale)))

    return {"wide": group(8), "narrow": group(3)}


@pytest.mark.parametrize(
    ("name", "fields", "rank", "all_at_once"),
    [
        ("svd", {}, None, False),
        ("mean", {}, 10, False),
        ("ties[original]", {"density": 0.3}, None, True),
        ("dare_linear[peft]", {}, None, True),
    ],
)
def test_groups_give_the_adapter_of_the_whole(
    library, dense, name, fields, rank, all_at_once
):
    method, steps = merge.preset(name, **fields), []
    merged = groups.merge_groups(
        method,
        library,
        WEIGHTS,
        seed=3,
        rank=rank,
        progress=lambda *step: steps.append(step),
    )
    run = jax.jit(method, static_argnames="rank")
    key = jax.random.key(3)
    wanted = dense(run(library, jnp.asarray(WEIGHTS), key=key, rank=rank))
    for group, delta in dense(merged).items():
        np.testing.assert_allclose(delta, wanted[group], rtol=1e-4, atol=1e-5)
    assert [total for _, _, total in steps] == ([1] if all_at_once else [2, 2])


@pytest.mark.parametrize("weights", [WEIGHTS, [1.0, 0.0]])
def test_totals_are_those_of_fidelity(library, weights):
    merged = merge.preset("ties[peft]")(library, weights)
    totals = groups.totals(merged, library, weights)
    wanted = groups.measure(merged, library, weights).total()
    assert totals.error == pytest.approx(float(wanted.relative_error), rel=1e-4)
    assert totals.merged**2 == pytest.approx(float(wanted.merged), rel=1e-4)
    assert totals.exact**2 == pytest.approx(float(wanted.exact), rel=1e-4)
    coefficients = np.asarray(wanted.effective_coefficient)
    np.testing.assert_allclose(totals.coefficients, coefficients, rtol=1e-4)
    cosine = (totals.merged**2 + totals.exact**2 * (1 - totals.error**2)) / 2
    assert totals.cosine == pytest.approx(cosine / totals.merged / totals.exact)


def test_groups_of_equal_shapes_share_a_program(library):
    library = library | {"wide again": library["wide"]}
    groups._merged.clear_cache()
    groups.merge_groups(merge.preset("mean"), library, [1.0, 2.0])
    assert groups._merged._cache_size() == 2 < len(library)
    groups.merge_groups(merge.preset("mean"), library, [2.0, 2.0])
    assert groups._merged._cache_size() == 2
