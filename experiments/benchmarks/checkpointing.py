r"""What saving costs a training, and how long it takes to go on.

    python experiments/benchmarks/checkpointing.py
    python experiments/benchmarks/checkpointing.py --experts 126 --rank 8 --hidden 128 \
        --length 8

The second is of the two-hop study's size, all experts of a seed at once; the first has
eight experts of rank 16 on every projection of a decoder of hidden 256. AdamW, float32:
the state is adapters and two moments. Chunks of updates without any save, with saves
that the run waits for, and with saves beside it; then a restore. A command saves once a
minute, and less often where its waiting would be more than 2% of the time.
"""

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxlora import lora
from jaxlora.io import checkpoint
from jaxlora.models import Decoder, DecoderConfig, init
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed
from jaxlora.train.training import Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Sizes of what is trained."""

    experts: int = 8
    """E."""
    rank: int = 16
    """R."""
    hidden: int = 256
    """D; the MLP has four times as many units."""
    layers: int = 4
    """L."""
    batch: int = 4
    """Rows of an update of each expert."""
    length: int = 64
    """Tokens of a row."""
    chunks: int = 12
    """Chunks of 8 updates that are timed."""
    every: int = 4
    """Chunks between two saves."""


def main(given: Arguments) -> None:
    """Prints a line a measurement."""
    program, base, run, plan, rows = _setting(given)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(run)) / 2**20
    print(f"{jax.devices()[0].device_kind}; state {size:.0f} MiB, E {given.experts}")

    def chunk(state):
        state, report = packed.updates(program, base, state, plan, rows)
        jax.block_until_ready(report.loss)
        return state

    run = chunk(run)  # compiles
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "run"
        run, alone = _time(given, chunk, run, lambda step, state: None)
        with checkpoint.Saver(folder) as saver:

            def beside(step: int, state) -> None:
                saver.save(step, state, {})
                if step == last:  # what a run waits for when it ends
                    saver.wait()

            def waiting(step: int, state) -> None:
                saver.save(step, state, {})
                saver.wait()

            run, waited = _time(given, chunk, run, waiting)
            last = int(run.step) + 8 * given.chunks
            run, both = _time(given, chunk, run, beside)
        print(
            "seconds, and of processor; a save: stops the run, costs it, of processor"
        )
        print(f"no save       {alone.wall:8.2f} {alone.processor:8.2f}")
        for name, spent in (("waited for", waited), ("beside the run", both)):
            print(f"{name:14}{_cost(given, alone, spent)}")
        begun, before = time.monotonic(), time.process_time()
        target = jax.eval_shape(lambda: run)
        jax.block_until_ready(checkpoint.restore(folder, target)[1])
        wall, processor = time.monotonic() - begun, time.process_time() - before
        print(f"resume        {wall:8.2f} {processor:8.2f}")


def _cost(given: Arguments, alone: "Spent", spent: "Spent") -> str:
    """What saves cost, and what that is of a run that saves once a minute."""
    saves = given.chunks // given.every
    cost = (spent.wall - alone.wall) / saves
    work = (spent.processor - alone.processor) / saves
    cores = os.cpu_count() or 1
    return (
        f"{spent.wall:8.2f} {spent.processor:8.2f}; {spent.stop:.3f} s, {cost:.3f} s "
        f"({100 * cost / 60:.2f}% at one a minute), {work:.3f} s "
        f"({100 * work / 60 / cores:.2f}% of {cores} cores)"
    )


def _setting(given: Arguments):
    config = DecoderConfig(
        vocab_size=2048,
        hidden_size=given.hidden,
        num_layers=given.layers,
        num_heads=4,
        num_kv_heads=4,
        head_dim=given.hidden // 4,
        mlp_size=4 * given.hidden,
        max_length=given.length,
    )
    model = Decoder(config)
    base = jax.jit(init, static_argnums=1)(jax.random.key(0), model)
    training = Training(steps=10_000, batch=given.batch, length=given.length, warmup=0)
    opt = training.optimizer()
    keys = jax.random.split(jax.random.key(1), given.experts)
    how = lora.LoraConfig(rank=given.rank, targets=lora.ALL_LINEAR)
    run = jax.jit(packed.start, static_argnums=(1, 2))(base, how, opt, keys)
    shape = (given.experts, 8, 1, given.batch, given.length)
    tokens = np.random.default_rng(0).integers(1, 2048, shape).astype(np.int32)
    ones = np.ones(shape, np.int32)
    places = np.broadcast_to(np.arange(given.length, dtype=np.int32), shape)
    rows = Rows(tokens, tokens, ones.astype(np.float32), ones, places)
    plan = training.plan([10_000] * given.experts)
    program = packed.Program(model, opt, given.experts)
    return program, base, run, plan, jax.tree.map(jnp.asarray, rows)


class Spent(NamedTuple):
    """Seconds of all chunks."""

    wall: float
    processor: float
    """Of all threads; what else the machine does changes it little."""
    stop: float
    """The median of what a save kept the run waiting."""


def _time(given: Arguments, chunk: Callable, run, save: Callable) -> tuple[Any, Spent]:
    stops, begun, before = [], time.monotonic(), time.process_time()
    for i in range(given.chunks):
        run = chunk(run)
        if (i + 1) % given.every == 0:
            start = time.monotonic()
            save(int(run.step), run)
            stops.append(time.monotonic() - start)
    wall, processor = time.monotonic() - begun, time.process_time() - before
    return run, Spent(wall, processor, statistics.median(stops))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
