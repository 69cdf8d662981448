import json
import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlora.io import peft, peft_config, peft_out
from jaxlora.io.peft import PeftAdapter, PeftModule


def module(rank, scale, dtype=np.float32):
    rng = np.random.default_rng(rank)
    a = rng.standard_normal((rank, 6)).astype(dtype)
    return PeftModule(a, rng.standard_normal((5, rank)).astype(dtype), scale)


def paths(n):
    return [f"model.layers.{i}.self_attn.q_proj" for i in range(n)]


def test_uniform_adapter_needs_no_patterns(tmp_path):
    modules = {path: module(4, 2.0) for path in paths(2)}
    adapter = PeftAdapter(modules=modules, base_name="some/base")
    peft_out.write(tmp_path / "out", adapter, targets=["q_proj"])
    raw = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (raw["r"], raw["lora_alpha"]) == (4, 8)
    assert raw["rank_pattern"] == raw["alpha_pattern"] == {}
    assert raw["target_modules"] == ["q_proj"]
    assert (raw["peft_type"], raw["task_type"]) == ("LORA", "CAUSAL_LM")
    assert raw["base_model_name_or_path"] == "some/base"
    assert raw["use_rslora"] is False


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_scale_and_rank_is_exact(sizes):
    modules = dict(
        zip(paths(len(sizes)), [module(r, s) for r, s in sizes], strict=True)
    )
    raw = peft_out.config(PeftAdapter(modules=modules))
    config = peft_config.Config(json.loads(json.dumps(raw)))
    for path, (rank, scale) in zip(modules, sizes, strict=True):
        assert config.rank_of(path) == rank
        assert config.scale_of(path) == scale


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_read_back(tmp_path, dtype):
    # Layer 1 and layer 11: a pattern for one must not match the other.
    modules = {path: module(3, 0.7, dtype) for path in paths(12)}
    modules[paths(12)[1]] = module(2, 1.5, dtype)
    peft_out.write(tmp_path / "out", PeftAdapter(modules=modules))
    read = peft.read(tmp_path / "out")
    assert read.base_name is None
    assert read.modules.keys() == modules.keys()
    for path, written in modules.items():
        got = read.modules[path]
        assert got.scale == pytest.approx(written.scale, rel=1e-15)
        for x, y in ((got.a, written.a), (got.b, written.b)):
            assert x.dtype == dtype
            np.testing.assert_array_equal(x, y)


def test_nothing_to_write(tmp_path):
    with pytest.raises(ValueError, match="no module to write"):
        peft_out.write(tmp_path / "out", PeftAdapter(modules={}))


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ValueError, match="exists already"):
        peft_out.write(tmp_path, PeftAdapter(modules={"x": module(1, 1.0)}))


def test_a_damaged_adapter_is_named_and_anothers_manifest_is_not_ours(tmp_path):
    folder = tmp_path / "out"
    peft_out.write(folder, PeftAdapter(modules={paths(1)[0]: module(4, 2.0)}))
    manifest, weights = folder / "manifest.json", folder / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    said = f"{weights} has another SHA-256 than manifest.json gives it: changed or"
    with pytest.raises(ValueError, match=re.escape(said)):
        peft.open_folder(folder)
    text = manifest.read_text()
    for other in (None, "{}", text.replace('"adapter"', '"theirs"')):
        manifest.unlink() if other is None else manifest.write_text(other)
        assert peft.read(folder).modules.keys() == {paths(1)[0]}
    manifest.unlink()
    manifest.mkdir()
    assert peft.read(folder).modules
