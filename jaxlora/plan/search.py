"""Which meshes there are for some work, which fits, and what would.

All of it by formula: a mesh takes milliseconds, and the best is compiled afterwards.
"""

import bisect
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jaxlora.models import division
from jaxlora.parallel.mesh import AXES, check
from jaxlora.plan import costs, gpus, memory, topology
from jaxlora.plan.topology import Topology
from jaxlora.plan.work import Work

SHARE = 0.4
"""Of a chip's peak that products reach, where nothing else is said."""


ROOM = 0.9
"""Of a chip's memory that a plan by formula may fill: a compiler needs some beside."""


class Ranked(NamedTuple):
    """A mesh, by formula."""

    sizes: dict[str, int]
    peak: int
    """Bytes a chip."""
    fits: bool
    seconds: float
    """Of a step, operations and then traffic, as if none were hidden; 0: unknown."""


def numbers(work: Work) -> dict[str, dict[str, int]]:
    """What each axis of a mesh has to divide.

    Args:
      work: the program.
    """
    if work.task == "merge":
        return {"expert": {"experts": work.experts}}
    return {
        "expert": {"experts": work.experts},
        "batch": {"rows of a batch": work.batch},
        "tensor": division.numbers(work.config),
    }


def check_mesh(work: Work, sizes: Mapping[str, int]) -> None:
    """Refuses a mesh that cuts the work into unequal parts.

    Args:
      work: the program.
      sizes: of the axes of the mesh.

    Raises:
      ValueError: naming what is not divided, and sizes that do.
    """
    check(sizes, **numbers(work))
    if work.at_once % sizes.get("expert", 1):
        raise ValueError(
            f"{work.at_once} experts train together, which expert="
            f"{sizes['expert']} devices do not divide; give a multiple to --together."
        )


def meshes(work: Work, count: int) -> Iterator[dict[str, int]]:
    """The meshes of some number of devices that divide the work.

    Args:
      work: the program.
      count: of devices.
    """
    for shape in _products(count, len(AXES)):
        sizes = dict(zip(AXES, shape, strict=True))
        # Experts first; the layers of each lie along what is left of the devices.
        most = {"expert": math.gcd(work.experts, count), "data": 1, "tensor": 1}
        if work.task == "merge" and not most.items() <= sizes.items():
            continue
        try:
            check_mesh(work, sizes)
        except ValueError:
            continue
        yield sizes


def _products(number: int, factors: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a number as a product, in order.

    >>> list(_products(4, 2))
    [(1, 4), (2, 2), (4, 1)]
    """
    if factors == 1:
        yield (number,)
        return
    for first in _divisors(number):
        for rest in _products(number // first, factors - 1):
            yield (first, *rest)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def rank(work: Work, where: Topology) -> list[Ranked]:
    """Every mesh that divides the work: what fits first, then by time, then by memory.

    Here time is that of operations and traffic one after the other: of meshes that
    hide all traffic, the one with less of it is better.

    Args:
      work: for the platform of the topology.
      where: the devices.

    Raises:
      ValueError: if none divides it.
    """
    every = [ranked(work, where, sizes) for sizes in meshes(work, where.count)]
    if not every:
        raise ValueError(_none(work, where.count))
    return sorted(every, key=lambda x: (not x.fits, round(x.seconds, 4), x.peak))


def _none(work: Work, count: int) -> str:
    """Why no mesh of so many devices divides some work, and what would."""
    heads = work.config.num_kv_heads
    things = f"{work.experts} experts, {work.batch} rows and {heads} key heads"
    most = max(n for n in _divisors(count) if next(meshes(work, n), None))
    # So many times the experts are on so many times the devices.
    times = count // most
    together = " (all at once, --together 0)" if work.at_once < work.experts else ""
    return (
        f"No mesh of {count} devices divides {things}, which divide among {most} of "
        f"them at most; give --experts {times * work.experts}{together}, --batch "
        f"{times * work.batch}, or a smaller --topology."
    )


def ranked(work: Work, where: Topology, sizes: dict[str, int]) -> Ranked:
    """One mesh, by formula.

    Args:
      work: for the platform of the topology.
      where: the devices.
      sizes: of the axes.
    """
    peak = sum(memory.estimate(work, sizes).values())
    fits = where.chip is None or peak <= ROOM * where.chip.gib * 2**30
    return Ranked(sizes, peak, fits, sum(seconds(work, where, sizes)))


def seconds(
    work: Work, where: Topology, sizes: Mapping[str, int], share: float = SHARE
) -> tuple[float, float]:
    """Of a step: operations at a share of the peak, and traffic over the links.

    Args:
      work: the program.
      where: the devices; zeros come of those without numbers.
      sizes: of the axes.
      share: of the peak.
    """
    if where.chip is None or math.isnan(where.chip.teraflops):
        return 0.0, 0.0
    peak = where.chip.teraflops * 1e12 * share * where.count
    sent = sum(x.received for x in costs.traffic(work, sizes))
    return costs.operations(work) / peak, sent / (where.chip.gigabytes * 1e9)


def fits(
    work: Work, where: Topology, sizes: Mapping[str, int], scale: float = 1.0
) -> bool:
    """Whether some work fits, by formula; always where nobody says what a chip has.

    Args:
      work: for the platform of the topology.
      where: the devices.
      sizes: of the axes.
      scale: of the formula, such as what the compiler needed over what it said.
    """
    if where.chip is None:
        return True
    need = sum(memory.estimate(work, sizes).values()) * scale
    return need <= ROOM * where.chip.gib * 2**30


def largest_batch(
    work: Work, where: Topology, sizes: Mapping[str, int], scale: float = 1.0
) -> int:
    """The most rows of a batch that fit; 0 if none do.

    Args:
      work: for the platform of the topology.
      where: the devices.
      sizes: of the axes.
      scale: of the formula, such as what the compiler needed over what it said.
    """
    rows = sizes.get("data", 1) * sizes.get("fsdp", 1)

    def over(times: int) -> bool:
        less = dataclasses.replace(work, batch=rows * times)
        return not fits(less, where, sizes, scale)

    # More rows need more: the first that does not fit is found by halving.
    times = range(1, work.batch // rows + 1)
    return rows * bisect.bisect_left(times, True, key=over)


def smallest(work: Work, where: Topology) -> tuple[str, dict[str, int]] | None:
    """The smallest slice of the same kind on which some mesh fits, by formula.

    Args:
      work: for the platform of the topology.
      where: the devices, of which there are too few.
    """
    kind = where.kind
    names = [f"{kind}:{shape}" for shape in topology.SHAPES.get(kind, ())]
    if kind in gpus.CARDS:
        names = [f"{kind}:{2**n}" for n in range(9)]
    for name in names:
        other = topology.describe(name, compiled=False)
        if other.count <= where.count:
            continue
        fine = [
            x
            for x in (ranked(work, other, m) for m in meshes(work, other.count))
            if x.fits
        ]
        if fine:
            best = min(fine, key=lambda x: (x.seconds, x.peak))
            return name, best.sizes
    return None
