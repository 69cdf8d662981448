"""The cost of many experts of the small base in one program: 1 to 1,024.

    python experiments/plans/curve.py cpu       one step on this machine, in CPU seconds
    python experiments/plans/curve.py v5e-8     compiled, for chips that are not here

Eight rows of 16 tokens an expert, rank 8 on all linear kernels, float32. CPU seconds
are those of the process, on all cores: other programs change them little. Sizes may
follow the place.
"""

import csv
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import models, plan
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder
from jaxlora.plan.work import Work
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed

EXPERTS = (1, 8, 64, 512, 1024)
PATH = Path(__file__).parent / "curve.csv"
COLUMNS = ("where", "experts", "cpu_seconds_a_step", "peak_mib", "collectives")
STEPS = 2
AT_ONCE = 256  # on CPU: 1,024 at once ended a process on a machine of 23 GiB


def main(where: str, sizes: Sequence[int]) -> None:
    """Measures or compiles each size, and adds the rows."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    for experts in sizes or EXPERTS:
        work = Work(
            config=plan.model_of("small"),
            experts=experts,
            lora=LoraConfig(rank=8),
            batch=8,
            length=16,
        )
        values = measured(work) if where == "cpu" else compiled(work, where)
        add((where, experts, *values))


def measured(work: Work) -> tuple[str, str, str]:
    """CPU seconds of a step, after one that compiles."""
    model, opt = Decoder(work.config), work.training.optimizer()
    base = models.init(jax.random.key(0), model)
    keys = jax.random.split(jax.random.key(1), work.experts)
    run = jax.jit(packed.start, static_argnums=(1, 2))(base, work.lora, opt, keys)
    rng = np.random.default_rng(0)
    size = (work.experts, STEPS, 1, work.batch, work.length)
    tokens = rng.integers(1, work.config.vocab_size, size).astype(np.int32)
    places = np.broadcast_to(np.arange(work.length, dtype=np.int32), size)
    weights = np.ones(size, np.float32)
    rows = Rows(tokens, tokens, weights, np.ones(size, np.int32), places)
    rows = jax.tree.map(jnp.asarray, rows)
    program = packed.Program(model, opt, min(work.experts, AT_ONCE))
    rates = work.training.plan([10**6] * work.experts)
    run, _ = jax.block_until_ready(packed.updates(program, base, run, rates, rows))
    started = time.process_time()
    jax.block_until_ready(packed.updates(program, base, run, rates, rows))
    return f"{(time.process_time() - started) / STEPS:.3f}", "", ""


def compiled(work: Work, name: str) -> tuple[str, str, str]:
    """Peak a chip with experts on as many chips as divide them."""
    where = plan.describe(name)
    cut = min(where.count, work.experts)
    done = plan.plan(work, where, {"expert": cut, "data": where.count // cut})
    kinds = [f"{x.kind} along {' and '.join(x.axes)}" for x in done.traffic]
    return "", f"{done.peak / 2**20:.1f}", "; ".join(kinds) or "none"


def add(values: tuple[object, ...]) -> None:
    """Replaces the row of the same place and size."""
    rows = []
    if PATH.is_file():
        with PATH.open(newline="") as file:
            rows = [tuple(x[name] for name in COLUMNS) for x in csv.DictReader(file)]
    key = tuple(map(str, values[:2]))
    rows = [x for x in rows if x[:2] != key] + [tuple(map(str, values))]
    rows.sort(key=lambda x: (x[0], int(x[1])))
    with PATH.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    print(*values, flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu", list(map(int, sys.argv[2:])))
