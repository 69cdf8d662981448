"""Datasets that TensorFlow Datasets has prepared, read without TensorFlow.

Nothing is downloaded: what is not there is refused, with the command that prepares it.
"""

import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

Path = str | os.PathLike[str]

NAME = re.compile(r"(tfds:)?([a-z]\w*)((?:/[\w.-]+)*)(?::(\w+))?")
"""A TFDS name: tfds:name/config/version:split, of which only the name is required."""
INFO = "dataset_info.json"


def read(
    match: re.Match, name: str, data_dir: Path | None
) -> Iterator[tuple[Callable[[], dict[str, Any]], str]]:
    """Yields each record of a prepared dataset: a function of no argument, and where.

    Args:
      match: of :data:`NAME`.
      name: the whole name, for messages.
      data_dir: root of TFDS datasets; None for TFDS's own.

    Raises:
      ValueError: if the dataset is not prepared, not stored as array_record, or has no
        such split.
    """
    # Slow to import, and most sources are files.
    import tensorflow_datasets as tfds

    root = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    folder = newest(root, match[2] + match[3], name)
    builder: Any = tfds.builder_from_directory(folder)
    stored = builder.info.file_format
    # Other formats are read through TensorFlow.
    if stored is None or stored.value != "array_record":
        raise ValueError(
            f"{folder} is stored as {stored and stored.value}, expected array_record, "
            f"which needs no TensorFlow; prepare it again with "
            f'tfds.builder("{match[2]}", file_format="array_record").'
        )
    split = match[4] or "train"
    if split not in builder.info.splits:
        have = ", ".join(builder.info.splits)
        raise ValueError(f"{name} has no split {split!r}, expected one of {have}.")
    rows = builder.as_data_source(split=split)
    for i in range(len(rows)):
        where = f"{match[2] + match[3]}:{split}[{i}]"
        yield lambda i=i: plain(rows[i]), where


def newest(root: pathlib.Path, dataset: str, name: str) -> pathlib.Path:
    """Returns the newest version below ``root/dataset``; TFDS would ask the network.

    Args:
      root: of TFDS datasets.
      dataset: its name, and perhaps config and version.
      name: as it was asked for, for messages.

    Raises:
      ValueError: if none is prepared, or one of several configs could be meant.
    """
    folders = [
        path.parent
        for pattern in (INFO, f"*/{INFO}", f"*/*/{INFO}")
        for path in sorted((root / dataset).glob(pattern))
        # TFDS writes into such folders and renames them when they are finished.
        if "incomplete" not in path.parent.name
    ]
    configs = {p.parent for p in folders}
    if not folders:
        raise ValueError(
            f"{name} is no file or folder, and {root / dataset} holds no prepared "
            f"dataset; prepare it once with network: import "
            f'tensorflow_datasets.text; tensorflow_datasets.builder("{dataset}", '
            f'file_format="array_record").download_and_prepare().'
        )
    if len(configs) > 1:
        have = ", ".join(sorted(str(p.relative_to(root)) for p in configs))
        raise ValueError(f"{name} is one of several, expected one of {have}.")
    # As numbers: 0.10.0 is newer than 0.9.0.
    return max(folders, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])


def plain(value: Any) -> Any:
    """Returns strings and lists of the bytes and arrays that TFDS gives.

    Args:
      value: a record, or a part of one.
    """
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
