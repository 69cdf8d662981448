"""Does each number of the report say what its definition says, and resolve it?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, spectrum
from jaxlora.lora import LoraWeight
from jaxlora.merge import linear
from jaxlora.merge.fidelity import Fidelity, fidelity

RATIOS = (
    *("relative_error", "norm_shrinkage", "cross_term_energy", "outside_energy"),
    "effective_coefficient",
)


def weight(a, b, scale) -> LoraWeight:
    return LoraWeight(*(jnp.asarray(x, jnp.float32) for x in (a, b, scale)))


def random_weight(rng, lead, d, r, f) -> LoraWeight:
    a, b = rng.standard_normal((*lead, d, r)), rng.standard_normal((*lead, r, f))
    return weight(a, b, rng.uniform(0.5, 2.0, lead))


def exact_sum(experts: LoraWeight, w) -> LoraWeight:
    scales = jnp.broadcast_to(
        linear.column(jnp.asarray(w, jnp.float32), experts.scale.ndim - 1),
        experts.scale.shape,
    )
    return linear.concatenate(experts, scales)


def factor_sum(experts: LoraWeight, on_a, on_b) -> LoraWeight:
    """a and b summed apart, each with its own weights."""
    a = np.tensordot(on_a, np.asarray(experts.a, np.float64), 1)
    b = np.asarray(experts.scale)[..., None, None] * np.asarray(experts.b, np.float64)
    return weight(a, np.tensordot(on_b, b, 1), np.ones(experts.scale.shape[1:]))


def orthogonal(n: int, rank: int = 1, size: int = 12) -> LoraWeight:
    """n experts of equal norm whose a and whose b are orthogonal to each other."""
    a = np.eye(size)[: n * rank].reshape(n, rank, size).swapaxes(-1, -2)
    return weight(a, a.swapaxes(-1, -2), np.ones(n))


def measure(merged: LoraWeight, experts: LoraWeight, w) -> Fidelity:
    """One site, padded to one rank so that few programs are compiled."""
    return fidelity(lora.pad({"k": merged}, 12), {"k": experts}, w)


def in_float64(w: LoraWeight):
    a, b, s = (np.asarray(x, np.float64) for x in (w.a, w.b, w.scale))
    return a, s[..., None, None] * b


def dense_reference(merged: LoraWeight, experts: LoraWeight, w) -> dict:
    """One site without layers, from dense matrices and lstsq, in float64."""
    (ma, mb), (a, b) = in_float64(merged), in_float64(experts)
    m, deltas = ma @ mb, a @ b
    exact = np.tensordot(w, deltas, 1)
    here = [e for e in range(len(w)) if w[e] != 0 and np.any(deltas[e])]
    u, v = np.concatenate(a[here], 1), np.concatenate(b[here], 0)
    inside = u @ np.linalg.pinv(u, rcond=1e-9) @ m @ np.linalg.pinv(v, rcond=1e-9) @ v
    terms = [np.outer(p, q).ravel() for e in here for p in a[e].T for q in b[e]]
    basis = np.stack(terms, 1)
    fit = basis @ np.linalg.lstsq(basis, m.ravel(), rcond=1e-9)[0]
    energy = np.sum(m**2)
    return {
        "relative_error": np.linalg.norm(m - exact) / np.linalg.norm(exact),
        "norm_shrinkage": np.linalg.norm(m) / np.linalg.norm(exact),
        "cross_term_energy": np.sum((inside.ravel() - fit) ** 2) / energy,
        "outside_energy": np.sum((m - inside) ** 2) / energy,
        "effective_coefficient": np.asarray(
            [
                np.sum(m * d) / np.sum(d**2) if e in here else np.nan
                for e, d in enumerate(deltas)
            ]
        ),
    }


def libraries() -> dict[str, LoraWeight]:
    rng = np.random.default_rng(0)
    plain = random_weight(rng, (3,), 20, 2, 15)
    shared = random_weight(rng, (3,), 20, 2, 15)
    near = random_weight(rng, (3,), 20, 2, 15)
    a, b = np.array(near.a), np.array(near.b)
    a[1], b[1] = a[0] + 0.03 * a[1], b[0] + 0.03 * b[1]
    return {
        "independent": plain,
        "more rank than width": random_weight(rng, (3,), 20, 2, 5),
        "one a for all": shared.replace(a=jnp.broadcast_to(shared.a[:1], (3, 20, 2))),
        "near copies": near.replace(a=jnp.asarray(a), b=jnp.asarray(b)),
        "the same twice": jax.tree.map(lambda x: x[jnp.asarray([0, 1, 0])], plain),
        "padded": lora.pad({"": plain}, 4)[""],
        "one of them zero": plain.replace(b=plain.b.at[1].set(0.0)),
    }


W = np.asarray([0.5, 1.0, -0.3])
LIBRARIES = libraries()


@pytest.mark.parametrize("kind", LIBRARIES)
def test_every_ratio_is_that_of_dense_matrices(kind):
    experts = LIBRARIES[kind]
    rng = np.random.default_rng(1)
    stranger = random_weight(rng, (), 20, 2, experts.b.shape[-1])
    factored = lora.pad({"": factor_sum(experts, W, W)}, 4)[""]
    both = jax.tree.map(
        lambda *x: jnp.stack(x), factored, lora.pad({"": stranger}, 4)[""]
    )
    in_between = linear.concatenate(both, jnp.full(2, 0.5))
    for merged in (factor_sum(experts, W, W), in_between):
        report = measure(merged, experts, W)
        for name, value in dense_reference(merged, experts, np.float32(W)).items():
            got = np.asarray(getattr(report, name)["k"])
            np.testing.assert_allclose(got, value, 1e-4, 1e-6, err_msg=name)


@pytest.mark.parametrize("n", [2, 10])
def test_three_averages_of_n_independent_experts(n):
    """cat is exact; PEFT's linear and the factor mean differ by n in norm."""
    experts, w = orthogonal(n), np.full(n, 1 / n)
    root = np.sqrt(w)
    merges = {
        "cat": (exact_sum(experts, w), 0.0, 1.0, 0.0, 1 / n),
        "linear": (factor_sum(experts, root, root), (n - 1) ** 0.5, n**0.5, 1, 1 / n),
        "factor": (factor_sum(experts, w, w), (1 - 1 / n) ** 0.5, n**-0.5, 1, n**-2),
    }
    for name, (merged, error, norm, crossed, coefficient) in merges.items():
        report = measure(merged, experts, w).total()
        np.testing.assert_allclose(report.relative_error, error, 1e-4, 1e-6, name)
        np.testing.assert_allclose(report.norm_shrinkage, norm, 1e-4)
        cross = crossed * (n - 1) / n
        np.testing.assert_allclose(report.cross_term_energy, cross, 1e-4, 1e-10)
        np.testing.assert_allclose(report.outside_energy, 0, atol=1e-10)
        np.testing.assert_allclose(
            report.effective_coefficient, [coefficient] * n, 1e-4
        )


def test_a_gauge_of_an_expert_changes_no_number():
    rng = np.random.default_rng(2)
    experts = random_weight(rng, (3,), 20, 2, 15)
    turn = rng.standard_normal((3, 2, 2))
    turned = weight(
        experts.a @ turn, np.linalg.solve(turn, np.asarray(experts.b)), experts.scale
    )
    merged = factor_sum(experts, W, W)
    first, second = (measure(merged, x, W) for x in (experts, turned))
    for name in RATIOS:
        x, y = getattr(first, name)["k"], getattr(second, name)["k"]
        np.testing.assert_allclose(x, y, 1e-3, 1e-6, err_msg=name)


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6])
def test_errors_of_a_millionth_are_resolved(size):
    rng = np.random.default_rng(3)
    experts = random_weight(rng, (3,), 20, 2, 15)
    exact, other = exact_sum(experts, W), random_weight(rng, (), 20, 6, 15)
    ratio = spectrum.norm(exact) / spectrum.norm(other)
    pair = jax.tree.map(lambda *x: jnp.stack(x), exact, other)
    merged = linear.concatenate(pair, jnp.stack([jnp.ones(()), size * ratio]))
    report = measure(merged, experts, W)
    np.testing.assert_allclose(report.relative_error["k"], size, rtol=0.15)


def test_an_exact_sum_is_exact_at_any_weights_and_rank_padding():
    experts = LIBRARIES["padded"]
    report = measure(exact_sum(experts, W), experts, W).total()
    assert report.relative_error < 1e-6
    assert report.cross_term_energy < 1e-10
    assert report.outside_energy < 1e-10


def test_an_absent_expert_is_in_neither_the_sum_nor_the_span():
    experts, w = LIBRARIES["independent"], [1.0, 0.0, 2.0]
    broken = jax.tree.map(lambda x: x.at[1].set(jnp.inf), experts)
    merged = jax.tree.map(lambda x: x[1], experts)
    report = measure(merged, broken, w)
    assert float(report.outside_energy["k"]) > 0.5
    for name, value in dense_reference(merged, experts, w).items():
        got = np.asarray(getattr(report, name)["k"])
        np.testing.assert_allclose(got, value, 1e-4, 1e-6, err_msg=name)
    assert jnp.isnan(report.effective_coefficient["k"][1])
    assert jnp.isnan(report.total().effective_coefficient[1])


def test_nothing_against_nothing_is_undefined_and_against_something_is_not():
    experts, w = LIBRARIES["the same twice"], [1.0, 0.0, -1.0]
    cancelled = measure(exact_sum(experts, w), experts, w)
    assert jnp.isnan(cancelled.relative_error["k"])
    assert jnp.isnan(cancelled.cross_term_energy["k"])
    expert = jax.tree.map(lambda x: x[0], experts)
    something = measure(expert, experts, w)
    assert jnp.isinf(something.relative_error["k"])
    assert something.cross_term_energy["k"] < 1e-10
    nothing = measure(expert.replace(b=jnp.zeros_like(expert.b)), experts, W)
    assert nothing.relative_error["k"] == 1
    assert nothing.norm_shrinkage["k"] == 0
    assert jnp.isnan(nothing.outside_energy["k"])


def test_total_and_layers_pool_energy(make_library, dense):
    library = make_library()
    merged = lora.lora_map(lambda x: factor_sum(x, W, W), library)
    report = fidelity(merged, library, W)
    m, d = dense(merged), dense(library)
    assert list(report.error) == sorted(d)
    exact = {k: np.tensordot(np.float32(W).astype(float), d[k], 1) for k in d}
    each = {k: np.sum((m[k] - exact[k]) ** 2, (-2, -1)) for k in d}
    of = {k: np.sum(exact[k] ** 2, (-2, -1)) for k in d}
    total, layers = report.total(), report.layers()
    for k in d:
        np.testing.assert_allclose(
            report.relative_error[k], (each[k] / of[k]) ** 0.5, 1e-5
        )
        pooled = (each[k].sum() / of[k].sum()) ** 0.5
        np.testing.assert_allclose(layers.relative_error[k], pooled, 1e-5)
        assert report.effective_coefficient[k].shape == (3, 2)
    pooled = (
        sum(x.sum() for x in each.values()) / sum(map(np.sum, of.values()))
    ) ** 0.5
    np.testing.assert_allclose(total.relative_error, pooled, 1e-5)
    products = sum(np.sum(m[k] * d[k], (1, 2, 3)) for k in d)
    norms = sum(np.sum(d[k] ** 2, (1, 2, 3)) for k in d)
    np.testing.assert_allclose(total.effective_coefficient, products / norms, 1e-4)


def test_it_maps_over_weights_and_compiles_once(make_library):
    library = make_library()
    merged = lora.lora_map(lambda x: factor_sum(x, W, W), library)
    many = jnp.asarray([[0.5, 1.0, -0.3], [1.0, 0.0, 0.2]], jnp.float32)

    @jax.jit
    def totals(adapter, weights):
        return jax.vmap(lambda w: fidelity(adapter, library, w).total())(weights)

    report = totals(merged, many)
    for i, w in enumerate(many):
        want = fidelity(merged, library, w).total()
        for name in RATIOS:
            np.testing.assert_allclose(
                getattr(report, name)[i], getattr(want, name), 1e-3, 1e-6, err_msg=name
            )
    totals(jax.tree.map(lambda x: 2 * x, merged), -many)
    assert totals._cache_size() == 1


def test_bfloat16_experts_are_measured_in_float32():
    experts = jax.tree.map(lambda x: x.astype(jnp.bfloat16), LIBRARIES["independent"])
    report = measure(exact_sum(experts, W), experts, W).total()
    assert report.error.dtype == jnp.float32
    assert report.relative_error < 1e-6


def test_what_does_not_fit_is_refused(make_library):
    library = make_library()
    merged = lora.lora_map(lambda x: exact_sum(x, W), library)
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(3,\)"):
        fidelity(merged, library, [1.0, 2.0])
    with pytest.raises(ValueError, match="'k_proj/kernel' is in the library only"):
        fidelity({"q_proj": merged["q_proj"]}, library)
    swapped = {"q_proj": merged["k_proj"], "k_proj": merged["q_proj"]}
    with pytest.raises(ValueError, match=r"\(2, 5, 7\), expected \(2, 7, 5\)"):
        fidelity(swapped, library)
    with pytest.raises(ValueError, match="is a delta of shape"):
        fidelity(jax.tree.map(lambda x: x[0], merged), library)
