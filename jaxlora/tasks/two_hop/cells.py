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
