"""One thing where several are meant, and variables where params are."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxlora import lora, reuse
from jaxlora.io import collection, collection_about, library
from jaxlora.io.library import Entries
from jaxlora.lora import LoraConfig
from jaxlora.reuse.decode import TextDecoding


class Mlp(nn.Module):
    """Two layers, and a convolution of no use."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="down")(nn.relu(nn.Dense(4, name="up")(x)))


@pytest.fixture(scope="module")
def variables():
    return Mlp().init(jax.random.key(0), jnp.ones((2, 5)))


@pytest.fixture(scope="module")
def adapter(variables):
    config = LoraConfig(rank=2, targets=("up/kernel",))
    return lora.init(jax.random.key(1), variables["params"], config)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: reuse.load("base", "ab"), "adapter_folders is 'ab', expected a list"),
        (
            lambda: reuse.load("base", ["a"], general_folders=Path("b")),
            "general_folders is PosixPath",
        ),
        (lambda: collection.read("ab"), "folders is 'ab', expected a list; with one"),
        (lambda: collection.read(["a", "b"], names="xy"), "names is 'xy', expected"),
        (lambda: collection_about.names(Path("ab")), "folders is PosixPath"),
        (lambda: TextDecoding(max_new_tokens=1, until="Q:"), "until is 'Q:', expected"),
        (
            lambda: Entries(base=None, experts=()).chosen("ab"),
            "names is 'ab', expected a list",
        ),
    ],
)
def test_one_string_is_no_list(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_names_of_a_library_are_a_list(adapter, tmp_path):
    with pytest.raises(ValueError, match="names is 'ab', expected a list"):
        library.save(tmp_path / "x", lora.stack([adapter, adapter]), "ab")
    assert not list(tmp_path.iterdir())


def test_one_adapter_is_no_list(adapter):
    with pytest.raises(ValueError, match="one tree with 'up' to stack, expected"):
        lora.stack(adapter)


def test_targets_that_match_nothing_are_answered_by_every_kernel(variables):
    with pytest.raises(ValueError, match="one of 'down/kernel', 'up/kernel'"):
        lora.init(jax.random.key(0), variables["params"], LoraConfig())
    with pytest.raises(ValueError, match=r"no kernel to adapt.*; it has 'scale'\."):
        lora.init(
            jax.random.key(0), {"scale": jnp.ones(3)}, LoraConfig(targets=(".*",))
        )


def test_variables_are_no_params(variables):
    with pytest.raises(
        ValueError, match=r"variables\['params'\], with 'down/kernel', "
    ):
        lora.init(jax.random.key(0), variables, LoraConfig(targets=(".*",)))
