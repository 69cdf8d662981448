"""What hashes cost a save and a load: with them, and with a hash that costs nothing.

    python experiments/benchmarks/checksums.py

Both are done in turns, and the least of several counts: of the wall, and of all threads
of the process. Hashes are taken beside the rest, so that they cost less of the wall
than of the processor; on a machine that others use only the latter means something.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from jaxlora.io import checkpoint, trust

MEGABYTES, REPEATS = (1, 16, 128), 9


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Of the wall, and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def least(work: Callable[[str], object]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds at best [wall, processor] of the work, with hashes and without."""
    free, pairs = mock.patch.object(trust, "file_hash", return_value="0" * 64), []
    for _ in range(REPEATS):
        hashed = seconds(lambda: work("hashed"))
        with free:
            pairs.append((hashed, seconds(lambda: work("plain"))))
    hashed, plain = np.min(pairs, axis=0)
    return hashed, plain


def measure(folder: Path, megabytes: int) -> None:
    """Prints a line for the save and the load of a checkpoint of a size."""
    keys = jax.random.split(jax.random.key(0), 8)
    size = (megabytes * 2**20 // 32,)
    state = {str(i): jax.random.normal(key, size) for i, key in enumerate(keys)}
    target = jax.eval_shape(lambda: state)

    def save(kind: str) -> None:
        checkpoint.save(folder / kind, 0, state, {})

    def load(kind: str) -> None:
        stored = checkpoint.restore(folder / kind, target)
        assert stored is not None, kind
        jax.block_until_ready(stored[1])

    for work in (save, load):
        hashed, plain = least(work)
        wall, processor = 100 * (hashed - plain) / plain
        print(
            f"{megabytes:4d} MB {work.__name__}: {1e3 * plain[0]:.0f} ms, of the "
            f"processor {1e3 * plain[1]:.0f} ms; hashes add {wall:.1f}% of the wall, "
            f"{processor:.1f}% of the processor",
            flush=True,
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
