"""What all ``jaxlora plan`` commands print: tables per chip, and whether it fits."""

import dataclasses
from collections.abc import Mapping, Sequence

from rich.console import Console

from jaxlora.commands import bars, printing
from jaxlora.commands.flags import mesh
from jaxlora.commands.flags.planning import Devices
from jaxlora.plan import memory, planning, search
from jaxlora.plan.planning import Plan
from jaxlora.plan.search import Ranked
from jaxlora.plan.topology import Topology
from jaxlora.plan.work import Work

SHOWN = 8
"""Meshes of a ranking."""
TAKEN = 0.75
"""Of a GPU's memory, which JAX takes when it starts."""
FLAGS = {"batch": "--batch {}", "remat": "--remat on"}
"""What a user gives for fewer rows, and for layers that are recomputed."""
EXACT = {
    "compiled": "by the compiler",
    "refused": "refused by the compiler",
    "formula": "by formula",
}


def run(work: Work, given: Devices, flags: Mapping[str, str] = FLAGS) -> int:
    """Plans, and prints the tables.

    Args:
      work: the program.
      given: flags of devices and mesh.
      flags: as ``FLAGS``, of the command; what is not in it cannot be changed.
    """
    console, where = printing.console(), given.where()
    if where.note and not given.formula:
        printing.say([f"{where.note}; this plan is by formula."])
    asked = None if given.mesh == "auto" else mesh.sizes(given.mesh)
    if asked is None:
        ranked = search.rank(work.on(where.platform), where)
        meshes(console, ranked)
        asked = ranked[0].sizes
    show(console, _planned(work, where, asked, given.share), given.share, flags)
    return 0


def _planned(work: Work, where: Topology, sizes, share: float) -> Plan:
    if not where.devices:
        return planning.plan(work, where, sizes, share)
    with bars.bar("compiling") as move:
        move(f"for {where.name}", 0, 1)
        plan = planning.plan(work, where, sizes, share)
        move(f"for {where.name}", 1, 1)
    return plan


def show(
    console: Console, plan: Plan, share: float, flags: Mapping[str, str] = FLAGS
) -> None:
    """Prints one plan.

    Args:
      console: where to.
      plan: what is planned.
      share: of a chip's peak, as the time was computed.
      flags: as :func:`run` takes them.
    """
    printing.line(console, head(plan))
    console.print()
    printing.table(console, ("memory of a chip", "GiB"), parts(plan))
    if plan.traffic:
        heads = ("collective", "along", "MiB a chip and step")
        printing.table(console, heads, traffic(plan))
    ending = *closing(plan, share), *filter(None, [plan.note]), verdict(plan, flags)
    for text in ending:
        printing.line(console, text)


def head(plan: Plan) -> str:
    """What is planned, where, in a line.

    Args:
      plan: what is planned.
    """
    w, where = plan.work, plan.where
    what = {"train": "training", "route": "routing", "merge": "merging"}[w.task]
    size = f", {w.batch} x {w.length} tokens each" if w.task == "train" else ""
    size = f", {w.batch} prompts of {w.length} tokens" if w.task == "route" else size
    way = f" by {w.method}" if w.method else ""
    chips = "1 chip" if where.count == 1 else f"{where.count} chips"
    limit = f", {where.chip.gib:.2f} GiB each" if where.chip else ""
    return (
        f"{what} {w.experts} experts of rank {w.lora.rank}{way}{size}, on {where.name} "
        f"({chips}{limit}), mesh {mesh_text(plan.sizes)}: {EXACT[plan.by]}"
    )


def mesh_text(sizes: Mapping[str, int]) -> str:
    """A mesh in words.

    >>> mesh_text({"expert": 8, "data": 1, "fsdp": 2, "tensor": 1})
    'expert=8,fsdp=2'
    """
    kept = [f"{name}={size}" for name, size in sizes.items() if size > 1]
    return ",".join(kept) or "of one device"


def parts(plan: Plan) -> list[tuple[str, str]]:
    """Rows of the table of memory.

    Args:
      plan: what is planned.
    """
    known = {name: plan.parts[name] for name in memory.ARRAYS}
    beside = {name: plan.parts[name] for name in memory.BESIDE}
    if plan.by == "formula":
        rows = known | beside
    else:  # what the compiler needs for all of them together
        rows = known | {"all else (compiled)": plan.peak - sum(known.values())}
    rows |= {"peak": plan.peak}
    if plan.limit is not None:
        rows |= {"limit": plan.limit}
    return [(name, f"{n / 2**30:.3f}") for name, n in rows.items() if n]


def traffic(plan: Plan) -> list[tuple[str, str, str]]:
    """Rows of the table of collectives.

    Args:
      plan: what is planned.
    """
    return [
        (
            f"{x.count} x {x.kind}" if x.count else x.kind,
            " and ".join(x.axes),
            f"{x.received / 2**20:.3g}",
        )
        for x in plan.traffic
    ]


def closing(plan: Plan, share: float) -> list[str]:
    """Operations and time.

    Args:
      plan: what is planned.
      share: of a chip's peak.
    """
    if not plan.operations:
        return []
    text = f"{plan.operations / 1e12:.3g} TFLOP a step by formula"
    if plan.seconds:
        text += f", {plan.seconds:.3g} s at {share:.0%} of the chips' peak"
        if plan.work.task == "train":
            w = plan.work
            tokens = w.experts * w.batch * w.length * w.accumulate / plan.seconds
            text += f" ({tokens:.3g} tokens a second)"
    return [f"{text}."]


def verdict(plan: Plan, flags: Mapping[str, str] = FLAGS) -> str:
    """Whether it fits; if not, what would.

    Args:
      plan: what is planned.
      flags: as :func:`run` takes them.
    """
    if plan.fits is None:
        return "There is no limit to compare with."
    if plan.fits:
        times = (plan.limit or 0) / plan.peak
        return f"It fits, with {times:.1f} times what it needs{_taken(plan)}."
    scale = max(1.0, plan.peak / max(1, plan.formula))
    tries = []
    if plan.work.task != "merge":
        most = search.largest_batch(plan.work, plan.where, plan.sizes, scale)
        if most:
            tries.append(flags["batch"].format(most))
    if plan.work.task == "train" and not plan.work.config.remat and "remat" in flags:
        config = dataclasses.replace(plan.work.config, remat=True)
        again = dataclasses.replace(plan.work, config=config)
        if search.fits(again, plan.where, plan.sizes, scale):
            tries.append(flags["remat"])
    if larger := search.smallest(plan.work, plan.where):
        tries.append(f"--topology {larger[0]} --mesh {mesh_text(larger[1])}")
    return f"It does not fit. By formula these would: {'; '.join(tries) or 'none'}."


def _taken(plan: Plan) -> str:
    """What a user must set before JAX takes as much of a GPU as is needed."""
    if plan.where.platform != "gpu" or plan.peak <= TAKEN * (plan.limit or 0):
        return ""
    return (
        f", of which JAX takes {TAKEN:.0%} unless XLA_PYTHON_CLIENT_MEM_FRACTION says "
        f"more, such as 0.95"
    )


def meshes(console: Console, ranked: Sequence[Ranked]) -> None:
    """Prints the best meshes, by formula.

    Args:
      console: where to.
      ranked: all of them.
    """
    rows = [
        (
            mesh_text(x.sizes),
            f"{x.peak / 2**30:.3f}",
            "yes" if x.fits else "no",
            f"{x.seconds:.3g}" if x.seconds else "-",
        )
        for x in ranked[:SHOWN]
    ]
    heads = ("mesh, by formula", "GiB a chip", "fits", "seconds a step")
    printing.table(console, heads, rows)
