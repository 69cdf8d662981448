"""Cells have a code and a name in plain words."""

import pytest

from jaxlora.tasks.two_hop.cells import Cell, arrows, plain


def test_every_cell_has_words_of_its_own_without_its_code():
    words = [plain(cell) for cell in Cell]
    assert len(set(words)) == len(Cell)
    for cell in Cell:
        assert cell not in plain(cell)
        assert plain(cell, code=True) == f"{plain(cell)} ({cell})"


@pytest.mark.parametrize("cell", [x for x in Cell if x.knows == "OO"])
def test_words_say_where_both_hops_are(cell):
    assert plain(cell).endswith("both hops in experts")
    assert plain(cell).startswith("familiar" if cell.familiarity == "R" else "new")


def test_a_code_is_enough_and_an_unknown_code_is_refused():
    assert plain("R-IO") == plain(Cell.R_IO)
    with pytest.raises(ValueError, match="No cell 'X-OO'; there are R-II"):
        plain("X-OO")


def test_arrows_have_one_spelling():
    assert arrows("A->B->C, A→C") == "A→B→C, A→C"
