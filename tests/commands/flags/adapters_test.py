"""Flags of adapters, merges and routes."""

import dataclasses
import re
from pathlib import Path

import jax.numpy as jnp
import pytest

from jaxlora import merge, reuse, route
from jaxlora.commands.flags import Combine, Combining, Model, parse
from jaxlora.io import gate_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Some:
    """A command."""

    model: Model
    combine: Combine = dataclasses.field(default_factory=Combining)
    chat: bool = True
    batch: int = 1


def parsed(*words):
    return parse(Some, "jaxlora some", words, description="Some.")


@pytest.mark.parametrize(
    ("words", "adapters"),
    [
        ("m --adapter a b", ["a", "b"]),
        ("m --adapter a --adapter b", ["a", "b"]),
        ("m --adapter a b --no-chat --adapter c", ["a", "b", "c"]),
        ("--adapter a m", ["a"]),
        ("--adapter a --adapter b m", ["a", "b"]),
        ("m --adapter=a --adapter b c", ["a", "b", "c"]),
        ("m", []),
    ],
)
def test_adapters_are_repeated_or_listed(words, adapters):
    found = parsed(*words.split())
    assert found.model == Path("m")
    assert found.combine.adapter == tuple(map(Path, adapters))


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        ("--weights 1 -0.5", (1, -0.5)),
        ("--weights=-0.5", (-0.5,)),
        ("--weights -1e-3 -.5 2", (-1e-3, -0.5, 2)),
        ("--weights=-1 2 --route-top-k 1", (-1, 2)),
    ],
)
def test_weights_may_be_negative(words, weights):
    assert parsed("m", *words.split()).combine.weights == weights


def test_what_is_not_given_is_none():
    assert parsed("m").combine.routing() == {
        "merge": None,
        "weights": None,
        "route": None,
        "top_k": None,
        "temperature": None,
    }


def test_general_adapters_are_repeated_or_listed():
    words = "m --adapter a b --route genknowsub --general c d --route-top-k 2"
    words += " --route-temperature 0.5"
    found = parsed(*words.split()).combine.routing()
    assert found == {
        "merge": None,
        "weights": None,
        "route": "genknowsub",
        "top_k": 2,
        "temperature": 0.5,
        "general": (Path("c"), Path("d")),
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "--adapter a --route arrow --route-top-k 0",
            "--route-top-k is 0, expected 1 or more; lea",
        ),
        ("--adapter a b --route arrow --route-top-k 3", "Got top_k 3 for 2 adapters"),
        ("--adapter a --route linear", "jaxlora gate MODEL --adapter DIR ... --route"),
        ("--adapter a b --route arrow --general c", "Got 1 general adapters for the"),
        ("--adapter a --route arrow --gate gone", "There is no file 'gone', expected"),
        ("--adapter a b --general c", "Got 1 general adapters"),
        (
            "--adapter a --route no.such:thing",
            "Cannot import the route 'no.such:thing'",
        ),
        ("--route-top-k 1", "but no route"),
    ],
)
def test_what_cannot_be_routed_is_refused_before_reading(words, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        parsed("m", *words.split()).combine.routing()


def test_a_route_of_ones_own_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_route_file.py").write_text(
        "from jaxlora import route\nmine = route.preset('top-1')\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ("m", "--adapter", "a", "--route", "my_route_file:mine")
    assert parsed(*words).combine.routing()["route"] == "my_route_file:mine"


def test_a_gate_says_which_route_and_how(tmp_path):
    about = gate_file.About(
        route="linear", experts=("a", "b"), fields={"temperature": 0.5}
    )
    site = route.State(jnp.ones((2, 1, 4)), jnp.ones((2, 1), bool), jnp.ones((2, 1)))
    path = tmp_path / "gate.safetensors"
    gate_file.save(path, {"layers": {"kernel": site}}, about)
    words = ("m", "--adapter", "x/a", "x/b", "--gate", str(path))
    found = parsed(*words).combine.routing()
    assert (found["route"], found["top_k"], found["temperature"]) == (
        "linear",
        None,
        0.5,
    )
    assert found["gate"].about == about
    more = ("--route-top-k", "1", "--route-temperature", "2")
    found = parsed(*words, *more).combine.routing()
    assert (found["top_k"], found["temperature"]) == (1, 2.0)
    for more, expected in (
        (("--route", "smear"), "of the route 'linear', but the route 'smear'"),
        (("--merge", "mean"), "Got the merge 'mean' and the route 'linear'"),
        (("--adapter", "c"), "of 2 adapters, a, b, but got 3"),
    ):
        with pytest.raises(ValueError, match=expected):
            parsed(*words, *more).combine.routing()


def test_help_names_what_exists(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    said = " ".join(capsys.readouterr().out.split())
    words = (*reuse.COMMON, *reuse.route_names(), "phatgoose", "lora-flow")
    for name in (*words, "jaxlora gate --list", "as `jaxlora gate` writes it"):
        assert name in said
    assert (
        f"`jaxlora merge --list` says which of {len(merge.names())}, and when" in said
    )
    assert "breadcrumbs" not in said
    assert "oracle" not in said
