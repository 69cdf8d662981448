"""Devices to plan for, that this machine need not have.

TPUs are described by their compiler (libtpu, which installs on any x86 Linux), GPUs to
theirs (JAX's plugin for CUDA, likewise), virtual CPU devices by JAX.
"""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxlora.plan import gpus, spellings


class Chip(NamedTuple):
    """What a chip has: vendors' numbers, but for the memory of TPUs."""

    gib: float
    """Memory for programs; of TPUs what their compiler says there is."""
    teraflops: float
    """Dense bfloat16 products, at most; 10^12 operations a second."""
    gigabytes: float
    """That its links carry to chips of the same slice; 10^9 bytes a second."""
    platform: str


CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(15.75, 197.0, 200.0, "tpu"),
    "v5p": Chip(95.74, 459.0, 600.0, "tpu"),
    "v6e": Chip(31.25, 918.0, 448.0, "tpu"),
    "h100": Chip(80e9 / 2**30, 989.0, 900.0, "gpu"),
    "h200": Chip(141e9 / 2**30, 989.0, 900.0, "gpu"),
    "a100": Chip(80e9 / 2**30, 312.0, 600.0, "gpu"),
}
"""By name: cloud.google.com/tpu/docs (system architecture), and NVIDIA's data sheets of
the SXM forms, of which an A100 has 80 GB here."""

SHAPES: Mapping[str, tuple[str, ...]] = {
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": (
        "2x2x1",
        "2x2x2",
        "2x2x4",
        "2x4x4",
        "4x4x4",
        "4x4x8",
        "4x8x8",
        "8x8x8",
        "8x8x16",
    ),
}
"""Slices of each kind of TPU, in chips."""
MOST = 4096
"""Devices of a topology that is a number: virtual ones take memory, each of them."""
CORES = {"v5e": 1, "v6e": 1, "v5p": 2}
"""The cloud's names count these a chip: v5p-8 has four chips."""
INSTALL = "pip install 'jax[tpu]'"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind."""

    name: str
    """As a table shows it, for example ``v5e:4x4``."""
    kind: str
    """A name of ``CHIPS``, ``cpu``, or what JAX calls a device of this machine."""
    count: int
    chip: Chip | None
    """None where there are no numbers, as of a CPU."""
    devices: tuple[Any, ...] = ()
    """To compile for; none if that is not possible here."""
    note: str = ""
    """Why there are none, in a sentence."""

    @property
    def platform(self) -> str:
        """``tpu``, ``gpu`` or ``cpu``."""
        return self.chip.platform if self.chip else "cpu"


def describe(name: str, *, compiled: bool = True) -> Topology:
    """Finds the devices that a name stands for.

    Args:
      name: ``v5e:4x4`` or the cloud's ``v5e-16``, ``h100:8`` (or h200, a100),
        ``cpu:8``, or empty for the devices of this machine.
      compiled: whether devices are needed, or numbers alone.

    Raises:
      ValueError: if there is no such topology; names those that there are.

    >>> describe("v5e-16", compiled=False).name, describe("v5p-8", compiled=False).count
    ('v5e:4x4', 4)
    """
    name = name.strip().lower()
    if not name:
        here = _here()
        return here if compiled else dataclasses.replace(here, devices=())
    kind, _, shape = re.sub(r"-(?=\d+$)", ":", name, count=1).partition(":")
    if kind == "cpu" or kind in gpus.CARDS:
        return _counted(name, kind, shape, compiled)
    if kind not in SHAPES:
        raise ValueError(_unknown(name))
    if shape.isdecimal():
        shape = _of_count(kind, int(shape))
    if shape not in SHAPES[kind]:
        cores = f" ({kind}-8 has 8 cores, and {8 // CORES[kind]} chips)"
        raise ValueError(
            f"No topology {name!r}; of {kind} there are {_shown(kind)}"
            f"{cores if CORES[kind] > 1 else ''}{_hint(name)}"
        )
    count = math.prod(map(int, shape.split("x")))
    full, chip = f"{kind}:{shape}", CHIPS[kind]
    if not compiled:
        return Topology(full, kind, count, chip)
    if importlib.util.find_spec("libtpu") is None:
        note = f"The compiler for TPUs is not installed ({INSTALL})"
        return Topology(full, kind, count, chip, note=note)
    return Topology(full, kind, count, chip, _described(full))


def _described(name: str) -> tuple[Any, ...]:
    # Before libtpu is loaded: nothing is asked of the network, other processes may
    # compile as well, and its log goes nowhere.
    for key, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_LOG_DIR": "disabled",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(key, value)
    from jax.experimental import topologies

    return tuple(topologies.get_topology_desc(name, "tpu").devices)


def _here() -> Topology:
    devices = tuple(jax.devices())
    first = devices[0]
    if first.platform == "cpu":
        return Topology(f"cpu:{len(devices)}", "cpu", len(devices), None, devices)
    names = {"v5 lite": "v5e", "v5p": "v5p", "v5": "v5p", "v6 lite": "v6e"}
    names |= {"H100": "h100", "H200": "h200", "A100-SXM4-80GB": "a100"}
    kind = next((k for x, k in names.items() if x in first.device_kind), "")
    chip = CHIPS.get(kind) or _measured(first)
    shown = f"{len(devices)} x {first.device_kind}"
    return Topology(shown, kind or first.device_kind, len(devices), chip, devices)


def _measured(device: Any) -> Chip:
    """A device that no table has: its memory is known, its speed is not."""
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    return Chip(limit / 2**30, math.nan, math.nan, device.platform)


def _counted(name: str, kind: str, count: str, compiled: bool) -> Topology:
    if not (count.isascii() and count.isdecimal() and 0 < int(count[:9]) <= MOST):
        raise ValueError(
            f"No topology {name!r}; give a number up to {MOST}, as in {kind}:8."
        )
    number, chip = int(count), CHIPS.get(kind)
    plain = Topology(name, kind, number, chip)
    if not compiled:
        return plain
    if kind in gpus.CARDS:
        return _described_gpus(plain)
    there = jax.devices("cpu")
    if len(there) >= number:
        return dataclasses.replace(plain, devices=tuple(there[:number]))
    note = f"There are {len(there)} devices of cpu here, not {number}, to compile for"
    return dataclasses.replace(plain, note=note)


def _described_gpus(plain: Topology) -> Topology:
    if not gpus.installed():
        note = f"The compiler for GPUs is not installed ({gpus.INSTALL})"
        return dataclasses.replace(plain, note=note)
    try:
        there = gpus.devices(plain.kind, plain.count)
    except Exception as error:  # the runtime's own class is not public
        reason = str(error).partition("\n")[0].rstrip(".")
        note = f"The compiler for GPUs does not start ({reason})"
        return dataclasses.replace(plain, note=note)
    return dataclasses.replace(plain, devices=there)


def _of_count(kind: str, number: int) -> str:
    """The shape that the cloud's number stands for; empty if there is none."""
    chips, rest = divmod(number, CORES[kind])
    shapes = SHAPES[kind]
    sizes = {math.prod(map(int, shape.split("x"))): shape for shape in shapes}
    return "" if rest else sizes.get(chips, "")


def _shown(kind: str) -> str:
    names = [f"{kind}:{shape}" for shape in SHAPES[kind]]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _unknown(name: str) -> str:
    known = ", ".join(f"{kind}:{SHAPES[kind][2]}" for kind in SHAPES)
    why = f": {spellings.ABSENT}" if spellings.is_absent(name) else ""
    return (
        f"No topology {name!r}{why}; there are {known}, h100:8 and cpu:8, among others"
        f"{_hint(name)}"
    )


def _hint(name: str) -> str:
    meant = spellings.meant(name, SHAPES, (*gpus.CARDS, "cpu"), _of_count)
    return f"; did you mean {meant}?" if meant else "."
