import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import lora, models, parallel
from jaxlora import tree as named
from jaxlora.models import Decoder, DecoderConfig, adapters, pretrained
from jaxlora.models.calls import leaf_shapes

DATA = Path(__file__).parents[1] / "data" / "hf"
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")
APPLY = jax.jit(models.apply, static_argnums=0)
CLOSE = 2e-5
"""The stored logits are within 2e-6 of float64; this leaves room for another CPU."""


def reference(family):
    """(tokens [2, 8], logits [2, 8, V] by name)."""
    tokens = json.loads((DATA / family / "reference.json").read_text())["input_ids"]
    return jnp.asarray(tokens), load_file(DATA / family / "reference.safetensors")


def error(model, base, family, *, name="base", **options):
    tokens, logits = reference(family)
    got = np.asarray(APPLY(model, base, tokens, **options))
    return np.abs(got - logits[name]).max()


def copy(family, folder):
    shutil.copytree(DATA / family / "base", folder)
    return folder


def change(folder, *, config=(), without=(), **tensors):
    """Rewrites a checkpoint: fields of its config, and tensors by number of layer."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(config)))
    values = load_file(folder / "model.safetensors")
    values = {name: x for name, x in values.items() if name not in without} | tensors
    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def qwen2():
    return pretrained.load(DATA / "qwen2" / "base")


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family):
    model, base = pretrained.load(DATA / family / "base")
    assert error(model, base, family) < CLOSE
    for name in ("plain", "plain2", "rslora", "pattern"):
        adapter = adapters.load(DATA / family / name, base)
        assert error(model, base, family, name=name, adapter=adapter) < CLOSE
        # The adapter must matter, or the line above says nothing.
        assert error(model, base, family, name=name) > 0.1
    plain = adapters.load(DATA / family / "plain", base)
    fused = lora.fuse(base, plain)
    assert error(model, fused, family, name="plain_merge_and_unload") < CLOSE


@pytest.mark.parametrize("family", FAMILIES)
def test_written_checkpoint_has_the_tensors_of_the_original(family, tmp_path):
    source = DATA / family / "base"
    model, base = pretrained.load(source)
    pretrained.save(tmp_path / "out", model, base, like=source)
    ours, theirs = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "out", source)
    )
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        assert ours[name].dtype == values.dtype
        np.testing.assert_array_equal(ours[name], values)
    configs = [
        json.loads((folder / "config.json").read_text())
        for folder in (tmp_path / "out", source)
    ]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_shards_without_a_model_to_be_like(family, tmp_path):
    model, base = pretrained.load(DATA / family / "base")
    pretrained.save(tmp_path / "out", model, base, max_shard_bytes=100_000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 3
    again, read = pretrained.load(tmp_path / "out")
    assert again.config == model.config
    assert_same(read, base)


def assert_same(one, other):
    one, other = named.flatten(one), named.flatten(other)
    assert list(one) == list(other)
    for name, leaf in one.items():
        assert leaf.dtype == other[name].dtype, name
        np.testing.assert_array_equal(leaf, other[name], err_msg=name)


def test_bfloat16_there_and_back(tmp_path):
    model, base = pretrained.load(DATA / "qwen3" / "base", param_dtype="bfloat16")
    assert model.config.param_dtype == model.config.dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(base)} == {jnp.bfloat16.dtype}
    pretrained.save(tmp_path / "out", model, base, like=DATA / "qwen3" / "base")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {x.dtype for x in stored.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == (
        "bfloat16"
    )
    again, read = pretrained.load(tmp_path / "out")
    assert again.config == model.config
    assert_same(read, base)
    # Near, not equal: eight bits of each weight are left.
    assert 1e-4 < error(model, base, "qwen3") < 0.2


def test_types_are_what_config_or_tensors_say(tmp_path, qwen2):
    values = load_file(DATA / "qwen2" / "base" / "model.safetensors")
    half = copy("qwen2", tmp_path / "half")
    change(half, config={"dtype": "float16"}, **cast(values, np.float16))
    model, base = pretrained.load(half)
    assert model.config.param_dtype == "float32"
    assert base["embed"]["embedding"].dtype == jnp.float32
    brain = copy("qwen2", tmp_path / "brain")
    change(brain, config={"dtype": None}, **cast(values, ml_dtypes.bfloat16))
    assert pretrained.load(brain)[0].config.param_dtype == "bfloat16"
    assert pretrained.load(brain, param_dtype="float32")[0].config.dtype == "float32"
    assert pretrained.load(brain, dtype="float32")[0].config.param_dtype == "bfloat16"
    with pytest.raises(ValueError, match="dtype is 'int8', expected"):
        pretrained.load(brain, param_dtype="int8")  # pyrefly: ignore


def cast(values, dtype):
    return {name: x.astype(dtype) for name, x in values.items()}


def test_progress_ends_at_the_whole(qwen2):
    calls = []
    pretrained.load(DATA / "qwen2" / "base", progress=lambda *call: calls.append(call))
    totals = {total for _, total in calls}
    assert len(totals) == 1
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert (
        calls[-1][0]
        == calls[-1][1]
        == 4 * sum(leaf.size for leaf in jax.tree.leaves(qwen2[1]))
    )


def test_cut_over_a_mesh():
    mesh = parallel.mesh(fsdp=4, tensor=2)
    model, base = pretrained.load(DATA / "llama" / "base", mesh=mesh)
    _, whole = pretrained.load(DATA / "llama" / "base")
    shards = {
        name: leaf.addressable_shards[0].data.shape
        for name, leaf in named.flatten(base).items()
    }
    assert shards["layers/attn/q_proj/kernel"] == (2, 64 // 4, 64 // 2)
    assert shards["layers/attn/o_proj/kernel"] == (2, 64 // 2, 64 // 4)
    assert shards["layers/attn/k_proj/kernel"] == (2, 64 // 4, 32 // 2)
    assert shards["layers/mlp/down_proj/kernel"] == (2, 128 // 2, 64 // 4)
    assert shards["layers/mlp_norm/scale"] == (2, 64)
    assert shards["embed/embedding"] == (256 // 2, 64 // 4)
    assert shards["head"] == (64 // 4, 256 // 2)
    assert_same(base, whole)
    assert error(model, base, "llama") < CLOSE


def test_written_from_a_mesh(tmp_path):
    mesh = parallel.mesh(fsdp=8)
    model, base = pretrained.load(DATA / "gemma2" / "base", mesh=mesh)
    pretrained.save(tmp_path / "out", model, base)
    assert_same(pretrained.load(tmp_path / "out")[1], base)


def test_files_beside_the_weights_are_taken_over(tmp_path, qwen2):
    like = copy("qwen2", tmp_path / "like")
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        (like / name).write_text(name)
    (like / "training_args.bin").write_text("not this")
    pretrained.save(tmp_path / "out", *qwen2, like=like)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_model_of_another_kind_is_not_like_it(tmp_path, qwen2):
    with pytest.raises(ValueError, match=r"not like .*attention_bias: True, False"):
        pretrained.save(tmp_path / "out", *qwen2, like=DATA / "llama" / "base")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, qwen2):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ValueError, match="exists already"):
        pretrained.save(tmp_path, *qwen2)


def test_parameters_of_another_decoder(tmp_path, qwen2):
    model, base = qwen2
    with pytest.raises(ValueError, match=r"differ in .*layers/attn/q_norm/scale"):
        pretrained.save(
            tmp_path / "out",
            model,
            pretrained.load(DATA / "qwen3" / "base")[1]
            | {"final_norm": base["final_norm"]},
        )
    wider = named.map_named(
        lambda name, x: jnp.concatenate([x, x]) if name.startswith("final") else x, base
    )
    with pytest.raises(ValueError, match=r"'final_norm/scale' has the shape \(128,\)"):
        pretrained.save(tmp_path / "out", model, wider)


def test_model_of_our_own_has_no_format(tmp_path):
    model = Decoder(DecoderConfig(num_layers=1))
    base = jax.eval_shape(lambda: models.init(jax.random.key(0), model))
    with pytest.raises(ValueError, match="learned positions and a plain MLP"):
        pretrained.save(tmp_path / "out", model, base)


HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"


def test_copy_of_a_tied_head_is_dropped(tmp_path, qwen2):
    folder = copy("qwen2", tmp_path / "in")
    embedding = load_file(folder / "model.safetensors")[EMBED]
    change(folder, **{HEAD: embedding})
    model, base = pretrained.load(folder)
    assert model.config.tie_head
    assert_same(base, qwen2[1])


def test_head_that_differs_is_used_although_the_config_ties_it(tmp_path):
    folder = copy("qwen2", tmp_path / "in")
    embedding = load_file(folder / "model.safetensors")[EMBED]
    change(folder, **{HEAD: embedding * 2})
    model, base = pretrained.load(folder)
    assert not model.config.tie_head
    np.testing.assert_array_equal(base["head"], 2 * embedding.T)
    pretrained.save(tmp_path / "out", model, base, like=folder)
    assert_same(pretrained.load(tmp_path / "out")[1], base)


def test_tied_model_stored_by_its_head(tmp_path, qwen2):
    folder = copy("qwen2", tmp_path / "in")
    embedding = load_file(folder / "model.safetensors")[EMBED]
    change(folder, without=[EMBED], **{HEAD: embedding})
    assert_same(pretrained.load(folder)[1], qwen2[1])


def test_buffers_and_other_spellings(tmp_path, qwen2):
    folder = copy("qwen2", tmp_path / "in")
    values = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): x for name, x in values.items()}
    bare["layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    change(folder, without=list(values), **bare)
    assert_same(pretrained.load(folder)[1], qwen2[1])


@pytest.mark.parametrize("style", ["language_model.model.", "model.language_model."])
def test_text_model_of_gemma_with_vision(tmp_path, style):
    folder = copy("gemma3_text", tmp_path / "in")
    text = json.loads((folder / "config.json").read_text())
    outer = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
    values = load_file(folder / "model.safetensors")
    inner = {style + name.removeprefix("model."): x for name, x in values.items()}
    inner["vision_tower.patch.weight"] = np.ones((2, 2), np.float32)
    change(folder, without=list(values), **inner)
    (folder / "config.json").write_text(json.dumps(outer))
    model, base = pretrained.load(folder)
    assert error(model, base, "gemma3_text") < CLOSE
    pretrained.save(tmp_path / "out", model, base, like=folder)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == outer | {"tie_word_embeddings": True}
    assert_same(pretrained.load(tmp_path / "out")[1], base)


def test_whole_numbers_beside_the_parameters_are_buffers(tmp_path, qwen2):
    folder = copy("qwen2", tmp_path / "in")
    more = {"model.layers.0.self_attn.position_ids": np.arange(5)}
    change(folder, **more, **{"model.layers.0.self_attn.mask": np.ones(3, bool)})
    assert_same(pretrained.load(folder)[1], qwen2[1])


def test_sixty_four_bits_are_rounded_to_thirty_two(tmp_path, qwen2):
    folder = copy("qwen2", tmp_path / "in")
    path = folder / "model.safetensors"
    values = {name: x.astype(np.float64) for name, x in load_file(path).items()}
    change(folder, **values)
    assert_same(pretrained.load(folder)[1], qwen2[1])


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": [NORM]}, rf"lacks 1 tensors .*{NORM}"),
        ({"x.weight": np.ones(2, np.float32)}, r"holds also 1 tensors .*x\.weight"),
        (
            {"v_head.summary.weight": np.ones(2, np.float32)},
            r"v_head.* of another task",
        ),
        ({NORM: np.ones(63, np.float32)}, rf"{NORM}' has the shape \(63,\), .*\(64,\)"),
        ({NORM: np.ones(64, np.int8)}, rf"{NORM}' is stored as I8, .*quantised"),
        ({"x.scale": np.ones(2, np.uint8)}, r"is quantised: it holds 'x\.scale'"),
        (
            {NORM.replace("input", "base_layer.input"): np.ones(64, np.float32)},
            r"a PEFT model that was not merged: it holds",
        ),
        ({"x.weight_scale_inv": np.ones(2, np.float32)}, r"is quantised: it holds"),
        ({NORM: np.ones(64, np.complex64)}, r"stored as C64, .*no type of weights"),
        ({NORM: np.full(64, np.nan, np.float32)}, rf"{NORM}' .*NaN or infinity"),
        (
            {"config": {"num_hidden_layers": 3, "layer_types": None}},
            r"lacks 12 tensors",
        ),
        ({"config": {"num_hidden_layers": 1, "layer_types": None}}, r"holds also 12 "),
        ({"config": {"hidden_size": 32}}, r"has the shape \(256, 64\), .*\(256, 32\)"),
        ({"config": {"vocab_size": 300}}, r"\(256, 64\), expected \(300, 64\)"),
        ({"config": {"tie_word_embeddings": False}}, r"lacks 'lm_head.weight', and"),
        ({"config": {"model_type": "llama"}}, r"holds also 6 tensors .*bias"),
        ({"config": {"model_type": "bloom"}}, r"'bloom'.*supported are llama"),
        (
            {"config": {"quantization_config": {"bits": 4}}},
            r"quantised weights are read if bitsandbytes",
        ),
        (
            {"norm.weight": np.ones(64, np.float32)},
            r"holds 'model\.norm\.weight' twice",
        ),
    ],
)
def test_bad_checkpoint(tmp_path, changes, message):
    folder = copy("qwen2", tmp_path / "in")
    change(folder, **changes)
    with pytest.raises(ValueError, match=message):
        pretrained.load(folder)


def test_folder_without_a_config(tmp_path):
    folder = copy("qwen2", tmp_path / "in")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no file .*config\.json"):
        pretrained.load(folder)


MEASURE = """
import gc, os, sys, threading
import jax
from jaxlora.models import pretrained

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def watch():
    while not done.wait(0.001):
        seen.append(resident())

pretrained.load(sys.argv[1])  # compiles what it needs
gc.collect()
before, seen, done = resident(), [], threading.Event()
thread = threading.Thread(target=watch)
thread.start()
model, base = pretrained.load(sys.argv[1])
done.set()
thread.join()
size = sum(leaf.nbytes for leaf in jax.tree.leaves(base))
assert resident() - before > 0.8 * size  # the parameters are seen
print(max(seen) - before - size, size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_peak_memory_is_that_of_the_parameters_and_one_tensor(tmp_path):
    largest = synthetic(tmp_path / "base", hidden=1024, mlp=4096, layers=4)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "base"],
        capture_output=True,
        text=True,
        check=True,
        env={
            "JAX_PLATFORMS": "cpu",
            "PATH": "/usr/bin:/bin",
            # What is freed is no longer ours, and not kept for what comes next.
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": str(2**16),
        },
    )
    extra, size = map(int, run.stdout.split())
    assert size > 200e6
    # Beside the tensor lies which of its entries are finite, a quarter of its size. A
    # copy of it, mapped pages of the file, or the one before would be one more.
    assert extra < 1.75 * largest, f"{extra / largest:.2f} of the largest tensor"


def synthetic(folder, *, hidden, mlp, layers):
    """Writes a llama of zeros; returns the bytes of its largest tensor."""
    config = DecoderConfig(
        vocab_size=2048,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=8,
        num_kv_heads=8,
        head_dim=hidden // 8,
        mlp_size=mlp,
        mlp="gated",
        activation="silu",
        positions="rope",
        max_length=64,
    )
    model = Decoder(config)
    zeros = {x: np.zeros(y.shape, y.dtype) for x, y in leaf_shapes(model).items()}
    pretrained.save(folder, model, named.unflatten(zeros))
    return 4 * max(2048, mlp) * hidden
