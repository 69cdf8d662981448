"""``jaxlora study word-problems --model DIR``: word problems on a checkpoint."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

from jaxlora.commands import flags, scalars, study_output, talk
from jaxlora.commands.flags import parsing
from jaxlora.commands.flags.study import cache_dir
from jaxlora.files import write_text
from jaxlora.report import word_problems_text as tables
from jaxlora.report.grid import markdown_table, rich_table
from jaxlora.studies.harness import Results, config
from jaxlora.studies.word_problems.text import protocol
from jaxlora.studies.word_problems.text.config import METHODS, STUDY, ProblemsConfig

PROG = "jaxlora study word-problems"
STAGES = {
    "loading": "loading",
    "experts": "training experts",
    "questions": "questions",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(ProblemsConfig):
    """Do experts on easy and on medium word problems together solve hard ones?

    `jaxlora study word-problems --model DIR` trains experts of a language model by
    level and by solution format, on problems of our own or on a file in the form of
    GSM8K (`--data FILE`), combines them, and asks held-out problems by level and files
    of GSM-Symbolic (`--tests FILE...`). Interrupted, the same command goes on where it
    stopped.
    """

    model: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Folder of a Hugging Face checkpoint, with its tokenizer."""
    tokenizer: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Folder of tokenizer and chat template; if not given, the model's."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file of these options, or the results.json of a run; flags outdo it."""
    out: Path = Path("results/word-problems-text")
    """Folder for tables; one configuration a folder."""
    force: flags.Force = False
    cache_dir: Path = dataclasses.field(default_factory=cache_dir)
    """Folder of trained experts, shared between runs."""


def run(arguments: Sequence[str]) -> int:
    """Runs the study; 0 if every expert is good at its own level, else 1."""
    given = parse(arguments)
    study = ProblemsConfig(**_fields(given))
    console = study_output.console()
    with scalars.stages(STAGES, given.out) as move:
        how = (study, given.out, given.cache_dir, move)
        work = functools.partial(protocol.run, *how)
        results = study_output.claimed(given.out, given.force, work)
    if talk.current().writes:  # of many processes the first one does
        _close(console, results, given.out)
    return 1 if results.failed else 0


def parse(arguments: Sequence[str]) -> Arguments:
    """Reads flags, over the options of ``--config`` if there are any.

    Args:
      arguments: the words after the command.

    Raises:
      ValueError: if a flag or a field does not exist, or a value does not fit.
    """
    file = parsing.value_of("--config", arguments)
    kind = ProblemsConfig
    start = kind() if file is None else config.read(kind, Path(file), STUDY)
    default = Arguments(**_fields(start))
    every = {"--methods": METHODS}
    return flags.parse(Arguments, PROG, arguments, default=default, every=every)


def closing_of(results: Mapping[str, Any]) -> str:
    """Returns criteria that were missed and what was left out, as Markdown.

    Args:
      results: as in results.json.
    """
    parts = {"Below the criterion": "failed", "Left out": "left_out"}
    lines = []
    for title, name in parts.items():
        if results[name]:
            lines += ["", f"## {title}", "", *(f"- {x}" for x in results[name])]
    return "\n".join(lines) + "\n"


def _close(console: Console, results: Results, out: Path) -> None:
    grids = (tables.solved_grid(results.rows), tables.difference_grid(results.rows))
    closing = closing_of(results.summary)
    parts = [part for x in grids for part in (f"## {x.title}", markdown_table(x))]
    write_text(out / "tables.md", "\n\n".join([*parts, closing]))
    for grid in grids:
        console.print(rich_table(grid))
    console.print(Text(closing))
    seconds = results.summary["timings"]["total_s"]
    console.print(f"Took {seconds:.0f} s. Rows: {out / 'results.csv'}")


def _fields(study: ProblemsConfig) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(ProblemsConfig))
    return {name: getattr(study, name) for name in names}
