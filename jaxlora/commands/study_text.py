"""``jaxlora study two-hop --model DIR``: the two-hop study on a checkpoint."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.text import Text

from jaxlora import route
from jaxlora.commands import flags, printing, scalars, study_output, talk
from jaxlora.commands.flags import adapters, parsing
from jaxlora.commands.flags.outputs import Share
from jaxlora.commands.flags.study import cache_dir
from jaxlora.io import adapter_folders
from jaxlora.studies.harness import config
from jaxlora.studies.two_hop.text import deciding, memory, protocol, resources
from jaxlora.studies.two_hop.text.config import METHODS, STUDY, TextConfig

PROG = "jaxlora study two-hop"
STAGES = {
    "loading": "loading",
    "experts": "training experts",
    "questions": "questions",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(TextConfig):
    """Two experts of a language model, A→B and B→C: do they together answer A→C?

    `jaxlora study two-hop --model DIR` makes up people, trains experts on their facts,
    combines them, and judges each combination. With `--adapter DIR... --facts FILE` it
    evaluates adapters that exist already, with every control that needs no training.
    Interrupted, the same command goes on where it stopped.
    """

    model: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Folder of a Hugging Face checkpoint, with its tokenizer."""
    tokenizer: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Folder of tokenizer and chat template; if not given, what the adapters bring, or
    else the model's."""
    adapter: Annotated[flags.Several, tyro.conf.arg(metavar="DIR")] = ()
    """Folders of PEFT adapters to evaluate, or of a library of them; nothing is
    trained. Needs --facts."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file of these options, or the results.json of a run; flags outdo it."""
    out: Path = Path("results/two-hop-text")
    """Folder for tables, figures and the page; one configuration a folder."""
    force: flags.Force = False
    share: Share = ""
    cache_dir: Path = dataclasses.field(default_factory=cache_dir)
    """Folder of trained experts, shared between runs."""
    memory: bool = False
    """Only print the memory that the study needs, from config.json alone."""


def run(arguments: Sequence[str]) -> int:
    """Runs the study; 0 if the base met its criteria with every seed, else 1."""
    given = parse(arguments)
    study = _study(given)
    console = study_output.console()
    if given.memory:
        console.print(memory.table(_memory(study)), highlight=False)
        return 0
    few = deciding.warnings(study)
    named = adapter_folders.bases([Path(folder) for folder in study.adapter])
    printing.say(adapter_folders.other_bases(named, study.model))
    printing.say(resources.words_of(study).notes)
    with scalars.stages(STAGES, given.out) as move:
        progress = study_output.warned(console, few, move)
        cache = study_output.cache(given.cache_dir, given.out, given.share)
        how = (study, given.out, cache, progress, given.share)
        work = functools.partial(protocol.run, *how)
        results = study_output.claimed(given.out, given.force, work)
    if not talk.current().writes:
        return 1 if results.failed else 0
    if given.share:
        return study_output.shared(console, given.share, given.out)
    closing = closing_of(results.summary)
    written = study_output.write(console, results, given.out, closing=closing)
    console.print(Text(closing))
    study_output.took(console, results, written)
    return 1 if results.failed else 0


def parse(arguments: Sequence[str]) -> Arguments:
    """Reads flags, over the options of ``--config`` if there are any.

    Raises:
      ValueError: if a flag or a field does not exist, or a value does not fit.
    """
    routers = [name for name in METHODS if name in route.names()]
    every = {"--methods": METHODS, "--routers": routers}
    file = parsing.value_of("--config", arguments)
    start = TextConfig() if file is None else config.read(TextConfig, Path(file), STUDY)
    default = Arguments(**_fields(start))
    words, notes = adapters.expand_words(arguments)
    printing.say(notes)
    return flags.parse(Arguments, PROG, words, default=default, every=every)


def closing_of(results: Mapping[str, Any]) -> str:
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


def _fields(config: TextConfig) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(TextConfig)}


def _study(given: Arguments) -> TextConfig:
    return TextConfig(**_fields(given))


def _memory(study: TextConfig) -> dict[str, int]:
    experts = len(study.adapter) or len(protocol.wanted(study))
    return memory.estimate(resources.decoder(study), study, experts)
