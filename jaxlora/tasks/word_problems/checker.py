"""Recomputes every answer, from the graph and from what is written, step by step.

An empty answer means that nothing disagrees. For the program's problems that is a
test; for a model's solutions it says where each goes wrong.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlora.tasks.word_problems import formats as english_formats
from jaxlora.tasks.word_problems import graph, reading, symbols
from jaxlora.tasks.word_problems import operations as ops
from jaxlora.tasks.word_problems.english import Story
from jaxlora.tasks.word_problems.formats import Format
from jaxlora.tasks.word_problems.graph import Problems
from jaxlora.tasks.word_problems.operations import Operations
from jaxlora.tasks.word_problems.symbols import Rows
from jaxlora.tasks.word_problems.templates import Template
from jaxlora.tasks.word_problems.vocab import Vocab

FIELDS = ("operation", "operand", "result")
ANSWER = -1
"""Stands for the final answer instead of a step."""


class Disagreement(NamedTuple):
    """One thing that is not as recomputed."""

    problem: int
    step: int
    """From 0; ``ANSWER`` for the final answer."""
    what: str
    """operation, left, operand, result, steps (their number) or answer."""
    got: int | None
    expected: int | None


def of_graph(problems: Problems, operations: Operations) -> list[Disagreement]:
    """Returns the stored results that differ from recomputed ones.

    Args:
      problems: N of S steps.
      operations: the set that their ids are of.
    """
    expected = graph.evaluate(problems, operations)
    return [
        Disagreement(int(n), int(s), "result", *_pair(problems.results, expected, n, s))
        for n, s in np.argwhere(problems.results != expected)
    ]


def of_symbols(
    problems: Problems, rows: Rows, formats: np.ndarray | int, vocab: Vocab
) -> list[Disagreement]:
    """Returns where rows differ from their problems: prompts, steps and answers.

    Prompt and solution are read from the tokens alone, and results are recomputed
    from what the prompt says.

    Args:
      problems: N chains.
      rows: as :func:`.symbols.render` makes them.
      formats: int [N], or one for all.
      vocab: gives the ids.
    """
    formats = np.broadcast_to(formats, (len(problems),))
    asked = reading.prompts(rows.tokens, rows.prompt_lengths, vocab)
    expected = symbols.steps(asked, vocab)
    width = 3 * problems.steps + 1
    written = reading.solutions(rows, width, vocab)
    direct = (formats == vocab.answer_only)[:, None, None]
    read = reading.steps(written, formats, vocab)
    read = np.where(direct, expected, read)  # they have no steps to read
    out = [
        Disagreement(int(n), int(s), FIELDS[i], *_pair(read, expected, n, s, i))
        for n, s, i in np.argwhere(read != expected)
    ]
    answers = reading.answers(written, formats, vocab)
    for right in (graph.answers(asked), graph.answers(problems)):
        out += [
            Disagreement(int(n), ANSWER, "answer", *_pair(answers, right, n))
            for n in np.flatnonzero(answers != right)
        ]
    return out


def of_text(
    stories: Sequence[Story],
    texts: Sequence[str],
    form: Format,
    template: Template,
    operations: Operations,
) -> list[Disagreement]:
    """Returns where solutions in English differ from their stories or from arithmetic.

    Args:
      stories: the problems.
      texts: a solution for each.
      form: plain, annotated, python or markup.
      template: of the solutions.
      operations: recomputes each step as it is written.

    Raises:
      ValueError: if there is not a text for each story, or the format is unknown.
    """
    if len(stories) != len(texts):
        raise ValueError(f"Got {len(texts)} texts for {len(stories)} stories.")
    out = []
    for n, (story, text) in enumerate(zip(stories, texts, strict=True)):
        out += _of_text(
            n, story, english_formats.read(text, form, template), operations
        )
    return out


def _of_text(n: int, story: Story, read, operations) -> list[Disagreement]:
    out = []
    if len(read.steps) != len(story.steps):
        counts = len(read.steps), len(story.steps)
        out.append(Disagreement(n, min(counts), "steps", *counts))
    for s, (got, want) in enumerate(zip(read.steps, story.steps, strict=False)):
        if got is None:
            out.append(Disagreement(n, s, "operation", None, want.operation))
            continue
        computed = int(ops.apply(operations, got.operation, got.left, got.right))
        pairs = {
            "operation": (got.operation, want.operation),
            "left": (got.left, want.left),
            "operand": (got.right, want.right),
            "result": (got.result, computed),
        }
        out += [Disagreement(n, s, k, *v) for k, v in pairs.items() if v[0] != v[1]]
    if read.answer != story.answer:
        out.append(Disagreement(n, ANSWER, "answer", read.answer, story.answer))
    return out


def _pair(got: np.ndarray, expected: np.ndarray, *at) -> tuple[int, int]:
    return int(got[at]), int(expected[at])
