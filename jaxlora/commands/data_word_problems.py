"""``jaxlora data word-problems``: writes word problems as a dataset and JSON lines."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from jaxlora.commands import flags
from jaxlora.commands.flags import outputs
from jaxlora.tasks.word_problems import records
from jaxlora.tasks.word_problems.records import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Writes word problems for training and tests, with solutions in steps.

    OUT gets train.jsonl and test.jsonl, which `jaxlora train` and `jaxlora eval`
    read (and readers of GSM8K, where steps are plain or annotated), and the same
    records as array_record, which tensorflow_datasets reads without TensorFlow.
    """

    out: Path = Path("results/word-problems")
    """Folder of the files."""
    force: flags.Force = False
    seed: int = 0
    """Of the problems and their words."""
    config: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Config
    )


def run(arguments: Sequence[str]) -> int:
    """Writes the files and prints where they are."""
    given = flags.parse(Arguments, "jaxlora data word-problems", arguments)
    from jaxlora.tasks.word_problems import builder

    outputs.check_files(given.force, *records.files(given.out).values())
    files = records.write_jsonl(given.config, given.seed, given.out)
    folder = builder.write(given.config, given.seed, given.out, anew=given.force)
    console = Console()
    records_of = builder.read(folder)
    for part, file in files.items():
        console.print(f"{part}: {len(records_of[part])} problems, {file}")
    console.print(f"array_record: {folder}")
    return 0
