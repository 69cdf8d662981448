"""``jaxlora merge`` of methods that tell layers apart."""

import numpy as np
import pytest

from jaxlora import cli
from jaxlora.io import collection, peft_out
from jaxlora.io.peft import PeftAdapter, PeftModule
from merge_runs import deltas


def adapter_of(folder, layers):
    """An adapter of rank 2 of one module in some layers."""
    rng = np.random.default_rng(sum(map(ord, folder.name)))
    modules = {
        f"model.layers.{i}.q_proj": PeftModule(
            rng.standard_normal((2, 6), dtype=np.float32),
            rng.standard_normal((5, 2), dtype=np.float32),
            1.0,
        )
        for i in layers
    }
    peft_out.write(folder, PeftAdapter(modules=modules))
    return str(folder)


@pytest.mark.parametrize("flags", [["--layers=0,2 1"], ["--layers", "0,2", "1"], []])
def test_each_layer_has_the_adapter_that_is_placed_there(tmp_path, flags):
    paths = [adapter_of(tmp_path / n, range(k)) for n, k in (("x", 4), ("y", 3))]
    out = ["--out", str(tmp_path / "m"), "--method", "placed-sum", *flags]
    assert cli.main(["merge", *paths, *out]) == 0
    found = collection.read([*paths, tmp_path / "m"]).library
    ((x, y, merged),) = deltas(found).values()
    zero = np.zeros_like(x[0])
    wanted = [x[0], y[1], x[2], zero] if flags else [x[0], x[1], y[2], zero]
    np.testing.assert_allclose(merged, np.stack(wanted), atol=1e-5)
    assert abs(x[1] - y[1]).max() > 0.1


@pytest.mark.parametrize(
    ("layers", "method", "missing"),
    [
        ([2, 3], "placed-sum", "layer 0, and some in layer 3"),
        ([0, 2], "placed-both", "layer 1, and some in layer 2"),
        ([0, 999999999], "placed-sum", "layer 1, and some in layer 999999999"),
    ],
)
def test_layers_that_are_not_numbered_from_0_are_refused(
    tmp_path, capsys, layers, method, missing
):
    paths = [adapter_of(tmp_path / name, layers) for name in "xy"]
    out = ["--out", str(tmp_path / "m"), "--method"]
    assert cli.main(["merge", *paths, *out, method]) == 2
    said = capsys.readouterr().err
    assert f"no adapter has a module in {missing}; expected" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "m").exists()
    assert cli.main(["merge", *paths, *out, "sum"]) == 0
