"""Merging adapters of Qwen2.5-0.5B's dimensions: ours, and PEFT's on the same factors.

    python experiments/benchmarks/merge.py                   # both sides, all methods
    python experiments/benchmarks/merge.py --no-peft --curve # 2 to 64 experts

Eight adapters of rank 16 on all seven projections of 24 layers (hidden 896, MLP 4864,
128 key features), float32. Each side starts with its adapters in memory and ends with
the merged one; compilation is printed apart. PEFT needs torch, transformers and peft.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxlora import lora, merge

SITES = {
    "q_proj": (896, 896),
    "k_proj": (896, 128),
    "v_proj": (896, 128),
    "o_proj": (896, 896),
    "gate_proj": (896, 4864),
    "up_proj": (896, 4864),
    "down_proj": (4864, 896),
}
FAST = (
    "linear[peft]",
    "cat[peft]",
    "ties[peft]",
    "dare_linear[peft]",
    "dare_ties[peft]",
    "magnitude_prune[peft]",
)
"""Methods that take PEFT seconds."""
SLOW = ("svd[peft]", "ties_svd[peft]")
"""Methods that take PEFT minutes: measured once, with reduced matrices."""
CORE = ("ties", "dare")
"""Methods PEFT does not have; shown against its ties_svd."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Seconds of a merge."""

    experts: int = 8
    """E."""
    layers: int = 24
    """L."""
    rank: int = 16
    """R of every adapter."""
    repeats: int = 3
    """Measurements; the median counts. Slow methods of PEFT are measured once."""
    peft: bool = True
    """Measure PEFT too."""
    methods: tuple[str, ...] = (*FAST, *SLOW, *CORE)
    """Names of merges."""
    curve: bool = False
    """Instead: 2, 4, ..., 64 experts on one gate_proj, the core SVD apart."""


def main(given: Arguments) -> None:
    """Prints a line a method."""
    if given.curve:
        return curve(given)
    library = make_library(given)
    network = theirs(library, given) if given.peft else None
    print(f"{'method':24} {'ours':>9} {'compile':>9} {'PEFT':>9} {'ratio':>8}")
    slowest = None
    for name in given.methods:
        peers = measured(network, name, given) if network else None
        slowest = peers if name == "ties_svd[peft]" else slowest
        run, compiling = compiled(name, library, given.experts)
        ours = median(run, given.repeats)
        against = slowest if name in CORE else peers
        tail = f"{against:8.2f}s {against / ours:7.1f}x" if against else ""
        print(f"{name:24} {ours:8.3f}s {compiling:8.1f}s {tail}", flush=True)
    return None


def make_library(given: Arguments) -> lora.Library:
    """Random factors, from a fixed seed."""
    rng = np.random.default_rng(0)

    def site(d: int, f: int) -> lora.LoraWeight:
        lead = (given.experts, given.layers)
        a = rng.standard_normal((*lead, d, given.rank), np.float32) / np.float32(30)
        b = rng.standard_normal((*lead, given.rank, f), np.float32) / np.float32(100)
        return lora.LoraWeight(jnp.asarray(a), jnp.asarray(b), jnp.ones(lead))

    return {name: {"kernel": site(*size)} for name, size in SITES.items()}


def compiled(name: str, library: lora.Library, experts: int):
    """Our merge, ready to run, and the seconds of compilation."""
    density = {"density": 0.5} if "density" in merge.describe(name).fields else {}
    method = merge.preset(name, **density)
    weights = weights_of(experts)
    key = jax.random.key(0)
    start = time.perf_counter()
    program = jax.jit(method).lower(library, weights, key=key).compile()
    seconds = time.perf_counter() - start
    return functools.partial(program, library, weights, key=key), seconds


def weights_of(experts: int) -> np.ndarray:
    """Unequal, so that no side can skip them."""
    return np.linspace(0.5, 1.0, experts, dtype=np.float32)


def median(run: Callable[[], Any], repeats: int) -> float:
    """Seconds; one call before does not count."""
    jax.block_until_ready(run())
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def theirs(library: lora.Library, given: Arguments) -> Any:
    """The same factors as adapters of a transformers model of these dimensions."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.set_num_threads(2)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=given.layers,
        num_attention_heads=14,
        num_key_value_heads=2,
    )
    targets = LoraConfig(
        r=given.rank, lora_alpha=given.rank, target_modules=list(SITES)
    )
    network = get_peft_model(Qwen2ForCausalLM(config), targets, adapter_name="expert0")
    for i in range(1, given.experts):
        network.add_adapter(f"expert{i}", targets)
    with torch.no_grad():
        for path, module in network.named_modules():
            if hasattr(module, "lora_A") and path.split(".")[-1] in SITES:
                layer = int(path.split(".layers.")[1].split(".")[0])
                weight = library[path.split(".")[-1]]["kernel"]
                for i in range(given.experts):
                    a, b = weight.a[i, layer], weight.b[i, layer]
                    module.lora_A[f"expert{i}"].weight.copy_(tensor(a.T))
                    module.lora_B[f"expert{i}"].weight.copy_(tensor(b.T))
    return network


def tensor(values: jax.Array) -> Any:
    """A torch tensor of its own."""
    import torch

    return torch.from_numpy(np.array(values))


def measured(network: Any, name: str, given: Arguments) -> float | None:
    """Seconds of PEFT's add_weighted_adapter, or None if it has no such method."""
    if not name.endswith("[peft]"):
        return None
    kind = name.removesuffix("[peft]")
    options: dict[str, Any] = {"combination_type": kind}
    if "svd" in kind:
        options |= {"svd_rank": given.rank, "svd_full_matrices": False}
    if kind not in ("linear", "cat", "svd"):
        options["density"] = 0.5
    names = [f"expert{i}" for i in range(given.experts)]
    weights = weights_of(given.experts).tolist()
    found = []
    for _ in range(1 if name in SLOW else given.repeats + 1):
        start = time.perf_counter()
        network.add_weighted_adapter(names, weights, adapter_name="merged", **options)
        found.append(time.perf_counter() - start)
        network.delete_adapter("merged")
    return statistics.median(found[1:] or found)


def curve(given: Arguments) -> None:
    """Cost over the number of experts, and that of the small SVD alone."""
    print(f"{'E':>3} {'sum R':>6} {'svd':>9} {'core SVD':>9} {'share':>6} {'ties':>9}")
    for experts in (2, 4, 8, 16, 32, 64):
        few = dataclasses.replace(given, experts=experts, layers=1)
        library = {"gate_proj": make_library(few)["gate_proj"]}
        seconds = {}
        for name in ("svd", "ties"):
            run, _ = compiled(name, library, experts)
            seconds[name] = median(run, given.repeats)
        total = experts * given.rank
        core = jnp.asarray(
            np.random.default_rng(0).standard_normal((min(total, 896), total)),
            jnp.float32,
        )
        small = jax.jit(functools.partial(jnp.linalg.svd, full_matrices=False))
        alone = median(lambda f=small, x=core: f(x), given.repeats)
        share = alone / seconds["svd"]
        print(
            f"{experts:3} {total:6} {seconds['svd']:8.3f}s {alone:8.3f}s {share:6.0%} "
            f"{seconds['ties']:8.3f}s",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
