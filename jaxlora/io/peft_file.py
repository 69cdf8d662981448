"""An adapter of PEFT on disk, of which the headers are known and values are read."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxlora.io.errors import naming
from jaxlora.io.peft_checks import Raw
from jaxlora.io.peft_types import Header, PeftModule
from jaxlora.io.tensors import Tensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftFile:
    """An adapter on disk: config and headers are read and checked, values are not."""

    folder: Path
    """Where it lies."""
    modules: Mapping[str, Header]
    """At least one, sorted by path."""
    base_name: str | None
    """What the config says of the model that the adapter is for."""
    targets: tuple[str, ...] | None
    """Names that target_modules lists, or None if it (or another field) says in a way
    that cannot be written for another adapter as well."""
    copies: Mapping[str, str]
    """Tensors with the base weight of a module, by its path: PEFT saves it beside the
    update of embeddings and heads. A copy changes nothing, and is not read."""
    replaced: Mapping[str, str]
    """Tensors that replace those of the base, by the name that these have there."""
    rows: Mapping[str, tuple[tuple[int, ...], str]]
    """Token ids and tensor of the rows that replace those of an embedding, by path."""
    tied: bool
    """Does what is said of an embedding hold for a head that shares its table, too?"""
    settings: Raw
    """Fields of the config that say what is replaced."""
    stored: Tensors
    """All of these tensors."""

    def read(self, path: str) -> PeftModule:
        """Returns the factors of one module.

        Args:
          path: a key of ``modules``.

        Raises:
          ValueError: if they hold NaN or infinity, or the file was changed.
        """
        header = self.modules[path]
        if header.vector:
            bias = self.tensor(header.keys[1])[:, None].astype(np.float32)
            return PeftModule(np.ones((1, 1), np.float32), bias, header.scale)
        a, b = (self.tensor(key) for key in header.keys)
        m, bias = (None if key is None else self.tensor(key) for key in header.beside)
        beside = {"magnitude": m, "bias": bias, "start": header.start}
        return PeftModule(a, b, header.scale, header.embedding, **beside)

    def tensor(self, key: str) -> np.ndarray:
        """Returns one tensor; float16 becomes float32.

        Args:
          key: of the tensor.

        Raises:
          ValueError: if it holds NaN or infinity, or the file was changed.
        """
        with naming(self.folder):
            return _plain(self.stored.read(key, finite=True))

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the adapter has beside low-rank updates, in words."""
        headers = self.modules.values()
        dora = sum(header.beside[0] is not None for header in headers)
        biases = sum(header.beside[1] is not None for header in headers)
        counted = {f"DoRA in {dora} modules": dora, f"{biases} biases": biases}
        rows = sum(len(ids) for ids, _ in self.rows.values())
        counted |= {f"{rows} trained tokens": rows}
        starts = {h.start for h in headers if h.start}
        counted |= {f"{x} (factors taken out of the base)": 1 for x in starts}
        replaced = [f"{name} replaced" for name in self.replaced]
        return (*(text for text, n in counted.items() if n), *replaced)


def _plain(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float16 else values
