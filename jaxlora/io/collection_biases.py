"""Biases of adapters (``lora_bias``) as modules of their own, and back.

A bias is an update of rank 1 from an input that is 1: a merge treats it as any module.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from jaxlora.io.peft import Header, PeftFile, PeftModule

BIAS = ".lora_bias"
"""Ends the name of such a module."""


def with_biases(file: PeftFile) -> PeftFile:
    """Lists the biases of an adapter among its modules.

    Args:
      file: the adapter.
    """
    biases = {
        path + BIAS: Header(
            rank=1,
            d=1,
            f=header.f,
            scale=header.scale,
            embedding=False,
            dtype=np.dtype(np.float32),
            keys=(header.beside[1],) * 2,
            vector=True,
        )
        for path, header in file.modules.items()
        if header.beside[1] is not None
    }
    return dataclasses.replace(file, modules={**file.modules, **biases})


@dataclasses.dataclass(frozen=True)
class Joined(Mapping[str, PeftModule]):
    """Modules of a merge with their biases and magnitudes beside their factors."""

    modules: Mapping[str, PeftModule]
    """By path; biases are modules of their own."""
    magnitudes: Mapping[str, np.ndarray]
    """By path, [F]."""
    shapes: Mapping[str, tuple[int, int]]
    """D and F by path, for modules that have no factors left."""

    def __getitem__(self, path: str) -> PeftModule:
        d, f = self.shapes[path]
        module, bias = self.modules.get(path), self.modules.get(path + BIAS)
        if module is None:
            down, up = np.zeros((1, d), np.float32), np.zeros((f, 1), np.float32)
            module = PeftModule(down, up, 1.0)
        if path not in self.modules.keys() | self.magnitudes.keys() and bias is None:
            raise KeyError(path)
        vector = None
        if bias is not None:
            vector = (_float32(bias.b) @ _float32(bias.a))[:, 0] * bias.scale
        elif any(x.endswith(BIAS) for x in self.modules):
            vector = np.zeros(f, np.float32)  # PEFT has a bias everywhere or nowhere
        magnitude = self.magnitudes.get(path)
        return dataclasses.replace(module, bias=vector, magnitude=magnitude)

    def __iter__(self) -> Iterator[str]:
        with_bias = (x.removesuffix(BIAS) for x in self.modules)
        return iter(sorted({*with_bias, *self.magnitudes}))

    def __len__(self) -> int:
        return len(list(iter(self)))


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)
