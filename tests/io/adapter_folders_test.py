"""Folders that stand for adapters, and the bases that adapters name."""

import json

import numpy as np
import pytest

from jaxlora.io import adapter_folders, peft_out
from jaxlora.io.peft import PeftAdapter, PeftModule


@pytest.fixture
def library(tmp_path):
    """A folder as `jaxlora train` leaves it: adapters b, a and c, and a checkpoint."""
    folder = tmp_path / "library"
    ones = np.ones((1, 3), np.float32)
    module = PeftModule(ones, ones.T, 1.0)
    for name in ("b", "a", "c", ".a.new.tmp"):
        made = PeftAdapter(modules={"q": module}, base_name=f"org/{name}")
        peft_out.write(folder / name, made)
    (folder / ".checkpoint").mkdir()
    (folder / "training.json").write_text("{}")
    return folder


def test_a_library_is_its_adapters_in_the_order_of_names(library):
    every = tuple(library / name for name in "abc")
    assert adapter_folders.expand([library]) == every
    assert adapter_folders.expand([str(library / "c"), library]) == (every[2], *every)
    (note,) = adapter_folders.notes([library / "c", library])
    assert note == f"{library} is a library of 3 adapters, in this order: a, b, c."


def test_what_is_no_library_stays(library, tmp_path):
    only = tmp_path / "only"
    (library / "a").rename(tmp_path / "a")
    only.mkdir()
    (tmp_path / "a").rename(only / "default")
    given = [library / "b", only, tmp_path / "gone", library / "training.json"]
    assert adapter_folders.expand(given) == tuple(given)
    assert not list(adapter_folders.notes(given))


@pytest.mark.parametrize("one", ["adapter", b"adapter"])
def test_one_path_is_no_list(one):
    with pytest.raises(ValueError, match=r"folders is b?'adapter', expected a list"):
        adapter_folders.expand(one)


@pytest.mark.parametrize(
    ("base", "model", "same"),
    [
        ("org/llama", "models/llama", True),
        ("org/llama/", "llama", True),
        (r"C:\models\llama", "models/llama", True),
        ("org/llama", "hub/models--org--llama/snapshots/0a1b", True),
        (".", "models/llama", True),
        ("org/llama", "models/llama-chat", False),
        ("org/llama", "hub/models--org--chat/snapshots/0a1b", False),
    ],
)
def test_bases_are_compared_by_name(base, model, same):
    said = list(adapter_folders.other_bases({"x": base, "y": None}, model))
    assert bool(said) != same
    if said:
        assert (
            f"The adapter x is of {base}, by its config, and not of {model};" in said[0]
        )


def test_two_folders_of_one_name_are_two_bases(tmp_path):
    for run in ("1", "2"):
        (tmp_path / run / "base").mkdir(parents=True)
    named = {"x": str(tmp_path / "1" / "base")}
    assert not list(adapter_folders.other_bases(named, tmp_path / "1" / "base"))
    assert list(adapter_folders.other_bases(named, tmp_path / "2" / "base"))
    (tmp_path / "1" / "base").rmdir()  # moved, perhaps
    assert not list(adapter_folders.other_bases(named, tmp_path / "2" / "base"))


def test_many_are_one_sentence(library):
    named = adapter_folders.bases(adapter_folders.expand([library]))
    assert list(named.values()) == ["org/a", "org/b", "org/c"]
    (said,) = adapter_folders.other_bases(named, "models/b")
    assert "a is of org/a, by its config, and not of models/b (as 2 adapters" in said
    config = library / "a" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 0}))
    (library / "a" / "manifest.json").unlink()  # it is changed on purpose
    with pytest.raises(ValueError, match="adapter_config"):
        adapter_folders.bases([library / "a"])
