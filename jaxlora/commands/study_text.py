"""``jaxlora study two-hop --model DIR``: the two-hop study on a checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

from jaxlora import route
from jaxlora.commands import bars, options, reuse_options
from jaxlora.io.files import write_text
from jaxlora.report import figures, page, tables
from jaxlora.studies.two_hop_text import config, memory, protocol, resources
from jaxlora.studies.two_hop_text.config import METHODS, TextConfig
from jaxlora.tasks.two_hop.experts import Expert

PROG = "jaxlora study two-hop"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(TextConfig):
    """Two experts of a language model, A->B and B->C: do they together answer A->C?

    `jaxlora study two-hop --model DIR` makes up people, trains experts on their facts,
    combines them, and judges each combination. With `--adapter DIR... --facts FILE` it
    evaluates adapters that exist already, with every control that needs no training.
    Interrupted, the same command goes on where it stopped.
    """

    model: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Folder of a Hugging Face checkpoint, with its tokenizer."""
    adapter: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="DIR")
    ] = ()
    """Folders of PEFT adapters to evaluate; nothing is trained. Needs --facts."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file of these options, or the results.json of a run; flags outdo it."""
    out: Path = Path("results/two-hop-text")
    """Folder for tables, figures and the page; one configuration a folder."""
    cache_dir: Path = dataclasses.field(default_factory=options.cache_dir)
    """Folder of trained experts, shared between runs."""
    memory: bool = False
    """Only print the memory that the study needs, from config.json alone."""


def run(arguments: Sequence[str]) -> int:
    """Runs the study; 0 if the base passed its gates with every seed, else 1."""
    given = parse(arguments)
    study = _study(given)
    console = Console(width=None if Console().is_terminal else 100)
    if given.memory:
        console.print(memory.table(_memory(study)), highlight=False)
        return 0
    with bars.bar("two-hop") as move:
        results = protocol.run(
            study,
            given.out,
            given.cache_dir,
            lambda stage, done, total, text: move(f"{stage}: {text}", done, total),
        )
    drawn = figures.save_all(results.rows, given.out)
    written = page.write(results.rows, results.summary, given.out, images=drawn)
    told = tables.to_markdown(results.rows, results.summary) + closing(results.summary)
    write_text(given.out / "tables.md", told)
    console.print(tables.terminal(results.rows, results.summary))
    console.print(Text(closing(results.summary)))
    seconds = results.summary["timings"]["total_s"]
    console.print(f"Took {seconds:.0f} s. Page: {written}")
    return 1 if results.failed else 0


def parse(arguments: Sequence[str]) -> Arguments:
    """Reads flags, over the options of ``--config`` if there are any.

    Raises:
      ValueError: if a flag or a field does not exist, or a value does not fit.
    """
    # A word in front: spread() then knows that no positional argument follows.
    words = reuse_options.spread("--adapter", ["study", *arguments])[1:]
    routers = [name for name in METHODS if name in route.names()]
    words = options.spell_out(words, {"--methods": METHODS, "--routers": routers})
    default = Arguments(**_fields(_start(words)))
    options.check_flags(words, default, PROG)
    return tyro.cli(Arguments, prog=PROG, args=words, default=default)


def closing(results: Mapping[str, Any]) -> str:
    """Returns roles of adapters and what was left out, as Markdown."""
    lines = []
    roles = results.get("roles")
    if roles:
        lines += ["", f"## Adapters ({roles['how']})", ""]
        lines += [f"- {role}: {folder}" for role, folder in roles["of"].items()]
        lines += [f"- no role: {folder}" for folder in roles["unused"]]
    lines += ["", "## Left out", ""]
    lines += [f"- {left['what']}: {left['why']}." for left in results["left_out"]]
    return "\n".join(lines) + "\n"


def _start(words: Sequence[str]) -> TextConfig:
    """The options of ``--config``, or the defaults."""
    for i, word in enumerate(words):
        name, _, value = word.partition("=")
        if name == "--config":
            return config.read(Path(value or (words[i + 1 : i + 2] or [""])[0]))
    return TextConfig()


def _fields(found: Any) -> dict[str, Any]:
    return {f.name: getattr(found, f.name) for f in dataclasses.fields(TextConfig)}


def _study(given: Arguments) -> TextConfig:
    return TextConfig(**_fields(given))


def _memory(study: TextConfig) -> dict[str, int]:
    experts = len(study.adapter) or len(Expert)
    return memory.estimate(resources.decoder(study), study, experts)
