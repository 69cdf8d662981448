"""What hashes cost: their share of the time of a save and of a load.

    python experiments/benchmarks/checksums.py

Times are the least of several, of the wall and of all threads of the process: on a
machine that others use, only the latter means something.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from jaxlora.io import checkpoint, trust

MEGABYTES, REPEATS = (1, 16, 128), 5


def least(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall, and of the processor, at best."""
    pairs = []
    for _ in range(REPEATS):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        pairs.append((time.perf_counter() - wall, time.process_time() - processor))
    walls, processors = zip(*pairs, strict=True)
    return min(walls), min(processors)


def measure(folder: Path, megabytes: int) -> None:
    """Prints a line for a checkpoint of a size."""
    keys = jax.random.split(jax.random.key(0), 8)
    size = (megabytes * 2**20 // 32,)
    state = {str(i): jax.random.normal(key, size) for i, key in enumerate(keys)}
    target = jax.eval_shape(lambda: state)
    save = least(lambda: checkpoint.save(folder, 0, state, {}))
    load = least(
        lambda: jax.block_until_ready(checkpoint.restore(folder, target)[1])  # type: ignore
    )
    seal = least(lambda: trust.seal(folder / "0", f"{folder.name}/0"))
    check = least(lambda: trust.check(folder / "0", f"{folder.name}/0"))
    for name, part, all_ in (("save", seal, save), ("load", check, load)):
        shares = (f"{100 * x / y:.1f}%" for x, y in zip(part, all_, strict=True))
        wall, processor = shares
        print(
            f"{megabytes:4d} MB {name}: {all_[0]:.3f} s, hashes {part[0]:.4f} s: "
            f"{wall} of the wall, {processor} of the processor"
        )


def main() -> None:
    """Prints the shares for each size."""
    root = Path(tempfile.mkdtemp())
    try:
        for megabytes in MEGABYTES:
            measure(root / str(megabytes), megabytes)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
