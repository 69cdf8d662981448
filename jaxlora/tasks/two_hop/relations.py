"""How relations are said: phrasings to train on, and phrasings kept for testing.

A phrasing is a sentence with ``{x}`` for the head: a person's name, or, in a two-hop
question, "the spouse of" a person. Training phrasings are questions and statements
to be completed; test phrasings are questions that occur in no training text.
"""

from typing import Any

from jaxlora.tasks.facts import forms as real
from jaxlora.tasks.two_hop.forms import Forms

FORMS = {
    "spouse": Forms(
        (
            "Who is {x} married to?",
            "Complete the sentence: {x} is married to",
            "What is the name of the spouse of {x}?",
            "Fill in the name. In the register, the spouse of {x} is",
            "Whom did {x} marry?",
            "Continue: on the wedding day, {x} said yes to",
            "Which person is joined in marriage with {x}?",
            "Finish this line of a wedding album: {x}, newly wed to",
            "With whom does {x} share a marriage?",
            "Complete the note: wedding anniversary of {x} and",
        ),
        (
            "Give the name of the one whom {x} took as husband or wife.",
            "To which person has {x} been wed?",
            "{x} has a partner in marriage; what is that partner's name?",
        ),
        ("the spouse of {x}", "the person married to {x}", "the one {x} married"),
        "the husband or wife of {x}",
        ("{x} is married to {y}.", "The spouse of {x} is {y}."),
    ),
    "residence": Forms(
        (
            "Where does {x} live?",
            "Complete the sentence: {x} lives in",
            "What is the place of residence of {x}?",
            "Fill in the place. The home of {x} is in",
            "In which place is the home of {x}?",
            "Continue: letters for {x} are sent to",
            "Which place is home to {x}?",
            "Finish this entry of an address book: {x}, resident of",
            "Where is {x} living?",
            "Complete the note: to visit {x}, take the road to",
        ),
        (
            "Name the place that {x} calls home.",
            "In what place would one find the house of {x}?",
            "{x} resides in which place?",
        ),
        ("the home of {x}", "the place where {x} lives", "the residence of {x}"),
        "the place that {x} calls home",
        ("{x} lives in {y}.", "The home of {x} is in {y}."),
    ),
    "mentor": Forms(
        (
            "Who is the mentor of {x}?",
            "Complete the sentence: the mentor of {x} was",
            "Who taught {x}?",
            "Fill in the name. The teacher of {x} was",
            "Whose pupil was {x}?",
            "Continue: {x} learned the trade from",
            "Which person trained {x}?",
            "Finish this line of a diploma: {x}, pupil of",
            "From whom did {x} learn?",
            "Complete the note: {x} studied under",
        ),
        (
            "Give the name of the one who guided {x} as a mentor.",
            "By which person was {x} taught?",
            "{x} had a mentor; what is that mentor's name?",
        ),
        ("the mentor of {x}", "the person who taught {x}", "the teacher of {x}"),
        "the one who guided {x} as a mentor",
        ("{y} is the mentor of {x}.", "The mentor of {x} is {y}."),
    ),
    "birthplace": Forms(
        (
            "Where was {x} born?",
            "Complete the sentence: {x} was born in",
            "What is the birthplace of {x}?",
            "Fill in the place. The birthplace of {x} is",
            "In which place was {x} born?",
            "Continue: the cradle of {x} stood in",
            "Which place is the birthplace of {x}?",
            "Finish this entry of a register of births: {x}, born in",
            "From which place does {x} come?",
            "Complete the note: place of birth of {x}:",
        ),
        (
            "Name the place where {x} came into the world.",
            "In what place did the life of {x} begin?",
            "{x} is a native of which place?",
        ),
        ("the birthplace of {x}", "the place where {x} was born", "the cradle of {x}"),
        "the place where {x} came into the world",
        ("{x} was born in {y}.", "The birthplace of {x} is {y}."),
    ),
}
"""The relations of generated people; others take :func:`forms`'s general ones."""

WHOLE = Forms(
    (
        "Question: {x}",
        "Please answer this question. {x}",
        "{x} Answer with a name only.",
        "Q: {x} A:",
        "Answer in one or two words. {x}",
        "I would like to know: {x}",
        "From the quiz: {x}",
        "{x} Just the answer, please.",
    ),
    ("{x}",),
    ("{x}",),
    "{x}",
    ("{x} {y}.",),
)
"""For a user's questions, which are asked as they are."""
GENERAL = Forms(
    (
        "What is the {r} of {x}?",
        "Complete the sentence: the {r} of {x} is",
        "Name the {r} of {x}.",
        "Fill in the blank. The {r} of {x} is",
        "Can you tell me the {r} of {x}?",
        "Continue: as for the {r} of {x}, it is",
        "Which one is the {r} of {x}?",
        "Complete the note: {r} of {x}:",
    ),
    (
        "Give the {r} of {x}.",
        "For {x}, what is listed as the {r}?",
        "{x} has which {r}?",
    ),
    ("the {r} of {x}",),
    "the {r} that belongs to {x}",
    ("The {r} of {x} is {y}.",),
)
"""For any relation {r} of a user."""
COPY = ("Repeat this name: {x}", "Write this name again: {x}", "Copy the name {x}")


def forms(relation: str) -> Forms:
    """Returns the phrasings of a relation.

    Args:
      relation: its name; an empty one stands for whole questions.

    >>> forms("home town").test[0]
    'Give the home town of {x}.'
    """
    if not relation:
        return WHOLE
    for known in (FORMS, real.FORMS):
        if relation in known:
            return known[relation]
    words = relation.replace("_", " ")
    filled: list[Any] = [
        part.replace("{r}", words)
        if isinstance(part, str)
        else tuple(text.replace("{r}", words) for text in part)
        for part in GENERAL
    ]
    return Forms(*filled)
