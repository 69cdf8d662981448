"""The vocabulary of word problems in symbols, and how long their rows are."""

import dataclasses
from typing import TypeVar

import numpy as np

from jaxlora.tasks.word_problems.operations import Operations
from jaxlora.tasks.word_problems.templates import WORDS, R, S, Template

Level = TypeVar("Level", int, np.ndarray)


@dataclasses.dataclass(frozen=True, eq=False)
class Vocab:
    """Token ids: numbers, blank, words in prompts, words in solutions, formats, marks.

    Behind them stand the names of numbers, and of the blank, in some templates.
    Formats are numbered: the templates in their order, then ``answer_only``.
    """

    operations: Operations
    templates: tuple[Template, ...] = (S, R)

    @property
    def blank(self) -> int:
        """The operand of unary operations; numbers are the ids below it."""
        return self.operations.size

    @property
    def prompt_words(self) -> int:
        """Id of the first operation's word in prompts."""
        return self.blank + 1

    @property
    def solution_words(self) -> int:
        """Id of the first operation's word in solutions of vocabulary 0."""
        return self.prompt_words + self.operations.count

    @property
    def formats(self) -> int:
        """Id of the token that names format 0."""
        return self.solution_words + len(WORDS) * self.operations.count

    @property
    def answer_only(self) -> int:
        """Number of the format that has no steps."""
        return len(self.templates)

    @property
    def eq(self) -> int:
        """Id of the token that ends a prompt."""
        return self.formats + len(self.templates) + 1

    @property
    def end(self) -> int:
        """Id of the token that ends a solution."""
        return self.eq + 1

    @property
    def pad(self) -> int:
        """Id of padding."""
        return self.eq + 2

    @property
    def named(self) -> int:
        """Id of the name of number 0; that of the blank is the last."""
        return self.eq + 3

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.named + self.blank + 1

    @property
    def words(self) -> tuple[str, ...]:
        """Every id as a readable word."""
        names = self.operations.names
        numbers = tuple(map(str, range(self.blank)))
        solution = tuple(f"{name}/{i}" for i in WORDS for name in names)
        formats = tuple(f"<{t.name}>" for t in self.templates)
        marks = ("<answer-only>", "=", "<end>", "<pad>")
        named = tuple(f"{number}/1" for number in (*numbers, "_"))
        return (*numbers, "_", *names, *solution, *formats, *marks, *named)

    def number(self, template: Template) -> int:
        """Returns the number of a template's format.

        Args:
          template: one of the vocabulary.

        Raises:
          ValueError: if it is none.
        """
        if template not in self.templates:
            have = ", ".join(t.name for t in self.templates)
            raise ValueError(
                f"No template {template.name} in this vocabulary, it has {have}."
            )
        return self.templates.index(template)

    def layout(self, formats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns where the tokens of a step stand, and which words it uses.

        Args:
          formats: int [N], numbers of formats.

        Returns:
          int [N, 3], positions of operation, operand and result among the three, and
          int [N], the id of operation 0 in the words of the template.
        """
        # Answers alone have no steps; any template stands in where nothing is written.
        known = (*self.templates, Template())
        places = np.array([t.positions for t in known])[formats]
        words = np.array([t.words for t in known])[formats]
        return places, self.solution_words + words * self.operations.count

    def first_number(self, formats: np.ndarray) -> np.ndarray:
        """Returns int [N], the id of number 0 in the solutions of each format.

        Args:
          formats: int [N], numbers of formats.
        """
        known = (*self.templates, Template())
        return self.named * np.array([t.numbers for t in known])[formats]


def prompt_length(level: Level) -> Level:
    """Number of tokens in the prompt of a chain, EQ included.

    Args:
      level: its number of operations, or int [N] of several.
    """
    return 3 + 2 * level


def row_length(level: Level) -> Level:
    """Number of inputs in the row of a chain with its steps.

    Args:
      level: its number of operations, or int [N] of several.
    """
    return prompt_length(level) + 3 * level
