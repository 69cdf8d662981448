import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import lora
from jaxlora.io import library, trust
from jaxlora.io.library import Origin
from jaxlora.lora import LoraWeight

Q, UP = "layers/attn/q_proj/kernel", "layers/mlp/up_proj/kernel"


def weight(seed, rank, lead=(2,), d=4, f=5, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return LoraWeight(
        jnp.asarray(rng.standard_normal((*lead, d, rank)).astype(dtype)),
        jnp.asarray(rng.standard_normal((*lead, rank, f)).astype(dtype)),
        jnp.asarray(rng.random(lead).astype(np.float32)),
    )


def adapter(seed, rank=3):
    inner = {"attn": {"q_proj": {"kernel": weight(seed, rank)}}}
    return {"layers": inner, "head": {"kernel": weight(seed + 9, 2, ())}}


ORIGINS = [
    Origin(alpha=16, data="sha256:0", seed=3, facts={"steps": 10, "lr": 1e-3}),
    Origin(facts={"note": "é", "good": True, "none": None}),
]


@pytest.fixture(scope="module")
def stacked():
    return lora.stack([adapter(0), adapter(1, rank=2)])


@pytest.fixture(scope="module")
def written(stacked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "library"
    library.save(folder, stacked, ["one", "two"], base="b", origins=ORIGINS)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "library")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def read(folder):
    return json.loads((folder / "library.json").read_text())


def edit(folder, change):
    """Changes library.json, and the hash of what it says with it."""
    raw = read(folder)
    change(raw)
    del raw["sha256"]
    raw["sha256"] = trust.json_hash(raw)
    (folder / "library.json").write_text(json.dumps(raw))


def assert_same(got, expected):
    got, expected = lora.sites(got), lora.sites(expected)
    assert got.keys() == expected.keys()
    for site in got:
        np.testing.assert_array_equal(
            np.asarray(lora.delta(got[site])), np.asarray(lora.delta(expected[site]))
        )


def test_there_and_back(folder, stacked):
    found, entries = library.load(folder)
    jax.tree.map(
        np.testing.assert_array_equal, lora.sites(found)[Q], lora.sites(stacked)[Q]
    )
    assert_same(found, stacked)
    assert lora.sites(found)["head/kernel"].rank == 2  # padding of stack is cut off
    assert entries == library.entries(folder)
    assert (entries.base, entries.names) == ("b", ("one", "two"))
    assert [entry.origin for entry in entries.experts] == ORIGINS
    assert [dict(entry.ranks) for entry in entries.experts] == [
        {Q: 3, "head/kernel": 2},
        {Q: 2, "head/kernel": 2},
    ]


def test_files_are_plain_safetensors_named_by_their_hash(folder):
    assert len(files(folder)) == 3
    entry = library.entries(folder).experts[1]
    assert entry.file == f"expert-{entry.sha256[:16]}.safetensors"
    values = load_file(folder / entry.file)
    assert {key: x.shape for key, x in values.items()} == {
        f"{Q}/a": (2, 4, 2),
        f"{Q}/b": (2, 2, 5),
        f"{Q}/scale": (2,),
        "head/kernel/a": (4, 2),
        "head/kernel/b": (2, 5),
        "head/kernel/scale": (),
    }


def test_chosen_experts_in_the_order_asked_for(folder, stacked):
    found, entries = library.load(folder, ["two", "one"])
    assert entries.names == ("two", "one")
    assert_same(found, jax.tree.map(lambda x: x[::-1], stacked))
    alone, _ = library.load(folder, ["two"])
    assert lora.sites(alone)[Q].rank == 2
    with pytest.raises(ValueError, match="no expert 'three'; it has 'one', 'two'"):
        library.load(folder, ["three"])
    with pytest.raises(ValueError, match="'one' is asked for twice"):
        library.load(folder, ["one", "one"])
    with pytest.raises(ValueError, match="no expert to read"):
        library.load(folder, [])


def test_append_and_remove(folder, stacked):
    third = {"layers": {"mlp": {"up_proj": {"kernel": weight(7, 1, d=6)}}}}
    library.append(folder, third, "three", base="b", origin=Origin(seed=1))
    found, entries = library.load(folder)
    assert entries.names == ("one", "two", "three")
    assert entries.experts[2].origin.seed == 1
    assert_same(
        jax.tree.map(lambda x: x[2], found)["layers"]["mlp"], third["layers"]["mlp"]
    )
    other = lora.sites(found)[UP]
    assert np.asarray(other.scale)[:2].tolist() == [[1, 1], [1, 1]]
    assert not np.asarray(lora.delta(other))[:2].any()
    gone = library.entries(folder).experts[0].file
    library.remove(folder, "one")
    assert gone not in files(folder)
    assert library.load(folder)[1].names == ("two", "three")
    library.remove(folder, "two")
    assert library.remove(folder, "three").experts == ()
    assert files(folder) == ["library.json"]


def test_equal_experts_share_a_file_that_stays_until_both_are_gone(folder):
    library.append(folder, adapter(5), "x")
    library.append(folder, adapter(5), "y")
    assert len(files(folder)) == 4
    library.remove(folder, "x")
    assert library.load(folder, ["y"])[1].names == ("y",)


@pytest.mark.parametrize("base", [None, "b"])
def test_base(folder, base):
    assert library.load(folder, base=base)[1].base == "b"
    with pytest.raises(ValueError, match="of the base 'b', expected 'c'"):
        library.load(folder, base="c")
    with pytest.raises(ValueError, match="'b', but the expert 'x' of 'c'"):
        library.append(folder, adapter(1), "x", base="c")


def test_identity_of_a_base_is_of_names_types_and_values():
    tree = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    same = {"b": jnp.ones(2), "a": jnp.zeros((2, 3))}
    others = [
        tree | {"a": tree["a"].reshape(3, 2)},
        tree | {"b": tree["b"] + np.float32(1e-7)},
        tree | {"b": tree["b"].astype(np.float16)},
        {"a": tree["a"], "c": tree["b"]},
    ]
    found = {library.base_identity(other) for other in others}
    assert library.base_identity(tree) == library.base_identity(same)
    assert len(found | {library.base_identity(tree)}) == 5


def test_a_library_of_groups_of_a_collection(tmp_path):
    made = {"model.layers.*.q_proj": weight(0, 2, (3, 2))}
    library.save(tmp_path / "x", made, list("abc"))
    assert_same(library.load(tmp_path / "x")[0], made)


def test_types_are_kept(tmp_path):
    half = {"q": weight(0, 2, (2, 2), dtype=jnp.bfloat16)}
    library.save(tmp_path / "x", half, list("ab"))
    assert library.load(tmp_path / "x")[0]["q"].a.dtype == jnp.bfloat16
    library.append(tmp_path / "x", {"q": weight(0, 2)}, "c")
    assert library.load(tmp_path / "x")[0]["q"].a.dtype == np.float32


def test_a_zero_expert_keeps_a_rank_of_one(tmp_path):
    zero = jax.tree.map(jnp.zeros_like, {"q": weight(0, 4, (1, 2))})
    library.save(tmp_path / "x", zero, ["zero"])
    assert library.load(tmp_path / "x")[0]["q"].rank == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["one"]}, "2 experts, but 1 names"),
        ({"names": ["one", "one"]}, "'one' already"),
        ({"names": ["one", ""]}, "name is '', expected a line of text"),
        ({"names": ["one", "a\nb"]}, "expected a line of text"),
        ({"names": ["one", 2]}, "name is 2, expected"),
        ({"origins": [Origin()]}, "2 names and 1 origins"),
        ({"base": 3}, "base is 3, expected a line"),
    ],
)
def test_what_cannot_be_saved(stacked, arguments, message, tmp_path):
    given = {"names": ["one", "two"]} | arguments
    with pytest.raises(ValueError, match=message):
        library.save(tmp_path / "x", stacked, **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"alpha": float("nan")},
        {"alpha": True},
        {"alpha": "1"},
        {"seed": -1},
        {"seed": 1.0},
        {"data": 3},
        {"facts": {"a": [1]}},
        {"facts": {"a": float("inf")}},
        {"facts": {"": 1}},
        {"facts": [1]},
    ],
)
def test_origins_are_scalars(fields):
    with pytest.raises(ValueError, match=f"^{next(iter(fields))} is .*, expected"):
        Origin(**fields)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (
            {"q": weight(0, 2).replace(scale=jnp.asarray([1.0, jnp.nan]))},
            "scale of 'q'",
        ),
        (
            {"q": weight(0, 2).replace(a=jnp.full((2, 4, 2), jnp.inf))},
            "a of 'q' of 'x'",
        ),
        ({"q": weight(0, 2).replace(scale=jnp.ones(3))}, "a, b, scale of shapes"),
        ({"..": weight(0, 2)}, "'..' has no name of a leaf"),
        ({"layers": {"attn": {"q_proj": {"kernel": weight(0, 2, d=7)}}}}, "is .*7, 5"),
        ({"q": weight(0, 2).replace(a=jnp.ones((2, 4, 2), int))}, "int32, expected"),
    ],
)
def test_what_cannot_be_appended(folder, sites, message):
    before = files(folder), read(folder)
    with pytest.raises(ValueError, match=message):
        library.append(folder, sites, "x")
    assert (files(folder), read(folder)) == before
    with pytest.raises(ValueError, match="'one' already"):
        library.append(folder, adapter(3), "one")
    assert (files(folder), read(folder)) == before


def first(raw):
    return raw["experts"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(version=3), "version 3, expected 2"),
        (lambda raw: raw.update(version=True), "version True, expected 2"),
        (lambda raw: raw.pop("version"), "version None, expected 2"),
        (lambda raw: raw.update(base=[1]), r"base is \[1\], expected"),
        (lambda raw: raw.update(experts={}), "experts is no list"),
        (lambda raw: raw.update(experts=[3]), "experts is no list of objects"),
        (lambda raw: raw["experts"].append(first(raw)), "the expert 'one' twice"),
        (lambda raw: first(raw).update(name=None), "expert 0: name is None"),
        (lambda raw: first(raw).update(file="../x.safetensors"), r"file is '\.\./x"),
        (lambda raw: first(raw).update(file="/x.safetensors"), "file is '/x"),
        (lambda raw: first(raw).update(file="a\\b.safetensors"), "file is"),
        (lambda raw: first(raw).update(file="x.bin"), "file is 'x.bin'"),
        (
            lambda raw: first(raw).update(file="none.safetensors"),
            "lacks the file 'none",
        ),
        (
            lambda raw: first(raw).update(file=raw["experts"][1]["file"]),
            "has the SHA-256",
        ),
        (lambda raw: first(raw).update(sha256="0" * 64), "has the SHA-256 .* by libr"),
        (lambda raw: first(raw).update(sha256="x"), "sha256 is 'x'"),
        (lambda raw: first(raw).update(ranks=[1]), r"ranks is \[1\]"),
        (lambda raw: first(raw)["ranks"].update({Q: 0}), "expected numbers from 1"),
        (lambda raw: first(raw)["ranks"].update({Q: True}), "expected numbers from 1"),
        (lambda raw: first(raw)["ranks"].update({Q: 10**9}), "expected numbers from 1"),
        (lambda raw: first(raw)["ranks"].update({Q: 2}), "gives it the rank 2"),
        (lambda raw: first(raw)["ranks"].update(x=2), "lacks the tensor 'x/a'"),
        (lambda raw: first(raw)["ranks"].pop(Q), f"has the tensor '{Q}/a'"),
        (lambda raw: first(raw)["ranks"].update({"a/../b": 2}), "no name of a leaf"),
        (lambda raw: first(raw).update(origin=3), "origin is 3"),
        (lambda raw: first(raw).update(origin={"seed": "3"}), "seed is '3'"),
        (lambda raw: first(raw).update(origin={"facts": {"a": {}}}), "facts is"),
    ],
)
def test_a_library_that_lies(folder, change, message):
    edit(folder, change)
    with pytest.raises(ValueError, match=message) as caught:
        library.load(folder)
    assert str(folder) in str(caught.value)


def test_a_library_json_with_one_key_twice_or_none(folder):
    path = folder / "library.json"
    path.write_text('{"version": 1, "version": 1}')
    with pytest.raises(ValueError, match="'version' is there twice"):
        library.entries(folder)
    path.unlink()
    with pytest.raises(ValueError, match=r"no library\.json, expected a library"):
        library.entries(folder)


def test_a_link_is_not_followed(folder, tmp_path):
    path = folder / library.entries(folder).experts[0].file
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="or it is a link"):
        library.load(folder)


def rewrite(folder, **changes):
    """Changes tensors of the first expert, and its hash with them."""
    entry = library.entries(folder).experts[0]
    save_file(load_file(folder / entry.file) | changes, folder / entry.file)
    digest = trust.file_hash(folder / entry.file)
    edit(folder, lambda raw: first(raw).update(sha256=digest))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{Q}/a": np.full((2, 4, 3), np.nan, np.float32)}, "NaN or infinity"),
        ({f"{Q}/scale": np.full(2, np.inf, np.float32)}, "NaN or infinity"),
        ({f"{Q}/scale": np.ones(3, np.float32)}, "expected .*, F.*rank 3"),
        ({f"{Q}/a": np.ones((2, 4, 3), np.int8)}, "stored as I8"),
        ({f"{Q}/b": np.ones((2, 3, 6), np.float32)}, "'two' .* their bases differ"),
        ({f"{Q}/b": np.ones((2, 3, 0), np.float32)}, "gives it the rank 3"),
        ({"x": np.ones(3, np.float32)}, "has the tensor 'x'"),
    ],
)
def test_a_file_that_lies(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=message):
        library.load(folder)


def test_what_a_killed_writer_left_is_ignored_and_removed(folder):
    for name in (
        "expert-0.safetensors",
        ".0123456789abcdef.tmp",
        "mine",
    ):
        (folder / name).write_text("half")
    library.load(folder)
    library.append(folder, adapter(4), "three")
    assert len(files(folder)) == 5
    assert "mine" in files(folder)


def test_a_disk_that_is_full_leaves_the_library_as_it_was(folder, monkeypatch):
    before = files(folder), read(folder)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        library.append(folder, adapter(4), "three")
    assert (files(folder), read(folder)) == before


KILLED = """
import os, signal, sys
from pathlib import Path
import jax.numpy as jnp
from jaxlora.io import library
from jaxlora.lora import LoraWeight
left = int(sys.argv[2])
for owner, name in ((Path, "replace"), (os, "fsync"), (Path, "unlink")):
    def step(*args, _whole=getattr(owner, name), **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return _whole(*args, **options)
    setattr(owner, name, step)
new = {"new": LoraWeight(jnp.ones((4, 2)), jnp.ones((2, 5)), jnp.ones(()))}
library.append(sys.argv[1], new, "new")
library.remove(sys.argv[1], "one")
print("done")
"""


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_a_whole_library(written, tmp_path):
    for steps in range(40):
        folder = shutil.copytree(written, tmp_path / str(steps))
        ran = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(steps)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        _, found = library.load(folder)
        assert found.names in [("one", "two"), ("one", "two", "new"), ("two", "new")]
        if ran.returncode == 0:
            break
        assert ran.returncode == -signal.SIGKILL, ran.stderr
    else:
        pytest.fail("never ran to its end")
    assert steps > 6


def test_entries_are_frozen(folder):
    with pytest.raises(dataclasses.FrozenInstanceError):
        library.entries(folder).base = "x"
