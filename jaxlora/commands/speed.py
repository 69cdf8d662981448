"""How fast a training is, how much of the device it uses, and how much memory."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxlora.plan import topology
from jaxlora.studies.harness import provenance

PEAKS: Mapping[str, float] = {"NVIDIA A100": 312e12}
"""FLOP/s of dense bfloat16 products of chips that are not planned for, by name."""


class Work(NamedTuple):
    """What one update of a training does, over all experts."""

    tokens: int
    """With padding."""
    flops: float
    """Of the model; recomputed ones do not count."""


class Speed(NamedTuple):
    """Of the updates since the report before."""

    tokens: float
    """A second."""
    utilisation: float | None
    """Share of the devices' peak, in (0, 1]; None where the peak is not known."""
    memory: float
    """GiB: the most in use on a device, or of this process on a CPU."""

    def words(self) -> str:
        """As a bar shows it.

        >>> Speed(12345.0, 0.412, 3.21).words()
        '12,345 tokens/s, 41% of peak, 3.2 GiB'
        """
        share = f", {100 * self.utilisation:.0f}% of peak" if self.utilisation else ""
        return f"{self.tokens:,.0f} tokens/s{share}, {self.memory:.1f} GiB"

    def scalars(self) -> dict[str, float]:
        """By the name that TensorBoard shows, which has no spaces.

        >>> Speed(10.0, None, 2.0).scalars()
        {'speed/tokens_per_second': 10.0, 'speed/memory_gib': 2.0}
        """
        every = {
            "speed/tokens_per_second": self.tokens,
            "speed/utilisation": self.utilisation,
            "speed/memory_gib": self.memory,
        }
        return {name: value for name, value in every.items() if value is not None}


class Meter:
    """Measures between reports; the first one, which compiles, gives nothing."""

    def __init__(self, work: Work):
        self._work = work
        self._last: tuple[float, int] | None = None

    def __call__(self, done: int) -> Speed | None:
        """The speed since the last call.

        Args:
          done: updates by now.
        """
        now, before = time.monotonic(), self._last
        self._last = (now, done)
        if before is None or done <= before[1] or now <= before[0]:
            return None
        pace = (done - before[1]) / (now - before[0])
        peak = peak_flops()
        share = pace * self._work.flops / peak if peak else None
        return Speed(pace * self._work.tokens, share, memory_gib())


def training_work(params: int, tokens: int) -> Work:
    """Work of an update that trains adapters of a frozen base.

    Two products a parameter and token forward, and two back, as the base needs no
    gradient of its own (Hu et al., LoRA, arXiv 2106.09685); attention over so short
    rows, and the adapters, are left out.

    Args:
      params: of the base, its embedding left out.
      tokens: of an update, over all experts.

    >>> training_work(1000, 10).flops
    40000.0
    """
    return Work(tokens, 4.0 * params * tokens)


def peak_flops() -> float:
    """Peak FLOP/s of all devices together, as their makers give it; 0 if not known."""
    here = topology.describe("")
    flops = here.chip.teraflops * 1e12 if here.chip else 0.0
    if not flops > 0:  # NaN where the plan has no numbers
        kind = jax.devices()[0].device_kind
        flops = next((PEAKS[name] for name in PEAKS if kind.startswith(name)), 0.0)
    return flops * here.count


def memory_gib() -> float:
    """GiB: the most that was in use on a device, or by this process on a CPU."""
    every: list[Any] = [device.memory_stats() for device in jax.local_devices()]
    if all(every):
        return max(stats.get("peak_bytes_in_use", 0) for stats in every) / 2**30
    return provenance.peak_memory_gib()
