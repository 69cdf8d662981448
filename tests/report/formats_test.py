"""The extension decides the format."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxlora.report import draw, formats

FRAME = pd.DataFrame(
    {"name": ["a|b", "c"], "value": [0.1 + 0.2, np.nan], "count": [1, 2]}
)


def make():
    made = draw.canvas(3, 2, "A title")
    made.subplots().plot([0, 1], label="x")
    return made


@pytest.fixture
def figure():
    return make()


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("x.png", b"\x89PNG"),
        ("x.svg", b"<?xml"),
        ("x.pdf", b"%PDF"),
        ("x.PNG", b"\x89PNG"),
    ],
)
def test_figures_say_what_they_are_called(figure, tmp_path, name, start):
    path = formats.draw(figure, tmp_path / "deep" / name)
    written = path.read_bytes()
    assert written.startswith(start)
    assert formats.encode(make(), path.suffix.lower()) == written
    assert b"20" + b"26-" not in written  # no date


def test_tables_hold_the_same_in_every_format(tmp_path):
    read = pd.read_csv(formats.tabulate(FRAME, tmp_path / "x.csv"))
    pd.testing.assert_frame_equal(read, FRAME)
    rows = json.loads(formats.tabulate(FRAME, tmp_path / "x.json").read_text())
    assert rows[0] == {"name": "a|b", "value": 0.3, "count": 1}
    assert rows[1]["value"] is None
    text = formats.tabulate(FRAME, tmp_path / "x.md").read_text().splitlines()
    assert text[0] == "| name | value | count |"
    assert text[2].startswith(r"| a\|b | 0.3")
    assert text[3] == "| c | - | 2 |"


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("x.jpg", formats.FIGURES, "ends in '.jpg', but a thing is written as .png, "),
        (
            "x",
            formats.TABLES,
            "has no extension, but a thing is written as .csv, .json",
        ),
        (".png", formats.FIGURES, "has no extension"),
    ],
)
def test_others_are_refused(name, known, said):
    formats.check(None, known, "thing")
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        formats.check(Path(name), known, "thing")


def test_nothing_is_written_in_no_format(figure, tmp_path):
    with pytest.raises(ValueError, match=r"\.gif"):
        formats.draw(figure, tmp_path / "x.gif")
    with pytest.raises(ValueError, match=r"\.xls"):
        formats.tabulate(FRAME, tmp_path / "x.xls")
    assert not list(tmp_path.iterdir())
