"""A user's probes: two-hop questions with their bridge and both one-hop questions.

One object a line: ``question`` of two hops, its ``answer``, the ``bridge`` between
them, ``first``, the question that the bridge answers, and ``second``, the question
about the bridge that the answer answers.
"""

import dataclasses
import os
from collections.abc import Sequence

from jaxlora.tasks import jsonl

EXAMPLE = (
    '{"question": "Where does Ann\'s wife live?", "answer": "Rome", "bridge": "Bo", '
    '"first": "Who is Ann\'s wife?", "second": "Where does Bo live?"}'
)
FIELDS = ("question", "answer", "bridge", "first", "second")
LEAST = 2
"""Answers, and bridges, that must differ: with one alone nothing can be confused."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """One two-hop question, and what it is made of."""

    question: str
    """Of two hops."""
    answer: str
    """Of the two-hop question, and of ``second``."""
    bridge: str
    """Of both hops: the answer of ``first``."""
    first: str
    """The question that the bridge answers."""
    second: str
    """The question about the bridge."""
    where: str = ""
    """File and line, for messages."""


def read(path: str | os.PathLike[str]) -> tuple[Probe, ...]:
    """Reads probes.

    Args:
      path: a JSON-lines file.

    Raises:
      ValueError: with file and line, if a field is missing or empty, or probes
        contradict each other; if all have one answer or one bridge.
    """
    probes = []
    for number, record in jsonl.read(path):
        where = f"{os.fspath(path)}:{number}"
        fields = {x: jsonl.text(record, x, where, EXAMPLE).strip() for x in FIELDS}
        probes.append(Probe(**fields, where=where))
    check(probes)
    return tuple(probes)


def check(probes: Sequence[Probe]) -> None:
    """Refuses probes that contradict each other, or can show nothing.

    Args:
      probes: some.

    Raises:
      ValueError: naming both places, if one question has two answers; if a bridge is
        its own answer; if all answers, or all bridges, are the same.
    """
    answers: dict[str, tuple[str, Probe]] = {}
    for probe in probes:
        if probe.bridge == probe.answer:
            raise ValueError(
                f"{probe.where}: bridge and answer are both {probe.answer!r}, so that "
                f"half of the way would count as right; leave such probes out."
            )
        for question, answer in _facts(probe):
            known, other = answers.setdefault(question, (answer, probe))
            if known != answer:
                raise ValueError(
                    f"{probe.where}: {question!r} is answered by {answer!r}, but by "
                    f"{known!r} in {other.where}; expected one answer to a question."
                )
    for name in ("answer", "bridge"):
        values = {getattr(probe, name) for probe in probes}
        if len(values) < LEAST:
            raise ValueError(
                f"The {len(probes)} probes have the {name} {' '.join(values)!r} alone, "
                f"expected {LEAST} that differ: what is always the same shows nothing."
            )


def _facts(probe: Probe) -> tuple[tuple[str, str], ...]:
    return (
        (probe.question, probe.answer),
        (probe.first, probe.bridge),
        (probe.second, probe.answer),
    )
