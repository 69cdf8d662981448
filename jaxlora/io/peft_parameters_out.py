"""Updates of single MLPs written as those of the parameters that hold them all.

The other way round than :mod:`jaxlora.io.peft_parameters`.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from jaxlora.io.peft_parameters import STACKED, number_of, parameter_of
from jaxlora.io.peft_types import Parameter, PeftModule


@dataclasses.dataclass(frozen=True)
class Stacked(Mapping[str, PeftModule]):
    """Modules of which those of one parameter are stacked, as PEFT stores them.

    Each stack is made whenever it is asked for; ranks are padded to the largest.
    """

    modules: Mapping[str, PeftModule]
    """By path, some of them such as ``experts.3.down_proj``; zero ones are absent."""
    parts: Mapping[str, tuple[str, ...]]
    """By path of a stack's tensors, those of its X modules."""
    shapes: Mapping[str, tuple[int, int]]
    """Features in and out of the modules of each stack."""
    last: dict[str, PeftModule] = dataclasses.field(default_factory=dict)
    """The stack that was made last: it is asked for part by part."""

    def __getitem__(self, path: str) -> PeftModule:
        """Returns a module as it is, or a stack: a [X R, D] and b [F, X R]."""
        if path not in self.parts:
            return self.modules[path]
        if path not in self.last:
            self.last.clear()
            self.last[path] = self._stack(path)
        return self.last[path]

    def _stack(self, path: str) -> PeftModule:
        paths, (d, f) = self.parts[path], self.shapes[path]
        there = {i: self.modules[x] for i, x in enumerate(paths) if x in self.modules}
        rank = max(len(x.a) for x in there.values())
        dtype = next(iter(there.values())).a.dtype
        a = np.zeros((len(paths), rank, d), dtype)
        b = np.zeros((f, rank, len(paths)), dtype)
        for i, x in there.items():
            a[i, : len(x.a)], b[:, : len(x.a), i] = x.a, x.b
        return PeftModule(a.reshape(-1, d), b.reshape(f, -1), 1.0)

    def __iter__(self) -> Iterator[str]:
        hidden = {x for paths in self.parts.values() for x in paths}
        yield from (x for x in self.modules if x not in hidden)
        yield from self.parts

    def __len__(self) -> int:
        return sum(1 for _ in self)


def stacked(
    modules: Mapping[str, PeftModule], shapes: Mapping[str, tuple[int, int]]
) -> tuple[Stacked, dict[str, Parameter]]:
    """Returns modules of scale 1 as PEFT stores them, and the parameters among them.

    Args:
      modules: by path; zero ones may be absent.
      shapes: features in and out of every module that is of a bare parameter, by path.
    """
    every: dict[str, list[str]] = {}
    for path in shapes:
        every.setdefault(parameter_of(path), []).append(path)
    there = {name for name, x in every.items() if not modules.keys().isdisjoint(x)}
    parts, parameters, sizes = {}, {}, {}
    for name in sorted(there):
        module, _, last = name.rpartition(".")
        inner = last == STACKED[0] and f"{module}.{STACKED[1]}" in there
        path = f"{module}.base_layer" if inner else module
        parts[path] = tuple(sorted(every[name], key=number_of))
        parameters[path] = Parameter(name, len(parts[path]))
        sizes[path] = shapes[parts[path][0]]
    return Stacked(modules, parts, sizes), parameters
