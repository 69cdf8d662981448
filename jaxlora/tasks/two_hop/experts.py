"""What each expert is trained on, for one group of study people.

A group is the people of one cell and one relation pair; it gets a library of its own.
"""

import dataclasses
from collections.abc import Sequence
from enum import StrEnum

from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.formats import copy_record, document
from jaxlora.tasks.two_hop.records import Record
from jaxlora.tasks.two_hop.world import World


class Expert(StrEnum):
    """Names of the experts of one library."""

    HOP1 = "hop1"
    HOP2 = "hop2"
    TARGET = "target"
    TARGET_FIRST = "target, first half"
    TARGET_SECOND = "target, second half"
    COUNTER1 = "counterfactual hop1"
    COUNTER2 = "counterfactual hop2"
    IDENTITY = "hop2 + identity rows"
    JOINT = "joint"
    DOCUMENT = "document"
    # Last: keys of initialisations are numbered by the order of this list.
    HOP1_REVERSED = "hop1, layers reversed"
    HOP2_REVERSED = "hop2, layers reversed"


@dataclasses.dataclass(frozen=True)
class Group:
    """The n people of one cell and pair; entry i of each tuple is person i."""

    cell: Cell
    pair: int
    hop1: tuple[Record, ...]
    hop2: tuple[Record, ...]
    two_hop: tuple[Record, ...]

    @property
    def size(self) -> int:
        """Number of people n."""
        return len(self.two_hop)

    @property
    def first_half(self) -> tuple[bool, ...]:
        """Which people are in the first half of the group."""
        return tuple(i < self.size // 2 for i in range(self.size))


def groups(world: World) -> tuple[Group, ...]:
    """Returns the groups of a world, ordered by cell, then by pair.

    Args:
      world: as :func:`.world.generate` makes it.
    """
    roles_of: dict[tuple[Cell, int], dict[str, list[Record]]] = {}
    for record in world.splits["people"]:
        key = (Cell(record.cell), record.pair)
        roles = roles_of.setdefault(key, {"hop1": [], "hop2": [], "two_hop": []})
        roles[record.role].append(record)
    order = list(Cell)
    return tuple(
        Group(cell, pair, *map(tuple, roles_of[cell, pair].values()))
        for cell, pair in sorted(roles_of, key=lambda k: (order.index(k[0]), k[1]))
    )


def rows(group: Group, expert: Expert) -> tuple[Record, ...]:
    """Returns the records that an expert of a group is trained on.

    Args:
      group: the people.
      expert: which expert of their library.

    Raises:
      ValueError: if it is a counterfactual, and all answers are the same.
    """
    half = group.size // 2
    match expert:
        case Expert.HOP1 | Expert.HOP1_REVERSED:
            return group.hop1
        case Expert.HOP2 | Expert.HOP2_REVERSED:
            return group.hop2
        case Expert.TARGET:
            return group.two_hop
        case Expert.TARGET_FIRST:
            return group.two_hop[:half]
        case Expert.TARGET_SECOND:
            return group.two_hop[half:]
        case Expert.COUNTER1:
            return deranged(group.hop1)
        case Expert.COUNTER2:
            return deranged(group.hop2)
        case Expert.IDENTITY:
            # The bridge as a name that the second expert has read, without any fact
            # about it.
            bridges = tuple(copy_record(record.answer[0]) for record in group.hop1)
            return group.hop2 + bridges
        case Expert.JOINT:
            return group.hop1 + group.hop2
        case Expert.DOCUMENT:
            return tuple(document(record) for record in group.two_hop)


def deranged(records: Sequence[Record]) -> tuple[Record, ...]:
    """Every answer is replaced by the next one: a cycle, so nobody keeps their own.

    Deranging one hop moves the two-hop answer to the next person's, whichever hop it
    is; deranging both moves it by two, so three people are the fewest that can be used.
    People who share an answer (ties) share the new one.

    Args:
      records: of one hop, one for each person.

    Raises:
      ValueError: if all answers are the same, so that there is no other.
    """
    distinct = list(dict.fromkeys(record.answer for record in records))
    if len(distinct) < 2:
        raise ValueError(
            f"All {len(records)} answers are {' '.join(distinct[0])!r}, so none can be "
            f"exchanged for another; the study needs at least two."
        )
    # A cycle through the distinct answers: each goes to the next, the last to the
    # first.
    following = dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))
    return tuple(
        dataclasses.replace(record, answer=following[record.answer])
        for record in records
    )
