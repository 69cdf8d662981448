"""Adapters of bare parameters: PEFT's ``target_parameters``.

Transformers 5 keeps the MLPs of a mixture as two parameters of one module, gate_up_proj
[X, 2 I, D] and down_proj [X, D, I]. PEFT wraps the module once for each of the two, the
second around the first, whose tensors are then of ``experts.base_layer``. Update e of X
is ``scale * b[:, :, e] @ a[e]``, where a is lora_A [X R, D] as [X, R, D], and b lora_B
[F, X R] as [F, R, X]. Here each of the X is a module, ``experts.3.gate_up_proj``.

A parameter [F, D] called weight, of a router say, has the factors of a linear layer.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jaxlora.io.tensors import Tensors

STACKED = "gate_up_proj", "down_proj"
"""Parameters of several MLPs, in the order in which PEFT wraps their module."""
_KEY = re.compile(
    r"(?P<module>.+\.experts)(?P<inner>(?:\.base_layer)*)"
    r"\.lora_(?P<which>[AB])(?P<name>(?:\.[^.]+)?)\.weight"
)
_SLICE = re.compile(r"(?P<module>.+\.experts)\.(?P<number>\d+)\.(?P<name>\w+)")
MOST = 2**12
"""A layer of more MLPs is none."""
_KEPT = 4
"""Tensors that are kept while slices of them are asked for: a and b of two."""


def parameter_of(path: str) -> str:
    """Returns the bare parameter that the update of a module would be of.

    Args:
      path: of the module.

    >>> parameter_of("mlp.experts.3.down_proj"), parameter_of("mlp.gate")
    ('mlp.experts.down_proj', 'mlp.gate.weight')
    """
    match = _SLICE.fullmatch(path)
    if match is None or match["name"] not in STACKED:
        return f"{path}.weight"
    return f"{match['module']}.{match['name']}"


def number_of(path: str) -> int:
    """Returns the number of a module among several MLPs; 0 if it is none.

    Args:
      path: of the module.

    >>> number_of("mlp.experts.3.down_proj")
    3
    """
    match = _SLICE.fullmatch(path)
    return int(match["number"]) if match else 0


def is_slice(path: str) -> bool:
    """Is the module one of several MLPs in a layer?

    Args:
      path: of the module.

    >>> is_slice("mlp.experts.3.down_proj"), is_slice("mlp.gate")
    (True, False)
    """
    return _SLICE.fullmatch(path) is not None


class _Slice(NamedTuple):
    """One MLP's factor within a tensor of all."""

    key: str
    which: str
    number: int
    count: int


@dataclasses.dataclass(frozen=True)
class Unstacked(Tensors):
    """Tensors of an adapter, with those of several MLPs taken apart."""

    stored: Tensors
    """As in the file."""
    slices: Mapping[str, _Slice]
    """By name here."""
    kept: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """The tensors that were read last: each is asked for once for every MLP."""

    def read(self, name: str, *, finite: bool = False) -> np.ndarray:
        """As :meth:`Tensors.read`."""
        if name not in self.slices:
            return self.stored.read(name, finite=finite)
        key, which, number, count = self.slices[name]
        if key not in self.kept:
            while len(self.kept) >= _KEPT:
                del self.kept[next(iter(self.kept))]
            self.kept[key] = self.stored.read(key, finite=True)
        values = self.kept[key]
        if which == "A":
            return values.reshape(count, -1, values.shape[-1])[number]
        return values.reshape(len(values), -1, count)[:, :, number]


def unstacked(
    stored: Tensors, is_parameter: Callable[[str], bool], rank_of: Callable[[str], int]
) -> Tensors:
    """Returns the tensors with those of several MLPs taken apart.

    Args:
      stored: of an adapter.
      is_parameter: does target_parameters name this one?
      rank_of: the rank that the config gives a parameter.

    Raises:
      ValueError: if the tensors of a module are not those of the parameters that the
        config names.
    """
    by_module: dict[str, dict[int, dict[str, str]]] = {}
    for key in stored.entries:
        match = _KEY.fullmatch(key)
        if match is not None:
            depth = match["inner"].count(".base_layer")
            wraps = by_module.setdefault(match["module"], {})
            wraps.setdefault(depth, {})[match["which"]] = key
    slices: dict[str, _Slice] = {}
    for module, wraps in by_module.items():
        names = [x for x in STACKED if is_parameter(f"{module}.{x}")]
        _check(stored, module, names, wraps)
        for depth, name in enumerate(reversed(names)):
            rank = rank_of(f"{module}.{name}")
            slices |= dict(
                _taken_apart(stored, f"{module}.{{}}.{name}", wraps[depth], rank)
            )
    if not slices:
        return stored
    taken = {x.key for x in slices.values()}
    entries = {x: entry for x, entry in stored.entries.items() if x not in taken}
    files = {x: stored.files[x] for x in entries}
    for name, part in slices.items():
        entry = stored.entries[part.key]
        first, last = entry.shape
        shape = (
            (first // part.count, last)
            if part.which == "A"
            else (first, last // part.count)
        )
        entries[name] = dataclasses.replace(entry, shape=shape)
        files[name] = stored.files[part.key]
    return Unstacked(files, entries, stored, slices)


def _check(
    stored: Tensors, module: str, names: list[str], wraps: Mapping[int, dict[str, str]]
) -> None:
    """There must be one pair of factors for each parameter, of fitting shapes."""
    paired = all(set(pair) == {"A", "B"} for pair in wraps.values())
    if not paired or sorted(wraps) != list(range(len(names))):
        raise ValueError(
            f"The adapter has {len(wraps)} updates of parameters of {module!r}, and "
            f"target_parameters names {' and '.join(names) or 'none'} of those that "
            f"can be read there, {' and '.join(STACKED)}; config and tensors are of "
            f"different adapters."
        )
    shapes = {
        names[-1 - depth]: [stored.entries[pair[x]].shape for x in "AB"]
        for depth, pair in wraps.items()
    }
    flat = [shape for pair in shapes.values() for shape in pair]
    if any(len(shape) != 2 for shape in flat) or (
        len(shapes) == 2
        and (
            shapes["gate_up_proj"][1][0] != 2 * shapes["down_proj"][0][1]
            or shapes["gate_up_proj"][0][1] != shapes["down_proj"][1][0]
        )
    ):
        raise ValueError(
            f"The adapter's factors of the parameters of {module!r} have the shapes "
            f"{', '.join(map(str, flat))}, which are not those of gate_up_proj and "
            f"down_proj of one mixture."
        )


def _taken_apart(
    stored: Tensors, form: str, pair: Mapping[str, str], rank: int
) -> Iterator[tuple[str, _Slice]]:
    rows, columns = (
        stored.entries[pair["A"]].shape[0],
        stored.entries[pair["B"]].shape[1],
    )
    if rows % rank or rows != columns or not 1 <= rows // rank <= MOST:
        raise ValueError(
            f"The adapter's factors of {form.format('N')!r} are of rank {rows} and "
            f"{columns} for all MLPs together, expected equal multiples of the rank "
            f"{rank} that the config gives each, for at most {MOST} MLPs."
        )
    for number in range(rows // rank):
        for which, key in pair.items():
            name = f"{form.format(number)}.lora_{which}.weight"
            yield name, _Slice(key, which, number, rows // rank)
