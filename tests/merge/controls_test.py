import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge, spectrum

KEY = jax.random.key(0)
random_like = jax.jit(merge.random_like)


def dense_svd(delta):
    u, s, _ = np.linalg.svd(delta)
    return u, s


def test_random_keeps_shapes_and_singular_values_not_directions(make_library, dense):
    library = make_library()
    drawn = random_like(KEY, library)
    chex.assert_trees_all_equal_shapes_and_dtypes(drawn, library)
    for name, before in dense(library).items():
        u, s = dense_svd(before)
        v, t = dense_svd(dense(drawn)[name])
        np.testing.assert_allclose(t, s, rtol=1e-5, atol=1e-5 * s.max())
        overlap = np.abs(np.sum(u[..., 0] * v[..., 0], axis=-1))
        assert overlap.shape == (3, 2)
        assert np.median(overlap) < 0.8
        assert not np.isclose(overlap, 1, atol=1e-3).any()


def test_random_is_independent_for_each_expert_layer_and_site():
    same = lora.LoraWeight(
        jnp.ones((4, 3, 5, 2)), jnp.ones((4, 3, 2, 5)), jnp.ones((4, 3))
    )
    drawn = random_like(KEY, {"k": same, "q": same})
    deltas = np.concatenate([lora.delta(w).reshape(12, 25) for w in drawn.values()])
    cosines = np.corrcoef(deltas) - np.eye(24)
    assert np.abs(cosines).max() < 0.95
    # The two sides of one delta are drawn apart: it would be symmetric otherwise.
    square = lora.delta(drawn["q"])
    assert not np.allclose(square, square.mT, atol=1e-2)


def test_random_directions_are_haar():
    # Haar columns in 3 dimensions: each coordinate is uniform on [-1, 1], so its mean
    # is 0, its mean square 1/3 and its mean fourth power 1/5. LAPACK's raw q is not.
    n = 4000
    w = lora.LoraWeight(jnp.ones((n, 3, 1)), jnp.ones((n, 1, 3)), jnp.ones(n))
    drawn = random_like(KEY, {"k": w})["k"]
    for x in (drawn.a[..., 0], drawn.b[:, 0]):
        unit = np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True)
        np.testing.assert_allclose(unit.mean(0), 0, atol=0.04)  # 4 standard errors
        np.testing.assert_allclose((unit**2).mean(0), 1 / 3, atol=0.02)
        np.testing.assert_allclose((unit**4).mean(0), 1 / 5, atol=0.02)


def test_random_works_above_full_rank_and_pads_back(make_library, dense):
    library = lora.pad({"k_proj": make_library()["k_proj"]}, 9)
    drawn = random_like(KEY, library)
    chex.assert_trees_all_equal_shapes(drawn, library)
    for name, before in dense(library).items():
        s, t = dense_svd(before)[1], dense_svd(dense(drawn)[name])[1]
        np.testing.assert_allclose(t, s, rtol=1e-5, atol=1e-5 * s.max())


def test_random_depends_on_the_key_alone(make_library):
    library = make_library()
    first = random_like(KEY, library)
    chex.assert_trees_all_equal(first, random_like(KEY, library))
    eager = merge.random_like(KEY, library)
    chex.assert_trees_all_close(first, eager, rtol=1e-4, atol=1e-5)
    other = random_like(jax.random.key(1), library)
    assert not np.allclose(other["k_proj"]["kernel"].a, first["k_proj"]["kernel"].a)


def test_random_needs_a_key(make_library):
    with pytest.raises(ValueError, match="needs a PRNG key, got None"):
        merge.random_like(None, make_library())


@pytest.mark.parametrize("key", [None, KEY, jax.random.key(7)])
@pytest.mark.parametrize("layers", [2, 3, 5])
def test_permutation_is_a_derangement_that_keeps_every_delta(
    layers, key, make_library, dense
):
    library = make_library(layers=layers)
    moved = merge.permute_sites(key, library)
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, library)
    before, after = dense(library), dense(moved)
    for name in before:
        for e in range(3):
            came_from = [
                [np.array_equal(x, y) for y in before[name][e]] for x in after[name][e]
            ]
            assert np.sum(came_from, axis=0).tolist() == [1] * layers
            assert not np.diag(came_from).any()


def test_permutation_shifts_experts_apart_and_sites_together(make_library):
    library = make_library(layers=4)

    def shifts(moved):
        moves = []
        for name, w in lora.sites(library).items():
            a = lora.sites(moved)[name].a
            moves.append(
                [
                    next(n for n in range(4) if np.array_equal(np.roll(x, n, 0), y))
                    for x, y in zip(w.a, a, strict=True)
                ]
            )
        assert moves[0] == moves[1]
        return moves[0]

    assert shifts(merge.permute_sites(None, library)) == [1, 2, 3]
    drawn = {
        tuple(shifts(merge.permute_sites(jax.random.key(i), library))) for i in range(6)
    }
    assert len(drawn) > 1
    assert all(sorted(order) == [1, 2, 3] for order in drawn)


def test_permutation_keeps_norms_and_changes_the_mean(make_library, dense):
    library = make_library(layers=3)
    moved = jax.jit(merge.permute_sites)(None, library)
    for name, w in lora.sites(library).items():
        got = np.sort(spectrum.norm(lora.sites(moved)[name]), axis=-1)
        np.testing.assert_array_equal(got, np.sort(spectrum.norm(w), axis=-1))
    mean = merge.preset("mean")
    before, after = dense(mean(library)), dense(mean(moved))
    assert all(not np.allclose(before[name], after[name], atol=0.1) for name in before)


def test_swapping_experts_is_no_control(make_library, dense):
    library, mean = make_library(), merge.preset("mean")
    swapped = jax.tree.map(lambda x: x[::-1], library)
    before, after = dense(mean(library)), dense(mean(swapped))
    assert all(np.allclose(before[name], after[name], atol=1e-5) for name in before)


def test_permutation_refuses_one_layer_and_no_layer_axis(make_library):
    with pytest.raises(ValueError, match=r"'k_proj/kernel' has one layer.*L >= 2"):
        merge.permute_sites(None, make_library(layers=1))
    adapter = lora.unstack(make_library())[0]
    with pytest.raises(ValueError, match=r"shape \(2, 7, 2\), expected \[E, L, D, R\]"):
        merge.permute_sites(None, adapter)


@pytest.mark.parametrize("control", [merge.random_like, merge.permute_sites])
def test_controls_prepare_a_chain(control, make_library):
    library = make_library()
    method = merge.chain(merge.weighted_mean(), space="delta", prepare=[control])
    want = merge.preset("mean")(control(jax.random.fold_in(KEY, 0), library))
    chex.assert_trees_all_close(method(library, key=KEY), want)
