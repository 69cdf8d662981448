"""The experts of one seed: all in one program, or from the cache."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlora import locks, lora, parallel, train
from jaxlora.io import checkpoint
from jaxlora.lora import Adapter
from jaxlora.models import Decoder
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.parallel import processes
from jaxlora.studies.harness import bases, code, provenance
from jaxlora.studies.word_problems.text import problems
from jaxlora.studies.word_problems.text.config import ProblemsConfig
from jaxlora.studies.word_problems.text.design import Expert
from jaxlora.studies.word_problems.text.problems import Problem
from jaxlora.tasks import packing, text
from jaxlora.tasks.packing import Rows
from jaxlora.train.training import Training, faster
from jaxlora.tree import Tree

# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.word_problems.text.learning")


def rows(
    expert: Expert,
    lessons: Mapping[str, Sequence[Problem]],
    tokenizer: Tokenizer,
    length: int,
    seed: int,
) -> Rows:
    """What an expert learns, packed [N, T]; weights mark solutions.

    Args:
      expert: its levels and formats.
      lessons: problems by level.
      tokenizer: of the model; its chat template, if any, renders them.
      length: T.
      seed: of the order.

    Raises:
      ValueError: if a text is longer than a row: experts of two formats would learn
        other problems.
    """
    some = [x for level in expert.levels for x in lessons[level]]
    every = problems.texts(some, expert.formats)
    records = [text.record(fields, "a training text") for fields in every]
    encoded = text.encode(records, tokenizer, length)
    if encoded.too_long:
        raise ValueError(
            f"{encoded.too_long} of {len(records)} training texts ({expert.name}) are "
            f"longer than {length} tokens, expected none: raise train.length."
        )
    return packing.pack(encoded.examples, length, seed)


def learn(
    model: Decoder,
    base: Tree,
    sets: Mapping[Expert, Rows],
    config: ProblemsConfig,
    seed: int,
    cache: Path,
    progress: train.Progress = lambda *_: None,
) -> dict[Expert, Adapter]:
    """Trains, or reads from the cache, every expert of a seed.

    Args:
      model: without a route.
      base: params tree; experts are cut over the mesh that it lies on, if any.
      sets: rows [N, T] of each expert.
      config: rank, rate and number of updates.
      seed: of starts and orders.
      cache: folder of cached libraries; a killed run goes on from its checkpoint.
      progress: called with updates done, updates in all, and the last losses.
    """
    # A training of the library's own class: the study's refuses a seed of its own.
    numbers: dict[str, Any] = dataclasses.asdict(config.train) | {"seed": seed}
    training = Training(**numbers)
    by_name = {expert.name: x for expert, x in sets.items()}
    facts = {"base": bases.digest(base), "dtype": config.dtype, "code": CODE}
    facts |= provenance.program()
    key = checkpoint.fingerprint(
        facts
        | {
            "rows": {
                name: [x.tokens.shape, *(zlib.crc32(column.tobytes()) for column in x)]
                for name, x in by_name.items()
            },
            "lora": dataclasses.asdict(config.lora),
            "train": dataclasses.asdict(training) | {"together": 0},
        }
    )
    folder = cache / "libraries" / key
    mesh = parallel.mesh_of(base)
    # Of many processes the first holds the entry: all read and write it in step.
    with locks.making(*([folder] if processes.first() else [])):
        trained = train.train_experts(
            Decoder(faster(model.config, "auto", parallel.platform_of(base))),
            base,
            by_name,
            config.lora,
            training,
            checkpoints=train.Checkpoints(folder, facts),
            mesh=mesh,
            progress=progress,
        )
    # Over a mesh, all experts together may be more than one device holds.
    library = trained.learned if mesh is None else processes.host(trained.learned)
    return dict(zip(sets, lora.unstack(library), strict=True))
