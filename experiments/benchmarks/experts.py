"""Experts in one vmapped program against the same experts one after another.

    python experiments/benchmarks/experts.py

Shapes are those of the two-hop study: hidden 128, MLP 512, 4 layers, rank 8 on every
projection, 7 rows of 3 tokens an expert. Compile time is printed apart. The two sides
run in turn, in one process, so that a drift of the machine's speed hits both.
"""

import dataclasses
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import optax
import tyro

from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig, init
from jaxlora.train.full_batch import fit_experts
from jaxlora.train.step import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tokens per second of training E experts, together and one by one."""

    experts: tuple[int, ...] = (1, 8, 32, 126)
    """Numbers of experts E."""
    rows: int = 7
    """Rows per expert; every step sees all of them."""
    steps: int = 20
    """Steps per measurement."""
    repeats: int = 5
    """Measurements; the median is printed."""


def main(given: Arguments) -> None:
    """Prints one line a number of experts."""
    model = Decoder(DecoderConfig(vocab_size=98, max_length=9, unroll=4))
    base = init(jax.random.key(0), model)
    opt, config = optax.adam(3e-3), LoraConfig()
    print(f"{jax.devices()[0].device_kind}; {given.rows} rows of 3 tokens an expert")
    print("   E   compile s   one by one tok/s   together tok/s   ratio")
    for number in given.experts:
        rows = make_rows(number, given.rows)
        keys = jax.random.split(jax.random.key(1), number)

        run = functools.partial(fit_experts, model, opt, config, given.steps, 97, base)
        compiling = seconds(run, rows, keys)
        one_by_one(run, rows, keys)
        alone, together = [], []
        for _ in range(given.repeats):
            alone.append(seconds(one_by_one, run, rows, keys))
            together.append(seconds(run, rows, keys))
        tokens = number * given.rows * 3 * given.steps
        a, b = (tokens / statistics.median(x) for x in (alone, together))
        print(
            f"{number:4d}   {compiling:9.1f}   {a:16,.0f}   {b:14,.0f}   {b / a:5.2f}"
        )


def make_rows(number: int, rows: int) -> Batch:
    """Random rows answered at their last token: [E, N, 3]."""
    shape = (number, rows, 3)
    tokens = jax.random.randint(jax.random.key(2), shape, 0, 90)
    return Batch(tokens, tokens, jnp.zeros(shape).at[..., 2].set(1.0))


def one_by_one(run, rows: Batch, keys: jax.Array) -> list:
    """Trains each expert alone, in a program for one."""
    cut = [slice(i, i + 1) for i in range(len(keys))]
    return [run(jax.tree.map(lambda x, c=c: x[c], rows), keys[c]) for c in cut]


def seconds(call, *arguments) -> float:
    """Wall time of one call, its result included."""
    start = time.perf_counter()
    jax.block_until_ready(call(*arguments))
    return time.perf_counter() - start


if __name__ == "__main__":
    main(tyro.cli(Arguments))
