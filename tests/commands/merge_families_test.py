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
