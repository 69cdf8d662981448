"""One battery for all presets: a new merge joins the list and is tested."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge, testing
from jaxlora.testing import libraries

FEW_STEPS = {"steps": 5}
FIELDS = {
    "wudi-adam": FEW_STEPS,
    "wudi[fusion_bench]": FEW_STEPS,
}
"""Fields that make a battery cheap; the program is the same."""

FAST = FEW_STEPS | {"learning_rate": 0.02}
ELSEWHERE = {
    # At the default rate five steps of Adam hardly leave the sum, which is linear.
    ("wudi-adam", "linearity"): FAST,
    ("wudi[fusion_bench]", "linearity"): FAST,
    # One expert's core is diagonal: at these sizes only zeros are trimmed by default.
    ("breadcrumbs", "identity"): {"outliers": 0.3},
}
"""Fields under which a law that is not declared is seen to break."""

BROKEN = 1e-3

SAME_PARTS = {
    *("knots-ties", "delta-ties", "factor-ties", "dare-ties", "sce", "breadcrumbs"),
    *("wudi-adam", "random-sum", "cat[peft]", "svd[peft]", "ties_svd[peft]"),
    *("dare_linear[peft]", "dare_ties[peft]", "dare_ties_svd[peft]"),
    *("magnitude_prune[peft]", "magnitude_prune_svd[peft]", "dare_ties[mergekit]"),
    *("breadcrumbs[mergekit]", "sce[mergekit]", "ties[fusion_bench]", "ties[knots]"),
    *("random-mean", "ties[mttl]", "dare_linear_svd[peft]", "della[mergekit]"),
    *("lorahub", "lorahub[original]", "dare[mergekit]", "linear[peft]"),
    *("prune", "ties[peft]", "permuted-mean"),
}
"""Made of steps, a space and a reduction that others have too: compiled when slow."""

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SAME_PARTS else [])
    for name in merge.names()
]


def library_for(name):
    """One site where sites do not see each other; two of one shape where they do."""

    def make(seed):
        if merge.preset(name).scope == "leaf":
            layers = 3 if name.startswith(("permuted", "placed")) else 2
            return testing.small_library(seed, sites=1, layers=layers)
        first, second = (testing.small_library(seed + 10 * i, sites=1) for i in (0, 1))
        return {"k_proj": first["k_proj"], "q_proj": second["k_proj"]}

    return make


def battery(name, fields):
    return testing.Battery(merge.preset(name, **fields), make_library=library_for(name))


@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_laws_it_declares_and_no_other(name):
    tested = battery(name, FIELDS.get(name, {}))
    tested.check()
    undeclared = set(merge.LAWS) - tested.merge.laws
    for law, size in tested.violations(undeclared).items():
        if (name, law) in ELSEWHERE:
            other = battery(name, ELSEWHERE[name, law])
            assert law not in other.merge.laws
            size = other.violations([law])[law]
        assert size > BROKEN, f"{name} keeps {law}: {size:.2g}"


WITH_DENSITY = [n for n in merge.names() if "density" in merge.describe(n).fields]


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_is_the_identity_at_density_one(name):
    fields = {"density": 1.0}
    if "spread" in merge.describe(name).fields:
        fields["spread"] = 0.0
    if "outliers" in merge.describe(name).fields:
        fields["outliers"] = 0.0
    tested = battery(name, fields)
    assert tested.violations(["identity"])["identity"] < testing.merges.RTOL


@pytest.mark.parametrize("order", [[2, 0, 1]])
@pytest.mark.parametrize("name", ["dare", "dare_linear_svd[peft]", "dare[mergekit]"])
def test_the_order_of_experts_matters_for_one_draw_but_not_on_average(name, order):
    library = testing.small_library(sites=1)
    moved = jax.tree.map(lambda x: x[np.asarray(order)], library)
    weights = np.asarray([1.0, 0.5, 1.5], np.float32)
    fields = {"space": "delta"} if name == "dare" else {}
    method = merge.preset(name, **fields)

    @jax.jit
    def draws(library, weights, keys):
        def tested(key):
            return lora.lora_map(lora.delta, method(library, weights, key=key))

        return jax.lax.map(tested, keys)["k_proj"]["kernel"]

    keys = jax.random.split(jax.random.key(0), 600)
    x = np.asarray(draws(library, weights, keys), np.float64)
    y = np.asarray(draws(moved, weights[np.asarray(order)], keys[::-1]), np.float64)
    error = np.sqrt((x.var(0) + y.var(0)) / len(keys))
    assert np.abs(x[0] - y[-1]).max() > 0.1  # the same key
    z = (x.mean(0) - y.mean(0)) / error
    assert np.abs(z).max() < 5
    assert 0.7 < np.sqrt(np.mean(z**2)) < 1.3


def test_own_and_target_data_are_declared():
    uses = {name: merge.preset(name).data for name in merge.names()}
    assert {n for n, use in uses.items() if use == "own"} == {"regmean", "fisher"}
    assert {n for n, use in uses.items() if use == "target"} == {
        "cat",
        "lorahub",
        "lorahub[original]",
    }


def test_names_the_nearest_merge_and_the_fields_there_are():
    with pytest.raises(ValueError, match=r"'factor_mean'; did you mean 'factor-mean'"):
        merge.preset("factor_mean")
    with pytest.raises(ValueError, match=r"'ties' has no field 'densty'.*density, by"):
        merge.preset("ties", densty=0.5)
    with pytest.raises(ValueError, match=r"density is 0, expected a share in \(0, 1\]"):
        merge.preset("ties", density=0.0)


def test_every_preset_says_what_it_is():
    for name in merge.names():
        entry = merge.describe(name)
        assert entry.summary
        assert entry.source
        assert entry.control == entry.summary.startswith("control"), name


@pytest.mark.parametrize("name", merge.names())
def test_a_merge_depends_on_the_key_just_where_it_says_so(name):
    entry = merge.describe(name)
    method = merge.preset(name, **FIELDS.get(name, {}))
    library = testing.small_library(sites=1, layers=4)
    data = libraries.data_for(method, None, library) or None
    weights = [1.0, 1.0, 0.0]
    if entry.needs_key:
        with pytest.raises(ValueError, match="key"):
            method(library, weights, data=data)
        assert entry.draws
    assert entry.draws is method.draws
    if not entry.draws and name not in SAME_PARTS:
        return  # the battery above has merged it with two keys, by one program

    @jax.jit
    def run(key):
        return lora.lora_map(lora.delta, method(library, weights, key=key, data=data))

    first, *others = (run(key) for key in jax.random.split(jax.random.key(0), 4))
    same = [jax.tree.all(jax.tree.map(jnp.array_equal, first, x)) for x in others]
    assert all(same) is not entry.draws


def test_imports_a_merge_by_module_and_attribute():
    assert merge.preset("jaxlora.merge.methods:_prune", density=0.5) == merge.preset(
        "prune", density=0.5
    )
    with pytest.raises(ValueError, match="Cannot import the merge 'jaxlora:nothing'"):
        merge.preset("jaxlora:nothing")
    with pytest.raises(ValueError, match="is a str, expected a Merge"):
        merge.preset("jaxlora.merge.peers:_ORIGINAL")
