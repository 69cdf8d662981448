"""Layers of several MLPs: ours, and transformers' Mixtral on the same weights.

    python experiments/benchmarks/mixtral.py

Needs torch and transformers beside jaxlora. Hidden 256, MLP 512, two layers, two MLPs
for each token, float32. With the same tokens to send, the number of MLPs grows: work
that grows with tokens stays where it is, work that grows with MLPs does not. The dense
side is a decoder with a single MLP of twice the width, which costs what two do.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import peer
import tyro

from jaxlora import models
from jaxlora.models import Decoder, DecoderConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tokens per second, forward."""

    batch: int = 8
    """B."""
    length: int = 64
    """T."""
    mlps: tuple[int, ...] = (4, 8, 16, 32)
    """X, of a layer."""
    repeats: int = 7
    """Measurements of each side; the median counts."""
    cpu: bool = False
    """Count seconds of the processor and not of the clock, on a machine in use."""


def main(given: Arguments) -> None:
    """Prints a table for each number of MLPs."""
    shape = (given.batch, given.length)
    tokens = np.random.default_rng(0).integers(3, 512, shape).astype(np.int32)
    dense = Decoder(dataclasses.replace(config(0), mlp_size=1024))
    run = forward(dense, tokens)
    clock = time.process_time if given.cpu else time.perf_counter
    alone = peer.in_turn({"dense": run}, {"dense": tokens.size}, given.repeats, clock)
    for count in given.mlps:
        measure(given, tokens, count, alone["dense"], clock)


def measure(given, tokens: np.ndarray, count: int, dense: float, clock) -> None:
    """Prints both sides for one number of MLPs, after they gave the same logits."""
    model = Decoder(config(count))
    base = peer.base_of(model)
    with peer.theirs(model, base) as network:
        sides = {
            "jaxlora": forward(model, tokens),
            "transformers": lambda: theirs(network, tokens),
        }
        error = np.abs(sides["jaxlora"]() - sides["transformers"]()).max()
        print(f"\n{count} MLPs a layer; largest difference of logits {error:.1e}")
        sizes = dict.fromkeys(sides, tokens.size)
        rates = peer.in_turn(sides, sizes, given.repeats, clock)
        peer.table(rates, "transformers")
        print(f"{'jaxlora beside dense':28s} {rates['jaxlora'] / dense:10.2f} x")


def config(count: int) -> DecoderConfig:
    """A decoder with this many MLPs in a layer; 0 for a single one."""
    return DecoderConfig(
        vocab_size=512,
        hidden_size=256,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=64,
        mlp_size=512,
        mlp="gated",
        activation="silu",
        positions="rope",
        max_length=256,
        moe_mlps=count,
    )


def forward(model: Decoder, tokens: np.ndarray):
    """A function that returns logits [B, T, V]."""
    base, call = peer.base_of(model), jax.jit(models.apply, static_argnums=0)
    return lambda: np.asarray(call(model, base, jnp.asarray(tokens)))


def theirs(network, tokens: np.ndarray) -> np.ndarray:
    """What transformers computes."""
    import torch

    with torch.inference_mode():
        ids = torch.from_numpy(tokens.astype(np.int64))
        return network(ids, use_cache=False).logits.numpy()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
