"""Peak memory and seconds of ``merge``, ``fuse`` and ``inspect`` on random files.

    python experiments/benchmarks/memory.py FOLDER               # about 2.3 GB of files
    python experiments/benchmarks/memory.py FOLDER --adapters 3 --only merge

Each command runs in a process of its own, after its imports: what is printed is the
growth of the largest resident set, in GB, beside the bytes of what it reads and writes.
A base is loaded as ``generate`` loads it. The files are made once, kept in FOLDER and
left there; only what the commands write is deleted.
"""

import dataclasses
import json
import multiprocessing
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import tyro

from jaxlora.io import peft_out, shards
from jaxlora.io.peft import PeftAdapter, PeftModule

HIDDEN, MLP, LAYERS = 2048, 5632, 9
SITES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN // 4),
    "self_attn.v_proj": (HIDDEN, HIDDEN // 4),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, MLP),
    "mlp.up_proj": (HIDDEN, MLP),
    "mlp.down_proj": (MLP, HIDDEN),
}
VOCABULARY = 4096
RANK = 256
GB = 1e9
LOAD = "load"
"""No command: what loads a base for commands."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measures commands."""

    folder: tyro.conf.Positional[Path]
    """Where random files are made."""
    adapters: int = 2
    """How many are merged, each of 0.34 GB."""
    only: tuple[str, ...] = ()
    """Names of measurements; by default all of them."""


def main(given: Arguments) -> None:
    """Prints a line a command."""
    files = made(given.folder, given.adapters)
    some, out = [*map(str, files["adapters"])], given.folder / "out"
    one, base, shapes = some[0], str(files["base"]), str(files["shapes"])
    calls = {
        "merge": (("merge", *some, "--method", "mean", "--out", str(out)), some),
        "merge svd": (("merge", *some, "--method", "svd", "--out", str(out)), some),
        "merge ties": (("merge", *some, "--method", "ties", "--out", str(out)), some),
        "merge dare": (("merge", *some, "--method", "dare", "--out", str(out)), some),
        "fuse": (("fuse", base, one, "--out", str(out)), [base]),
        "load": ((LOAD, base), [base]),
        "inspect": (("inspect", *some), some),
        "inspect 300 shapes": (("inspect", shapes), [shapes]),
    }
    print(f"{'command':20} {'read, GB':>9} {'written':>9} {'peak':>9} {'seconds':>8}")
    for name, (words, read) in calls.items():
        if given.only and name not in given.only:
            continue
        size = sum(bytes_of(Path(folder)) for folder in read) / GB
        peak, seconds = measured(words)
        written = bytes_of(out) / GB
        shutil.rmtree(out, ignore_errors=True)
        print(f"{name:20} {size:9.2f} {written:9.2f} {peak:9.2f} {seconds:8.1f}")


def measured(words: tuple[str, ...]) -> tuple[float, float]:
    """GB above the imports, and seconds, of one command in a new process."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool:
        return pool.apply(ran, (words,))


def ran(words: tuple[str, ...]) -> tuple[float, float]:
    """Runs in the child; its largest resident set so far is that of the imports."""
    import jax
    import jax.numpy as jnp

    from jaxlora import cli
    from jaxlora.commands import fuse, inspect, merge  # noqa: F401, imported before
    from jaxlora.models import pretrained

    jnp.zeros(1).block_until_ready()
    before, start = high_water(), time.perf_counter()
    if words[0] == LOAD:
        _, loaded = pretrained.load(words[1])
        jax.block_until_ready(loaded)
        code = 0
    else:
        code = cli.main(list(words))
    if code:
        raise SystemExit(f"jaxlora {' '.join(words)} ended with {code}")
    return (high_water() - before) / GB, time.perf_counter() - start


def high_water() -> int:
    """Bytes of the largest resident set of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bytes_of(folder: Path) -> int:
    """Bytes of tensors in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def made(folder: Path, count: int) -> dict:
    """Adapters, a base, and an adapter of 300 shapes; made if they are not there."""
    adapters = [folder / f"adapter{i}" for i in range(count)]
    for i, path in enumerate(adapters):
        if not path.exists():
            peft_out.write(path, adapter(i))
    base, shapes = folder / "base", folder / "shapes"
    if not base.exists():
        write_base(base)
    if not shapes.exists():
        peft_out.write(shapes, many_shapes())
    return {"adapters": adapters, "base": base, "shapes": shapes}


def adapter(seed: int) -> PeftAdapter:
    """Random factors on all projections."""
    rng = np.random.default_rng(seed)
    return PeftAdapter(
        modules={
            f"model.layers.{i}.{name}": module(rng, d, f, RANK)
            for i in range(LAYERS)
            for name, (d, f) in SITES.items()
        }
    )


def many_shapes(count: int = 300) -> PeftAdapter:
    """A module of each of many shapes."""
    rng = np.random.default_rng(0)
    modules = {f"model.m{i}": module(rng, 64 + i, 96 + i, 8) for i in range(count)}
    return PeftAdapter(modules=modules)


def module(rng: np.random.Generator, d: int, f: int, rank: int) -> PeftModule:
    """Factors of unit variance at a small scale."""
    down = rng.standard_normal((rank, d), dtype=np.float32)
    return PeftModule(down, rng.standard_normal((f, rank), dtype=np.float32), 0.01)


def write_base(folder: Path) -> None:
    """A random llama in float32."""
    shapes = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for i in range(LAYERS):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{i}.{norm}.weight"] = (HIDDEN,)
        for name, (d, f) in SITES.items():
            shapes[f"model.layers.{i}.{name}.weight"] = (f, d)
    rng = np.random.default_rng(0)
    entries = {
        name: shards.entry_of(np.broadcast_to(np.float32(0), shape))
        for name, shape in shapes.items()
    }
    with shards.new_folder(folder) as new:
        shards.write_folder(
            new,
            entries,
            lambda name: rng.standard_normal(shapes[name], dtype=np.float32),
            max_shard_bytes=10**9,
        )
        (new / "config.json").write_text(json.dumps(config()))


def config() -> dict:
    """What describes the base."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HIDDEN // 64,
        "num_key_value_heads": HIDDEN // 256,
        "head_dim": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments))
