"""The battery of gates finds what is broken, and names it."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, route, testing
from jaxlora.route import Gate, Route


# A user's gate, as the README shows it.
@dataclasses.dataclass(frozen=True)
class Loudest(Gate):
    """Scores an expert by the norm of ``x delta`` (a Gram matrix on the left)."""

    supports: ClassVar = ("site",)

    def keys(self, weight, key, data):
        delta = lora.delta(weight)
        return delta @ delta.mT

    def score(self, keys, x):
        return jnp.einsum("nd,edc,nc->ne", x, keys, x) / 100


def test_a_users_gate_in_ten_lines():
    testing.check_gate(Route(gate=Loudest(), top_k=2))


@dataclasses.dataclass(frozen=True)
class Broken(Loudest):
    """The same, broken in one way at a time."""

    how: str = ""

    def keys(self, weight, key, data):
        keys = super().keys(weight, key, data)
        if self.how == "gauge":
            a = weight.a.astype(jnp.float32)
            keys = a @ a.mT
        if self.how == "count":
            keys = 10 * keys / len(keys)
        return keys

    def score(self, keys, x):
        scores = super().score(keys, x)
        if self.how == "order":
            scores = scores * jnp.arange(1.0, 1.0 + len(keys))[None]
        if self.how == "batch":
            scores = scores - 0.5 * scores.mean(axis=0, keepdims=True)
        if self.how == "silent":
            scores = jnp.nan_to_num(scores, posinf=0.0)
        if self.how == "root":
            scores = scores + jnp.linalg.norm(x, axis=-1, keepdims=True)
        if self.how == "eager" and jax.config.jax_disable_jit:
            scores = 1.1 * scores
        if self.how == "python" and scores[0, 0] > 0:
            return 2 * scores
        return scores

    def finish(self, keys, weights):
        if self.how == "half":
            return 0.5 * weights
        if self.how == "everyone":
            return weights + 0.1
        if self.how == "nan":
            return weights / weights
        return weights.astype(jnp.float16) if self.how == "dtype" else weights


def check(how, laws=(), **fields):
    way = Route(gate=Broken(how), **fields)
    testing.check_gate(way, laws=laws, decoder=False)


@pytest.mark.parametrize(
    ("how", "law"),
    [
        ("order", "permutation"),
        ("half", "identity"),
        ("everyone", "absent"),
        ("count", "absent"),
        ("gauge", "gauge"),
        ("batch", "batch"),
    ],
)
def test_names_the_law_that_is_broken(how, law):
    with pytest.raises(AssertionError, match=rf"breaks the law {law} \(.*of [\di]"):
        check(how, [law])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("silent", "does not say so"),
        ("root", "gradients that are not finite"),
        ("eager", "breaks jit and vmap = eager"),
        ("nan", "that are not finite"),
        ("dtype", "float16"),
    ],
)
def test_names_what_every_route_must_do(how, message):
    with pytest.raises(AssertionError, match=message):
        check(how)


def test_python_branches_on_values_cannot_be_compiled():
    with pytest.raises(jax.errors.TracerBoolConversionError):
        check("python")


@dataclasses.dataclass(frozen=True, eq=False)
class Fresh(Broken):
    def __eq__(self, other):
        return False

    def __hash__(self):
        return 0


def test_gates_must_be_values():
    with pytest.raises(AssertionError, match="not equal to its copy"):
        testing.check_gate(Fresh())


@dataclasses.dataclass(frozen=True)
class Position(route.Uniform):
    """Sees how many rows there are, which is not the token's business."""

    def score(self, keys, x):
        ramp = jnp.linspace(0.0, float(x.shape[0]), x.shape[0])
        ramp = ramp + 0 * x.sum(-1)
        return ramp[:, None] * jnp.arange(1.0, 1.0 + len(keys))[None] / len(keys)


def test_a_decoder_shows_what_arrays_do_not():
    sizes = testing.gate_violations(Position(), laws=["batch", "decode"])
    assert min(sizes.values()) > 0.01
    arrays = testing.gate_violations(Position(), decoder=False)
    assert "decode" not in arrays
    assert arrays["batch"] == 0
    with pytest.raises(AssertionError, match="breaks the law decode"):
        testing.check_gate(Position(), laws=["decode"])


@dataclasses.dataclass(frozen=True)
class Seen(Gate):
    data: ClassVar = "own"

    def keys(self, weight, key, data):
        return data["scale"]

    def score(self, keys, x):
        return x[:, :1] * keys[None]


def test_data_of_a_users_gate():
    with pytest.raises(ValueError, match=r"sees own data.*pass data, a function"):
        testing.check_gate(Seen())

    def data(library):
        rng = np.random.default_rng(0)
        return {
            name: {"scale": rng.standard_normal(w.scale.shape).astype(np.float32)}
            for name, w in lora.sites(library).items()
        }

    testing.check_gate(Seen(), data=data, decoder=False)


def test_refuses_an_unknown_law():
    with pytest.raises(ValueError, match=r"Unknown law 'gauges'; there are absent"):
        testing.check_gate(Loudest(), laws=["gauges"], decoder=False)
