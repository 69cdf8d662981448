"""Word problems in English: the same graphs, told about people and what they do.

Each result is somebody's amount: ``Ada has 5 apples. Ben has 3 more apples than Ada.``
Numbers are plain integers: ``3 * 4 = 12`` must stay true in annotations and programs,
which it does not modulo p, and a permutation of numbers has no words.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxlora.tasks.word_problems import graph, phrases
from jaxlora.tasks.word_problems.graph import NO_STEP, Problems
from jaxlora.tasks.word_problems.names import PEOPLE, SCENES
from jaxlora.tasks.word_problems.operations import Operations


class Step(NamedTuple):
    """One step of a solution."""

    who: str
    """Whose amount the result is."""
    operation: int
    left: int
    right: int
    result: int
    left_who: str
    """Whose amount the left operand is, if it is a result; else empty."""
    right_who: str


class Story(NamedTuple):
    """A problem in English, and what its solution says."""

    question: str
    steps: tuple[Step, ...]
    """Those that matter, in order."""

    @property
    def answer(self) -> int:
        """The result of the last step."""
        return self.steps[-1].result


def tell(
    rng: np.random.Generator, problems: Problems, operations: Operations
) -> list[Story]:
    """Tells problems in English; the same generator state gives the same words.

    Args:
      rng: draws people, what they do, phrasings, and where a clause that does not
        matter stands.
      problems: N of S steps, over plain integers.
      operations: the set.

    Raises:
      ValueError: if numbers are not plain integers.

    >>> from jaxlora.tasks.word_problems import operations
    >>> ops, rng = operations.plain(), np.random.default_rng(0)
    >>> two = graph.chains(ops, np.array([[0, 2]]), [5], np.array([[3, 2]]))
    >>> tell(rng, two, ops)[0].question
    "..."
    """
    if operations.table is not None:
        raise ValueError(
            f"English is over plain integers, got a set modulo {operations.size}; "
            f"expected one from operations.plain."
        )
    n, steps = len(problems), problems.steps
    columns = _Row(
        people=rng.random((n, len(PEOPLE))).argsort(axis=1)[:, : 2 * steps],
        scene=rng.integers(len(SCENES), size=n),
        turns=rng.integers(2, size=(n, steps)),
        place=rng.random(n),
        level=problems.levels,
        operations=problems.operations,
        sources=np.stack([problems.left, problems.right], axis=2),
        values=np.stack([*graph.operands(problems), problems.results], axis=2),
    )
    # As lists: reading single numbers out of arrays is slow.
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [_story(_Row(*row)) for row in rows]


class _Row(NamedTuple):
    """What a story is made of; first all of them as arrays, then each as lists."""

    people: Any
    """[2 S]: who has the result of each step, then who has its left number."""
    scene: Any
    turns: Any
    """[S]: which phrasing."""
    place: Any
    """In [0, 1): where a clause that does not matter stands."""
    level: Any
    operations: Any
    sources: Any
    """[S, 2]: left and right."""
    values: Any
    """[S, 3]: left, right and result."""


def _story(row: _Row) -> Story:
    forms = phrases.forms(row.scene)
    who = [PEOPLE[i] for i in row.people]
    used = len(row.operations) - row.operations.count(NO_STEP)
    sentences = [_sentences(row, step, who, forms) for step in range(used)]
    if used > row.level:
        # Behind the step that it speaks of, before the question.
        earliest = row.sources[row.level][0] + 1
        sentences.insert(earliest + int(row.place * (used - earliest)), sentences.pop())
    sentences.append(forms.question.format(who=who[row.level - 1]))
    steps = tuple(_step(row, step, who) for step in range(row.level))
    return Story(" ".join(sentences), steps)


def _sentences(row: _Row, step: int, who: list[str], forms: phrases.Forms) -> str:
    """A step in words; before it, whoever has the number on its left."""
    left, right = row.sources[step]
    x, y, _ = row.values[step]
    form = (forms.by_number if right < 0 else forms.by_person)[row.operations[step]]
    first = who[left] if left >= 0 else who[len(row.operations) + step]
    second = who[right] if right >= 0 else ""
    sentence = form[row.turns[step]].format(who=who[step], x=first, y=second, n=y)
    return sentence if left >= 0 else f"{forms.start.format(who=first, n=x)} {sentence}"


def _step(row: _Row, step: int, who: list[str]) -> Step:
    names = (who[source] if source >= 0 else "" for source in row.sources[step])
    return Step(who[step], row.operations[step], *row.values[step], *names)
