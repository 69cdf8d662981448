"""What a run on text works with: the checkpoint, its tokenizer and its adapters."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlora import lora, models
from jaxlora.evaluate.schema import Arm, Cell, Method, Split
from jaxlora.io import tensors
from jaxlora.lora import Adapter
from jaxlora.models import (
    Decoder,
    architectures,
    division,
    pretrained,
    tokenizer,
)
from jaxlora.models import adapters as stored
from jaxlora.parallel import written
from jaxlora.reuse import words
from jaxlora.studies.harness import Progress, Run
from jaxlora.studies.harness.store import remembered
from jaxlora.studies.two_hop.config import check_lora
from jaxlora.studies.two_hop.text import answer, codec, questions
from jaxlora.studies.two_hop.text.answer import Setting
from jaxlora.studies.two_hop.text.codec import PromptCodec
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.studies.two_hop.text.questions import RANKED
from jaxlora.studies.two_hop.text.roles import Roles, Skill, roles_of
from jaxlora.tasks.two_hop import people
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.tasks.two_hop.people import Given
from jaxlora.tree import Tree


class Loaded(NamedTuple):
    """A checkpoint in memory."""

    model: Decoder
    base: Tree
    codec: PromptCodec
    adapters: Mapping[str, Adapter]
    """By folder, padded to one rank; empty if experts are trained."""


class Source(NamedTuple):
    """Where the people and the experts of a run come from."""

    given: Given | None
    """A user's facts."""
    loaded: Callable[[], Loaded]
    """Reads the checkpoint when it is first needed."""
    roles: Roles | None = None
    """Which of a user's adapters is which expert; None to train experts."""

    @property
    def present(self) -> set[Expert]:
        """The experts that there are."""
        return set(self.roles.of) if self.roles else set(Expert)


def decoder(config: TextConfig) -> models.DecoderConfig:
    """Returns the shapes of the model, from its config.json alone.

    Raises:
      ValueError: if no model is named, or it is of no supported architecture.
    """
    if not config.model:
        raise ValueError("No model was given; --model DIR names a checkpoint.")
    raw = tensors.read_json(Path(config.model) / "config.json")
    return architectures.from_json(raw)


def words_of(config: TextConfig) -> words.Source:
    """Returns where the tokenizer is read.

    Raises:
      ValueError: if the folder that is named has no file of a tokenizer.
    """
    asked = Path(config.tokenizer) if config.tokenizer else None
    adapters = [Path(folder) for folder in config.adapter]
    return words.source(Path(config.model), adapters, asked=asked)


def codec_of(config: TextConfig) -> PromptCodec:
    """Returns the tokenizer of a run, with its prompts.

    Raises:
      ValueError: as :func:`words_of`, or if it cannot be read.
    """
    source = words_of(config)
    return codec.load(source.folder, config.chat, source.rest)


def check(config: TextConfig) -> None:
    """Refuses what can be refused from config.json and tokenizer.json alone.

    Raises:
      ValueError: if no model is named, it is of no supported architecture, adapters
        of this config do not fit it, the mesh would cut a head, or the tokenizer is of
        another one.
    """
    shapes = decoder(config)
    if (mesh := written.mesh(config.mesh)) is not None:
        division.check(shapes, mesh.shape)
    known = codec_of(config)
    tokenizer.fitted(known.tokenizer, shapes.vocab_size)
    check_lora(Decoder(shapes), config.lora)


def load(config: TextConfig, progress: Progress) -> Loaded:
    """Reads the checkpoint, its tokenizer, and the adapters if there are any."""
    unit = 2**20

    def loading(done: int, total: int) -> None:
        name = Path(config.model).name
        progress("loading", done // unit, max(1, total // unit), name)

    model, base = pretrained.load(
        config.model,
        dtype=config.dtype,
        param_dtype=config.dtype,
        mesh=written.mesh(config.mesh),
        progress=loading,
    )
    adapters = [stored.load(folder, base) for folder in config.adapter]
    if adapters:  # one rank and the same sites, or a sentence that says which differ
        adapters = lora.unstack(lora.stack(adapters))
    prompts = codec_of(config)
    known = tokenizer.fitted(prompts.tokenizer, model.config.vocab_size)
    prompts = dataclasses.replace(prompts, tokenizer=known)
    by_folder = dict(zip(config.adapter, adapters, strict=True))
    return Loaded(model, base, prompts, by_folder)


def setting(
    loaded: Loaded,
    config: TextConfig,
    groups: Sequence[Group],
    group: Group,
    seed: int,
    known: Mapping[tuple[str, str], str],
) -> Setting:
    """Makes the questions of a group; its experts are not there yet.

    Args:
      loaded: the checkpoint.
      config: of the study.
      groups: all groups of the seed, which share compiled programs.
      group: one of them.
      seed: of random controls.
      known: facts of a user's file, ``{(head, relation): tail}``.
    """
    model, base, prompts, _ = loaded
    phrasings = config.ask.phrasings
    sizes = questions.shapes(prompts, groups, phrasings)
    library = questions.library_of(groups, group)
    asked = questions.ask(prompts, library, sizes, phrasings, known)
    first = questions.by_phrasing(group.two_hop, phrasings)[0]
    prompts.check(first, asked.names)
    return Setting(config, model, base, prompts, group, asked, sizes, seed)


def knowledge(
    loaded: Loaded, config: TextConfig, groups: Sequence[Group], group: Group
) -> tuple[list[bool], list[bool]]:
    """Which people's first and second hop the base answers right, by ranking.

    Args:
      loaded: the checkpoint.
      config: of the study.
      groups: all groups, which share compiled programs.
      group: whose people.
    """
    bare = setting(loaded, config, groups, group, 0, {})
    who = answer.speaker(bare, Arm.BASE, Method.NONE)
    hop1, hop2 = (answer.right(bare, who, split) for split in (Split.HOP1, Split.HOP2))
    return hop1, hop2


def skills(
    loaded: Loaded, config: TextConfig, groups: Sequence[Group]
) -> dict[str, list[float]]:
    """Accuracy of every adapter alone on hop 1, hop 2 and two-hop, over all groups.

    Args:
      loaded: the checkpoint and its adapters.
      config: of the study.
      groups: whose people are asked.
    """
    bare = [setting(loaded, config, groups, group, 0, {}) for group in groups]
    ready = [x._replace(adapters=loaded.adapters) for x in bare]
    out = {}
    for folder, adapter in loaded.adapters.items():
        who = [(x, answer.alone(x, adapter)) for x in ready]
        hits = [[y for x in who for y in answer.right(*x, split)] for split in RANKED]
        out[folder] = [sum(x) / len(x) for x in hits]
    return out


def generated(config: TextConfig, seed: int) -> tuple[Group, ...]:
    """The people whom a seed makes up."""
    if config.adapter or not config.cells:
        return ()
    cells = tuple(map(Cell, config.cells))
    return people.generate(cells, config.people, config.pairs, seed)


def facts_of(config: TextConfig) -> Given | None:
    """The people of a user's file, or of the real facts that come along; or nobody."""
    if config.real:
        return people.real(config.real)
    return people.read(config.facts, config.allow_ties) if config.facts else None


def given(config: TextConfig, facts: Given | None) -> tuple[Group, ...]:
    """A user's people, before it is known what the base knows of them."""
    cell = Cell(f"{config.familiarity}-OO")
    # Pairs of a file are numbered after those of generated people.
    start = 0 if config.adapter else config.pairs
    pairs = facts.people if facts else ()
    return tuple(people.group(p, cell, start + i) for i, p in enumerate(pairs))


def nobody(facts: Given | None, real: Sequence[Group]) -> list[dict[str, str]]:
    """People of a file who are in no group."""
    if facts is None:
        return []
    asked = sum(group.size for group in real)
    count = facts.left_out + sum(map(len, facts.people)) - asked
    why = (
        f"fewer than {people.LEAST} alike: same relations, same hops known to the base"
    )
    return [{"what": f"{count} people of the facts", "why": why}] if count else []


def real(
    this: Run[TextConfig], source: Source
) -> tuple[tuple[Group, ...], list[dict[str, Any]]]:
    """A user's people by what the base knows, measured once and stored."""
    config, groups = this.config, given(this.config, source.given)
    if not groups or config.familiarity != "R":
        return groups, []

    def measure() -> list[dict[str, Any]]:
        hops = []
        for i, group in enumerate(groups):
            text = f"what the base knows of {group.size} people"
            this.progress("questions", i, len(groups), text)
            hops.append(knowledge(source.loaded(), config, groups, group))
        return [
            {"pair": group.pair, "hop1": hop1, "hop2": hop2}
            for group, (hop1, hop2) in zip(groups, hops, strict=True)
        ]

    path = this.out / "known.json"
    known = remembered(path, measure, this.key(path))
    split = [
        part
        for group, hops in zip(groups, known, strict=True)
        for part in people.by_knowledge(group, hops["hop1"], hops["hop2"])
    ]
    if not split:
        raise ValueError(
            f"Of the people in {config.facts}, fewer than {people.LEAST} are "
            f"alike in what the base knows of them; give more facts."
        )
    return tuple(split), known


def roles(
    this: Run[TextConfig], source: Source, people: Sequence[Group]
) -> Roles | None:
    """Which of a user's adapters is which expert, measured once and stored."""
    if not this.config.adapter:
        return None
    path = this.out / "skills.json"
    measured = remembered(
        path, lambda: skills(source.loaded(), this.config, people), this.key(path)
    )
    by_folder = {folder: Skill(*values) for folder, values in measured.items()}
    return roles_of(this.config, by_folder)
