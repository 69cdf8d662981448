r"""LoRA adapters in the format of PEFT: ``adapter_config.json`` and tensors.

A module's update of its weight [F, D] is ``scale * b @ a`` with ``lora_A`` a [R, D] and
``lora_B`` b [F, R]. Rank and alpha of a module come from the first key of
``rank_pattern`` and ``alpha_pattern`` that matches its name as the regular expression
``(.*\.)?(key)$``, or else from ``r`` and ``lora_alpha``; the scale is alpha / rank, or
alpha over the square root of the rank with ``use_rslora``. An embedding [V, D] has
``lora_embedding_A`` [R, V] and ``lora_embedding_B`` [D, R], and the update of its table
is the transpose, ``scale * (b @ a).T``.

Whatever is more than such an update (DoRA, biases, trained embeddings, changed base
weights, ...) is refused by name: read as if it were plain LoRA, it would be another
adapter. So is whatever a stranger's file may hold that is no adapter: every error is a
ValueError that names the folder. This module knows the format and no model.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxlora.io import peft_keys, tensors, trust
from jaxlora.io.errors import PathError, naming
from jaxlora.io.peft_checks import CONFIG, check
from jaxlora.io.peft_config import CONFIG_BYTES, Config
from jaxlora.io.peft_keys import WEIGHTS
from jaxlora.io.tensors import Tensors

SEAL = "adapter"
"""Key of the manifest of an adapter that we wrote."""


@dataclasses.dataclass(frozen=True)
class PeftModule:
    """The update ``scale * b @ a`` of one linear layer, or of a transposed table."""

    a: np.ndarray
    """[R, D], float32 or bfloat16; [R, V] for an embedding."""
    b: np.ndarray
    """[F, R]; [D, R] for an embedding."""
    scale: float
    """Unitless."""
    embedding: bool = False
    """Is it the update of an embedding? In our layout, where kernels are [in, out],
    both kinds are ``scale * a.T @ b.T``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftAdapter:
    """Updates by module path, such as ``model.layers.0.self_attn.q_proj``."""

    modules: Mapping[str, PeftModule]
    """At least one."""
    base_name: str | None = None
    """What the config says of the model that the adapter is for."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known of a module before its values are read."""

    rank: int
    """R."""
    d: int
    """Features in; V of an embedding."""
    f: int
    """Features out; D of an embedding."""
    scale: float
    """Unitless."""
    embedding: bool
    """Is it an embedding?"""
    dtype: np.dtype
    """The type that both factors have once read; float32 if they differ."""
    keys: tuple[str, str]
    """Tensors of a and b."""


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
    copies: tuple[str, ...]
    """Modules whose base weight PEFT has saved beside the update (it does so for
    embeddings and heads); the copy is not read."""
    stored: Tensors
    """Tensors of the factors; beside them the copies."""

    def read(self, path: str) -> PeftModule:
        """Returns the factors of one module.

        Args:
          path: a key of ``modules``.

        Raises:
          ValueError: if they hold NaN or infinity, or the file was changed.
        """
        header = self.modules[path]
        with naming(self.folder):
            a, b = (_plain(self.stored.read(key, finite=True)) for key in header.keys)
        return PeftModule(a, b, header.scale, header.embedding)


def read(folder: Path, *, name: str | None = None) -> PeftAdapter:
    """Reads an adapter.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      name: of an adapter that PEFT put into a folder of its name within ``folder``;
        needed if there are several.

    Raises:
      ValueError: if a file is missing or damaged, the adapter is more than low-rank
        updates of linear layers and embeddings, or config and tensors disagree.
    """
    file = open_folder(folder, name=name)
    modules = {path: file.read(path) for path in file.modules}
    return PeftAdapter(modules=modules, base_name=file.base_name)


def open_folder(folder: Path, *, name: str | None = None) -> PeftFile:
    """Reads and checks an adapter's config and headers, but no values.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      name: of an adapter that PEFT put into a folder of its name within ``folder``;
        needed if there are several.

    Raises:
      ValueError: if a file is missing or damaged, the adapter is more than low-rank
        updates of linear layers and embeddings, or config and tensors disagree.
    """
    folder = _folder(folder, name)
    with naming(folder):
        trust.check_sealed(folder, SEAL)
        raw = tensors.read_json(folder / CONFIG, limit=CONFIG_BYTES)
        check(raw)
        stored = tensors.open_file(_weights(folder))
        pairs, copies = peft_keys.pairs(stored.entries)
        config = Config(raw, modules=len(pairs))
        modules = {path: _header(config, stored, path, pairs[path]) for path in pairs}
        _check_copies(stored, modules, copies)
    return PeftFile(
        folder=folder,
        modules=dict(sorted(modules.items())),
        base_name=config.base_name,
        targets=config.listed,
        copies=tuple(sorted(copies)),
        stored=stored,
    )


def _folder(folder: Path, name: str | None) -> Path:
    if name is not None:
        # The name may come from a stranger: it must not leave the folder.
        if Path(name).name != name or name in ("", ".."):
            raise PathError(
                folder,
                f"The adapter's name is {name!r}, expected the name of a folder within "
                f"{folder}.",
            )
        folder = folder / name
    if (folder / CONFIG).is_file():
        return folder
    if not folder.is_dir():
        raise PathError(
            folder, f"There is no folder {str(folder)!r}, expected an adapter."
        )
    # PEFT saves an adapter that is not called "default" into a folder of its name.
    inner = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if len(inner) == 1 and name is None:
        return inner[0]
    shown = ", ".join(path.name for path in inner)
    raise PathError(
        folder,
        f"{folder} has no {CONFIG}, expected an adapter in the format of PEFT"
        + (f"; it holds several, give the folder of one: {shown}." if inner else "."),
    )


def _weights(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    # Say why a file that is plainly there is not read.
    pickled = (folder / "adapter_model.bin").is_file()
    raise PathError(
        folder,
        f"{folder} has no {WEIGHTS}"
        + (
            ", only adapter_model.bin: pickles can run code and are not read; load it "
            "with PEFT and save it again."
            if pickled
            else "; the download is incomplete."
        ),
    )


def _header(config: Config, stored: Tensors, path: str, pair: Mapping[str, str]):
    keys = pair["A"], pair["B"]
    named = keys[0].rpartition(".lora_")[0]
    # PEFT ignores such tensors; to use them here would be another adapter.
    if not config.is_target(named):
        raise ValueError(
            f"The adapter holds {path!r}, which target_modules "
            f"{config.shown('target_modules')} does not match; PEFT would ignore it."
        )
    a, b = (stored.entries[key].shape for key in keys)
    rank = config.rank_of(named)
    _check_shapes(path, a, b, rank)
    for key in keys:
        tensors.check_dtype(key, stored.entries[key])
    kinds = {stored.entries[key].dtype for key in keys}
    # Float16 becomes float32: its range is too small for sums of adapters.
    dtype = tensors.DTYPES["BF16" if kinds == {"BF16"} else "F32"]
    table = "lora_embedding_" in keys[0]
    return Header(rank, a[1], b[0], config.scale_of(named), table, dtype, keys)


def _check_shapes(path: str, a: tuple[int, ...], b: tuple[int, ...], rank: int) -> None:
    shapes = f"The adapter's lora_A and lora_B of {path!r} have the shapes {a} and {b}"
    if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
        raise ValueError(
            f"{shapes}, expected ({rank}, in) and (out, {rank}) by {CONFIG}, which "
            f"gives it the rank {rank}."
        )
    if not a[1] or not b[0]:
        raise ValueError(f"{shapes}, expected features in and out: no layer is empty.")


def _check_copies(stored: Tensors, modules: Mapping[str, Header], copies) -> None:
    for path, key in copies.items():
        header = modules[path]
        d, f = header.d, header.f
        # A copy with another shape is a resized embedding, which is no copy.
        expected = (d, f) if header.embedding else (f, d)
        if stored.entries[key].shape != expected:
            raise ValueError(
                f"Tensor {key!r} has the shape {stored.entries[key].shape}, expected "
                f"{expected}: it is no copy of the weight that the adapter is for."
            )


def _plain(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float16 else values
