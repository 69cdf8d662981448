"""Adapters whose updates are known on their base only, merged beside it.

PiSSA and OLoRA: the first factors are taken out again (:mod:`jaxlora.io.peft_starts`).
DoRA: with the gain g = m / |W + s b a| of each output feature, the update of W is
``(g - 1) W + g s b a``, of which the second part has low rank and the first one is as
many numbers as there are features. Both are linear in the update: gains are modules of
their own, as biases are. A merge of gain G and low-rank part P is again one of DoRA,
``G (W + P / G)``; of a lower rank it is the best approximation of the whole.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlora.io import module_names, peft_starts, quantised, tensors
from jaxlora.io.peft import Header, PeftFile, PeftModule

GAIN = ".dora_gain"
"""Ends the name of a module that holds the gain of another, less 1."""


class Base:
    """The weights of a checkpoint, read when they are asked for.

    Args:
      folder: of a Hugging Face checkpoint.

    Raises:
      ValueError: if it is none.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self._stored = quantised.opened(tensors.open_folder(self.folder))
        self._names = {module_names.canonical(x): x for x in self._stored.entries}
        raw = tensors.read_json(self.folder / "config.json")
        # Its layers are stored as [in, out].
        self._turned = raw.get("model_type") == "gpt2"

    def weight(self, path: str, header: Header | PeftModule) -> np.ndarray:
        """Returns the weight of a module, float32 [F, D].

        Args:
          path: of the module.
          header: says D and F.

        Raises:
          ValueError: if the base has no such module, or one of another shape.
        """
        plain = module_names.canonical(path)
        name = self._names.get(f"{plain}.weight")
        if plain == "lm_head" and name is None:  # tied: it is the table
            tables = ("model.embed_tokens.weight", "transformer.wte.weight")
            name = next((self._names[x] for x in tables if x in self._names), None)
        if name is None:
            raise ValueError(
                f"The adapter adapts {path!r}, of which {self.folder} has no weight; "
                f"it is for another model."
            )
        values = np.asarray(self._stored.read(name, finite=True), np.float32)
        turned = self._turned and plain != "lm_head"
        values = values.T if turned else values
        expected = (
            (header.f, header.d)
            if isinstance(header, Header)
            else (len(header.b), header.a.shape[1])
        )
        if values.shape != expected:
            raise ValueError(
                f"The adapter's update of {path!r} is from {expected[1]} to "
                f"{expected[0]} features, and its weight in {self.folder} from "
                f"{values.shape[-1]} to {values.shape[0]}; it is for another model."
            )
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnBase(PeftFile):
    """An adapter whose modules are plain updates of the base."""

    base: Base
    """That it was trained on."""
    magnitudes: Mapping[str, str]
    """Their tensors, by canonical path."""

    def read(self, path: str) -> PeftModule:
        """As :meth:`PeftFile.read`; of DoRA the low-rank part, or the gain less 1."""
        inner = path.removesuffix(GAIN)
        header = self.modules[inner]
        module = super().read(inner)
        if module.start is not None:
            weight = self.base.weight(inner, header)
            return peft_starts.without_start(module, weight.T)
        key = self.magnitudes.get(module_names.canonical(inner))
        if key is None:
            return module
        gain = self._gain(inner, module, self.tensor(key))
        if path != inner:
            return PeftModule(np.ones((1, 1), np.float32), gain[:, None] - 1, 1.0)
        return dataclasses.replace(module, b=_wide(module.b) * gain[:, None])

    def _gain(self, path: str, module: PeftModule, magnitude: np.ndarray):
        total = self.base.weight(path, module) + _delta(module)
        return _wide(magnitude) / np.linalg.norm(total, axis=1)


def on_base(file: PeftFile, base: Base) -> PeftFile:
    """Returns an adapter whose modules are plain updates, gains among them.

    Args:
      file: the adapter.
      base: that it was trained on.

    Raises:
      ValueError: if a module has a magnitude and is no linear layer.
    """
    modules, magnitudes = {}, {}
    for path, header in file.modules.items():
        key, bias = header.beside
        if key is not None and header.embedding:
            raise ValueError(
                f"The adapter {file.folder} has a magnitude (DoRA) of the embedding "
                f"{path!r}, which is not merged; leave that module out."
            )
        # What training took out of the base is as large as what it ended with.
        rank = header.rank * (1 if header.start is None else 2)
        modules[path] = dataclasses.replace(header, rank=rank, beside=(None, bias))
        if key is not None:
            magnitudes[module_names.canonical(path)] = key
            modules[path + GAIN] = Header(
                1, 1, header.f, 1.0, False, np.dtype(np.float32), (key, key)
            )
    fields = {x.name: getattr(file, x.name) for x in dataclasses.fields(file)}
    fields |= {"modules": modules, "magnitudes": magnitudes}
    return OnBase(**fields, base=base)


def notes(files: Iterable[PeftFile]) -> Iterator[str]:
    """Says what is computed of adapters on their base.

    Args:
      files: as :func:`on_base` returns them.
    """
    for file in files:
        starts = {x.start or "" for x in file.modules.values()} - {""}
        if starts:
            yield (
                f"{file.folder} began with {min(starts)} factors of its base, which "
                f"are taken out of its updates again: these have twice the rank."
            )
        if isinstance(file, OnBase) and file.magnitudes:
            yield (
                f"{file.folder} has magnitudes (DoRA) in {len(file.magnitudes)} "
                f"modules, which are merged in delta space on its base; norms below "
                f"are of the updates beside them."
            )


@dataclasses.dataclass(frozen=True)
class Plain:
    """A merge with magnitudes as plain LoRA: each update as near as can be."""

    rank: int
    """R of every module at most."""
    left_out: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """By path: squared norms of what is left out, and of the update."""

    def sentence(self) -> str:
        """Says what was left out."""
        out, total = (sum(x) for x in zip(*self.left_out.values(), strict=True))
        return (
            f"Magnitudes are written as plain LoRA of rank {self.rank}, which leaves "
            f"out {(out / total) ** 0.5 if total else 0.0:.3g} of the norm of the "
            f"merged update; without --rank it is written as DoRA, exactly."
        )


def plain(sites: Iterable[str], rank: int | None) -> Plain | None:
    """Returns how magnitudes are written as plain LoRA; None if there are none to be.

    Args:
      sites: of a collection.
      rank: that is asked for, of update and magnitude together.
    """
    gains = any(GAIN in site for site in sites)
    return Plain(rank) if gains and rank is not None else None


class Restored(Mapping[str, PeftModule]):
    """Modules of a merge with gains, as DoRA or as plain updates of a given rank.

    Args:
      modules: by path, without gains.
      gains: by path, less 1, [F].
      shapes: D and F by path, for modules that have no factors left.
      base: of all of them.
      plain: the rank of plain updates; None for DoRA, which is exact.
    """

    def __init__(
        self,
        modules: Mapping[str, PeftModule],
        gains: Mapping[str, np.ndarray],
        shapes: Mapping[str, tuple[int, int]],
        base: Base,
        plain: Plain | None,
    ):
        self._modules, self._gains, self._shapes = modules, gains, shapes
        self._base, self._plain = base, plain
        self._last: tuple[str, PeftModule] | None = None

    def __getitem__(self, path: str) -> PeftModule:
        """Returns a module; the last one is kept, as it is asked for part by part."""
        if self._last is None or self._last[0] != path:
            self._last = path, self._restored(path)
        return self._last[1]

    def _restored(self, path: str) -> PeftModule:
        module, row = self._modules.get(path), self._gains.get(path)
        if module is None:
            d, f = self._shapes[path]
            down, up = np.zeros((1, d), np.float32), np.zeros((f, 1), np.float32)
            module = PeftModule(down, up, 1.0)
        if self._plain is not None:
            small = row is None and len(module.a) <= self._plain.rank
            return module if small else self._cut(path, module, row, self._plain)
        other = "an update of an embedding" if module.embedding else "biases"
        if module.embedding or module.bias is not None:
            raise ValueError(
                f"The merge has magnitudes (DoRA) and {other} at {path!r}, which no "
                f"adapter of PEFT has at once; --rank R writes it as plain LoRA."
            )
        gain = 1.0 + (np.zeros(len(module.b), np.float32) if row is None else row)
        if (gain <= 0).any():
            raise ValueError(
                f"The merge multiplies outputs of {path!r} by {gain.min():.3g}, which "
                f"no magnitude of DoRA does; --rank R writes it as plain LoRA."
            )
        low = dataclasses.replace(module, b=_wide(module.b) / gain[:, None])
        total = self._base.weight(path, low) + _delta(low)
        return dataclasses.replace(low, magnitude=gain * np.linalg.norm(total, axis=1))

    def _cut(self, path: str, module: PeftModule, row: Any, to: Plain) -> PeftModule:
        total = _delta(module).astype(np.float64)
        if row is not None:
            total += row[:, None] * self._base.weight(path, module)
        rank = min(to.rank, *total.shape)
        u, s, v = peft_starts.leading(total, rank)
        square = float((total**2).sum())
        to.left_out[path] = max(square - float((s**2).sum()), 0.0), square
        a, b = v * np.sqrt(s)[:, None], u * np.sqrt(s)
        return dataclasses.replace(module, a=_wide(a), b=_wide(b), scale=1.0)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._modules, *self._gains}))

    def __len__(self) -> int:
        return len({*self._modules, *self._gains})


def _delta(module: PeftModule) -> np.ndarray:
    return module.scale * (_wide(module.b) @ _wide(module.a))


def _wide(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)
