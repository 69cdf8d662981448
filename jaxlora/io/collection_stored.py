"""Sites of adapters on disk: known by their headers, read one at a time.

A mapping in the place of arrays: whoever goes through it site by site holds one site,
whatever the size of the files.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.io.library_arrays import filled
from jaxlora.io.peft import PeftFile
from jaxlora.lora import LoraWeight


@dataclasses.dataclass(frozen=True)
class Stored(Mapping[str, LoraWeight]):
    """Adapters as a library whose sites are read whenever they are asked for."""

    files: Sequence[PeftFile]
    """The E opened adapters."""
    modules: Mapping[str, tuple[str, ...]]
    """By site: the module path of each of the L."""

    def __getitem__(self, site: str) -> LoraWeight:
        """Returns a [E, L, D, R], b [E, L, R, F], scale [E, L]; zeros where absent.

        They are of NumPy: JAX compiles a program for each shape that it takes in.

        Raises:
          ValueError: if a value is NaN or infinite, or a file was changed.
        """
        places = list(self._places(site))
        modules = ((place, file.read(path)) for place, file, path in places)
        # PEFT stores factors as [out, in].
        parts = ((place, part.a.T, part.b.T, part.scale) for place, part in modules)
        lead = len(self.files), len(self.modules[site])
        return filled(lead, self._sizes(site), self._dtype(site), parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def shapes(self) -> dict[str, LoraWeight]:
        """What each site will be, as shapes and types; no value is read."""
        out = {}
        for site, paths in self.modules.items():
            lead, dtype = (len(self.files), len(paths)), self._dtype(site)
            d, r, f = self._sizes(site)
            sizes: tuple[Any, ...] = (
                jax.ShapeDtypeStruct((*lead, d, r), dtype),
                jax.ShapeDtypeStruct((*lead, r, f), dtype),
                jax.ShapeDtypeStruct(lead, jnp.float32),
            )
            out[site] = LoraWeight(*sizes)
        return out

    def ranks(self, site: str) -> np.ndarray:
        """Ranks without padding, int [E, L]; 0 where an adapter lacks the module.

        Args:
          site: its name.
        """
        ranks = np.zeros((len(self.files), len(self.modules[site])), int)
        for place, file, path in self._places(site):
            ranks[place] = file.modules[path].rank
        return ranks

    def _places(self, site: str) -> Iterator[tuple[tuple[int, int], PeftFile, str]]:
        for e, file in enumerate(self.files):
            for i, path in enumerate(self.modules[site]):
                if path in file.modules:
                    yield (e, i), file, path

    def _sizes(self, site: str) -> tuple[int, int, int]:
        """D, the largest R, and F."""
        headers = [file.modules[path] for _, file, path in self._places(site)]
        return headers[0].d, max(header.rank for header in headers), headers[0].f

    def _dtype(self, site: str) -> np.dtype:
        dtypes = {file.modules[path].dtype for _, file, path in self._places(site)}
        return dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
