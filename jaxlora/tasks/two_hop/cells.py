"""The six cells of the two-hop grid."""

from enum import StrEnum


class Cell(StrEnum):
    """Entity familiarity, then what the base knows of each hop (I) or not (O).

    R: all entities familiar. H: A and B new, C familiar. F: all new.
    """

    R_II = "R-II"
    R_OI = "R-OI"
    R_IO = "R-IO"
    R_OO = "R-OO"
    H_OO = "H-OO"
    F_OO = "F-OO"

    @property
    def familiarity(self) -> str:
        """R, H or F."""
        return self.value[0]

    @property
    def knows(self) -> str:
        """II, OI, IO or OO: first letter for the first hop."""
        return self.value[2:]


PLAIN = {
    Cell.R_II: "familiar people, base knows both hops",
    Cell.R_OI: "familiar people, first hop in an expert",
    Cell.R_IO: "familiar people, second hop in an expert",
    Cell.R_OO: "familiar people, both hops in experts",
    Cell.H_OO: "new people, familiar answers, both hops in experts",
    Cell.F_OO: "new people, new answers, both hops in experts",
}
"""Every cell in words that need no legend."""
ARROW = "→"
"""How a hop is written for readers; stored rows and flags have ``->``."""


def plain(cell: Cell | str, *, code: bool = False) -> str:
    """Returns the name of a cell in plain words.

    Args:
      cell: the cell, or its code.
      code: put the code behind the words.

    Raises:
      ValueError: if there is no such cell.

    >>> plain("R-OO")
    'familiar people, both hops in experts'
    >>> plain(Cell.F_OO, code=True)
    'new people, new answers, both hops in experts (F-OO)'
    """
    if cell not in PLAIN:
        raise ValueError(f"No cell {str(cell)!r}; there are {', '.join(Cell)}.")
    words = PLAIN[Cell(cell)]
    return f"{words} ({Cell(cell)})" if code else words


def arrows(text: str) -> str:
    """Returns a text with the only spelling of the arrow that readers see.

    >>> arrows("A->B expert")
    'A→B expert'
    """
    return text.replace("->", ARROW)
