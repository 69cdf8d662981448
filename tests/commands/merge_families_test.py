"""``jaxlora merge`` of adapters of other families: each module is there again."""

import pathlib

import numpy as np
import pytest

from jaxlora.commands import merge
from jaxlora.io import peft

DATA = pathlib.Path(__file__).parents[1] / "data" / "families"


def deltas(folder):
    return {
        path: module.scale * module.b @ module.a
        for path, module in peft.read(pathlib.Path(folder)).modules.items()
    }


@pytest.mark.parametrize(
    ("first", "second", "modules"),
    [
        ("gpt2/adapter1", "gpt2/adapter2", 8),
        ("mixtral/adapter1", "mixtral/experts", 8 + 24),
        ("qwen3_5_text/adapter1", "qwen3_5_text/adapter2", 4 * 3 + 2 * 4 + 2 * 5),
    ],
)
def test_the_mean_has_every_module(first, second, modules, tmp_path):
    folders = [str(DATA / name) for name in (first, second)]
    out = tmp_path / "out"
    assert merge.run([*folders, "--method", "mean", "--out", str(out)]) == 0
    got, parts = deltas(out), [deltas(folder) for folder in folders]
    assert set(got) == set(parts[0]) | set(parts[1])
    assert len(got) == modules
    for path, delta in got.items():
        want = sum(part[path] for part in parts if path in part) / 2
        np.testing.assert_allclose(delta, want, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "shares"),
    [
        ("placed-both --ends 0.1", ([1, 0.5, 0.5, 1], [1, 0.5, 0.5, 1])),
        ("placed-sum --layers 1-2 0,3", ([0, 1, 1, 0], [1, 0, 0, 1])),
    ],
)
def test_merges_by_layer_know_the_layers_of_several_kinds(words, shares, tmp_path):
    names = "qwen3_5_text/adapter1", "qwen3_5_text/adapter2"
    check_layers(names, words, shares, tmp_path / "out")


def test_mlps_of_a_mixture_are_kept_by_their_layer(tmp_path):
    names = "mixtral/adapter1", "mixtral/experts"
    words, shares = "placed-sum --layers 1 0-1", ([0, 1], [1, 1])
    check_layers(names, words, shares, tmp_path / "out")


def check_layers(names, words, shares, out):
    """The sum of what each adapter is worth at each layer."""
    folders = [str(DATA / name) for name in names]
    assert merge.run([*folders, "--method", *words.split(), "--out", str(out)]) == 0
    parts = [deltas(folder) for folder in folders]
    for path, delta in deltas(out).items():
        layer = int(path.split("layers.")[1].split(".")[0])
        each = zip(parts, shares, strict=True)
        want = sum(share[layer] * part[path] for part, share in each if path in part)
        np.testing.assert_allclose(delta, want, atol=1e-5, err_msg=path)
