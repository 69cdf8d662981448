"""The two-hop world as a TensorFlow Datasets builder, without TensorFlow.

Records are stored as array_record and read back through grain. Builder and study
share one generator, so that what is stored is what is trained on. The dataset is
written into a temporary folder and renamed when whole. Not imported by the package:
TensorFlow Datasets is slow to import.
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
from jaxlora.tasks.two_hop import (
    cells,
    formats,
    records,
    world,
    world_config,
    world_people,
)
from jaxlora.tasks.two_hop.records import Record, Vocab
from jaxlora.tasks.two_hop.world import World, WorldConfig

Path = str | os.PathLike[str]

FORMAT = "array_record"
INFO = "dataset_info.json"
CODE = b"".join(
    pathlib.Path(module.__file__).read_bytes()
    for module in (cells, formats, records, world, world_config, world_people)
)
"""The generator; its hash is part of a dataset's name."""


@dataclasses.dataclass(eq=False)
class TwoHopConfig(BuilderConfig):
    """The arguments of :func:`.world.generate`; :func:`config` names it after them."""

    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    seed: int = 0
    people: tuple[Record, ...] = ()


class TwoHop(tfds.core.GeneratorBasedBuilder):
    """Every split of a two-hop world, with its vocabulary in the metadata."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        words = tfds.features.Sequence(text)
        info = OfflineInfo(
            builder=self,
            description="Facts and two-hop queries over permutation relations.",
            features=tfds.features.FeaturesDict(
                {
                    "index": np.int64,  # order on disk is that of a hash
                    "kind": text,
                    "prompt": words,
                    "answer": words,
                    "bridge": text,
                    "role": text,
                    "cell": text,
                    "pair": np.int64,
                    "covered": np.bool_,
                }
            ),
            metadata=tfds.core.MetadataDict(),
        )
        info.set_file_format(FORMAT)
        return info

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        asked = self.builder_config
        generated = world.generate(asked.world, asked.seed, asked.people)
        self.info.metadata.update(_metadata(asked, generated))
        # TensorFlow Datasets cannot write a split without records; metadata names it.
        return {
            name: self._generate_examples(rows)
            for name, rows in generated.splits.items()
            if rows
        }

    def _generate_examples(self, rows: Sequence[Record]) -> Iterator:
        for index, record in enumerate(rows):
            yield index, {"index": index, **dataclasses.asdict(record)}


def config(
    world_config: WorldConfig, seed: int, people: Sequence[Record] = ()
) -> TwoHopConfig:
    """Returns a builder config named after its arguments and the generator's code.

    Equal names hold equal records: a change of the generator gives a new name.

    Args:
      world_config: sizes and coverage.
      seed: as in :func:`.world.generate`.
      people: a user's people, as :func:`.facts.people` gives them.
    """
    people = tuple(people)
    asked = [dataclasses.asdict(world_config), list(map(dataclasses.asdict, people))]
    # The code too: a changed generator must not find the records of the old one.
    digest = hashlib.sha256(CODE + json.dumps([*asked, seed], sort_keys=True).encode())
    return TwoHopConfig(
        name=f"seed{seed}-{digest.hexdigest()[:12]}",
        description=f"Seed {seed} of {world_config}.",
        world=world_config,
        seed=seed,
        people=people,
    )


def write(
    world_config: WorldConfig,
    seed: int,
    data_dir: Path,
    people: Sequence[Record] = (),
    *,
    anew: bool = False,
) -> pathlib.Path:
    """Writes ``generate(world_config, seed, people)`` below ``data_dir``.

    What is there already is kept. Interrupted, it leaves no dataset behind.

    Args:
      world_config: sizes and coverage.
      seed: as in :func:`.world.generate`.
      data_dir: root for datasets; made if missing.
      people: a user's people, as :func:`.facts.people` gives them.
      anew: write over a dataset that exists.

    Returns:
      The folder of the dataset, for :func:`read`.

    Raises:
      OSError: if the disk is full or ``data_dir`` cannot be written.
    """
    root = os.path.abspath(os.path.expanduser(data_dir))
    asked = config(world_config, seed, people)
    with quiet(), disk_errors(root):
        builder = TwoHop(data_dir=root, config=asked)
        builder.download_and_prepare(
            download_dir=os.path.join(root, "downloads"),
            download_config=offline(anew),
        )
    return pathlib.Path(builder.data_path)


def folder(
    world_config: WorldConfig,
    seed: int,
    data_dir: Path,
    people: Sequence[Record] = (),
) -> pathlib.Path:
    """Returns the folder to which :func:`write` writes the same arguments.

    Args:
      world_config: sizes and coverage.
      seed: as in :func:`.world.generate`.
      data_dir: root for datasets.
      people: a user's people, as :func:`.facts.people` gives them.
    """
    name = config(world_config, seed, people).name
    root = pathlib.Path(data_dir).expanduser().absolute()
    return root / TwoHop.name / name / str(TwoHop.VERSION)


def read(path: Path) -> World:
    """Reads a written dataset; the records are those of the generator, in its order.

    Args:
      path: the folder that :func:`write` returned.

    Raises:
      ValueError: if ``path`` holds no finished two-hop dataset.
    """
    path = pathlib.Path(path).expanduser()
    if not (path / INFO).is_file():
        raise ValueError(_nothing_there(path))
    builder = tfds.builder_from_directory(path)
    metadata = builder.info.metadata or {}
    # Any prepared dataset has this file.
    if builder.name != "two_hop" or "entities" not in metadata:
        raise ValueError(
            f"{path} holds a dataset {builder.name!r} ({builder.info.full_name}), "
            f"expected 'two_hop' as builder.write makes it."
        )
    vocab = Vocab(
        tuple(metadata["entities"]),
        tuple(metadata["relations"]),
        metadata["familiar"],
        metadata["form"],
    )
    sizes = metadata["sizes"]
    return World(vocab, {name: _split(builder, name, n) for name, n in sizes.items()})


def _metadata(asked: TwoHopConfig, world: World) -> dict[str, Any]:
    return {
        "entities": world.vocab.entities,
        "relations": world.vocab.relations,
        "familiar": world.vocab.familiar,
        "form": world.vocab.form,
        "sizes": {name: len(rows) for name, rows in world.splits.items()},
        "config": dataclasses.asdict(asked.world),
        "seed": asked.seed,
    }


def _split(builder: Any, name: str, size: int) -> tuple[Record, ...]:
    if not size:
        return ()
    stored: Any = grain.MapDataset.source(builder.as_data_source(split=name))
    # By index: its iterator starts threads, which makes small rows slower to read.
    rows = sorted((stored[i] for i in range(len(stored))), key=lambda r: r["index"])
    # A shard may be missing without any error from array_record.
    if [row["index"] for row in rows] != list(range(size)):
        raise ValueError(
            f"Split {name!r} in {builder.data_path} has {len(rows)} records, expected "
            f"those numbered 0 to {size - 1}; delete the folder and write it again."
        )
    return tuple(map(_record, rows))


def _record(row: dict[str, Any]) -> Record:
    return Record(
        kind=row["kind"].decode(),
        prompt=tuple(word.decode() for word in row["prompt"]),
        answer=tuple(word.decode() for word in row["answer"]),
        bridge=row["bridge"].decode(),
        role=row["role"].decode(),
        cell=row["cell"].decode(),
        pair=int(row["pair"]),
        covered=bool(row["covered"]),
    )


def _nothing_there(path: pathlib.Path) -> str:
    below = path.rglob(INFO) if path.is_dir() else ()
    folders = [path.parent for path in sorted(below)]
    names = [str(x) for x in folders if "incomplete." not in x.name]
    return (
        f"{path} holds no finished dataset (no {INFO}), expected the folder that "
        f"builder.write returned; below it there is {', '.join(names[:4]) or 'none'}."
    )
