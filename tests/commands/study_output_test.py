"""What a study cannot decide is said once, when it starts."""

import io

from rich.console import Console

from jaxlora.commands import study_output


def test_a_study_is_warned_of_once_and_only_when_it_moves():
    written, moves = io.StringIO(), []
    console = Console(file=written, width=200)
    move = study_output.warned(
        console, ["few [a]", "fewer"], lambda *x: moves.append(x)
    )
    assert not written.getvalue()
    move("pretrain", 0, 10, "")
    move("pretrain", 5, 10, "")
    lines = written.getvalue().splitlines()
    assert lines == ["Too few to decide: few [a]", "Too few to decide: fewer"]
    assert [x[1] for x in moves] == [0, 5]
