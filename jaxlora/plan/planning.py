"""A plan: what a program needs on each chip, by its compiler or by formula."""

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from jaxlora import parallel
from jaxlora.parallel.mesh import AXES
from jaxlora.plan import costs, gpus, hlo, memory, programs, search
from jaxlora.plan.costs import Traffic
from jaxlora.plan.topology import Topology
from jaxlora.plan.work import Work

REFUSED = re.compile(r"required[^(]*\(([\d.]+)([KMGT])\)|Used ([\d.]+)([KMGT])")
PLAIN = (
    "cuDNN is not installed (pip install nvidia-cudnn-cu13): what was compiled holds "
    "attention's scores, which the program that runs on the card does not."
)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a program needs on each chip."""

    work: Work
    where: Topology
    sizes: Mapping[str, int]
    """Of the axes of the mesh."""
    parts: Mapping[str, int]
    """Bytes by formula, of ``memory.ARRAYS`` and ``memory.BESIDE``."""
    peak: int
    """Bytes: of the compiler, or the sum of the parts."""
    by: str
    """``compiled``, ``refused`` by the compiler, or ``formula``."""
    traffic: tuple[Traffic, ...]
    """Of the compiled program, or by formula."""
    operations: float
    """Floating-point operations of a step, on all chips."""
    seconds: float
    """Of a step: operations at a share of the peak, or traffic if that takes longer; 0
    where the chip has no numbers."""
    took: float = 0.0
    """Seconds that tracing and compiling took."""
    note: str = ""
    """How the compiled program differs from the one that would run; a sentence."""

    @property
    def limit(self) -> int | None:
        """Bytes that a chip has; None where nobody says."""
        return None if self.where.chip is None else int(self.where.chip.gib * 2**30)

    @property
    def fits(self) -> bool | None:
        """Whether the peak is within the limit, and by formula with some room beside.

        None without a limit.
        """
        if self.by == "refused":
            return False
        if self.limit is None:
            return None
        room = search.ROOM if self.by == "formula" else 1.0
        return self.peak <= room * self.limit

    @property
    def formula(self) -> int:
        """Bytes by formula, whatever the compiler says."""
        return sum(self.parts.values())


def plan(
    work: Work, where: Topology, sizes: Mapping[str, int], share: float = search.SHARE
) -> Plan:
    """Plans one program on one mesh: compiled where there are devices to compile for.

    Args:
      work: the program; the kernel of its attention is that of the platform.
      where: the devices.
      sizes: of the axes of the mesh; one that is not named has 1.
      share: of a chip's peak, for the seconds.

    Raises:
      ValueError: if the mesh does not divide devices, experts, rows or heads.
    """
    work = work.on(where.platform)
    every = parallel.sizes_of(sizes, where.count, where.platform)
    search.check_mesh(work, every)
    parts = memory.estimate(work, every)
    plain = Plan(
        work=work,
        where=where,
        sizes=every,
        parts=parts,
        peak=sum(parts.values()),
        by="formula",
        traffic=tuple(costs.traffic(work, every)),
        operations=costs.operations(work),
        seconds=max(search.seconds(work, where, every, share)),
    )
    return _compiled(plain) if where.devices else plain


def _compiled(plain: Plan) -> Plan:
    mesh = parallel.mesh(
        **{name: plain.sizes[name] for name in AXES}, devices=plain.where.devices
    )
    started = time.monotonic()
    try:
        lowered, note = _lowered(plain.work, mesh)
        compiled = lowered.compile()
    except Exception as error:  # the runtime's own class is not public
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        peak = refused_bytes(str(error)) or plain.peak
        took = time.monotonic() - started
        return dataclasses.replace(plain, by="refused", peak=peak, took=took)
    traffic = costs.summed(hlo.collectives(compiled.as_text(), mesh.shape))
    return dataclasses.replace(
        plain,
        by="compiled",
        peak=peak_bytes(compiled),
        traffic=tuple(traffic),
        took=time.monotonic() - started,
        note=note,
    )


def _lowered(work: Work, mesh: Mesh) -> tuple[Any, str]:
    """The program, and how it differs from the one that would run."""
    try:
        return programs.lower(work, mesh), ""
    except RuntimeError as error:
        if not gpus.without_cudnn(error):
            raise
    config = dataclasses.replace(work.config, attention="auto")
    return programs.lower(dataclasses.replace(work, config=config), mesh), PLAIN


def peak_bytes(compiled: Any) -> int:
    """The most memory that a program holds on a chip at once, as its compiler says.

    Args:
      compiled: ``jax.stages.Compiled``.
    """
    stats = compiled.memory_analysis()
    # Arguments that are donated are outputs, too.
    arrays = stats.argument_size_in_bytes + stats.output_size_in_bytes
    arrays += stats.temp_size_in_bytes - stats.alias_size_in_bytes
    return int(arrays)


def refused_bytes(text: str) -> int:
    """The bytes that a refused program would need, by the compiler's sentence; or 0.

    Args:
      text: of the error.

    >>> refused_bytes("the total memory required for temporaries (48.00G) exceeds")
    51539607552
    """
    match = REFUSED.search(text)
    if match is None:
        return 0
    number, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
    return int(float(number) * UNITS[unit])
