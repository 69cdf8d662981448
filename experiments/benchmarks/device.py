"""One accelerator: training's share of its peak, memory, routing and generation.

    python experiments/benchmarks/device.py train --experts 8
    python experiments/benchmarks/device.py route
    python experiments/benchmarks/device.py generate

Random bfloat16 weights of Qwen2.5-1.5B's dimensions, or ``--small`` for a CPU. The
utilisation is of the model's FLOPs, four a parameter and token: recomputed ones do not
count. Memory is the compiler's plan beside the peak that was in use.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxlora import lora, models, route
from jaxlora import tree as named
from jaxlora.commands import speed
from jaxlora.models import Decoder, DecoderConfig, Decoding, kernels
from jaxlora.plan import planning
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed
from jaxlora.train.training import Training

QWEN = DecoderConfig(
    vocab_size=151_936,
    hidden_size=1536,
    num_layers=28,
    num_heads=12,
    num_kv_heads=2,
    head_dim=128,
    mlp_size=8960,
    max_length=4096,
    attention_bias=True,
    tie_head=True,
    dtype="bfloat16",
    param_dtype="bfloat16",
)
SMALL = dataclasses.replace(
    QWEN, vocab_size=512, hidden_size=64, num_layers=2, mlp_size=128, head_dim=16
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured, and how large."""

    what: Annotated[Literal["train", "route", "generate"], tyro.conf.Positional] = (
        "train"
    )
    """Of one accelerator."""
    small: bool = False
    """Tiny sizes, to see that it works."""
    experts: int = 8
    """E of a training."""
    batch: int = 8
    """Rows of each expert, or prompts."""
    length: int = 1024
    """Tokens of a row."""
    repeats: int = 5
    """Measurements; the median counts."""


def main(given: Arguments) -> None:
    """Prints a line a measurement."""
    if given.small:
        given = dataclasses.replace(given, batch=2, length=32, repeats=2)
    config = dataclasses.replace(SMALL if given.small else QWEN, remat=True)
    model = Decoder(kernels.of(config, jax.devices()[0]))  # as a command does
    base = jax.jit(models.init, static_argnums=1)(jax.random.key(0), model)
    print(f"{jax.devices()[0].device_kind}; {_products(base) / 1e9:.2f} G parameters")
    {"train": _train, "route": _route, "generate": _generate}[given.what](
        given, model, base
    )


def _train(given: Arguments, model: Decoder, base) -> None:
    training = Training(steps=1000, batch=given.batch, length=given.length, warmup=0)
    opt, size = training.optimizer(), given.experts
    keys = jax.random.split(jax.random.key(1), size)
    how = lora.LoraConfig(rank=16, targets=lora.ALL_LINEAR)
    run = jax.jit(packed.start, static_argnums=(1, 2))(base, how, opt, keys)
    shape = (size, 1, 1, given.batch, given.length)
    tokens = _tokens(model, shape)
    ones = np.ones(shape, np.int32)
    places = np.broadcast_to(np.arange(given.length, dtype=np.int32), shape)
    rows = Rows(tokens, tokens, ones.astype(np.float32), ones, places)
    program = packed.Program(model, opt, size)
    arguments = (base, run, training.plan([1000] * size), rows)
    lowered = packed.updates.lower(program, *arguments)
    planned = planning.peak_bytes(lowered.compile())
    state = run

    def update():
        nonlocal state
        state, report = packed.updates(program, base, state, arguments[2], rows)
        return report.loss

    seconds = _median(update, given.repeats)
    work = speed.training_work(_products(base), int(np.prod(shape)))
    peak = speed.peak_flops()
    share = f"{work.flops / seconds / peak:.1%} of peak" if peak else "peak not known"
    print(
        f"train E {size}: {work.tokens / seconds:,.0f} tokens/s, "
        f"{work.flops / seconds / 1e12:.1f} TFLOP/s, {share}; memory planned "
        f"{planned / 2**30:.1f} GiB, in use at most {speed.memory_gib():.1f} GiB"
    )


def _route(given: Arguments, model: Decoder, base) -> None:
    tokens = jnp.asarray(_tokens(model, (given.batch, given.length)))
    call = jax.jit(models.hidden, static_argnums=0)
    plain = _median(lambda: call(model, base, tokens), given.repeats)
    print(f"route none: {tokens.size / plain:,.0f} tokens/s")
    for size in (1, 8, 64):
        library = lora.stack([_shaken(base, i) for i in range(size)])
        router = Decoder(model.config, route.preset("arrow"))
        gate = jax.jit(models.gate_state, static_argnums=0)(router, library)
        run = functools.partial(call, router, base, tokens, library=library, gate=gate)
        seconds = _median(run, given.repeats)
        rate, ratio = tokens.size / seconds, seconds / plain
        print(f"route E {size}: {rate:,.0f} tokens/s, {ratio:.2f} x the time of none")


def _generate(given: Arguments, model: Decoder, base) -> None:
    new = 8 if given.small else 128
    prompts = jnp.asarray(_tokens(model, (4 * given.batch, 64)))
    adapter = _shaken(base, 0)
    for name, extras in (("base", {}), ("one adapter", {"adapter": adapter})):

        def run(extras=extras):
            return models.generate(model, base, prompts, Decoding(new), **extras).tokens

        seconds = _median(run, given.repeats)
        print(f"generate, {name}: {len(prompts) * new / seconds:,.0f} new tokens/s")


def _median(run: Callable, repeats: int) -> float:
    jax.block_until_ready(run())  # compiles
    times = []
    for _ in range(repeats):
        begun = time.monotonic()
        jax.block_until_ready(run())
        times.append(time.monotonic() - begun)
    return statistics.median(times)


def _shaken(base, seed: int):
    how = lora.LoraConfig(rank=16, targets=lora.ALL_LINEAR)
    adapter = jax.jit(lora.init, static_argnums=2)(jax.random.key(seed), base, how)
    keys = iter(jax.random.split(jax.random.key(seed), 1000))

    def shake(x: jax.Array) -> jax.Array:
        if x.ndim == 0:
            return x
        return x + 0.01 * jax.random.normal(next(keys), x.shape, x.dtype)

    return jax.tree.map(shake, adapter)


def _products(base) -> int:
    """Parameters that a token is multiplied with: a tied head is the embedding."""
    sizes = {name: leaf.size for name, leaf in named.flatten(base).items()}
    return sum(sizes.values()) - ("head" in sizes) * sizes["embed/embedding"]


def _tokens(model: Decoder, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(1, model.config.vocab_size, shape).astype(np.int32)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
