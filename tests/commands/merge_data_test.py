"""``jaxlora merge`` of methods that see data, from a file of them."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora.io import collection
from merge_runs import deltas, run


def data_file(small, path, by_module):
    """Grams for RegMean: adapter 0's inputs everywhere, and none of adapter 1."""
    found = collection.read([small / "plain", small / "plain2"])
    arrays = {}
    for group, modules in found.modules.items():
        size = found.library[group].a.shape[-2]
        gram = np.stack([np.eye(size), np.zeros((size, size))]).astype(np.float32)
        if by_module:
            arrays |= dict.fromkeys(modules, gram)
        else:
            arrays[group] = np.stack([gram] * len(modules), 1)
    save_file(arrays, path)
    return found


@pytest.mark.parametrize("by_module", [True, False])
def test_data_is_named_by_module_or_by_group(small, tmp_path, by_module):
    data = tmp_path / "grams.safetensors"
    found = data_file(small, data, by_module)
    flags = ("--method", "regmean", "--statistics", str(data))
    assert run(small, ("plain", "plain2"), *flags, out=tmp_path / "m") == 0
    made = collection.read([tmp_path / "m"]).adapter(0)
    for group, delta in deltas(found.adapter(0)).items():
        np.testing.assert_allclose(deltas(made)[group], delta, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.update(x=d.popitem()[1]), "has no data for 'model.layers.0.self"),
        (lambda d: d.update(x=np.zeros(2, np.float32)), "has data for 'x', which none"),
        (
            lambda d: d.update({min(d): d[min(d)][:1]}),
            "has shape (1, 2, 24, 24), expected 2 first",
        ),
        (
            lambda d: d.update({min(d): d[min(d)][:, :1]}),
            "has shape (2, 1, 24, 24), expected 2 in second place",
        ),
        (
            lambda d: d.update({min(d): d[min(d)][..., :1]}),
            "regmean got data of shape (2, 2, 24, 1)",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused(small, tmp_path, capsys, change, expected):
    data = tmp_path / "grams.safetensors"
    data_file(small, data, by_module=False)
    arrays = dict(sorted(load_file(data).items()))
    change(arrays)
    save_file(arrays, data)
    flags = ("--method", "regmean", "--statistics", str(data))
    assert run(small, ("plain", "plain2"), *flags, out=tmp_path / "m") == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [data]
