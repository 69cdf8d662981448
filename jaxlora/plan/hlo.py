"""Which chips talk to which, and how much: the collectives of a compiled program.

XLA writes a compiled program as text. Loops are computations that are called from a
``while``; what they do counts once for each trip, which the loop's condition compares
with a constant. Groups of devices are written in several ways, all of them positions in
the order of the mesh.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


class Collective(NamedTuple):
    """One collective of a program."""

    kind: str
    """One of ``KINDS``."""
    axes: tuple[str, ...]
    """Of the mesh, along which devices talk."""
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    """Of what each device ends with: type and sizes."""
    group: int
    """Devices that talk with each other."""
    times: int
    """How often it runs: trips of the loops that it is in."""
    name: str
    """The operation of the model that it belongs to, as JAX names it."""

    @property
    def received(self) -> float:
        """Bytes that a device receives in all runs, in a ring."""
        size = sum(BYTES.get(kind, 4) * math.prod(shape) for kind, shape in self.shapes)
        share = (self.group - 1) / self.group
        factor = {
            "all-gather": share,
            "all-reduce": 2 * share,
            "reduce-scatter": self.group - 1,
            "all-to-all": share,
        }
        return self.times * size * factor.get(self.kind, 1.0)


_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|called_computations)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_COUNT = re.compile(r'known_trip_count"?:\s*\{\s*"?n"?:\s*"?(\d+)')
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_KIND = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
    """The collectives of a compiled program, each once.

    Args:
      text: ``compiled.as_text()``.
      mesh: sizes of the axes, in the order of the mesh.
    """
    bodies = _computations(text)
    times = _times(bodies)
    seen, out = set(), []
    for name, lines in bodies.items():
        for line in lines:
            if " = " not in line or not (match := _KIND.search(line)):
                continue
            channel = re.search(r"channel_id=(\d+)", line)
            # The compiler writes parts of one collective into several computations.
            key = (match[2], channel[1] if channel else line)
            groups = _groups(line, math.prod(mesh.values()))
            axes = axes_of(groups, mesh)
            if key in seen or not axes:
                continue
            seen.add(key)
            out.append(
                Collective(
                    kind=match[2],
                    axes=axes,
                    shapes=_shapes(match[1], match[2], started=bool(match[3])),
                    group=groups.shape[1],
                    times=times.get(name, 1),
                    name=_operation(line),
                )
            )
    return out


def axes_of(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh along which the devices of some group differ.

    Args:
      groups: positions in the mesh, a row a group.
      mesh: sizes of the axes, in the order of the mesh.

    >>> axes_of(np.array([[0, 2], [1, 3]]), {"expert": 2, "tensor": 2})
    ('expert',)
    """
    places = np.stack(np.unravel_index(groups, tuple(mesh.values())), axis=-1)
    differ = (places != places[:, :1]).any(axis=(0, 1))
    return tuple(name for name, here in zip(mesh, differ, strict=True) if here)


def _computations(text: str) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = out.setdefault(match[1], [])
        else:
            current.append(line)
    return out


def _times(bodies: Mapping[str, list[str]]) -> dict[str, int]:
    """How often each computation runs, by the loops that it is called from."""
    called: dict[str, list[tuple[str, int]]] = {}
    for name, lines in bodies.items():
        for line in lines:
            loop = _WHILE.search(line)
            trips = _trips(line, bodies, loop[1]) if loop else 1
            for inner in _names(line):
                # A condition runs once more than the body; it has no collectives.
                called.setdefault(inner, []).append((name, trips))

    known: dict[str, int] = {}

    def count(name: str) -> int:
        if name not in known:
            known[name] = 1  # of the entry, which nobody calls
            calls = called.get(name, ())
            known[name] = max((n * count(caller) for caller, n in calls), default=1)
        return known[name]

    return {name: count(name) for name in bodies}


def _names(line: str) -> Iterator[str]:
    for match in _CALLED.finditer(line):
        for name in match[1].strip("{}").split(","):
            yield name.strip().lstrip("%")


def _trips(line: str, bodies: Mapping[str, list[str]], condition: str) -> int:
    if match := _COUNT.search(line):
        return int(match[1])
    lines = list(bodies.get(condition, ()))
    for inner in [name for x in lines for name in _names(x)]:
        lines += bodies.get(inner, ())
    constant = r"s32\[\]\S* constant\((\d+)\)"
    return max((int(n) for x in lines for n in re.findall(constant, x)), default=1)


def _shapes(result: str, kind: str, *, started: bool):
    arrays = [
        (name, tuple(int(n) for n in sizes.split(",") if n))
        for name, sizes in _ARRAY.findall(re.sub(r"\{[^{}]*\}", "", result))
    ]
    # What has started gives its input as well as its output.
    if started and kind in ("all-gather", "collective-permute") and len(arrays) > 1:
        half = len(arrays) // 2
        arrays = arrays[half:] if kind == "all-gather" else arrays[1:2]
    return tuple(arrays)


def _operation(line: str) -> str:
    match = re.search(r'op_name="([^"]*)"', line)
    return match[1] if match else ""


def _groups(line: str, devices: int) -> np.ndarray:
    """Positions of devices, a row a group."""
    if match := re.search(r"source_target_pairs=\{(.*?)\}\}?", line):
        pairs = re.findall(r"(\d+),(\d+)", match[0])
        return np.array([[int(a), int(b)] for a, b in pairs])
    if match := re.search(
        r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line
    ):
        shape, source, turned = (_ints(x) for x in match.groups())
        ids = np.arange(devices).reshape(source)
        return (ids.transpose(turned) if turned else ids).reshape(shape)
    if "replica_groups=mesh[" in line:
        return _of_mesh(line, devices)
    groups = re.findall(r"\{([\d,]+)\}", _braces(line))
    if not groups:
        return np.arange(devices)[None]
    return np.array([_ints(group) for group in groups])


def _of_mesh(line: str, devices: int) -> np.ndarray:
    """``mesh['axis_0'=2,'axis_1'=4], device_ids=([2,4]T(1,0)) {'axis_1'}``."""
    match = re.search(
        r"mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{(.*?)\}",
        line,
    )
    assert match is not None, line
    sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", match[1])}
    ids = np.arange(devices)
    if match[2]:
        ids = ids.reshape(_ints(match[2]))
        ids = ids.transpose(_ints(match[3])) if match[3] else ids
    ids = ids.reshape(tuple(sizes.values()))
    talking: list[str] = []
    for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", match[4]):
        if not size:
            talking.append(name)
            continue
        # A part of an axis is written 'axis':(product before it)size.
        sizes = _split(sizes, name, int(before), int(size))
        talking.append(f"{name}.1")
    order = [name for name in sizes if name not in talking] + talking
    ids = ids.reshape(tuple(sizes.values()))
    turned = ids.transpose([list(sizes).index(name) for name in order])
    return turned.reshape(-1, math.prod(sizes[name] for name in talking))


def _split(sizes: dict[str, int], name: str, before: int, size: int) -> dict[str, int]:
    """Sizes with one axis in three, so that a part of it has a name.

    >>> _split({"a": 8, "b": 3}, "a", 2, 2)
    {'a.0': 2, 'a.1': 2, 'a.2': 2, 'b': 3}
    """
    parts = (before, size, sizes[name] // (before * size))
    out: dict[str, int] = {}
    for key, total in sizes.items():
        new = {f"{key}.{i}": n for i, n in enumerate(parts)} if key == name else None
        out |= new or {key: total}
    return out


def _braces(line: str) -> str:
    match = re.search(r"replica_groups=(\{\{.*?\}\})", line)
    return match[1] if match else ""


def _ints(text: str | None) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",")) if text else ()
