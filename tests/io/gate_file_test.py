"""Gates on disk: what is written is read, and what is odd is refused."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jaxlora import route
from jaxlora.io import gate_about, gate_file
from jaxlora.io.gate_file import About
from jaxlora.lora import LoraWeight
from jaxlora.tree import unflatten

E, L, D = 2, 3, 4
SITE = "layers/attn/q_proj/kernel"
ABOUT = About(
    route="linear",
    experts=("runs/ann", "runs/bo"),
    fields={"top_k": 1},
    base="base",
    training={"seed": 3, "loss": 0.5},
)
BASE = {"head": np.arange(12, dtype=np.float32).reshape(3, 4), "norm": np.ones(4)}


def library():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((E, L, D, 1)), rng.standard_normal((E, L, 1, 5))
    b[1, 2] = 0  # not live there
    weight = LoraWeight(jnp.float32(a), jnp.float32(b), jnp.ones((E, L)))
    return unflatten({SITE: weight})


def state(name="linear"):
    found = route.preset(name).init(library(), width=D, data=DATA.get(name))
    return jax.tree.map(lambda x: x + 0.25 if x.dtype == jnp.float32 else x, found)


DATA = {"retrieval": {"router": jnp.ones((E, 6, D))}}


@pytest.mark.parametrize("name", ["linear", "smear", "lora-flow", "retrieval"])
def test_what_is_written_is_read(tmp_path, name):
    path, wanted = tmp_path / "deep" / "gate.safetensors", state(name)
    about = dataclasses.replace(
        ABOUT, route=name, base_fingerprint=gate_file.fingerprint(BASE)
    )
    gate_file.save(path, wanted, about)
    found = gate_file.load(path)
    assert found.about == about
    chex.assert_trees_all_equal(found.state, wanted)
    assert jax.tree.structure(found.state) == jax.tree.structure(wanted)
    assert [p.name for p in path.parent.iterdir()] == ["gate.safetensors"]
    route.check(route.preset(name), found.state, library())


def test_a_write_that_fails_leaves_the_older_file(tmp_path):
    path = tmp_path / "gate.safetensors"
    gate_file.save(path, state(), ABOUT)
    before = path.read_bytes()
    broken = jax.tree.map(
        lambda x: x * jnp.nan if x.dtype == jnp.float32 else x, state()
    )
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        gate_file.save(path, broken, ABOUT)
    with pytest.raises(ValueError, match="for 1 experts"):
        gate_file.save(path, state(), dataclasses.replace(ABOUT, experts=("ann",)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def plain():
    """Tensors and metadata of a sound file."""
    arrays = {
        f"{SITE}/keys": np.zeros((E, L, D), np.float32),
        f"{SITE}/live": np.ones((E, L), bool),
        f"{SITE}/mark": np.zeros((E, L), np.float32),
    }
    facts = {"version": 1, "route": "linear", "experts": ["a", "b"], "fields": {}}
    return arrays, facts | {"base": None, "base_mark": [], "training": {}}


def write(path, arrays, facts, key="jaxlora_gate"):
    text = facts if isinstance(facts, str) else json.dumps(facts)
    path.write_bytes(safetensors.save(arrays, metadata={key: text}))


def nan(x):
    return np.full_like(x, np.nan)


@pytest.mark.parametrize(
    ("arrays", "facts", "expected"),
    [
        ({"keys": None}, {}, "expected keys, live and mark"),
        ({"live": None}, {}, "expected keys, live and mark"),
        (
            {"live": lambda x: x.astype(np.float32)},
            {},
            "is stored as F32, expected BOOL",
        ),
        ({"keys": lambda x: x.astype(np.float16)}, {}, "stored as F16, expected F32"),
        ({"keys": lambda x: x[:, :1]}, {}, r"has the shape \(2, 1, 4\) beside live"),
        ({"mark": lambda x: x[..., None]}, {}, r"mark has the shape \(2, 3, 1\)"),
        ({"keys": nan}, {}, "keys holds NaN or infinity"),
        ({"mark": nan}, {}, "mark holds NaN or infinity"),
        ({"live": lambda x: (x + np.uint8(1)).view(bool)}, {}, "neither 0 nor 1"),
        ({"code": lambda _: np.zeros(2, np.float32)}, {}, "is no live, mark or keys"),
        ({}, {"experts": ["a"]}, "for 1 experts"),
        ({}, {"experts": []}, "no experts"),
        ({}, {"experts": "ab"}, "experts is 'ab', expected a list"),
        ({}, {"experts": [1, 2]}, "must be lines of text"),
        ({}, {"version": 3}, "another version"),
        ({}, {"version": 2}, "its sha256 is missing: it was damaged"),
        ({}, {"fields": {"gate": 1}}, "changes the field 'gate'"),
        ({}, {"fields": {"top_k": "x"}}, "finite numbers"),
        ({}, {"training": {"x": []}}, "object of text"),
        ({}, {"more": 1}, "differs from what is expected in more"),
        ({}, "{", "cannot be used"),
        ({}, "[1]", "an object"),
        ({}, '{"version": 1, "version": 1}', "twice"),
    ],
)
def test_an_odd_file_is_refused_by_its_name(tmp_path, arrays, facts, expected):
    path = tmp_path / "gate.safetensors"
    tensors, about = plain()
    for part, change in arrays.items():
        name = f"{SITE}/{part}"
        old = tensors.pop(name, None)
        if change is not None:
            tensors[name] = change(old)
    write(path, tensors, facts if isinstance(facts, str) else about | facts)
    with pytest.raises(ValueError, match=expected) as caught:
        gate_file.load(path)
    assert str(path) in str(caught.value)


def test_what_is_no_gate_is_refused(tmp_path):
    path = tmp_path / "gate.safetensors"
    with pytest.raises(ValueError, match="There is no file"):
        gate_file.load(path)
    write(path, *plain(), key="format")
    with pytest.raises(ValueError, match="no gate"):
        gate_file.load(path)
    write(path, *plain())
    assert gate_file.load(path).about.experts == ("a", "b")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        gate_file.load(path)
    path.write_bytes(b"\x80\x04.")  # a pickle
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        gate_file.load(path)


def test_a_gate_of_another_base_is_refused():
    found = gate_file.GateFile(
        dataclasses.replace(ABOUT, base_fingerprint=gate_file.fingerprint(BASE)), {}
    )
    gate_file.check_base(found, BASE)
    rough = {name: jnp.asarray(x, jnp.bfloat16) for name, x in BASE.items()}
    gate_file.check_base(found, rough)
    for other in (BASE | {"head": BASE["head"] + 1}, {"head": BASE["head"]}):
        with pytest.raises(ValueError, match=r"made on another base \(base\)"):
            gate_file.check_base(found, other)
    gate_file.check_base(gate_file.GateFile(ABOUT, {}), {})  # it does not say


def ask(experts=("x/ann", "y/bo"), about=ABOUT, **given):
    given = {"route": None, "top_k": None, "temperature": None} | given
    return gate_file.asked("F", gate_file.GateFile(about, {}), experts, **given)


def test_the_file_says_what_is_not_given():
    assert ask() == {"route": "linear", "top_k": 1, "temperature": None}
    given = {"route": "linear", "top_k": 2, "temperature": 0.5}
    assert ask(**given) == given
    assert ask(experts=("x", "y"))["route"] == "linear"  # renamed folders
    with pytest.raises(
        ValueError, match="of the route 'linear', but the route 'smear'"
    ):
        ask(route="smear")
    for experts in (("bo", "ann"), ("ann",), ()):
        with pytest.raises(ValueError, match="2 adapters, runs/ann, runs/bo, but got"):
            ask(experts=experts)
    mine = dataclasses.replace(ABOUT, route="mine:gate")
    with pytest.raises(ValueError, match="runs code of your own"):
        ask(about=mine)
    assert ask(about=mine, route="mine:gate")["route"] == "mine:gate"


def test_a_changed_byte_is_read_or_refused_in_a_sentence(tmp_path):
    path = tmp_path / "gate.safetensors"
    write(path, *plain())
    whole, refused = path.read_bytes(), []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if seed % 5 == 0 else data)
        try:
            found = gate_file.load(path)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert len(found.about.experts) == E
    assert len(refused) > 50
    for said in refused:
        assert str(path) in said
        assert len(said) < 2000


def test_a_fingerprint_is_stored_under_its_first_name():
    about = dataclasses.replace(ABOUT, base_fingerprint=(1.5,))
    text = gate_about.dumps(about)
    assert json.loads(text)["base_mark"] == [1.5]  # so that files of 0.1 are read
    assert gate_about.loads(text) == about
