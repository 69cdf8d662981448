"""What a harness passes, read as what was meant."""

import dataclasses
import os

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import reuse, route
from jaxlora.integrations import arguments
from jaxlora.integrations.arguments import Options
from jaxlora.io import gate_file
from jaxlora.models import tokenizer as tokenizers


def test_values_are_split_at_the_path_separator():
    assert arguments.split(os.pathsep.join(["a/b", "c"])) == ["a/b", "c"]
    assert arguments.split("") == arguments.split(()) == []
    assert arguments.split(["a:b"]) == ["a:b"]
    assert arguments.split(-0.5) == [-0.5]


def test_length_is_the_models_or_less():
    assert arguments.length(None, 128) == 128
    assert arguments.length(5, 128) == 5
    for bad in (0, 129):
        with pytest.raises(ValueError, match=f"{bad}, expected 1 to 128"):
            arguments.length(bad, 128)


def test_rows():
    assert [arguments.rows(x) for x in ("auto", "auto:4", "8", 3)] == [16, 16, 8, 3]
    for bad in (0, "many", "-1"):
        with pytest.raises(ValueError, match="expected a number or 'auto'"):
            arguments.rows(bad)


def test_prefix_is_as_given_or_the_bos_or_the_eos(checkpoint, chatting):
    plain, chatml = tokenizers.load(checkpoint), tokenizers.load(chatting)
    assert arguments.prefix(plain, None) == plain.bos_id == 1
    assert arguments.prefix(plain, 0) == 0
    assert chatml.bos_id is None
    assert arguments.prefix(chatml, None) == chatml.eos_ids[0]
    none = dataclasses.replace(chatml, eos_ids=())
    with pytest.raises(ValueError, match="neither a bos nor an eos"):
        arguments.prefix(none, None)


def test_a_gate_file_says_route_and_state(tmp_path, monkeypatch):
    seen = []

    def load(folder, adapters, **options):
        seen.append(options)
        return reuse.Reuse(None, {"head": np.ones((2, 3), np.float32)})

    monkeypatch.setattr(reuse, "load", load)
    state = route.State(jnp.ones((2, 1, 4)), jnp.ones((2, 1), bool), jnp.ones((2, 1)))
    about = gate_file.About(
        route="linear",
        experts=("a", "b"),
        fields={"temperature": 0.5},
        base_fingerprint=gate_file.fingerprint(load("", ()).base),
    )
    path = tmp_path / "gate.safetensors"
    gate_file.save(path, {"layers": {"kernel": state}}, about)
    two = Options("m", adapters=["x/a", "x/b"], merge="sum", weights=f"1{os.pathsep}2")
    gated = dataclasses.replace(two, gate=str(path))
    arguments.load(gated)
    read = seen[-1].pop("gate")
    np.testing.assert_array_equal(read["layers"]["kernel"].keys, state.keys)
    wanted = {"route": "linear", "top_k": None, "temperature": 0.5}
    given = {
        "merge": "sum",
        "weights": [1.0, 2.0],
        "general_folders": [],
        "dtype": None,
    }
    assert seen[-1].items() >= (wanted | given).items()
    arguments.load(two)
    wanted = {"route": None, "top_k": None, "temperature": None}
    assert seen[-1].items() >= (wanted | given).items()
    assert "gate" not in seen[-1]
    with pytest.raises(ValueError, match="of the route 'linear', but the route"):
        arguments.load(dataclasses.replace(gated, route="smear"))
    about = dataclasses.replace(about, base_fingerprint=(9.0,))
    gate_file.save(path, {"layers": {"kernel": state}}, about)
    with pytest.raises(ValueError, match="made on another base"):
        arguments.load(gated)
