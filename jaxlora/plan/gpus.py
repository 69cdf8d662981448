"""GPUs as their compiler is told of them: facts of a card, written as it reads them.

XLA compiles for a GPU that is not here if it has the card's numbers, in the text form
of its ``GpuTargetConfigProto`` (xla/stream_executor/device_description.proto).
"""

import importlib.util
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

INSTALL = f"pip install jax-cuda13-plugin=={jax.__version__} nvidia-cudnn-cu13"
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
HOST = 8
"""GPUs of a machine, as vendors build them."""


class Card(NamedTuple):
    """What a compiler asks of a GPU: NVIDIA's data sheets and CUDA's tables."""

    name: str
    """As the driver shows it."""
    capability: tuple[int, int]
    """Of CUDA, for example (9, 0) of Hopper."""
    processors: int
    """Streaming multiprocessors."""
    units: int
    """Of float32 in each of them."""
    gigahertz: float
    """With boost."""
    shared: int
    """KiB that a multiprocessor's threads share; a block has one less at most."""
    cache: int
    """MiB of the second level."""
    bandwidth: float
    """Of its memory; 10^9 bytes a second."""
    memory: float
    """10^9 bytes."""


CARDS: Mapping[str, Card] = {
    "h100": Card("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 1.98, 228, 50, 3350, 80),
    "h200": Card("NVIDIA H200", (9, 0), 132, 128, 1.98, 228, 50, 4800, 141),
    "a100": Card("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 1.41, 164, 40, 2039, 80),
}


def devices(kind: str, count: int) -> tuple[Any, ...]:
    """GPUs to compile for, none of which need be here.

    Args:
      kind: a name of ``CARDS``.
      count: of GPUs; beyond eight, machines of eight.

    Raises:
      NotImplementedError, RuntimeError: if JAX cannot start the compiler.
    """
    from jax.experimental import topologies

    # Slices x machines x GPUs of each.
    hosts = count // HOST if count % HOST == 0 else 1
    shape = f"1x{hosts}x{count // hosts}"
    there = topologies.get_topology_desc(
        platform="cuda", target_config=target(CARDS[kind]), topology=shape
    )
    return tuple(there.devices)


def installed() -> bool:
    """Whether the compiler for GPUs is."""
    return any(importlib.util.find_spec(name) is not None for name in PLUGINS)


def target(card: Card) -> str:
    """A card in the words of XLA.

    Args:
      card: facts of a GPU.

    >>> print(target(CARDS["h100"]).splitlines()[1])
      cuda_compute_capability { major: 9 minor: 0 }
    """
    major, minor = card.capability
    # The same of all these cards, by the tables of CUDA's programming guide.
    facts = {
        "threads_per_warp": 32,
        "threads_per_block_limit": 1024,
        "threads_per_core_limit": 2048,
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "shared_memory_per_block": 48 * 2**10,
        "shared_memory_per_block_optin": (card.shared - 1) * 2**10,
        "shared_memory_per_core": card.shared * 2**10,
        "core_count": card.processors,
        "fpus_per_core": card.units,
        "clock_rate_ghz": card.gigahertz,
        "l2_cache_size": card.cache * 2**20,
        "memory_bandwidth": int(card.bandwidth * 1e9),
        "device_memory_size": int(card.memory * 1e9),
    }
    lines = [f"  {name}: {value}" for name, value in facts.items()]
    versions = (
        f"runtime_version {{ major: {_cuda()} minor: 0 patch: 0 }}",
        "dnn_version_info { major: 9 minor: 12 patch: 0 }",
    )
    return "\n".join(
        [
            "gpu_device_info {",
            f"  cuda_compute_capability {{ major: {major} minor: {minor} }}",
            *lines,
            "}",
            'platform_name: "CUDA"',
            *versions,
            f'device_description_str: "{card.name}"',
        ]
    )


def _cuda() -> int:
    """The version of CUDA that the installed compiler is for."""
    older = importlib.util.find_spec(PLUGINS[0]) is None
    return 12 if older and importlib.util.find_spec(PLUGINS[1]) else 13


def without_cudnn(error: Exception) -> bool:
    """Whether a program was not traced because cuDNN is not installed.

    Args:
      error: of JAX.
    """
    return isinstance(error, RuntimeError) and "cuDNN" in str(error)
