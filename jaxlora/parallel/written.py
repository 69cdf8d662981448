"""Meshes as they are written down, ``expert=4,fsdp=2``: in flags and in configs."""

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from jaxlora.names import near
from jaxlora.parallel.mesh import AXES, check
from jaxlora.parallel.mesh import mesh as build

OTHERWISE: Mapping[str, str] = {
    "dp": "data",
    "ddp": "data",
    "batch": "data",
    "replica": "data",
    "zero": "fsdp",
    "hsdp": "fsdp",
    "tp": "tensor",
    "mp": "tensor",
    "model": "tensor",
    "heads": "tensor",
    "ep": "expert",
}
"""What axes are called elsewhere."""


def sizes(text: str) -> dict[str, int]:
    """Reads sizes of axes.

    Args:
      text: as it was given.

    Raises:
      ValueError: naming what is no axis, or no size.

    >>> sizes("expert=4,fsdp=-1")
    {'expert': 4, 'fsdp': -1}
    """
    out: dict[str, int] = {}
    for part in filter(None, text.replace(" ", ",").split(",")):
        axis, _, size = part.partition("=")
        if axis not in AXES:
            raise ValueError(
                f"The mesh {text!r} has no known axis {axis!r}; {_hint(axis)}"
            )
        try:
            number = int(size)
        except ValueError:
            number = 0
        if number < 1 and number != -1:
            raise ValueError(
                f"The mesh {text!r} gives {axis} the size {size!r}, expected a number "
                f"from 1 on, or -1 for the rest, as in {axis}=2."
            )
        if axis in out:
            raise ValueError(f"The mesh {text!r} names {axis} twice, expected once.")
        out[axis] = number
    if text and not out:
        raise ValueError(f"The mesh {text!r} names no axis; axes are {_listed()}.")
    return out


def mesh(text: str, **divided: Mapping[str, int]) -> Mesh | None:
    """The mesh of sizes, over the devices of all processes; None for one device.

    Args:
      text: as it was given.
      **divided: what devices along an axis must divide, as ``parallel.check`` takes it.

    Raises:
      ValueError: as :func:`sizes`, if the devices are another number, or an axis does
        not divide; it says which sizes do.

    >>> mesh("") is None
    True
    >>> mesh("expert=2,data=-1", expert={"data files": 3})
    Traceback (most recent call last):
        ...
    ValueError: The mesh has expert=2, which does not divide 3 data files; 1 or 3 do.
    """
    asked: dict[str, Any] = {**sizes(text)}
    if not asked:
        return None
    built = build(**asked)
    check(built.shape, **divided)
    return built


def _hint(axis: str) -> str:
    """What somebody may mean by an axis.

    >>> _hint("tp"), _hint("fdsp"), _hint("expert:8")
    ('did you mean tensor?', 'did you mean fsdp?', 'did you mean expert=8?')
    """
    name, sign, size = axis.lower().partition(":")
    close = [OTHERWISE[name]] if name in OTHERWISE else near(name, AXES)
    if close:
        return f"did you mean {close[0]}{'=' if sign else ''}{size}?"
    return f"axes are {_listed()}, as in expert=4,fsdp=2."


def _listed() -> str:
    return f"{', '.join(AXES[:-1])} and {AXES[-1]}"
