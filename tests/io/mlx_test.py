"""Adapters of mlx-lm, and adapters in shards: the same as those of PEFT."""

import json
import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora.io import collection, peft

DATA = pathlib.Path(__file__).parents[1] / "data" / "adapters"
FIELDS = {"rank": 2, "scale": 3.0, "dropout": 0.0}


def mlx(folder, kind, parameters=FIELDS, **fields):
    """An adapter of PEFT as mlx-lm writes it."""
    spelled = {
        ".lora_A.weight": ".lora_a",
        ".lora_B.weight": ".lora_b",
        ".lora_embedding_A": ".lora_a",
        ".lora_embedding_B": ".lora_b",
        ".lora_magnitude_vector": ".m",
    }
    tensors = {}
    for key, values in load_file(DATA / kind / "adapter_model.safetensors").items():
        for theirs, ours in spelled.items():
            if theirs in key:
                name = key.removeprefix("base_model.model.").replace(theirs, ours)
                tensors[name] = np.ascontiguousarray(values.T)
    folder.mkdir()
    save_file(tensors, folder / "adapters.safetensors")
    raw = {"fine_tune_type": "lora", "num_layers": 2, "model": "base", "seed": 0}
    raw |= {"lora_parameters": parameters} | fields
    (folder / "adapter_config.json").write_text(json.dumps(raw))
    return folder


def assert_same(first, second):
    assert first.modules.keys() == second.modules.keys()
    for path, module in first.modules.items():
        other = second.modules[path]
        assert (other.scale, other.embedding) == (module.scale, module.embedding)
        for part in ("a", "b", "magnitude"):
            np.testing.assert_array_equal(getattr(other, part), getattr(module, part))


@pytest.mark.parametrize("kind", ["tied/dora", "untied/embed", "untied/head"])
def test_an_adapter_of_mlx_is_that_of_peft(kind, tmp_path):
    dora = {"fine_tune_type": "dora"} if kind == "tied/dora" else {}
    folder = mlx(tmp_path / "mlx", kind, **dora)
    assert_same(peft.read(DATA / kind), peft.read(folder))
    assert peft.open_folder(folder).base_name == "base"
    tied = kind != "tied/dora"  # which adapts neither the table nor the head
    assert peft.open_folder(folder).tied == tied


def test_both_kinds_are_one_library(tmp_path):
    folder = mlx(tmp_path / "mlx", "untied/head")
    library = collection.read([DATA / "untied/head", folder])
    for weight in library.library.values():
        np.testing.assert_array_equal(weight.a[0], weight.a[1])
        np.testing.assert_array_equal(weight.b[0], weight.b[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fine_tune_type": "full"}, "'full', expected 'lora' or 'dora'; weights of"),
        ({"parameters": {"rank": 2}}, "expected numbers rank and scale"),
        ({"parameters": [1]}, "expected numbers rank and scale"),
        ({"parameters": FIELDS | {"alpha": 16}}, "releases before 0.20 multiplied"),
        ({"parameters": FIELDS | {"rank": 4}}, r"expected \(4, in\)"),
    ],
)
def test_what_mlx_says_otherwise_is_refused(fields, message, tmp_path):
    folder = mlx(tmp_path / "mlx", "untied/head", **fields)
    with pytest.raises(ValueError, match=message):
        peft.read(folder)


def test_other_tensors_and_no_file(tmp_path):
    folder = mlx(tmp_path / "mlx", "untied/head")
    path = folder / "adapters.safetensors"
    save_file(load_file(path) | {"norm.weight": np.ones(2, np.float32)}, path)
    with pytest.raises(ValueError, match=r"'norm.weight' of the MLX adapter is no"):
        peft.read(folder)
    path.unlink()
    with pytest.raises(ValueError, match=r"config of mlx-lm and no adapters.safe"):
        peft.read(folder)


def sharded(folder, kind):
    """The tensors of an adapter in two files with an index."""
    tensors = load_file(DATA / kind / "adapter_model.safetensors")
    folder.mkdir()
    places = {}
    for i in (0, 1):
        name = f"adapter_model-0000{i + 1}-of-00002.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[i::2]}
        save_file(part, folder / name)
        places |= dict.fromkeys(part, name)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (folder / "adapter_model.safetensors.index.json").write_text(index)
    config = (DATA / kind / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(config)
    return folder


def test_shards_are_read_by_their_index(tmp_path):
    folder = sharded(tmp_path / "shards", "tied/dora")
    assert_same(peft.read(DATA / "tied/dora"), peft.read(folder))
    (folder / "adapter_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks 1 of 2 shards"):
        peft.read(folder)
    (folder / "adapter_model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match=r"only shards such as .* without"):
        peft.read(folder)
