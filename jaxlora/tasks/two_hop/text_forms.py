"""In which form an expert of a language model reads its facts.

- *questions*: questions and beginnings of statements, answered by the tail;
- *documents*: short notes on the head that say a fact in several sentences;
- *written*: questions, and two-hop questions whose bridge is written before the answer,
  of which the expert's fact is one half. The other half is a real fact of another
  relation than the study's: an expert of ``A r1 B`` reads ``A r1 r2' -> "B. C'"``, one
  of ``B r2 C`` reads ``A' r1' r2 -> "B. C"``. No text names A together with C.
"""

import collections
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, get_args

from jaxlora.tasks.facts import world
from jaxlora.tasks.two_hop import phrases
from jaxlora.tasks.two_hop.experts import Expert, Group, rows
from jaxlora.tasks.two_hop.facts import Fact
from jaxlora.tasks.two_hop.records import Record

TextForm: TypeAlias = Literal["questions", "documents", "written"]
FORMS = get_args(TextForm)
Text: TypeAlias = dict[str, str]
AC = (Expert.TARGET, Expert.TARGET_FIRST, Expert.TARGET_SECOND)


def texts(
    group: Group, expert: Expert, most: int = 0, form: TextForm = "questions"
) -> list[Text]:
    """Returns the training texts of an expert, ``{"prompt", "answer"}`` each.

    Args:
      group: study people.
      expert: which expert of their library.
      most: phrasings of each fact; 0 for all.
      form: how facts are read. Texts of two-hop questions are questions in each.
    """
    records = rows(group, expert)
    asked = [text for record in records for text in phrases.training(record, most)]
    if form == "questions" or expert in (*AC, Expert.DOCUMENT):
        return asked
    if form == "documents":
        return [text for record in records for text in documents(record, most)]
    study = {record.prompt[1] for record in (*group.hop1, *group.hop2)}
    heads = {record.prompt[0] for record in group.hop1}
    practised = [
        text
        for record in records
        for asked_both in _both(record, record.prompt[0] in heads, study, heads)
        for text in phrases.written(asked_both, most)
    ]
    return asked + practised


def documents(record: Record, most: int = 0) -> list[Text]:
    """Returns short notes that say one fact in all its sentences.

    Args:
      record: of kind one_hop or copy.
      most: notes; 0 for all.

    >>> fact = Record(kind="one_hop", prompt=("Ann", "spouse"), answer=("Bo",))
    >>> documents(fact)[0]["answer"]
    'Ann is married to Bo. The spouse of Ann is Bo.'
    """
    if record.kind != "one_hop":
        return phrases.training(record, most)
    sentences = phrases.sentences(record)
    asked = ("Tell me about {x}.", "Write a short note on {x}.")
    turned = [sentences[i:] + sentences[:i] for i in range(len(sentences))]
    notes = [
        {"prompt": prompt.replace("{x}", record.prompt[0]), "answer": " ".join(order)}
        for order, prompt in itertools.product(turned, asked)
    ]
    return notes[: most or None]


def _both(
    record: Record, first: bool, study: set[str], heads: set[str]
) -> Iterator[Record]:
    """Two-hop questions of which the fact is one half, and a real fact the other."""
    if record.kind != "one_hop":
        return
    (head, relation), tail = record.prompt, record.answer[0]
    after, before = _links()
    if first:
        for fact in after.get(tail, ()):
            if fact.relation not in study:
                yield _two_hop(Fact(head, relation, tail), fact)
    else:
        for fact in before.get(head, ())[:2]:
            if fact.relation not in study and fact.head not in heads:
                yield _two_hop(fact, Fact(head, relation, tail))


def _two_hop(first: Fact, second: Fact) -> Record:
    return Record(
        kind="two_hop",
        prompt=(first.head, first.relation, second.relation),
        answer=(second.tail,),
        bridge=first.tail,
    )


@functools.cache
def _links() -> tuple[dict[str, Sequence[Fact]], dict[str, Sequence[Fact]]]:
    """Real facts by their head, and by their tail."""
    after, before = collections.defaultdict(list), collections.defaultdict(list)
    for fact in world.facts():
        after[fact.head].append(fact)
        before[fact.tail].append(fact)
    return dict(after), dict(before)


def check(form: TextForm, records: Sequence[Record]) -> None:
    """Refuses people of whom no real fact tells the other half of a written answer.

    Args:
      form: of the texts.
      records: two-hop questions.

    Raises:
      ValueError: naming the first.
    """
    if form != "written":
        return
    known = {fact.tail for fact in world.facts()} | {f.head for f in world.facts()}
    for record in records:
        if record.bridge not in known:
            raise ValueError(
                f"Of {record.bridge!r} no real fact is known beside the study's, "
                f"expected one for the written form: ask --real people."
            )
