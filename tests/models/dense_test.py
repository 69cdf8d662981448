"""Kernels and inputs of the ``nn.Dense`` layers of modules that know of no LoRA."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora.models import dense_inputs, dense_kernels

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 3, 4))


class Net(nn.Module):
    """A layer that is called twice, one of another kind, one that is not called."""

    def setup(self):
        self.turn = nn.Dense(4)
        self.norm = nn.LayerNorm()
        self.head = nn.Dense(2)
        self.spare = nn.Dense(2)

    def __call__(self, x):
        return self.head(self.turn(self.norm(self.turn(x))))

    def encode(self, x):
        return self.turn(inputs=x)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.tanh(nn.Dense(4, name="dense")(x)), None


def scanned(**axes):
    return nn.scan(
        Step, variable_axes={"params": 0, **axes}, split_rngs={"params": True}, length=3
    )()


@pytest.fixture(scope="module")
def variables():
    return Net().init(KEY, X)


def test_kernels_are_those_that_the_call_uses(variables):
    assert dense_kernels(Net(), variables, X) == ("turn/kernel", "head/kernel")
    assert dense_kernels(Net(), variables, X, method="encode") == ("turn/kernel",)
    scan = scanned()
    assert dense_kernels(scan, scan.init(KEY, X, None), X, None) == ("dense/kernel",)


def test_a_module_without_dense_layers_says_which_kernels_it_has():
    module = nn.Conv(4, (3,))
    with pytest.raises(ValueError, match=r"Conv used no nn.Dense.*kernels 'kernel'"):
        dense_kernels(module, module.init(KEY, X), X)


@pytest.mark.parametrize("call", [dense_kernels, dense_inputs])
def test_params_that_are_not_wrapped_are_refused(variables, call):
    words = r"no 'params', only .*'turn'.*give {'params': params}"
    with pytest.raises(ValueError, match=words):
        call(Net(), variables["params"], X)


def test_inputs_are_what_enters_in_every_call(variables):
    got = dense_inputs(Net(), variables, X)
    turn, norm = variables["params"]["turn"], variables["params"]["norm"]
    first = np.asarray(X).reshape(6, 4)
    h = first @ turn["kernel"] + np.asarray(turn["bias"])[None]
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
    second = h * np.asarray(norm["scale"])[None] + np.asarray(norm["bias"])[None]
    third = second @ turn["kernel"] + np.asarray(turn["bias"])[None]
    want = {"turn/kernel": np.concatenate([first, second]), "head/kernel": third}
    assert got.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_allclose(got[name], x, atol=1e-5)


def test_inputs_of_scanned_layers_come_layer_by_layer():
    module = scanned(inputs=0)
    variables = module.init(KEY, X, None)
    got = jax.jit(lambda v: dense_inputs(module, v, X, None))(variables)
    x, layers = np.asarray(X).reshape(6, 4), variables["params"]["dense"]
    for layer in range(3):
        np.testing.assert_allclose(got["dense/kernel"][layer], x, atol=1e-5)
        kernel, bias = (np.asarray(layers[k][layer]) for k in ("kernel", "bias"))
        x = x + np.tanh(x @ kernel + bias[None])


def test_inputs_that_a_scan_drops_are_refused():
    module = scanned()
    with pytest.raises(ValueError, match=r"'dense/kernel' were dropped.*'inputs' in"):
        dense_inputs(module, module.init(KEY, X, None), X, None)


def test_nothing_is_changed_or_stays_intercepted(variables):
    before = Net().apply(variables, X)
    dense_inputs(Net(), variables, X)
    assert (Net().apply(variables, X) == before).all()
    assert jnp.isfinite(before).all()
