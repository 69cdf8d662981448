"""Routing: our forward with one, 8 and 64 experts, and PEFT's Arrow on the same files.

    python experiments/benchmarks/route.py                # both sides
    python experiments/benchmarks/route.py --no-peft      # ours alone
    python experiments/benchmarks/route.py --device-only  # Qwen2.5-1.5B's size, bf16

A small Qwen2 with random weights, and random adapters on all seven projections, are
written to a temporary folder, which both sides load. Their logits must agree before
anything is timed. Programs are compiled first and their seconds printed apart; then the
sides take turns, and the median counts. PEFT needs torch, transformers and peft.

``--device-only`` is for a GPU: the forward of Qwen2.5-1.5B's dimensions up to the final
norm, with random weights, and what routing adds to it.
"""

import dataclasses
import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import peer
import tyro

from jaxlora import lora, models, route
from jaxlora.models import Decoder, DecoderConfig, adapters, pretrained
from jaxlora.tree import Tree


class Case(NamedTuple):
    """One forward that is timed."""

    name: str
    """As printed."""
    experts: int = 0
    """E of a routed library; 0 for the base, or one adapter."""
    top_k: int | None = None
    """Experts kept per token; None keeps all."""
    adapter: bool = False
    """Whether one adapter is in use, without a route."""
    peft: bool = True
    """Whether PEFT is timed too: its Arrow costs the same for any top_k."""


BASE, ONE = Case("base"), Case("one adapter", adapter=True)
CASES = (
    BASE,
    ONE,
    Case("Arrow, 8 experts, top 3", 8, 3),
    Case("Arrow, 8 experts, all", 8),
    Case("Arrow, 64 experts, top 1", 64, 1, peft=False),
    Case("Arrow, 64 experts, top 3", 64, 3),
    Case("Arrow, 64 experts, all", 64, peft=False),
)
ON_DEVICE = (
    BASE,
    ONE,
    Case("Arrow, 1 expert", 1),
    Case("Arrow, 8 experts, top 3", 8, 3),
    Case("Arrow, 8 experts, all", 8),
    Case("Arrow, 64 experts, top 3", 64, 3),
    Case("Arrow, 64 experts, all", 64),
)
TOLERANCE = 1e-3
"""Largest difference of a logit between the two sides."""
QWEN = DecoderConfig(
    vocab_size=151_936,
    hidden_size=1536,
    num_layers=28,
    mlp_size=8960,
    num_heads=12,
    num_kv_heads=2,
    head_dim=128,
    mlp="gated",
    activation="silu",
    positions="rope",
    rope_theta=1e6,
    attention_bias=True,
    tie_head=True,
    max_length=32_768,
    dtype="bfloat16",
    param_dtype="bfloat16",
)
"""Qwen2.5-1.5B's dimensions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tokens per second of routed forwards."""

    peft: bool = True
    """Measure PEFT too."""
    device_only: bool = False
    """Instead: overhead over the base at Qwen2.5-1.5B's dimensions, ours alone."""
    batch: int | None = None
    """B; by default 32, or 8 with --device-only."""
    length: int | None = None
    """T; by default 64, or 512 with --device-only."""
    rank: int = 8
    """R of every adapter."""
    repeats: int = 7
    """Measurements of each side; the median counts."""


def main(given: Arguments) -> None:
    """Prints the device and one table."""
    device = jax.devices()[0]
    print(f"{device.platform}: {device.device_kind}, {os.cpu_count()} CPU cores")
    if given.device_only:
        return on_device(given, QWEN, ON_DEVICE)
    config = dataclasses.replace(peer.decoder("wide").config, attention_bias=True)
    return side_by_side(given, config, CASES)


def side_by_side(given: Arguments, config: DecoderConfig, cases: tuple[Case, ...]):
    """Times our forwards and PEFT's, once their logits agree."""
    tokens = drawn(config, given.batch or 32, given.length or 64)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        write(files, config, given.rank, max(case.experts for case in cases))
        ours = {case.name: compiled(files, case, tokens) for case in cases}
        theirs = {}
        if given.peft:
            theirs = {c.name: network(files, c, tokens) for c in cases if c.peft}
        for name, run in theirs.items():
            compare(name, np.asarray(ours[name]()), run())
    sides = {f"jaxlora, {name}": run for name, run in ours.items()}
    sides |= {f"PEFT, {name}": run for name, run in theirs.items()}
    waited = {name: functools.partial(wait, run) for name, run in sides.items()}
    rates = peer.in_turn(waited, dict.fromkeys(sides, tokens.size), given.repeats)
    print(f"{'':26} {'jaxlora':>9} {'x one':>6}  {'PEFT':>7} {'x one':>6} {'ratio':>6}")
    for case in cases:
        line(case.name, rates)
    for name in ("all", "top 3"):
        few, many = (rates.get(f"jaxlora, Arrow, {e} experts, {name}") for e in (8, 64))
        if few and many:
            print(f"64 experts, {name}: {few / many:.2f} x the cost of 8")


def line(name: str, rates: dict[str, float]) -> None:
    """Prints one case: tokens per second, and the cost in adapters, of each side."""
    ours, one = rates[f"jaxlora, {name}"], rates[f"jaxlora, {ONE.name}"]
    text = f"{name:26} {ours:9,.0f} {one / ours:6.2f}"
    theirs = rates.get(f"PEFT, {name}")
    if theirs:
        cost = rates[f"PEFT, {ONE.name}"] / theirs
        text += f"  {theirs:7,.0f} {cost:6.2f} {ours / theirs:5.2f}x"
    print(text)


def wait(run: Callable[[], Any]) -> None:
    """Runs, until the result is there."""
    jax.block_until_ready(run())


def drawn(config: DecoderConfig, batch: int, length: int) -> np.ndarray:
    """Random tokens [B, T]."""
    shape = (batch, length)
    return np.random.default_rng(0).integers(0, config.vocab_size, shape, np.int32)


@functools.partial(jax.jit, static_argnums=(2, 3))
def adapter_of(base: Tree, seed: int, rank: int, dtype: str = "float32"):
    """A random adapter, each of its directions half as strong as the one before.

    PEFT finds the first direction by 15 power iterations, which are exact then.
    """
    config = lora.LoraConfig(rank=rank, dtype=dtype)
    fresh = lora.init(jax.random.key(seed), base, config)
    strength = 0.5 ** jnp.arange(rank, dtype=jnp.float32)
    keys = iter(jax.random.split(jax.random.key(seed + 1000), len(lora.sites(fresh))))

    def shaken(w: lora.LoraWeight) -> lora.LoraWeight:
        b = jax.random.normal(next(keys), w.b.shape) * w.b.shape[-1] ** -0.5
        b = b * strength.reshape((1,) * (b.ndim - 2) + (-1, 1))
        return dataclasses.replace(w, b=b.astype(w.b.dtype))

    return lora.lora_map(shaken, fresh)


def write(folder: Path, config: DecoderConfig, rank: int, experts: int) -> None:
    """The base and its adapters, in the files that both sides load."""
    model = Decoder(config)
    base = peer.base_of(model)
    pretrained.save(folder / "base", model, base)
    for i in range(experts):
        adapters.save(folder / f"expert{i}", adapter_of(base, i, rank))


def compiled(folder: Path, case: Case, tokens: np.ndarray) -> Callable[[], jax.Array]:
    """Our forward on the files, ready to run: logits [B, T, V]."""
    model, base = pretrained.load(folder / "base")
    model = Decoder(dataclasses.replace(model.config, unroll=model.config.num_layers))
    experts = [
        adapters.load(folder / f"expert{i}", base)
        for i in range(max(case.experts, int(case.adapter)))
    ]
    return prepared(models.apply, model, base, experts, case, tokens)


def prepared(
    forward: Any,
    model: Decoder,
    base: Tree,
    experts: list[lora.Adapter],
    case: Case,
    tokens: np.ndarray,
) -> Callable[[], jax.Array]:
    """Compiles a forward, and prints the seconds it took."""
    reuse: dict[str, Any] = {}
    if case.adapter:
        reuse = {"adapter": experts[0]}
    elif case.experts:
        way = route.Route(gate=route.arrow, top_k=case.top_k)
        library = lora.stack(experts[: case.experts])
        reuse = {"library": library, "gate": jax.jit(way.init)(library)}
        model = Decoder(model.config, way)
    ids = jnp.asarray(tokens)
    start = time.perf_counter()
    program = jax.jit(functools.partial(forward, model))
    run = program.lower(base, ids, **reuse).compile()
    print(f"jaxlora, {case.name}: compiled in {time.perf_counter() - start:.1f} s")
    return functools.partial(run, base, ids, **reuse)


def network(folder: Path, case: Case, tokens: np.ndarray) -> Callable[[], np.ndarray]:
    """PEFT's forward on the same files."""
    import torch
    from peft import ArrowConfig, PeftModel, create_arrow_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    path = folder / "base"
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if case.adapter:
        model = PeftModel.from_pretrained(model, folder / "expert0")
    elif case.experts:
        paths = [str(folder / f"expert{i}") for i in range(case.experts)]
        way = ArrowConfig(top_k=case.top_k or case.experts, rng_seed=0)
        model = create_arrow_model(model, paths, way)
    model.eval()
    ids = torch.from_numpy(tokens.astype(np.int64))

    def run() -> np.ndarray:
        with torch.inference_mode():
            return model(input_ids=ids, use_cache=False).logits.numpy()

    return run


def compare(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Stops if the two sides compute different logits [B, T, V].

    Two experts that score the same to the last bit may be told apart differently, which
    changes the rest of that sequence: one sequence may differ.
    """
    worst = np.abs(ours - theirs).max(axis=(1, 2))
    text = f"{name}: logits differ by {worst.max():.1e} at most"
    odd = int((worst > TOLERANCE).sum())
    if odd > 1 or not np.isfinite(worst).all():
        raise SystemExit(f"{text}, expected {TOLERANCE:.0e}; nothing was timed.")
    print(text + (f", by {np.sort(worst)[-2]:.1e} but for one sequence" if odd else ""))


def on_device(given: Arguments, config: DecoderConfig, cases: tuple[Case, ...]):
    """Times our forwards to the final norm, and prints what they add to the base's."""
    model = Decoder(config)
    base = peer.base_of(model)
    most = max(case.experts for case in cases)
    dtype = config.param_dtype
    experts = [adapter_of(base, i, given.rank, dtype) for i in range(most)]
    tokens = drawn(config, given.batch or 8, given.length or 512)
    sides = {
        case.name: prepared(models.hidden, model, base, experts, case, tokens)
        for case in cases
    }
    waited = {name: functools.partial(wait, run) for name, run in sides.items()}
    rates = peer.in_turn(waited, dict.fromkeys(sides, tokens.size), given.repeats)
    print(f"{'':26} {'ms':>9} {'tok/s':>11} {'over the base':>14}")
    for name, rate in rates.items():
        more = rates[BASE.name] / rate - 1
        print(f"{name:26} {1000 * tokens.size / rate:9.2f} {rate:11,.0f} {more:+14.1%}")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
