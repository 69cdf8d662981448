"""An adapter written as a PEFT folder, site by site.

What a file of safetensors holds is listed at its start, and which ranks are kept is
known at the end. Factors are therefore set aside in a file without a name, and copied
from there one tensor at a time: in memory is one site.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np

from jaxlora.io import peft_out, peft_parameters_out, shards
from jaxlora.io.collection import Collection
from jaxlora.io.collection_base import GAIN, Plain, Restored
from jaxlora.io.collection_beside import Beside
from jaxlora.io.collection_biases import BIAS, Joined
from jaxlora.io.peft import PeftAdapter, PeftModule
from jaxlora.lora import Adapter, LoraWeight

WriteSite: TypeAlias = Callable[[str, LoraWeight], None]
"""``write_site(site, weight)`` of a weight [L, D, R]."""


def write(folder: Path | str, adapter: Adapter, like: Collection) -> None:
    """Writes an adapter as a PEFT folder whose every scale is 1 (alpha = rank).

    Scales of the adapter are multiplied into ``b``. Trailing ranks that are zero in
    both factors are cut off, and a module in which nothing is left is not written;
    ranks that differ are named in ``rank_pattern``.

    Args:
      folder: new, or empty.
      adapter: LoraWeights [L, D, R] by site, of the sites of ``like``.
      like: says which module is which.

    Raises:
      ValueError: if the folder holds something, the adapter is zero everywhere or not
        finite, or its sites or shapes are not those of ``like``.
    """
    with writing(folder, like) as write_site:
        for site, weight in adapter.items():
            write_site(site, weight)


@contextlib.contextmanager
def writing(
    folder: Path | str,
    like: Collection,
    beside: Beside | None = None,
    plain: Plain | None = None,
) -> Iterator[WriteSite]:
    """As :func:`write`, of sites that are given one after the other.

    Args:
      folder: new, or empty; it is there once the block has ended well.
      like: says which module is which.
      beside: what the adapter has beside its updates, or None.
      plain: the rank of updates that take in magnitudes (DoRA) on their base; None
        writes DoRA again, which is exact.

    Raises:
      ValueError: as :func:`write`.
    """
    with (
        shards.new_folder(Path(folder)) as new,
        tempfile.TemporaryFile(dir=new) as file,
    ):
        spool = _Spool(file)

        def write_site(site: str, weight: LoraWeight) -> None:
            for path, module in _modules(site, weight, like):
                spool.add(path, module)

        yield write_site
        file.flush()
        modules = _restored(_joined(spool, like, beside), like, plain)
        every = {path for paths in like.modules.values() for path in paths}
        # Short names would also adapt the modules that are left out here.
        short = like.targets is not None and modules.keys() == {*_unbiased(every)}
        modules, parameters = peft_parameters_out.stacked(modules, _bare(like))
        what = {"modules": modules, "parameters": parameters}
        adapter = PeftAdapter(**what, base_name=like.base_name)
        targets = like.targets if short else None
        peft_out.fill(new, adapter, targets=targets, beside=beside)


def _bare(like: Collection) -> dict[str, tuple[int, int]]:
    """Features in and out of the modules that are bare parameters, by path."""
    return {path: x for path, x in _shapes(like).items() if path in like.parameters}


def _unbiased(paths: Iterable[str]) -> Iterator[str]:
    return (path for path in paths if not path.endswith((BIAS, GAIN)))


def _restored(
    modules: Mapping[str, PeftModule], like: Collection, plain: Plain | None
) -> Mapping[str, PeftModule]:
    """Modules with the gains among them as magnitudes, or within updates of a rank."""
    gains = {path for path in modules if path.endswith(GAIN)}
    if not gains or like.base is None:
        return modules
    bare = sorted(like.parameters.intersection(modules))
    if bare and plain is None:
        raise ValueError(
            f"The merge has magnitudes (DoRA) and an update of a bare parameter "
            f"(target_parameters) at {bare[0]!r}, which no adapter of PEFT has at "
            f"once; --rank R writes it as plain LoRA."
        )
    rows = {}
    for path in gains:
        a, b = (x.astype(np.float32) for x in (modules[path].a, modules[path].b))
        rows[path.removesuffix(GAIN)] = (b @ a)[:, 0]
    rest = _Without(modules, frozenset(gains))
    return Restored(rest, rows, _shapes(like), like.base, plain)


@dataclasses.dataclass(frozen=True)
class _Without(Mapping[str, PeftModule]):
    modules: Mapping[str, PeftModule]
    left_out: frozenset[str]

    def __getitem__(self, path: str) -> PeftModule:
        if path in self.left_out:
            raise KeyError(path)
        return self.modules[path]

    def __iter__(self) -> Iterator[str]:
        return (path for path in self.modules if path not in self.left_out)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _shapes(like: Collection) -> dict[str, tuple[int, int]]:
    """D and F of every module."""
    return {
        path: (like.shapes[site].a.shape[-2], like.shapes[site].b.shape[-1])
        for site, paths in like.modules.items()
        for path in paths
    }


def _joined(
    spool: Mapping[str, PeftModule], like: Collection, beside: Beside | None
) -> Mapping[str, PeftModule]:
    """Modules with what stands beside their factors."""
    names = () if beside is None else beside.magnitudes
    if not names and not any(path.endswith(BIAS) for path in spool):
        return spool
    magnitudes = {} if beside is None else {x: beside.magnitude(x) for x in names}
    return Joined(spool, magnitudes, _shapes(like))


@dataclasses.dataclass(frozen=True)
class _Array:
    at: int
    shape: tuple[int, ...]
    dtype: np.dtype


class _Spool(Mapping[str, PeftModule]):
    """Modules of scale 1 in a file; one that is asked for is mapped, not read."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._modules: dict[str, tuple[_Array, _Array, bool]] = {}

    def add(self, path: str, module: PeftModule) -> None:
        a, b = self._append(module.a), self._append(module.b)
        self._modules[path] = a, b, module.embedding

    def _append(self, values: np.ndarray) -> _Array:
        place = _Array(self._file.tell(), values.shape, values.dtype)
        plain = np.ascontiguousarray(values).reshape(-1)
        self._file.write(plain.view(np.uint8).data)
        return place

    def __getitem__(self, path: str) -> PeftModule:
        a, b, embedding = self._modules[path]
        return PeftModule(self._mapped(a), self._mapped(b), 1.0, embedding)

    def __contains__(self, path: object) -> bool:
        return path in self._modules  # without a map of its arrays

    def _mapped(self, x: _Array) -> np.ndarray:
        # The map ends with the array, and so do its pages in memory.
        return np.memmap(self._file, x.dtype, "r", x.at, x.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


def _modules(
    site: str, weight: LoraWeight, like: Collection
) -> Iterator[tuple[str, PeftModule]]:
    _check_site(site, weight, like)
    a, b, scale = (np.asarray(x) for x in (weight.a, weight.b, weight.scale))
    for i, path in enumerate(like.modules[site]):
        pair = _scaled(a[i], b[i], scale[i])
        if not all(np.isfinite(x.astype(np.float32, copy=False)).all() for x in pair):
            raise ValueError(
                f"The adapter holds NaN or infinity in {path!r} and is not written; "
                f"what it is made of may be beyond float32 (a scale of 1e38, say)."
            )
        # Padding of the library is no rank of the adapter.
        rank = peft_out.used(*pair)
        if rank:
            down, up = pair[0].T[:rank], pair[1].T[:, :rank]
            yield path, PeftModule(down, up, 1.0, site in like.embeddings)


def _check_site(site: str, weight: LoraWeight, like: Collection) -> None:
    if site not in like.modules:
        raise ValueError(
            f"The adapter has a site {site!r}, expected one of "
            f"{', '.join(map(repr, list(like.modules)[:8]))}."
        )
    layers, r = len(like.modules[site]), weight.rank
    d, f = like.shapes[site].a.shape[-2], like.shapes[site].b.shape[-1]
    shapes = weight.a.shape, weight.b.shape, weight.scale.shape
    expected = (layers, d, r), (layers, r, f), (layers,)
    if shapes != expected:
        raise ValueError(
            f"Site {site!r} has a, b, scale of shapes {shapes}, expected {expected}."
        )


def _scaled(a: np.ndarray, b: np.ndarray, scale: np.ndarray):
    # Multiplied by 1 the factors would still become float32.
    if scale == 1:
        return a, b
    with np.errstate(over="ignore"):  # infinity is an error later, with its module
        return a, b.astype(np.float32) * scale.astype(np.float32)
