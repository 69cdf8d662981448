import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlora.strangers import text

DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb\x08", r"a\rb\x08"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("a\ud800", r"a\ud800"),
        ("a\tb\nc é 名", "a\tb\nc é 名"),
    ],
)
def test_what_acts_is_written_out(given, expected):
    assert text.visible(given) == expected


@given(st.text())
def test_nothing_that_is_left_acts(value):
    shown = text.visible(value)
    kinds = {unicodedata.category(char) for char in shown if char not in "\t\n"}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(char) for char in shown} & DIRECTIONS


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(name):
    assert text.cell(name) == "'" + name


@pytest.mark.parametrize("value", [-1, -1.5, None, "", "a=b", "-1.5e3", "+2", "nan"])
def test_numbers_and_plain_names_stay(value):
    assert text.cell(value) is value


def test_a_table_keeps_its_numbers():
    table = pd.DataFrame({"=a": ["-x", "b"], "n": [-1.5, np.nan]}, index=["@i", "j"])
    out = text.cells(table).to_csv(float_format="%.6g")
    assert out == ",'=a,n\n'@i,'-x,-1.5\nj,b,\n"
