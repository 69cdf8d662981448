"""``merge``, ``fuse`` and ``inspect`` hold little more than one group, or the base."""

import json
import multiprocessing
import resource

import numpy as np
import pytest

from jaxlora.io import collection, collection_out, peft_out, shards
from jaxlora.io.peft import PeftAdapter, PeftModule

LAYERS, HIDDEN, MLP, RANK = 6, 512, 1536, 256  # 42 MB of factors each
SITES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, MLP),
    "mlp.up_proj": (HIDDEN, MLP),
    "mlp.down_proj": (MLP, HIDDEN),
}
SLACK = 60e6
"""Bytes of compiled programs, tables and the like."""


def write_adapter(folder, seed, sites=SITES):
    rng = np.random.default_rng(seed)

    def module(d, f):
        a, b = rng.standard_normal((RANK, d)), rng.standard_normal((f, RANK))
        return PeftModule(a.astype(np.float32), b.astype(np.float32), 0.01)

    modules = {
        f"model.layers.{i}.{name}": module(*size)
        for i in range(LAYERS)
        for name, size in sites.items()
    }
    peft_out.write(folder, PeftAdapter(modules=modules))
    return str(folder)


def write_base(folder):
    """A random llama in float32, of some 150 MB."""
    rng, layers = np.random.default_rng(0), 12
    tensors = {
        "model.embed_tokens.weight": (64, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for i in range(layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{norm}.weight"] = (HIDDEN,)
        for name, (d, f) in SITES.items():
            tensors[f"model.layers.{i}.{name}.weight"] = (f, d)
    values = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in tensors.items()
    }
    entries = {name: shards.entry_of(x) for name, x in values.items()}
    with shards.new_folder(folder) as new:
        shards.write_folder(new, entries, values.__getitem__)
        sizes = {
            "model_type": "llama",
            "vocab_size": 64,
            "hidden_size": HIDDEN,
            "intermediate_size": MLP,
            "num_hidden_layers": layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
        }
        (new / "config.json").write_text(json.dumps(sizes))
    return str(folder)


def _grown(words):
    """Bytes by which the largest resident set grows beyond that of the imports."""
    import jax.numpy as jnp

    from jaxlora import cli
    from jaxlora.commands import fuse, inspect, merge  # noqa: F401, imported before

    jnp.zeros(1).block_until_ready()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert cli.main(words) == 0
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def grown(*words):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grown, (list(map(str, words)),))


def size(*folders):
    return sum(path.stat().st_size for x in folders for path in x.glob("*.safetensors"))


@pytest.mark.slow
def test_peaks_are_of_a_group_or_of_the_result(tmp_path):
    two = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(two):
        write_adapter(folder, seed)
    read = size(*two)
    peak = grown("merge", *two, "--method", "mean", "--out", tmp_path / "mean")
    assert peak < 1.5 * read + SLACK
    assert grown("inspect", *two) < 0.6 * read + SLACK
    base = tmp_path / "base"
    write_base(base)
    write_adapter(tmp_path / "small", 3, {"mlp.up_proj": (HIDDEN, MLP)})
    peak = grown("fuse", base, tmp_path / "small", "--out", tmp_path / "x")
    output, adapter = size(tmp_path / "x"), size(tmp_path / "small")
    assert peak < output + 2 * adapter + SLACK


def test_what_is_written_group_by_group_is_what_was_read(tmp_path):
    write_adapter(tmp_path / "one", 0, {"q": (6, 8), "v": (5, 4)})
    opened = collection.open_folders([tmp_path / "one"])
    with collection_out.writing(tmp_path / "out", opened) as put:
        for site in opened.library:
            group = opened.library[site]
            put(site, type(group)(group.a[0], group.b[0], group.scale[0]))
    again = collection.open_folders([tmp_path / "out"])
    for site, group in opened.library.items():
        want = group.scale[..., None, None] * group.b
        np.testing.assert_array_equal(again.library[site].b, want)
        np.testing.assert_array_equal(again.library[site].a, group.a)
    assert sorted(x.name for x in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
