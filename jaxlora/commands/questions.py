"""``jaxlora data questions``: what a file of questions can measure."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from jaxlora.commands import flags, printing
from jaxlora.tasks import jsonl
from jaxlora.tasks.two_hop import questions

PROG = "jaxlora data questions"
DESCRIPTION = """\
Counts the questions in a file, and looks up their bridges.

One object a line; a question of one hop has an empty bridge:

{"question": "Who is Ann's wife?", "answer": "Bo", "bridge": ""}

{"question": "Where does Ann's wife live?", "answer": "Rome", "bridge": "Bo"}

`jaxlora data questions questions.jsonl` then finds one question of each kind, says
what always giving the commonest two-hop answer would score, and lists each bridge that
no one-hop question asks for: if such a question is missed, nothing tells whether the
first hop was known.
"""
SHOWN = 6
"""Names in a cell of the table; of the rest, only their number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Counts the questions in a file, and looks up their bridges."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """JSON lines with question, answer and bridge (or answer_intermediate)."""


def run(arguments: Sequence[str]) -> int:
    """Prints the table."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    printing.facts(_facts(questions.read(given.file)))
    return 0


def _facts(asked: Sequence[questions.Question]) -> dict[str, str]:
    counts = questions.summarize(asked)
    blind = sum(q.hops == 2 and q.bridge in counts.unanswered for q in asked)
    baseline = "none, as there is no two-hop question"
    if counts.majority is not None:
        commonest = _names(counts.majority.answers, " or ")
        baseline = f"{counts.majority.share:.3f}, by always answering {commonest}"
    return {
        "one-hop questions": str(counts.one_hop),
        "two-hop questions": str(counts.two_hop),
        "  majority baseline": baseline,
        "  bridge not asked for": str(blind),
        "  such bridges": _names(counts.unanswered),
    }


def _names(names: Sequence[str], between: str = ", ") -> str:
    """Some of the names, quoted.

    >>> _names(["Rome", "Oslo"])
    "'Rome', 'Oslo'"
    """
    shown = between.join(jsonl.shorten(repr(name)) for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return shown + more or "none"
