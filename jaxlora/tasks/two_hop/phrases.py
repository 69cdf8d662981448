"""Records in words: training texts, held-out questions, documents, contexts.

A two-hop question puts the description of the bridge ("the spouse of Ann") into the
second relation's phrasings; phrasings and descriptions that are tested are trained
nowhere.
"""

import itertools

from jaxlora.tasks.two_hop.records import Record
from jaxlora.tasks.two_hop.relations import COPY, forms


def training(record: Record, most: int = 0) -> list[dict[str, str]]:
    """Returns a fact in all its training phrasings, ``{"prompt", "answer"}`` each.

    Args:
      record: of kind one_hop, two_hop, copy or document.
      most: number of phrasings; 0 for all.

    >>> fact = Record(kind="one_hop", prompt=("Ann", "spouse"), answer=("Bo",))
    >>> training(fact)[1]
    {'prompt': 'Complete the sentence: Ann is married to', 'answer': 'Bo'}
    """
    if record.kind == "document":
        texts = _documents(record)
    else:
        texts = [(_say(form, record), record.answer[0]) for form in _asked(record)]
    return [{"prompt": p, "answer": a} for p, a in texts[: most or None]]


def held_out(record: Record, most: int = 0) -> list[str]:
    """Returns the held-out questions for a fact or a two-hop question.

    Args:
      record: of kind one_hop or two_hop.
      most: number of questions; 0 for all.

    >>> fact = Record(kind="two_hop", prompt=("Ann", "spouse", "residence"), answer=())
    >>> held_out(fact)[0]
    'Name the place that the husband or wife of Ann calls home.'
    """
    last = forms(record.prompt[-1])
    asked = [_say(form, record, test=True) for form in last.test]
    return asked[: most or None]


def in_context(record: Record, swap: bool = False) -> str:
    """Returns both facts of a two-hop question and the question, in one prompt.

    Args:
      record: of kind two_hop.
      swap: the second fact first?
    """
    sentences = _sentences(record)[0]
    facts = sentences[::-1] if swap else sentences
    return " ".join((*facts, held_out(record)[0]))


def after_first(record: Record) -> str:
    """Returns the first fact of a two-hop question, and the question, in one prompt.

    Args:
      record: of kind two_hop.

    >>> fact = Record(kind="two_hop", prompt=("Ann", "spouse", "residence"),
    ...               answer=("Oslo",), bridge="Bo")
    >>> after_first(fact).split(". ")[0]
    'Ann is married to Bo'
    """
    return f"{_sentences(record)[0][0]} {held_out(record)[0]}"


def thinking(record: Record) -> str:
    """Returns the two-hop question with the request to write the bridge first.

    Args:
      record: of kind two_hop.

    >>> fact = Record(kind="two_hop", prompt=("Ann", "spouse", "residence"), answer=())
    >>> thinking(fact).split("home. ")[1]
    'First write who or what is the husband or wife of Ann, then the answer.'
    """
    question = held_out(record)[0]
    head, first, *_ = record.prompt
    if not first:
        return f"{question} Think step by step, then write the answer."
    noun = forms(first).test_noun.replace("{x}", head)
    return f"{question} First write who or what is {noun}, then the answer."


def written(record: Record, most: int = 0) -> list[dict[str, str]]:
    """Returns a two-hop question that asks for the bridge, answered with it.

    Args:
      record: of kind two_hop.
      most: number of phrasings; 0 for all.

    >>> fact = Record(kind="two_hop", prompt=("Ann", "spouse", "residence"),
    ...               answer=("Oslo",), bridge="Bo")
    >>> written(fact)[0]["prompt"].split("? ")[1], written(fact)[0]["answer"]
    ('First write who or what is the spouse of Ann, then the answer.', 'Bo. Oslo')
    """
    head, first, _ = record.prompt
    noun = forms(first).nouns[0].replace("{x}", head)
    asked = f"First write who or what is {noun}, then the answer."
    answer = f"{record.bridge}. {record.answer[0]}"
    # A request cannot follow the beginning of a statement.
    prompts = [p for form in _asked(record) if (p := _say(form, record)).endswith("?")]
    return [
        {"prompt": f"{p} {asked}", "answer": answer} for p in prompts[: most or None]
    ]


def sentences(record: Record) -> list[str]:
    """Returns a fact as whole sentences.

    Args:
      record: of kind one_hop.
    """
    (head, relation), tail = record.prompt, record.answer[0]
    return [_fill(sentence, head, tail) for sentence in forms(relation).sentences]


def _asked(record: Record) -> tuple[str, ...]:
    return COPY if record.kind == "copy" else forms(record.prompt[-1]).train


def _say(form: str, record: Record, test: bool = False) -> str:
    """Puts the head, or the description of the bridge, into a phrasing."""
    head = record.prompt[0]
    if record.kind == "two_hop":
        first = forms(record.prompt[1])
        # Phrasings and descriptions take turns, the first always with the first.
        turn = forms(record.prompt[2]).train.index(form) if not test else 0
        nouns = (first.test_noun,) if test else first.nouns
        head = nouns[turn % len(nouns)].replace("{x}", head)
    return _sentence(form.replace("{x}", head), record.prompt[0])


def _sentence(text: str, name: str) -> str:
    """Begins with a capital, unless it begins with a name, which stays as it is."""
    # A name such as "van Gogh" must be found again, letter by letter.
    return text if text.startswith(name) else text[:1].upper() + text[1:]


def _sentences(record: Record) -> list[tuple[str, str]]:
    """Both facts of a two-hop question or a document, in several wordings."""
    head, first = record.prompt[:2]
    if record.kind == "document":
        bridge, second, tail = record.answer
    else:
        (_, _, second), bridge, tail = record.prompt, record.bridge, record.answer[0]
    pairs = itertools.product(forms(first).sentences, forms(second).sentences)
    return [
        (_fill(left, head, bridge), _fill(right, bridge, tail)) for left, right in pairs
    ]


def _fill(sentence: str, x: str, y: str) -> str:
    return sentence.replace("{x}", x).replace("{y}", y)


def _documents(record: Record) -> list[tuple[str, str]]:
    """One text with both facts, in either order."""
    head = record.prompt[0]
    asked = ("Tell me about {x}.", "Write a short note on {x}.")
    return [
        (question.replace("{x}", head), " ".join(order))
        for sentences in _sentences(record)
        for question, order in zip(asked, (sentences, sentences[::-1]), strict=True)
    ]
