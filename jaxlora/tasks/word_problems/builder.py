"""Word problems as a TensorFlow Datasets builder, without TensorFlow.

Records are stored as array_record and read back through grain. Builder and studies
share one generator, so that what is stored is what is trained on. Not imported by the
package: TensorFlow Datasets is slow to import.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import BuilderConfig

from jaxlora.tasks.tfds_writing import OfflineInfo, disk_errors, offline, quiet
from jaxlora.tasks.word_problems import records
from jaxlora.tasks.word_problems.records import Config, Record

Path = str | os.PathLike[str]

FORMAT = "array_record"
INFO = "dataset_info.json"
HERE = pathlib.Path(__file__)
CODE = b"".join(
    path.read_bytes() for path in sorted(HERE.parent.glob("*.py")) if path != HERE
)
"""The generator; its hash is part of a dataset's name."""


@dataclasses.dataclass(eq=False)
class WordProblemsConfig(BuilderConfig):
    """The arguments of :func:`.records.generate`; :func:`config` names it."""

    problems: Config = dataclasses.field(default_factory=Config)
    seed: int = 0


class WordProblems(tfds.core.GeneratorBasedBuilder):
    """Word problems for training and tests, no skeleton of several steps in both."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        info = OfflineInfo(
            builder=self,
            description="Graphs of operations in English, with solutions in steps.",
            features=tfds.features.FeaturesDict(
                {
                    "index": np.int64,  # order on disk is that of a hash
                    "question": text,
                    "answer": text,
                    "result": np.int64,
                    "level": np.int64,
                    "form": text,
                    "template": text,
                    "skeleton": text,
                }
            ),
            metadata=tfds.core.MetadataDict(),
        )
        info.set_file_format(FORMAT)
        return info

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        asked = self.builder_config
        parts = records.generate(asked.problems, asked.seed)
        self.info.metadata.update(
            config=dataclasses.asdict(asked.problems),
            seed=asked.seed,
            sizes={part: len(rows) for part, rows in parts.items()},
        )
        return {part: self._generate_examples(rows) for part, rows in parts.items()}

    def _generate_examples(self, rows: Sequence[Record]) -> Iterator:
        for index, record in enumerate(rows):
            yield index, {"index": index, **dataclasses.asdict(record)}


def config(problems: Config, seed: int) -> WordProblemsConfig:
    """Returns a builder config named after its arguments and the generator's code.

    Equal names hold equal records: a change of the generator gives a new name.

    Args:
      problems: which problems, and how they are written.
      seed: as in :func:`.records.generate`.
    """
    asked = json.dumps([dataclasses.asdict(problems), seed], sort_keys=True)
    digest = hashlib.sha256(CODE + asked.encode()).hexdigest()
    return WordProblemsConfig(
        name=f"seed{seed}-{digest[:12]}",
        description=f"Seed {seed} of {problems}.",
        problems=problems,
        seed=seed,
    )


def write(
    problems: Config, seed: int, data_dir: Path, *, anew: bool = False
) -> pathlib.Path:
    """Writes ``generate(problems, seed)`` below ``data_dir``; what is there is kept.

    Args:
      problems: which problems, and how they are written.
      seed: as in :func:`.records.generate`.
      data_dir: root for datasets; made if missing.
      anew: write over a dataset that exists.

    Returns:
      The folder of the dataset, for :func:`read`.

    Raises:
      OSError: if the disk is full or ``data_dir`` cannot be written.
    """
    root = os.path.abspath(os.path.expanduser(data_dir))
    with quiet(), disk_errors(root):
        builder = WordProblems(data_dir=root, config=config(problems, seed))
        builder.download_and_prepare(
            download_dir=os.path.join(root, "downloads"),
            download_config=offline(anew),
        )
    return pathlib.Path(builder.data_path)


def read(path: Path) -> dict[str, tuple[Record, ...]]:
    """Reads a written dataset; the records are those of the generator, in its order.

    Args:
      path: the folder that :func:`write` returned.

    Raises:
      ValueError: if ``path`` holds no finished dataset of word problems, or records
        are missing.
    """
    path = pathlib.Path(path).expanduser()
    if not (path / INFO).is_file():
        raise ValueError(
            f"{path} holds no finished dataset (no {INFO}), expected the folder that "
            f"builder.write returned."
        )
    builder = tfds.builder_from_directory(path)
    sizes = (builder.info.metadata or {}).get("sizes")
    if builder.name != "word_problems" or sizes is None:
        raise ValueError(
            f"{path} holds a dataset {builder.name!r}, expected 'word_problems' as "
            f"builder.write makes it."
        )
    return {part: _split(builder, part, size) for part, size in sizes.items()}


def _split(builder: Any, part: str, size: int) -> tuple[Record, ...]:
    stored: Any = grain.MapDataset.source(builder.as_data_source(split=part))
    # By index: its iterator starts threads, which makes small rows slower to read.
    rows = sorted((stored[i] for i in range(len(stored))), key=lambda r: r["index"])
    # A shard may be missing without any error from array_record.
    if [row["index"] for row in rows] != list(range(size)):
        raise ValueError(
            f"Split {part!r} in {builder.data_path} has {len(rows)} records, expected "
            f"those numbered 0 to {size - 1}; delete the folder and write it again."
        )
    return tuple(map(_record, rows))


def _record(row: dict[str, Any]) -> Record:
    fields = {name: row[name] for name in Record.__dataclass_fields__}
    plain: dict[str, Any] = {
        name: value.decode() if isinstance(value, bytes) else int(value)
        for name, value in fields.items()
    }
    return Record(**plain)
