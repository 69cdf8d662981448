"""Is what is tested kept out of what is trained? Checked on the texts themselves.

A two-hop score means something only if no training text of the combined experts tells
the answer. These are checks of strings, so that they hold for a user's facts as for
generated people.
"""

import re
from collections.abc import Iterable, Sequence

from jaxlora.tasks.two_hop import phrases, text_forms
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.tasks.two_hop.text_forms import TextForm

APART = (
    Expert.HOP1,
    Expert.HOP2,
    Expert.COUNTER1,
    Expert.COUNTER2,
    Expert.IDENTITY,
    Expert.JOINT,
)
"""Experts that must know nothing of A and C together."""


def check(
    group: Group,
    experts: Iterable[Expert] = Expert,
    most: int = 0,
    form: TextForm = "questions",
) -> None:
    """Refuses people whose tests would be in their training.

    - No held-out question is a training prompt of any expert.
    - Of the experts of the 2-combination and their controls, no training text names a
      person A together with the answer C, and none asks the two-hop question.

    Args:
      group: study people.
      experts: that are going to be trained.
      most: phrasings of each fact; 0 for all.
      form: how facts are read.

    Raises:
      ValueError: with the text that fails.
    """
    held_out = {q for part in _parts(group) for r in part for q in phrases.held_out(r)}
    # Trained and held-out wordings alike: neither may be asked of these experts.
    two_hop = {p["prompt"] for r in group.two_hop for p in phrases.training(r)}
    two_hop |= {q for r in group.two_hop for q in phrases.held_out(r)}
    for expert in experts:
        for text in text_forms.texts(group, expert, most, form):
            if text["prompt"] in held_out:
                what = "is a held-out question"
                raise ValueError(_refusal(group, expert, text, what))
            if expert in APART:
                _check_apart(group, expert, text, two_hop)


def names(text: str, known: Sequence[str]) -> list[int]:
    """Returns which names a text holds as whole words, in the order of their places.

    A name that is part of a longer one at the same place does not count.

    Args:
      text: any.
      known: the names.

    Returns:
      Numbers of the names; one that is there twice is listed twice.

    >>> names("Bo Lind lives in Oslo, not in Bo.", ["Oslo", "Bo", "Bo Lind"])
    [2, 0, 1]
    """
    # The longest first: a pattern takes the first alternative that fits.
    order = sorted(range(len(known)), key=lambda i: -len(known[i]))
    any_of = "|".join(f"(?P<n{i}>{re.escape(known[i])})" for i in order if known[i])
    if not any_of:
        return []
    matches = re.finditer(rf"(?<!\w)(?:{any_of})(?!\w)", text, re.IGNORECASE)
    return [int(str(match.lastgroup)[1:]) for match in matches]


def _parts(group: Group):
    return (group.hop1, group.hop2, group.two_hop)


def _check_apart(group: Group, expert: Expert, text, two_hop: set[str]) -> None:
    if text["prompt"] in two_hop:
        raise ValueError(_refusal(group, expert, text, "is a two-hop question"))
    both = f"{text['prompt']} {text['answer']}"
    for record in group.two_hop:
        # A user's question is no name: it is told as a whole or not at all.
        ends = (record.prompt[0], record.answer[0])
        if all(part in both for part in ends) and set(names(both, ends)) == {0, 1}:
            what = f"names {ends[0]!r} together with the two-hop answer {ends[1]!r}"
            raise ValueError(_refusal(group, expert, text, what))


def _refusal(group: Group, expert: Expert, text: dict[str, str], what: str) -> str:
    return (
        f"A training text of the expert {expert.value!r} of {group.cell} {what}: "
        f"{text['prompt']!r} -> {text['answer']!r}; expected facts of one hop at a "
        f"time, so that a two-hop answer is never read from training."
    )
