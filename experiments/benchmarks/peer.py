"""What the benchmarks against PEFT and transformers share: one model on both sides."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxlora.models import Decoder, DecoderConfig, init, pretrained
from jaxlora.tree import Tree

SHAPES = {
    "wide": {"hidden_size": 256, "mlp_size": 1024, "vocab_size": 2048, "head_dim": 64},
    "narrow": {"hidden_size": 128, "mlp_size": 512, "vocab_size": 64, "head_dim": 32},
}
"""Llama-like decoders of four layers and four heads."""


def decoder(shape: str) -> Decoder:
    """Returns our model of a shape."""
    return Decoder(
        DecoderConfig(
            **SHAPES[shape],
            num_layers=4,
            num_heads=4,
            num_kv_heads=4,
            mlp="gated",
            activation="silu",
            positions="rope",
            max_length=256,
            unroll=4,
        )
    )


def base_of(model: Decoder) -> Tree:
    """Fresh weights, from a fixed key."""
    return jax.jit(init, static_argnums=1)(jax.random.key(0), model)


@contextlib.contextmanager
def theirs(model: Decoder, base: Tree) -> Iterator[Any]:
    """The same weights as a transformers model."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base"
        pretrained.save(path, model, base)
        yield AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def in_turn(
    sides: dict[str, Callable[[], Any]],
    tokens: dict[str, int],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Tokens per second of each side, by the median of rounds that take turns.

    With ``time.process_time`` as the clock they are seconds of all threads together,
    which another program on the same cores hardly changes.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for name, run in sides.items():
        start = time.perf_counter()
        run()
        print(f"{name}: first call {time.perf_counter() - start:.1f} s", flush=True)
    for _ in range(repeats):
        for name, run in sides.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {n: tokens[n] / statistics.median(s) for n, s in seconds.items()}


def table(rates: dict[str, float], peer: str) -> None:
    """Prints each side's rate, and its ratio to the peer's."""
    for name, rate in rates.items():
        print(f"{name:28s} {rate:10,.0f} tok/s   {rate / rates[peer]:5.2f} x {peer}")
