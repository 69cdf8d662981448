import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, route, tree
from jaxlora.lora import LoraConfig
from jaxlora.models import apply_with_lora, apply_with_route

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 3, 6))
ATOL = 1e-5  # float32, one adapted product against two


class Block(nn.Module):
    """A user's transformer block: shared and nested layers, dropout, a bias."""

    @nn.compact
    def __call__(self, x, train=False):
        q, k, v = (nn.Dense(4, name=name)(x) for name in "qkv")
        share = nn.softmax(q @ k.mT, axis=-1)
        out = nn.Dense(6, name="out", use_bias=False)
        x = x + out(share @ v)
        x = x + out(v)  # the same layer twice
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return x + Mlp(name="mlp")(nn.LayerNorm(name="norm")(x))


class Mlp(nn.Module):
    def setup(self):
        self.up = nn.Dense(5)
        self.down = nn.Dense(6)
        self.spare = nn.Dense(6)

    def __call__(self, x):
        return self.down(nn.gelu(self.up(x)))

    def encode(self, x):
        return self.up(inputs=x)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.tanh(nn.Dense(6, name="dense")(x)), None


def make(module, trained, *targets, args=(X,)):
    variables = module.init(KEY, *args)
    config = LoraConfig(rank=2, alpha=3.0, targets=targets)
    return variables, trained(0, lora.init(KEY, variables["params"], config))


@pytest.fixture(scope="module")
def block(trained):
    return make(Block(), trained, "[qv]/kernel", "out/kernel", "mlp/(up|down)/kernel")


def fused(variables, adapter):
    return {**variables, "params": lora.fuse(variables["params"], adapter)}


def test_it_equals_the_fused_module(block):
    variables, adapter = block
    got = apply_with_lora(Block(), variables, adapter, X)
    want = Block().apply(fused(variables, adapter), X)
    np.testing.assert_allclose(got, want, atol=ATOL)
    assert np.abs(want - Block().apply(variables, X)).max() > 0.1


@pytest.mark.parametrize("site", ["q", "v", "out", "mlp/up", "mlp/down"])
def test_each_site_acts_alone(block, site):
    variables, adapter = block
    only = {f"{site}/kernel": lora.sites(adapter)[f"{site}/kernel"]}
    only = tree.unflatten(only)
    got = apply_with_lora(Block(), variables, only, X)
    np.testing.assert_allclose(got, Block().apply(fused(variables, only), X), atol=ATOL)
    assert np.abs(got - Block().apply(variables, X)).max() > 1e-3


def test_a_fresh_adapter_is_bit_equal(block):
    variables, adapter = block
    fresh = lora.lora_map(lambda w: w.replace(b=jnp.zeros_like(w.b)), adapter)
    got = apply_with_lora(Block(), variables, fresh, X)
    assert (got == Block().apply(variables, X)).all()


def test_jit_vmap_and_grad(block, trained):
    variables, adapter = block
    library = lora.stack([adapter, trained(1, adapter)])

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(library):
        def one(ad):
            return apply_with_lora(Block(), variables, ad, X)

        return jax.vmap(one)(library)

    want = [Block().apply(fused(variables, ad), X) for ad in lora.unstack(library)]
    for _ in range(2):
        np.testing.assert_allclose(run(library), jnp.stack(want), atol=ATOL)

    def loss(ad):
        return jnp.sum(apply_with_lora(Block(), variables, ad, X) ** 2)

    def plain(ad):
        return jnp.sum(Block().apply(fused(variables, ad), X) ** 2)

    got, want = jax.jit(jax.grad(loss))(adapter), jax.jit(jax.grad(plain))(adapter)
    chex.assert_trees_all_close(got, want, rtol=1e-3, atol=1e-3)
    assert min(float(jnp.abs(x).max()) for x in jax.tree.leaves(got)) > 1e-3


def test_arguments_reach_the_module(block):
    variables, adapter = block
    rngs = {"dropout": jax.random.key(3)}
    got = apply_with_lora(Block(), variables, adapter, X, train=True, rngs=rngs)
    want = Block().apply(fused(variables, adapter), X, train=True, rngs=rngs)
    np.testing.assert_allclose(got, want, atol=ATOL)
    mlp, up = variables["params"]["mlp"], {"up": adapter["mlp"]["up"]}
    got = apply_with_lora(Mlp(), {"params": mlp}, up, X, method="encode")
    want = Mlp().apply({"params": lora.fuse(mlp, up)}, X, method="encode")
    np.testing.assert_allclose(got, want, atol=ATOL)


def test_bfloat16_activations_keep_their_type(trained):
    module = nn.Sequential([nn.Dense(4, dtype=jnp.bfloat16)])
    variables, adapter = make(module, trained, "layers_0/kernel")
    got = apply_with_lora(module, variables, adapter, X)
    assert got.dtype == jnp.bfloat16
    want = module.apply(fused(variables, adapter), X)
    chex.assert_trees_all_close(
        got.astype(jnp.float32), want.astype(jnp.float32), atol=0.1
    )


def test_remat_twice(trained):
    # The second call may find the first one's trace in a cache.
    module = nn.remat(Mlp)()
    variables, adapter = make(module, trained, "(up|down)/kernel")
    want = Mlp().apply(fused(variables, adapter), X)
    for _ in range(2):
        got = apply_with_lora(module, variables, adapter, X)
        np.testing.assert_allclose(got, want, atol=ATOL)


def test_a_trace_that_hides_the_layers_is_refused_not_ignored(trained):
    module = nn.jit(Mlp)()
    variables, adapter = make(module, trained, "(up|down)/kernel")
    module.apply({**variables, "lora": adapter}, X)  # traced without interception
    with pytest.raises(ValueError, match=r"under nn.jit"):
        apply_with_lora(module, variables, adapter, X)


def scanned(variable_broadcast=False, **axes):
    return nn.scan(
        Step,
        variable_axes={"params": 0, **axes},
        variable_broadcast=variable_broadcast,
        split_rngs={"params": True},
        length=3,
    )()


def test_scan_slices_an_adapter_that_it_carries(trained):
    variables, adapter = make(scanned(lora=0), trained, ".*", args=(X, None))
    got, _ = apply_with_lora(scanned(lora=0), variables, adapter, X, None)
    want, _ = scanned().apply(fused(variables, adapter), X, None)
    np.testing.assert_allclose(got, want, atol=ATOL)


@pytest.mark.parametrize("broadcast", [(), ("lora",)], ids=["dropped", "whole"])
def test_scan_that_does_not_slice_the_adapter_is_refused(trained, broadcast):
    module = scanned(variable_broadcast=broadcast)
    variables, adapter = make(module, trained, ".*", args=(X, None))
    with pytest.raises(ValueError, match="variable_axes"):
        apply_with_lora(module, variables, adapter, X, None)


def test_a_path_that_does_not_exist_is_refused(block):
    variables, adapter = block
    with pytest.raises(ValueError, match=r"'mlp/upp/kernel' that the base lacks"):
        apply_with_lora(Block(), variables, {"mlp": {"upp": adapter["mlp"]["up"]}}, X)


def test_a_dense_that_was_never_called_is_refused(trained):
    module = Mlp()
    variables = module.init(KEY, X)
    extra = module.init(KEY, X, method=lambda m, x: m.spare(x))["params"]
    params = {**variables["params"], **extra}
    config = LoraConfig(rank=2, targets=("spare/kernel", "up/kernel"))
    adapter = trained(0, lora.init(KEY, params, config))
    with pytest.raises(ValueError, match=r"'spare/kernel' had no effect.*'up/kernel'"):
        apply_with_lora(module, {"params": params}, adapter, X)


def test_a_layer_that_is_no_dense_is_refused(trained):
    module = nn.Conv(4, (3,))
    variables, adapter = make(module, trained, "kernel")
    with pytest.raises(ValueError, match=r"used no nn.Dense there\. It used none"):
        apply_with_lora(module, variables, adapter, X)


def test_a_second_adapter_is_refused(block):
    variables, adapter = block
    with pytest.raises(ValueError, match="already hold a 'lora' collection"):
        apply_with_lora(Block(), {**variables, "lora": adapter}, adapter, X)


def test_nothing_stays_intercepted(block):
    variables, adapter = block
    before = Block().apply(variables, X)
    apply_with_lora(Block(), variables, adapter, X)
    assert (Block().apply(variables, X) == before).all()


ARROW = route.preset("arrow", top_k=2, temperature=0.1)


def library_of(adapter, trained):
    return lora.stack([trained(seed, adapter) for seed in range(3)])


def test_params_that_are_not_wrapped_are_refused(block):
    variables, adapter = block
    with pytest.raises(ValueError, match=r"no 'params', only .*'mlp'.*give {'params'"):
        apply_with_lora(Block(), variables["params"], adapter, X)


def test_a_route_is_the_weighted_sum_of_experts_in_numpy(trained):
    module = nn.Dense(4)
    variables, adapter = make(module, trained, "kernel")
    library = library_of(adapter, trained)
    gate = ARROW.init(library)
    got = apply_with_route(module, variables, ARROW, library, gate, X)
    deltas = np.asarray(lora.delta(library["kernel"]), np.float64)
    u = np.stack([np.linalg.svd(d)[0][:, 0] for d in deltas])
    x = np.asarray(X, np.float64).reshape(-1, 6)
    scores = np.abs(x @ u.T)
    scores[np.arange(len(x)), scores.argmin(-1)] = -np.inf  # two of three are kept
    share = np.exp((scores - scores.max(-1, keepdims=True)) / ARROW.temperature)
    share /= share.sum(-1, keepdims=True)
    update = np.einsum("ne,nd,edf->nf", share, x, deltas).reshape(2, 3, 4)
    want = np.asarray(module.apply(variables, X)) + update
    np.testing.assert_allclose(got, want, atol=ATOL)
    assert np.abs(update).max() > 0.1


def test_a_library_of_one_expert_routes_as_that_adapter(block):
    variables, adapter = block
    library = lora.stack([adapter])
    gate = jax.jit(ARROW.init)(library)
    got = jax.jit(
        lambda library, gate: apply_with_route(
            Block(), variables, ARROW, library, gate, X
        )
    )(library, gate)
    want = apply_with_lora(Block(), variables, adapter, X)
    np.testing.assert_allclose(got, want, atol=ATOL)


def test_scan_slices_a_library_and_its_gate(trained):
    module = scanned(lora=0, gate=0)
    variables, adapter = make(module, trained, ".*", args=(X, None))
    library = library_of(adapter, trained)
    gate = jax.jit(ARROW.init)(library)
    got, _ = apply_with_route(module, variables, ARROW, library, gate, X, None)
    step, x = Step(), X
    for i in range(3):  # the layers one by one, each with its part of all three trees
        params = jax.tree.map(lambda p, i=i: p[i], variables)
        parts = jax.tree.map(lambda p, i=i: p[:, i], (library, gate))
        x, _ = apply_with_route(step, params, ARROW, *parts, x, None)
    np.testing.assert_allclose(got, x, atol=ATOL)


@pytest.mark.parametrize("axes", [{"gate": 0}, {"lora": 0}], ids=["lora", "gate"])
def test_scan_that_drops_a_part_of_a_route_is_refused(trained, axes):
    module = scanned(**axes)
    variables, adapter = make(module, trained, ".*", args=(X, None))
    library = library_of(adapter, trained)
    gate = jax.jit(ARROW.init)(library)
    with pytest.raises(ValueError, match="variable_axes"):
        apply_with_route(module, variables, ARROW, library, gate, X, None)


@pytest.mark.parametrize(
    "way",
    [
        route.Route(gate=route.oracle),
        route.Route(gate=route.arrow, granularity="sequence"),
        route.Route(gate=route.Uniform(per="model")),
    ],
    ids=["labels", "sequence", "model"],
)
def test_a_route_that_needs_more_than_a_site_is_refused(block, trained, way):
    variables, adapter = block
    library = library_of(adapter, trained)
    with pytest.raises(ValueError, match="per 'site' and by 'token'"):
        apply_with_route(Block(), variables, way, library, {}, X)


def test_a_gate_of_another_library_is_refused(block, trained):
    variables, adapter = block
    library = library_of(adapter, trained)
    gate = jax.jit(ARROW.init)(jax.tree.map(lambda x: x[::-1], library))
    with pytest.raises(ValueError, match="made for another library"):
        apply_with_route(Block(), variables, ARROW, library, gate, X)
