"""Word problems as records: what datasets, JSON lines and the studies of text share.

Fields ``question`` and ``answer`` are those of GSM8K; plain and annotated answers end
in ``#### N``, so that its readers read these files.
"""

import dataclasses
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from jaxlora.tasks import jsonl
from jaxlora.tasks.word_problems import english, formats, graph, sampling, skeletons
from jaxlora.tasks.word_problems import operations as ops
from jaxlora.tasks.word_problems.formats import Format
from jaxlora.tasks.word_problems.graph import Problems
from jaxlora.tasks.word_problems.sampling import Restrict
from jaxlora.tasks.word_problems.skeletons import TEST_SHARE, Part
from jaxlora.tasks.word_problems.templates import R_IN_DIGITS, S, Template, shared

Graph: TypeAlias = Literal["chains", "trees"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Which problems are made, and how their solutions are written."""

    train: int = 7_000
    """Problems for training."""
    test: int = 1_000
    """Problems for tests."""
    levels: tuple[int, ...] = (1, 2, 3)
    """Numbers of operations, drawn evenly."""
    graph: Graph = "chains"
    """Chains, or trees with shared parts."""
    idle: float = 0.0
    """Share of the problems with a clause that does not matter."""
    form: Format = "annotated"
    """Plain or annotated steps, a straight-line Python program, or markup."""
    template: Template = S
    """Words, order and place of the result in solutions."""
    other: Template = R_IN_DIGITS
    """The template of the rows that are not in ``template``."""
    common: float = 1.0
    """Share of the rows in ``template``."""
    limit: int = 1_000
    """Numbers are below it."""
    binary: int = 4
    """How many of add, subtract, multiply and exact divide."""
    test_share: float = TEST_SHARE
    """Share of the skeletons that are for tests."""

    def __post_init__(self):
        for field, kind in (("graph", Graph), ("form", Format)):
            if getattr(self, field) not in get_args(kind):
                raise ValueError(
                    f"{field} is {getattr(self, field)!r}, expected one of "
                    f"{', '.join(get_args(kind))}."
                )
        for template in (self.template, self.other):
            formats.check(self.form, template)
        for field in ("idle", "common"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(
                    f"{field} is {getattr(self, field)}, expected a share in [0, 1]."
                )
        if not 0 < self.test_share < 1 or min(self.train, self.test) < 1:
            raise ValueError(
                f"Got {self.train} train and {self.test} test problems and a test "
                f"share of {self.test_share}, expected at least 1 of each and a share "
                f"in (0, 1)."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One problem and its solution in English."""

    question: str
    answer: str
    """The solution, a step a line, and the final answer."""
    result: int
    """The final answer."""
    level: int
    form: str
    template: str
    """Its name."""
    skeleton: str
    """Hash of the solution without its numbers, 16 hexadecimal digits."""


def generate(config: Config, seed: int) -> dict[Part, tuple[Record, ...]]:
    """Generates the problems for training and tests; same arguments, same records.

    Args:
      config: which problems, and how they are written.
      seed: of problems and words; each part has draws of its own.

    Returns:
      Records by part, train and test. No skeleton of two or more steps is in both.

    Raises:
      ValueError: if a level is unknown, or no such problem exists.
    """
    return {part: _part(config, seed, part) for part in PARTS}


def files(folder: Path) -> dict[Part, Path]:
    """The file of each part, as :func:`write_jsonl` writes it.

    Args:
      folder: where they are.
    """
    return {part: folder / f"{part}.jsonl" for part in PARTS}


def write_jsonl(config: Config, seed: int, folder: Path) -> dict[Part, Path]:
    """Writes ``train.jsonl`` and ``test.jsonl``, a record a line.

    Args:
      config: which problems, and how they are written.
      seed: as in :func:`generate`.
      folder: made if it is missing; older files are replaced.

    Returns:
      The files by part.

    Raises:
      OSError: if the folder cannot be written.
    """
    written = files(folder)
    for part, rows in generate(config, seed).items():
        jsonl.write(written[part], map(dataclasses.asdict, rows))
    return written


def problems(config: Config, rng: np.random.Generator, part: Part) -> Problems:
    """Draws the problems of a part, before they are told.

    Args:
      config: which.
      rng: draws them.
      part: train or test.
    """
    operations = ops.plain(config.limit, config.binary)
    draw = sampling.chains if config.graph == "chains" else sampling.trees
    only = Restrict(part=part, test_share=config.test_share)
    size = {"train": config.train, "test": config.test}[part]
    some = draw(rng, size, operations, config.levels, only)
    cut = round(config.idle * size)
    idle = sampling.distract(rng, some[:cut], operations)
    return graph.concatenate([idle, some[cut:]])[rng.permutation(size)]


def _part(config: Config, seed: int, part: Part) -> tuple[Record, ...]:
    rng = np.random.default_rng([seed, 8_168, PARTS.index(part)])
    some = problems(config, rng, part)
    stories = english.tell(rng, some, ops.plain(config.limit, config.binary))
    which = shared(rng, len(stories), 0, 1, config.common)
    templates = [(config.template, config.other)[i] for i in which.tolist()]
    hashes = skeletons.hashes(some).tolist()
    return tuple(
        Record(
            question=story.question,
            answer=formats.write(story, config.form, template),
            result=story.answer,
            level=len(story.steps),
            form=config.form,
            template=template.name,
            skeleton=f"{skeleton:016x}",
        )
        for story, template, skeleton in zip(stories, templates, hashes, strict=True)
    )
