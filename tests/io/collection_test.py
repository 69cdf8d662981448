import json
import shutil
import tracemalloc
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxlora import lora
from jaxlora.io import collection, collection_about, collection_out, peft, peft_out
from jaxlora.io.peft import PeftAdapter, PeftModule
from jaxlora.lora import LoraWeight

LLAMA = Path(__file__).parents[1] / "data" / "hf" / "llama"
Q = "model.layers.*.self_attn.q_proj"
NAMES = ("plain", "pattern", "rslora")


@pytest.fixture(scope="module")
def llama():
    return collection.read([LLAMA / name for name in NAMES])


def module(d, f, rank=2, scale=1.0, dtype=np.float32, **options):
    rng = np.random.default_rng(d + f + rank)
    a, b = rng.standard_normal((rank, d)), rng.standard_normal((f, rank))
    return PeftModule(a.astype(dtype), b.astype(dtype), scale, **options)


def write(folder, modules, **options):
    peft_out.write(folder, PeftAdapter(modules=modules, **options))
    return folder


def config(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def test_every_delta_is_that_of_its_folder(llama):
    for e, name in enumerate(NAMES):
        modules = peft.read(LLAMA / name).modules
        seen = set()
        for group, weight in llama.adapter(e).items():
            deltas = np.asarray(lora.delta(weight))
            for i, path in enumerate(llama.modules[group]):
                expected = np.zeros(deltas.shape[1:], np.float32)
                if path in modules:
                    one = modules[path]
                    expected = one.scale * (one.b @ one.a).T
                    seen.add(path)
                np.testing.assert_allclose(deltas[i], expected, rtol=1e-5, atol=1e-6)
        assert seen == modules.keys()


def test_what_is_known_of_a_collection(llama):
    assert llama.names == NAMES
    assert llama.modules[Q] == tuple(Q.replace("*", n) for n in "01")
    assert llama.ranks[Q].tolist() == [[8, 8], [4, 2], [8, 8]]
    gate = "model.layers.*.mlp.gate_proj"
    assert llama.ranks[gate].tolist() == [[8, 8], [0, 0], [8, 8]]
    assert np.asarray(llama.library[gate].scale)[1].tolist() == [1, 1]
    assert (llama.base_names, llama.base_name) == ((None,) * 3, None)
    assert (llama.embeddings, llama.copies) == (frozenset(), ())
    assert lora.num_experts(llama.library) == 3


def test_layers_are_in_the_order_of_their_numbers(tmp_path):
    paths = [f"h.{i}.experts.{j}.up" for i in range(11) for j in range(3)]
    modules = {path: module(4, 5, scale=i + 1) for i, path in enumerate(paths)}
    read = collection.read([write(tmp_path / "x", modules)])
    assert read.modules == {"h.*.experts.*.up": tuple(paths)}
    scales = np.asarray(read.library["h.*.experts.*.up"].scale)
    np.testing.assert_allclose(scales, [np.arange(33) + 1])
    # MLPs of a mixture are no layers, even where there is one layer alone.
    for count in (1, 11):
        some = {path: modules[path] for path in paths[: 3 * count]}
        read = collection.read([write(tmp_path / str(count), some)])
        places = collection_about.places(read)
        assert places.layers == count
        assert places.sites[0][1] == tuple(np.arange(3 * count) // 3)


def test_numbers_within_a_name_are_part_of_it_and_shapes_part_groups(tmp_path):
    modules = {
        "conv1": module(4, 5),
        "conv2": module(4, 5),
        "layers.0.k": module(4, 5),
        "layers.1.k": module(4, 6),
        "layers.2.k": module(4, 5),
    }
    read = collection.read([write(tmp_path / "x", modules)])
    assert read.modules == {
        "conv1": ("conv1",),
        "conv2": ("conv2",),
        "layers.*.k[4x5]": ("layers.0.k", "layers.2.k"),
        "layers.*.k[4x6]": ("layers.1.k",),
    }
    collection_out.write(tmp_path / "y", read.adapter(0), read)
    assert peft.read(tmp_path / "y").modules.keys() == modules.keys()


def test_adapters_may_have_no_module_in_common(tmp_path):
    one = write(tmp_path / "one", {"q": module(4, 5)})
    two = write(tmp_path / "two", {"v": module(6, 5)})
    read = collection.read([one, two])
    assert {g: r.tolist() for g, r in read.ranks.items()} == {
        "q": [[2], [0]],
        "v": [[0], [2]],
    }


def test_types_are_kept_where_they_agree(tmp_path):
    half = ml_dtypes.bfloat16
    one = write(tmp_path / "one", {"q": module(4, 5, dtype=half), "v": module(4, 5)})
    two = write(tmp_path / "two", {q: module(4, 5, dtype=half) for q in "qv"})
    library = collection.read([one, two]).library
    assert (library["q"].a.dtype, library["v"].a.dtype) == (half, np.float32)


def test_written_with_scale_one_and_read_back(llama, tmp_path):
    collection_out.write(tmp_path / "out", llama.adapter(1), llama)
    raw = config(tmp_path / "out")
    assert raw["alpha_pattern"] == raw["rank_pattern"] != {}
    assert raw["lora_alpha"] == raw["r"]
    again = collection.read([tmp_path / "out"])
    assert again.ranks[Q].tolist() == [[4, 2]]
    for group, weight in again.adapter(0).items():
        np.testing.assert_allclose(
            lora.delta(weight), lora.delta(llama.adapter(1)[group]), rtol=1e-5
        )
        assert (np.asarray(weight.scale) == 1).all()


def test_short_names_where_they_mean_the_same(llama, tmp_path):
    collection_out.write(tmp_path / "all", llama.adapter(0), llama)
    assert config(tmp_path / "all")["target_modules"] == [
        f"{name}_proj" for name in ("down", "gate", "k", "o", "q", "up", "v")
    ]
    collection_out.write(tmp_path / "some", llama.adapter(1), llama)
    assert config(tmp_path / "some")["target_modules"] == sorted(
        peft.read(LLAMA / "pattern").modules
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r".*\.a"},
        {"layers_to_transform": 0, "target_modules": ["a"]},
        {"layers_to_transform": [0], "target_modules": ["a"]},
        {"exclude_modules": ["v"], "target_modules": ["a"]},
    ],
)
def test_full_names_where_short_ones_might_mean_more(fields, tmp_path):
    folder = write(tmp_path / "in", {"layers.0.q.a": module(3, 3)})
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(config(folder) | fields))
    (folder / "manifest.json").unlink()  # it is changed on purpose
    read = collection.read([folder])
    assert read.targets is None
    collection_out.write(tmp_path / "out", read.adapter(0), read)
    assert config(tmp_path / "out")["target_modules"] == ["layers.0.q.a"]


def test_a_path_that_ends_another_keeps_its_own_rank(tmp_path):
    modules = {"layers.0.q": module(4, 4, 3), "vision.layers.0.q": module(4, 4, 2)}
    modules["vision.layers.1.q"] = module(4, 4, 2)
    read = collection.read([write(tmp_path / "in", modules)])
    collection_out.write(tmp_path / "out", read.adapter(0), read)
    found = peft.read(tmp_path / "out").modules
    assert {path: m.a.shape[0] for path, m in found.items()} == {
        "layers.0.q": 3,
        "vision.layers.0.q": 2,
        "vision.layers.1.q": 2,
    }


def test_base_names_are_kept(tmp_path):
    one = write(tmp_path / "one", {"q": module(4, 5)}, base_name=None)
    two = write(tmp_path / "two", {"q": module(4, 5)}, base_name="a/b")
    three = write(tmp_path / "three", {"q": module(4, 5)}, base_name="/disk/b")
    read = collection.read([one, two, three])
    assert read.base_names == (None, "a/b", "/disk/b")
    collection_out.write(tmp_path / "out", read.adapter(0), read)
    assert config(tmp_path / "out")["base_model_name_or_path"] == "a/b"


def test_different_bases(tmp_path):
    one = write(tmp_path / "one", {"q": module(4, 5)})
    two = write(tmp_path / "two", {"q": module(4, 6)})
    table = write(tmp_path / "table", {"q": module(4, 5, embedding=True)})
    with pytest.raises(
        ValueError, match=r"two adapts 'q' as a linear layer from 4 to 6"
    ):
        collection.read([one, two])
    with pytest.raises(ValueError, match="an embedding from 4 to 5, expected a linear"):
        collection.read([one, table])


@pytest.mark.parametrize(
    ("folders", "names", "message"),
    [
        ([], None, "no adapter to read"),
        (["plain", "plain"], None, "Two adapters are called 'plain'"),
        (["plain", "dora"], ["x", "x"], "Two adapters are called 'x'"),
        (["plain"], ["x", "y"], "2 names for 1 adapters"),
        (["plain"], [""], "'' of .* is no line of text"),
        (["plain"], ["a\nb"], "is no line of text"),
        (["plain", "none"], None, "There is no folder"),
    ],
)
def test_bad_folders_and_names(folders, names, message):
    with pytest.raises(ValueError, match=message):
        collection.read([LLAMA / name for name in folders], names=names)


def test_one_folder_under_two_names_and_a_folder_named_by_dots(monkeypatch):
    monkeypatch.chdir(LLAMA / "plain")
    read = collection.read([".", LLAMA / "plain"], names=["a", "b"])
    np.testing.assert_array_equal(*read.library[Q].a)
    assert collection.read(["."]).names == ("plain",)


def test_progress(tmp_path):
    seen = []
    folder = write(tmp_path / "x", {"q": module(4, 5), "v": module(4, 5)})
    collection.read([folder], progress=lambda *step: seen.append(step))
    assert seen == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"other": a[Q]}, "a site 'other', expected one of 'model.lay"),
        (
            lambda a: a | {Q: LoraWeight(a[Q].a[0], a[Q].b[0], a[Q].scale[0])},
            r"shapes \(\(64, 8\), .*, expected \(\(2, 64, 8\)",
        ),
        (
            lambda a: a | {Q: a[Q].replace(b=a[Q].b.at[1, 0, 0].set(jnp.nan))},
            "NaN or infinity in 'model.layers.1.self_attn.q_proj'",
        ),
        (
            lambda a: a | {Q: a[Q].replace(scale=a[Q].scale * 3e38)},
            "NaN or infinity in 'model.layers.0.self_attn.q_proj'",
        ),
        (lambda a: {}, "no module to write"),
    ],
)
def test_adapter_that_cannot_be_written(llama, change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        collection_out.write(tmp_path / "out", change(llama.adapter(0)), llama)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_overwritten(llama, tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ValueError, match="exists already"):
        collection_out.write(tmp_path, llama.adapter(0), llama)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_memory_is_that_of_the_result_and_of_one_group(tmp_path):
    modules = {f"layers.{i}.{q}": module(512, 512, 8) for i in range(4) for q in "abcd"}
    folder = write(tmp_path / "x", modules)
    shutil.copytree(folder, tmp_path / "y")
    folders = [folder, tmp_path / "y"]
    collection.read(folders)  # what is imported and compiled is not of interest
    tracemalloc.start()
    try:
        read = collection.read(folders)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    group = next(iter(read.library.values()))
    one = group.a.nbytes + group.b.nbytes
    assert peak - kept < 2 * one  # all adapters at once would be five
