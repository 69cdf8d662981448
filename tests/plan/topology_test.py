"""Names of devices, and what is said of those that do not exist."""

import pytest

from jaxlora.plan import topology
from jaxlora.plan.topology import describe


@pytest.mark.parametrize(
    ("name", "full", "count"),
    [
        ("v5e:4x4", "v5e:4x4", 16),
        ("v5e-16", "v5e:4x4", 16),
        ("v5p-8", "v5p:2x2x1", 4),
        ("v5p-64", "v5p:2x4x4", 32),
        ("v6e-8", "v6e:2x4", 8),
        ("v5p:8x8x16", "v5p:8x8x16", 1024),
        ("h100:8", "h100:8", 8),
    ],
)
def test_names_of_slices_and_of_the_cloud(name, full, count):
    where = describe(name, compiled=False)
    assert (where.name, where.count, where.devices) == (full, count, ())
    assert where.chip is not None


def test_this_machine_has_its_devices():
    where = describe("")
    assert (where.name, where.platform, len(where.devices)) == ("cpu:8", "cpu", 8)
    assert len(describe("cpu:4").devices) == 4
    numbers = describe("", compiled=False)
    assert (numbers.count, numbers.devices) == (8, ())


def test_more_devices_than_there_are_is_a_note():
    where = describe("cpu:64")
    assert where.devices == ()
    assert "There are 8 devices of cpu here, not 64" in where.note


def test_without_the_compiler_a_note_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda _: None)
    where = describe("v5e:4x4")
    assert where.devices == ()
    assert "pip install 'jax[tpu]'" in where.note


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5litepod-16", "did you mean v5e-16"),
        ("v5litepod:4x4", "did you mean v5e:4x4"),
        ("v7e:4x4", "there are v5e:4x4, v6e:4x4, v5p:2x2x4, h100:8 and cpu:8"),
        ("v5e:3x3", "of v5e there are v5e:2x2, v5e:2x4"),
        ("v5p-7", "of v5p there are v5p:2x2x1"),
        ("v5p-9", "of v5p there are v5p:2x2x1"),
        ("h100", "give a number up to 4096, as in h100:8"),
        ("cpu:0", "give a number up to 4096, as in cpu:8"),
        ("cpu:5000", "give a number up to 4096"),
        ("h100:1000000000000", "give a number up to 4096"),
    ],
)
def test_a_topology_that_does_not_exist(name, words):
    with pytest.raises(ValueError, match=words):
        describe(name)
