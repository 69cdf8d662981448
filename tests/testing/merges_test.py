"""The battery finds what is broken, and names it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge, testing


def one_site(seed):
    return testing.small_library(seed, sites=1)


def check(method, **more):
    testing.check_merge(method, make_library=one_site, **more)


# A user's method, as the README shows it.
@dataclasses.dataclass(frozen=True)
class Largest(merge.Reduction):
    """Takes each entry from the expert in which it is largest."""

    def leaf(self, values, weights, key, data):
        weighted = weights[:, None, None] * values
        best = jnp.argmax(jnp.abs(weighted), axis=0, keepdims=True)
        return jnp.take_along_axis(weighted, best, axis=0)[0]


LARGEST = ("identity", "permutation", "gauge", "zero_weight", "padding")


def test_a_users_method_in_ten_lines():
    mine = merge.chain(Largest(), space="delta", laws=LARGEST)
    testing.check_merge(mine)
    assert testing.violations(mine, laws=["linearity"])["linearity"] > 0.1


@dataclasses.dataclass(frozen=True)
class Sum(merge.Reduction):
    """A sum that can be broken in one way at a time."""

    how: str = ""

    def leaf(self, values, weights, key, data):
        if self.how == "order":
            weights = weights * jnp.arange(1.0, 1.0 + len(weights))
        if self.how == "count":
            weights = weights / len(weights)
        if self.how == "square":
            values = values**2
        if self.how == "python" and weights[0] > 0:
            return values[0]
        total = jnp.tensordot(weights, values, 1)
        if self.how == "eager" and not isinstance(total, jax.core.Tracer):
            return 1.01 * total
        return total.astype(jnp.float16) if self.how == "dtype" else total


def broken(how, *laws, space="delta"):
    return merge.chain(Sum(how), space=space, laws=laws)


@pytest.mark.parametrize(
    ("how", "space", "law"),
    [
        ("order", "delta", "permutation"),
        ("count", "delta", "zero_weight"),
        ("square", "delta", "identity"),
        ("square", "delta", "linearity"),
        ("", "factor", "gauge"),
    ],
)
def test_names_the_law_that_is_broken(how, space, law):
    method = broken(how, law, space=space)
    with pytest.raises(AssertionError, match=rf"breaks the law {law} \(.*of \d"):
        check(method)
    check(method, laws=())
    sizes = testing.violations(method, make_library=one_site)
    assert sizes.keys() == merge.LAWS.keys()
    assert sizes[law] > 0.05


def test_padding_that_is_counted():
    def by_rank(key, library):
        return lora.lora_map(lambda w: w.replace(scale=w.scale / w.rank), library)

    steps = {"space": "delta", "prepare": [by_rank]}
    with pytest.raises(AssertionError, match="breaks the law padding"):
        check(merge.chain(merge.weighted_sum(), laws=["padding"], **steps))


def test_an_absent_expert_that_is_multiplied_by_zero():
    def poisonable(key, library):
        def change(w):
            return w.replace(a=w.a + 0 * w.a.sum(0, keepdims=True))

        return lora.lora_map(change, library)

    steps = {"space": "delta", "prepare": [poisonable]}
    method = merge.chain(merge.weighted_sum(), laws=["zero_weight"], **steps)
    with pytest.raises(AssertionError, match=r"law zero_weight .* difference of inf"):
        check(method)


def test_programs_that_differ_when_compiled():
    with pytest.raises(AssertionError, match=r"breaks jit = eager: .* 0.0099"):
        check(broken("eager"))
    with pytest.raises(jax.errors.TracerBoolConversionError):
        check(broken("python"))


def test_rounding_to_the_librarys_dtype_is_found():
    def low(key, library):
        def change(w):
            return w.replace(b=w.b * w.b.astype(w.a.dtype)[0, 0, 0, 0])

        return lora.lora_map(change, library)

    method = merge.chain(merge.weighted_sum(), space="delta", prepare=[low])
    with pytest.raises(AssertionError, match="breaks bfloat16 computed in float32"):
        check(method)


def test_dtype_scale_sites_and_library():
    def scaled(key, library):
        return lora.lora_map(lambda w: w.replace(scale=2 * w.scale), library)

    check(merge.chain(merge.weighted_sum(), space="delta", prepare=[scaled]))

    def forgets(key, library):
        library["k_proj"]["kernel"] = library["k_proj"]["kernel"].replace(
            scale=jnp.ones((3, 2))
        )
        return library

    def loses(key, library):
        return {"other": library["k_proj"]}

    for step, message in ((forgets, "changes the library"), (loses, "has sites")):
        method = merge.chain(merge.weighted_sum(), space="delta", prepare=[step])
        with pytest.raises(AssertionError, match=message):
            check(method)
    with pytest.raises(AssertionError, match="float16"):
        check(broken("dtype"))


@dataclasses.dataclass(frozen=True, eq=False)
class Fresh(Sum):
    def __eq__(self, other):
        return False

    def __hash__(self):
        return 0


def test_a_draw_must_be_declared():
    def noise(key, library):
        return lora.lora_map(
            lambda w: w.replace(scale=jax.random.uniform(key, w.scale.shape)), library
        )

    method = merge.chain(merge.weighted_sum(), space="delta", prepare=[noise])
    assert not method.draws
    with pytest.raises(AssertionError, match="another result for another key"):
        check(method)
    noise.draws = True
    assert method.draws
    assert method.needs_key
    check(method)


def test_merges_must_be_values():
    method = merge.chain(Fresh(), space="delta")
    with pytest.raises(AssertionError, match="not equal to its copy"):
        check(method)


class Seen(Sum):
    data = "own"

    def leaf(self, values, weights, key, data):
        return jnp.tensordot(weights * data, values, 1)


def test_data_of_a_users_method():
    method = merge.chain(Seen(), space="delta", laws=["permutation", "linearity"])
    with pytest.raises(ValueError, match=r"sees own data.*pass data, a function"):
        check(method)

    def data(library):
        return {name: np.ones((3, 2)) for name in lora.sites(library)}

    check(method, data=data)


def test_refuses_an_unknown_law():
    with pytest.raises(ValueError, match=r"Unknown law 'linear'; there are gauge"):
        check(broken(""), laws=["linear"])


def test_regauged_libraries_have_the_same_deltas_in_other_factors():
    library = testing.small_library()
    other = testing.libraries.regauge(library)
    distance, deltas = testing.libraries.distance, testing.libraries.deltas
    assert distance(deltas(other), deltas(library)) < 1e-6
    assert not np.allclose(other["q_proj"]["kernel"].a, library["q_proj"]["kernel"].a)
