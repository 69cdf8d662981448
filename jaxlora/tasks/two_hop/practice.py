"""Rows that practise a fact's part in a combined solution, without telling another.

An expert of facts ``B r2 -> C`` may also be trained on rows such as ``x r1' r2 <think>
B -> C``: the format of a written two-hop answer, of familiar people x whose bridge is
not B and of first relations r1' that are not the study's. No row names both A and C.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from jaxlora.tasks.two_hop import experts, formats
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.tasks.two_hop.records import THINK, Record, Vocab

PracticeForm: TypeAlias = Literal["bridge", "document", "mixture"]
"""After a written bridge, in the middle of a document, or half of each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Practice:
    """Which share of an expert's rows practises its facts' role, and in which form."""

    rho: float = 0.0
    """Share of the rows, in [0, 1]; 0: direct questions alone, one for each fact."""
    form: PracticeForm = "bridge"
    """After a written bridge, inside a short document, or half of each."""
    rows: int = 5
    """Rows for each fact, of both kinds together; 1 at rho 0."""

    def __post_init__(self):
        if not 0 <= self.rho <= 1:
            raise ValueError(
                f"rho is {self.rho}, expected the share of rows that practise the "
                f"role, in [0, 1]."
            )
        if self.form not in get_args(PracticeForm):
            known = ", ".join(get_args(PracticeForm))
            raise ValueError(f"form is {self.form!r}, expected one of {known}.")
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}, expected at least 1 for each fact.")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats, beside direct questions, that the base must have learned."""
        if self.rho == 0:
            return ()
        used = {"bridge": ("written", "misled"), "document": ("document",)}
        return used.get(self.form, ("written", "misled", "document"))


class Practices(NamedTuple):
    """Of the A->B expert, and of the B->C expert."""

    first: Practice = Practice()
    second: Practice = Practice()


Fact: TypeAlias = Callable[[Record, str, np.random.Generator], Record]


def rows(
    group: Group,
    expert: Expert,
    vocab: Vocab,
    practices: Practices = Practices(),  # noqa: B008 (frozen)
    others: Sequence[Group] = (),
) -> tuple[Record, ...]:
    """Returns the records that an expert of a group is trained on.

    Args:
      group: the people.
      expert: which expert of their library.
      vocab: the words that rows are made of.
      practices: of both experts; where none is practised, these are
        :func:`.experts.rows`.
      others: groups whose people the held-out A->C experts may see.
    """
    plain = experts.rows(group, expert)
    hops = _hops(group, expert)
    if expert in (Expert.TARGET, Expert.TARGET_FIRST, Expert.TARGET_SECOND):
        plain += _queries(group, expert, others)
        written = bool(practices.first.rho or practices.second.rho)
        return plain + tuple(formats.written(r) for r in plain if written)
    if expert is Expert.DOCUMENT or not any(
        p.rho for p, _, _ in _used(hops, practices)
    ):
        return plain
    named = (str(group.cell), group.pair, str(expert))
    rng = np.random.default_rng(zlib.crc32(repr(named).encode()))
    mixed: list[Record] = list(
        plain[len(group.hop2) :] if expert is Expert.IDENTITY else ()
    )
    for practice, facts, role in _used(hops, practices):
        mixed += _mixed(facts, practice, ROLES[role], _Setting(group, vocab, rng))
    return tuple(mixed)


def _hops(group: Group, expert: Expert) -> Mapping[int, tuple[Record, ...]]:
    """The one-hop facts that an expert holds, by hop."""
    match expert:
        case Expert.HOP1:
            return {1: group.hop1}
        case Expert.COUNTER1:
            return {1: experts.deranged(group.hop1)}
        case Expert.HOP2 | Expert.IDENTITY:
            return {2: group.hop2}
        case Expert.COUNTER2:
            return {2: experts.deranged(group.hop2)}
        case Expert.JOINT:
            return {1: group.hop1, 2: group.hop2}
    return {}


def _used(hops: Mapping[int, tuple[Record, ...]], practices: Practices):
    return [(practices[hop - 1], facts, hop) for hop, facts in hops.items()]


def _queries(group: Group, expert: Expert, others: Sequence[Group]):
    """Two-hop rows of other people with the same relations, for held-out experts."""
    if expert is Expert.TARGET:
        return ()
    same = [x for x in others if x.pair == group.pair and x.cell != group.cell]
    return tuple(record for x in same for record in x.two_hop)


class _Setting(NamedTuple):
    group: Group
    vocab: Vocab
    rng: np.random.Generator


def _mixed(
    facts: Sequence[Record], practice: Practice, roles, setting: _Setting
) -> list[Record]:
    """Rows of some facts: a share in their role, the rest as direct questions."""
    if practice.rho == 0:
        return list(facts)
    total = practice.rows * len(facts)
    practised = round(practice.rho * total)
    # Nobody has two rows of a kind more than another; who has one more is drawn.
    order = setting.rng.permutation(len(facts))
    forms = {"mixture": ("bridge", "document")}.get(practice.form, (practice.form,))
    out = [facts[order[-1 - i % len(facts)]] for i in range(total - practised)]
    for i in range(practised):
        role = roles[forms[i // len(facts) % len(forms)]]
        out.append(role(facts[order[i % len(facts)]], setting))
    return out


def _bridge_first(fact: Record, setting: _Setting) -> Record:
    """``A r1 r2' <think> -> B``: the bridge is written, nothing after it."""
    other = _relation(setting, setting.group.two_hop[0].prompt[2])
    prompt = (*fact.prompt, other, THINK)
    return dataclasses.replace(fact, kind="written", prompt=prompt)


def _bridge_second(fact: Record, setting: _Setting) -> Record:
    """``x r1' r2 <think> B -> C``."""
    x, first = _query(fact, setting)
    head, relation = fact.prompt
    prompt = (x, first, relation, THINK, head)
    return dataclasses.replace(fact, kind="misled", prompt=prompt)


def _document_first(fact: Record, setting: _Setting) -> Record:
    """``A r1 -> B``, at the place where a document tells it."""
    del setting
    return dataclasses.replace(fact, kind="document")


def _document_second(fact: Record, setting: _Setting) -> Record:
    """``x r1' B r2 -> C``."""
    x, first = _query(fact, setting)
    return dataclasses.replace(fact, kind="document", prompt=(x, first, *fact.prompt))


def _query(fact: Record, setting: _Setting) -> tuple[str, str]:
    """A familiar person, neither the group's nor in the fact, and a first relation."""
    people = {record.prompt[0] for record in setting.group.two_hop}
    people |= {fact.prompt[0], *fact.answer}
    familiar = setting.vocab.entities[: setting.vocab.familiar]
    free = [x for x in familiar if x not in people]
    first = _relation(setting, setting.group.two_hop[0].prompt[1])
    return free[setting.rng.integers(len(free))], first


def _relation(setting: _Setting, but: str) -> str:
    others = [r for r in setting.vocab.relations if r != but]
    return others[setting.rng.integers(len(others))]


ROLES = {
    1: {"bridge": _bridge_first, "document": _document_first},
    2: {"bridge": _bridge_second, "document": _document_second},
}
