"""What the people of a group are asked, as token ids, and the key to the answers.

Candidates are all names that could be answers: the places C of the group, then the
bridges B. A name is a number in that list, so that a score [N, C] of candidates is read
as logits over a small vocabulary.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from jaxlora.evaluate.schema import Split
from jaxlora.models.padding import bucket
from jaxlora.studies.two_hop import items
from jaxlora.studies.two_hop.items import Key
from jaxlora.studies.two_hop.text import score
from jaxlora.studies.two_hop.text.codec import PromptCodec
from jaxlora.studies.two_hop.text.score import Candidates, Prompts
from jaxlora.tasks.two_hop import phrases
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tasks.two_hop.records import Record, Vocab

RANKED = (Split.HOP1, Split.HOP2, Split.TWO_HOP)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Sizes that all groups share, so that they share compiled programs."""

    prompt: int
    """Tokens of the longest question."""
    long: int
    """Tokens of the longest question with facts, or with a request to think."""
    answer: int
    """Tokens of the longest candidate."""
    candidates: int
    """Candidates of the largest group."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """Everything that is asked of one group."""

    names: tuple[str, ...]
    """Candidates: answers first, then bridges."""
    answers: Candidates
    """[C, A]; rows beyond the names repeat the last one."""
    ranked: Mapping[Split, Prompts]
    """[P * N, T] for P phrasings of N questions, phrasing by phrasing."""
    context: Prompts
    """[N, T'], two-hop questions with both facts before them."""
    written: Prompts
    """[N, T'], two-hop questions that ask for the bridge first."""
    keys: Mapping[Split, Key]

    def first(self, split: Split, n: int) -> Prompts:
        """The questions of a split in their first phrasing."""
        return Prompts(*(x[:n] for x in self.ranked[split]))


def rounded(n: int) -> int:
    """The multiple of 8 that holds so many tokens."""
    return -(-n // 8) * 8


def library_of(groups: Sequence[Group], group: Group) -> tuple[Group, ...]:
    """The groups that share experts and candidates: real people of the same relations.

    What the base knows of them decides of whom a verdict speaks, not what is learnt.

    Args:
      groups: of one seed.
      group: one of them.
    """
    if Cell(group.cell).familiarity != "R":
        return (group,)
    real = [x for x in groups if Cell(x.cell).familiarity == "R"]
    same = [x for x in real if x.pair == group.pair]
    return (group, *(x for x in same if x is not group))


def names(groups: Sequence[Group]) -> tuple[str, ...]:
    """Returns the candidates of the groups of a library, each once."""
    tails = [record.answer[0] for group in groups for record in group.two_hop]
    bridges = [record.answer[0] for group in groups for record in group.hop1]
    return tuple(dict.fromkeys(tails + bridges))


def shapes(codec: PromptCodec, groups: Sequence[Group], phrasings: int) -> Shapes:
    """Returns the sizes that the questions of all groups need.

    Args:
      codec: puts text into token ids.
      groups: of one seed.
      phrasings: held-out phrasings of each question; 0 for all.
    """

    def longest(texts: Iterable[str]) -> int:
        # All groups share it, so that a power of two would only be longer.
        return rounded(max(len(codec.prompt(text)) for text in texts))

    two_hop = [record for group in groups for record in group.two_hop]
    every = two_hop + [x for group in groups for x in (*group.hop1, *group.hop2)]
    known = [names(library_of(groups, group)) for group in groups]
    return Shapes(
        longest(q for record in every for q in phrases.held_out(record, phrasings)),
        longest(
            question(record)
            for record in two_hop
            for question in (phrases.in_context, phrases.thinking)
        ),
        bucket(max(len(codec.answer(x)) for some in known for x in some), least=2),
        max(map(len, known)),
    )


def ask(
    codec: PromptCodec,
    groups: Sequence[Group],
    sizes: Shapes,
    phrasings: int,
    known: Mapping[tuple[str, str], str],
) -> Asked:
    """Makes the questions and keys of a group.

    Args:
      codec: puts text into token ids.
      groups: that share its candidates; those of the first are asked.
      sizes: of all groups.
      phrasings: held-out phrasings of each question; 0 for all.
      known: facts of a user's file, ``{(head, relation): tail}``.
    """
    group, candidates = groups[0], names(groups)
    filled = [*candidates, *[candidates[-1]] * (sizes.candidates - len(candidates))]
    ids = [codec.answer(name) for name in filled]
    parts = (group.hop1, group.hop2, group.two_hop)
    with_facts = [
        phrases.in_context(r, i % 2 == 1) for i, r in enumerate(group.two_hop)
    ]
    thinking = [phrases.thinking(record) for record in group.two_hop]
    among: dict[tuple[str, ...], str]
    among = {pair: tail for pair, tail in known.items() if tail in candidates}
    return Asked(
        candidates,
        score.right(ids, sizes.answer, codec.pad),
        {
            split: prompts(codec, by_phrasing(part, phrasings), sizes.prompt)
            for split, part in zip(RANKED, parts, strict=True)
        },
        prompts(codec, with_facts, sizes.long),
        prompts(codec, thinking, sizes.long),
        items.keys(group, Vocab(candidates, (), 0), among),
    )


def by_phrasing(records: Sequence[Record], phrasings: int) -> list[str]:
    """Questions for all records, phrasing by phrasing."""
    texts = [phrases.held_out(record, phrasings) for record in records]
    # Relations may differ in the number of their phrasings: all get the smallest.
    return [some[i] for i in range(min(map(len, texts))) for some in texts]


def prompts(codec: PromptCodec, texts: Sequence[str], length: int) -> Prompts:
    """Prompts as token ids, padded to a common length."""
    return Prompts(*codec.padded(texts, length))
