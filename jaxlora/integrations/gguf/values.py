"""Values of the tensors in GGUF files, dequantised one tensor at a time."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from gguf import quants

from jaxlora.integrations.gguf import header
from jaxlora.integrations.gguf.header import Block, Header, Metadata, bad
from jaxlora.io.errors import PathError

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K")
"""Types of values that are read."""
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclasses.dataclass(frozen=True)
class Model:
    """Metadata and tensors of a model, in one file or several."""

    metadata: Metadata
    """Of the first file."""
    blocks: Mapping[str, Block]
    """Tensors by name."""
    files: Mapping[str, Path]
    """The file of each tensor."""

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor in float32.

        Args:
          name: a key of ``blocks``.

        Raises:
          ValueError: if it holds NaN or infinity.
        """
        block, path = self.blocks[name], self.files[name]
        kind = gguf.GGMLQuantizationType(block.kind)
        rows, width = _bytes(block)
        stored = np.fromfile(path, np.uint8, rows * width, offset=block.start)
        if kind in (kind.F32, kind.F16):
            values = stored.view(np.float32 if kind == kind.F32 else np.float16)
        else:
            values = quants.dequantize(stored.reshape(rows, width), kind)
        values = values.astype(np.float32, copy=False).reshape(block.shape)
        if not np.isfinite(values).all():
            raise bad(path, f"tensor {name!r} holds NaN or infinity")
        return values

    def kind(self, name: str) -> str:
        """Returns the type that a tensor is stored in.

        Args:
          name: a key of ``blocks``.
        """
        return gguf.GGMLQuantizationType(self.blocks[name].kind).name


def open_model(path: Path) -> Model:
    """Reads the headers of a model; of a split one, name any of its files.

    Args:
      path: a GGUF file.

    Raises:
      ValueError: if a file is missing or damaged, a tensor's bytes lie outside of its
        file or overlap, or its type is not in :data:`KINDS`.
    """
    headers = [header.read(part) for part in _parts(path)]
    for part in headers:
        _check_blocks(part)
    blocks = {name: block for part in headers for name, block in part.blocks.items()}
    files = {name: part.path for part in headers for name in part.blocks}
    if len(blocks) != sum(len(part.blocks) for part in headers):
        raise bad(path, "two of its files hold one tensor")
    promised = headers[0].metadata.get("split.tensors.count", len(blocks))
    if promised != len(blocks):
        raise bad(path, f"its files hold {len(blocks)} tensors, expected {promised}")
    return Model(headers[0].metadata, blocks, files)


def _parts(path: Path) -> list[Path]:
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        count = header.read(path).metadata.get("split.count", 1)
        if count != 1:
            raise PathError(
                path,
                f"{path} is of a model split into {count} files, expected the name "
                f"NAME-00001-of-{count:05d}.gguf; it was renamed.",
            )
        return [path]
    n = int(match[3])
    names = [f"{match[1]}-{i:05d}-of-{match[3]}.gguf" for i in range(1, n + 1)]
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise PathError(
            path,
            f"{path.parent} lacks {len(missing)} of {n} files of a split model: "
            f"{', '.join(missing[:4])}; the download is incomplete.",
        )
    return [path.parent / name for name in names]


def _bytes(block: Block) -> tuple[int, int]:
    """Rows of a tensor, and the bytes of each."""
    per, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(block.kind)]
    width = block.shape[-1] if block.shape else 1
    rows = int(np.prod(block.shape[:-1], dtype=object)) if block.shape else 1
    return rows, width // per * size


def _check_blocks(part: Header) -> None:
    size, end = part.path.stat().st_size, 0
    for name, block in sorted(part.blocks.items(), key=lambda pair: pair[1].start):
        _check_kind(part.path, name, block)
        rows, width = _bytes(block)
        if block.start < end or block.start + rows * width > size:
            raise bad(
                part.path,
                f"tensor {name!r} takes the bytes {block.start} to "
                f"{block.start + rows * width} of a file of {size}, where the one "
                f"before it ends at {end}",
            )
        end = block.start + rows * width


def _check_kind(path: Path, name: str, block: Block) -> None:
    known = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    kind = known.get(block.kind, str(block.kind))
    if kind not in KINDS:
        raise PathError(
            path,
            f"Tensor {name!r} of {path} is stored as {kind}, expected one of "
            f"{', '.join(KINDS)}; take another quantisation of the model.",
        )
    per, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(block.kind)]
    if block.shape and block.shape[-1] % per:
        raise bad(path, f"tensor {name!r} has rows of {block.shape[-1]}, in {kind}")
