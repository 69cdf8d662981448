"""Tensors of all MLPs of a mixture in one, as some checkpoints of Qwen3.5 store them.

``mlp.experts.gate_up_proj`` [X, 2 F, D] and ``down_proj`` [X, D, F] are taken apart
into the X tensors of each module that other checkpoints have. Each is a run of bytes in
the file, so that nothing is read twice.
"""

import dataclasses
import re

import numpy as np

from jaxlora.io import header
from jaxlora.io.header import DTYPES, Entry
from jaxlora.io.tensors import Tensors

_JOINED = re.compile(
    r"(?P<module>.+\.mlp\.experts)\.(?P<name>gate_up_proj|down_proj)(?:\.weight)?"
)
_PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
_MOST = 2**12  # some times the MLPs of any model


@dataclasses.dataclass(frozen=True)
class Apart(Tensors):
    """Named tensors, some of them parts of others in their files."""

    stored: Tensors
    """What the files hold."""
    parts: frozenset[str]
    """Names of those that are parts."""

    def read(self, name: str, *, finite: bool = False) -> np.ndarray:
        """Returns one tensor, as :meth:`Tensors.read`.

        Args:
          name: a key of ``entries``.
          finite: check the values as well.

        Raises:
          ValueError: as :meth:`Tensors.read`.
        """
        if name not in self.parts:
            return self.stored.read(name, finite=finite)
        entry = self.entries[name]
        values = header.values(self.files[name], entry)
        if finite and not np.isfinite(values.astype(np.float32, copy=False)).all():
            raise header.bad(self.files[name], f"{name!r} holds NaN or infinity")
        return values


def apart(stored: Tensors) -> Tensors:
    """Returns the tensors of a checkpoint, with one for each MLP of a mixture.

    Args:
      stored: as its files hold them.

    Raises:
      ValueError: if such a tensor is quantised, or not of so many MLPs.
    """
    joined = {name: m for name in stored.entries if (m := _JOINED.fullmatch(name))}
    if not joined:
        return stored
    files = {name: path for name, path in stored.files.items() if name not in joined}
    entries = {name: x for name, x in stored.entries.items() if name not in joined}
    kept = frozenset(entries)
    for name, match in joined.items():
        for part, entry in _taken(name, stored.entries[name], match).items():
            if part in kept:
                raise ValueError(
                    f"The checkpoint holds {part!r} twice, in {name!r} as well."
                )
            entries[part], files[part] = entry, stored.files[name]
    return Apart(files, entries, stored, frozenset(entries) - kept)


def _taken(name: str, entry: Entry, match: re.Match[str]) -> dict[str, Entry]:
    """The parts of one tensor, by name."""
    modules, shape = _PARTS[match["name"]], entry.shape
    matrices = len(shape) == 3 and shape[0] <= _MOST and shape[1] % len(modules) == 0
    if not matrices or entry.dtype not in DTYPES:
        raise ValueError(
            f"Tensor {name!r} is {entry.dtype} of the shape {shape}, expected floats "
            f"of 16 or 32 bits, one matrix for each MLP of a layer, up to {_MOST}."
        )
    first = dataclasses.replace(entry, shape=(shape[1] // len(modules), shape[2]))
    numbered = [(i, module) for i in range(shape[0]) for module in modules]
    return {
        f"{match['module']}.{i}.{module}.weight": dataclasses.replace(
            first, start=entry.start + k * first.nbytes
        )
        for k, (i, module) in enumerate(numbered)
    }
