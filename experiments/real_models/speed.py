"""How fast does a model train an adapter and rank answers, and where does time go?

    python experiments/real_models/speed.py MODEL
    python experiments/real_models/speed.py experiments/real_models/shapes/NAME --random

Prints tokens a second of one update (256 tokens, rank 16 on every projection) as it was
before openings were shared and logits left out, and as it is; of ranking; and the share
of matrix products: the time that the same products take alone, over that of the whole.
A folder with a config.json alone takes ``--random`` weights.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import models
from jaxlora.io import tensors
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig, architectures, pretrained
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed
from jaxlora.train.training import Training
from jaxlora.tree import Tree

LENGTH, OPENING, ANSWERS = 256, 24, 64


class Case(NamedTuple):
    """A way to train."""

    name: str
    most: int
    """Tokens with logits, 0 for all."""
    together: int = 1
    remat: bool = False


CASES = (
    Case("logits of all tokens, layers computed again", 0, remat=True),
    Case("logits of all tokens", 0),
    Case("logits of answers", ANSWERS),
    Case("logits of answers, two experts at once", ANSWERS, 2),
)


def load(folder: Path, dtype: str, random: bool) -> tuple[Decoder, Tree]:
    """A checkpoint, or random weights of its shape."""
    if not random:
        return pretrained.load(folder, dtype=dtype, param_dtype=dtype)
    config = architectures.from_json(tensors.read_json(folder / "config.json"))
    config = dataclasses.replace(config, dtype=dtype, param_dtype=dtype)
    model = Decoder(config)
    return model, jax.jit(models.init, static_argnums=1)(jax.random.key(0), model)


def rows(experts: int, steps: int, vocabulary: int) -> Rows:
    """Rows [E, K, 1, 1, T] of one segment each, of which a quarter is learnt."""
    shape = (experts, steps, 1, 1, LENGTH)
    tokens = np.random.default_rng(0).integers(1, vocabulary, shape, dtype=np.int32)
    places = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), shape)
    weights = (places % (LENGTH // ANSWERS) == 1).astype(np.float32)
    return Rows(tokens, np.roll(tokens, -1, -1), weights, places * 0 + 1, places)


def seconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The best wall time of a call that was compiled before, and its processor time."""
    jax.block_until_ready(work())
    best = (np.inf, np.inf)
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        jax.block_until_ready(work())
        spent = (time.perf_counter() - start, time.process_time() - used)
        best = min(best, spent)
    return best


def products(config: DecoderConfig, tokens: int, logits: int) -> Callable[[], object]:
    """The matrix products of a forward pass, and of a gradient by its input."""
    d, f = config.hidden_size, config.mlp_size
    heads = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    shapes = [(d, heads), (d, keys), (d, keys), (heads, d), (d, f), (d, f), (f, d)]
    dtype = jnp.dtype(config.dtype)
    x = {k: jnp.ones((tokens, k), dtype) for k in {a for s in shapes for a in s}}
    kernels = [jnp.ones((config.num_layers, *s), dtype) for s in shapes]
    head, last = jnp.ones((d, config.vocab_size), dtype), jnp.ones((logits, d), dtype)

    @jax.jit
    def run(kernels, head, last):
        def layer(total, ws):
            for w in ws:
                ahead, back = x[w.shape[0]] @ w, x[w.shape[1]] @ w.T
                total += jnp.sum(ahead[0]) + jnp.sum(back[0])
            return total, None

        total, _ = jax.lax.scan(layer, jnp.zeros((), dtype), kernels)
        scores = last @ head
        return total + jnp.sum(scores[0]) + jnp.sum(scores @ head.T)

    return lambda: run(kernels, head, last)


def main() -> None:
    """Measures, and prints a line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    model, base = load(given.model, given.dtype, given.random)
    how = Training(steps=100, length=LENGTH, batch=1, learning_rate=1e-3)
    opt = how.optimizer()
    begin = jax.jit(packed.start, static_argnums=(1, 2))
    print("| update of 256 tokens | s | s of processor | tokens a second | products |")
    print("|:--|--:|--:|--:|--:|")
    for case in CASES:
        n = case.together
        keys = jax.random.split(jax.random.key(0), n)
        wide = Decoder(dataclasses.replace(model.config, remat=case.remat))
        program = packed.Program(wide, opt, n, most=case.most)
        data, plan = rows(n, 1, model.config.vocab_size), how.plan([100] * n)

        def update(program=program, keys=keys, data=data, plan=plan):
            run = begin(base, LoraConfig(rank=16, alpha=32.0), opt, keys)
            return packed.updates(program, base, run, plan, data)[1].loss

        wall, used = seconds(update, given.repeats)
        alone = products(model.config, LENGTH * n, (case.most or LENGTH) * n)
        share = seconds(alone, given.repeats)[1] / used
        line = [f"{wall / n:.2f}", f"{used / n:.2f}", f"{LENGTH * n / wall:.0f}"]
        print(f"| {case.name} | {' | '.join(line)} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
