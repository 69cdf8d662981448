"""A user's questions: JSON lines of question, answer and the bridge between two hops.

The form in which two-hop questions are found in the wild (Balesni et al., arXiv
2411.16353): one-hop questions have an empty bridge.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from jaxlora.tasks import jsonl
from jaxlora.tasks.two_hop.facts import Majority, majority

EXAMPLE = (
    '{"question": "Where does Ann\'s wife live?", "answer": "Rome", "bridge": "Bo"}'
)
BRIDGES = ("bridge", "answer_intermediate")
"""Names of the field that holds the bridge; one of them is expected."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A question, its answer, and the entity that links its two hops."""

    question: str
    answer: str
    bridge: str = ""
    """Empty if the question has one hop."""

    @property
    def hops(self) -> int:
        """1 or 2."""
        return 2 if self.bridge else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a set of questions can measure."""

    one_hop: int
    two_hop: int
    majority: Majority | None
    """Baseline of the two-hop answers, or None if there is none."""
    unanswered: tuple[str, ...]
    """Bridges that no one-hop question has as its answer, each once."""


def read(path: str | os.PathLike[str]) -> tuple[Question, ...]:
    """Reads questions, one object a line; other fields are ignored.

    Args:
      path: a JSON-lines file.

    Raises:
      ValueError: with file and line, if a field is missing or no string, a question
        or answer is empty, or there are two bridge fields that differ.
    """
    return tuple(
        _question(record, f"{os.fspath(path)}:{number}")
        for number, record in jsonl.read(path)
    )


def summarize(questions: Sequence[Question]) -> Summary:
    """Counts questions by hops and looks up each bridge among the one-hop answers.

    Args:
      questions: as :func:`read` returns them.

    >>> asked = [Question("Ann's wife?", "Bo"), Question("Her city?", "Rome", "Bo")]
    >>> summarize(asked).unanswered
    ()
    """
    singles = [q for q in questions if q.hops == 1]
    doubles = [q for q in questions if q.hops == 2]
    answered = {q.answer for q in singles}
    bridges = dict.fromkeys(q.bridge for q in doubles)
    return Summary(
        one_hop=len(singles),
        two_hop=len(doubles),
        majority=majority([q.answer for q in doubles]) if doubles else None,
        unanswered=tuple(b for b in bridges if b not in answered),
    )


def _question(record: dict[str, Any], where: str) -> Question:
    bridges = [name for name in BRIDGES if name in record] or [BRIDGES[0]]
    given = [jsonl.text(record, b, where, EXAMPLE, empty=True) for b in bridges]
    if len(set(given)) > 1:
        raise ValueError(
            f"{where}: {BRIDGES[0]!r} is {given[0]!r} but {BRIDGES[1]!r} is "
            f"{given[1]!r}; expected one of the two fields, or the same in both."
        )
    return Question(
        question=jsonl.text(record, "question", where, EXAMPLE),
        answer=jsonl.text(record, "answer", where, EXAMPLE).strip(),
        bridge=given[0].strip(),
    )
