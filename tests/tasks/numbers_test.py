"""Numbers of texts, case by case."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks import numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("72", "72"),
        ("-3", "-3"),
        ("x = -3", "-3"),
        ("+3", "3"),
        ("\u22124", "-4"),  # a typographic minus
        ("7-3", "3"),
        ("7 - 3", "3"),
        ("(2)-3", "3"),
        ("10,20", "20"),
        ("1, 2, 3", "3"),
        ("3,000", "3000"),
        ("1,234,567", "1234567"),
        ("1,2345", "2345"),
        ("$1,072.50.", "1072.5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\\$18", "18"),
        ("£3 or €4", "4"),
        ("50%", "50"),
        ("12,", "12"),
        ("12.", "12"),
        ("is .5", "0.5"),
        ("A: -.5", "-0.5"),
        ("1e3", "1000"),
        ("2.50", "2.5"),
        ("5km", "5"),
        ("the 2nd", "2"),
        ("3/4", "0.75"),
        ("on 3/4/2024", "2024"),
        ("3/0", "0"),
        ("1 1/2 cups", "1.5"),
        ("2 6/4", "1.5"),
        ("1\u00bd", "1.5"),
        ("**72**", "72"),
        ("\\boxed{18}", "18"),
        ("12:30", "30"),
        ("6 eggs of H2O", "6"),
        ("5 and v1", "5"),
        ("#### 72", "72"),
        ("5\n#### 1,072\nQuestion 3: 9?", "1072"),
        ("#### 3 #### 4", "3"),
        ("5 #### none", "5"),
        ("####", None),
        ("none", None),
        ("", None),
        ("v1", None),
        ("version 1.2.3x", "1.2"),
        ("\u0663", None),  # an Arabic three
        (r"The answer is $9{,}500$.", "9500"),
        (r"\boxed{9{,}500}", "9500"),
        (r"$1\ 000$", "1000"),
        (r"$1\text{,}000$ and $2\mathrm{,}500$", "2500"),
        (r"$10\!,\!000$", "10000"),
        (r"$12\thinspace 500$", "12500"),
        ("12\u00a0500", "12500"),
        ("100~200", "200"),
        (r"$3\,4$", "4"),
        (r"so \$12\,500 in all", "12500"),
        (r"\boxed{10,\!000}", "10000"),
        (r"-1{,}234{,}567.25", "-1234567.25"),
        (r"1\,234\,567", "1234567"),
        ("12\u202f500", "12500"),
        (r"3{,}14", "3.14"),  # a decimal comma is no separator of thousands
        (r"0{.}5", "0.5"),
        ("9'500 and 1\u2019200", "1200"),
        ("a wall of 5'10", "10"),
        (r"$9{ , }500$", "9500"),
        (r"$12\thinspace500$", "12500"),
        (r"2\,x = 5", "5"),
        (r"1\,2345", "2345"),
        (r"$9~500$", "9500"),
        (r"\boxed{9 500}", "9500"),
        (r"\num{12 345 678.5}", "12345678.5"),
        ("so\n#### 9 500\nmore", "9500"),
        ("9 500", "500"),  # two numbers, for all we know
        (r"9\,\!500", "9500"),
        (r"9{,}\,500", "9500"),
        (r"9\textrm{,}500", "9500"),
        (r"9\mathinner{,}500", "9500"),
        (r"9\thinspace{}500", "9500"),
        (r"9{\thinspace}500", "9500"),
        ("9&nbsp;500", "9500"),
        ("9\u2007500", "9500"),
        ("1_000_000", "1000000"),
        ("__9,500__", "9500"),
        ("\uff19\uff0c\uff15\uff10\uff10", "9500"),
        ("1,00,000", "100000"),
        ("9.500.000", "9500000"),
        ("1.234,56", "1234.56"),
        (r"1.234.567{,}8", "1234567.8"),
        ("0,125", "0.125"),
        ("at (0,5)", "5"),
        (r"0{,}125", "0.125"),
        (r"3{,}1415", "3.1415"),
        ("2,50 €", "2.5"),
        ("x = \u20135", "-5"),
        ("5\u20137", "7"),
        (r"\boxed{- 5}", "-5"),
        (r"1.5 \times 10^3", "1500"),
        (r"10^{-2}", "0.01"),
        (r"\frac{3}{4}", "0.75"),
        (r"-\dfrac12", "-0.5"),
        (r"so it is $\frac{3}{4}$.", "0.75"),
        (r"$-\frac{1}{2}$", "-0.5"),
        (r"\frac{-3}{4}", "-0.75"),
        ("#### $3/4", "0.75"),
        ("costs $5 1/2", "5.5"),
        ("on 5/2/2024", "2024"),
        ("it is...72", "72"),
        ("it is ...5.25", "5.25"),
        ("...", None),
        (r"2\frac{1}{2}", "2.5"),
        (r"\boxed{25\text{ cm}^2}", "25"),
        ("25 m^2", "25"),
        (r"60^\circ", "60"),
        (r"x\approx7", "7"),
    ],
)
def test_the_number_of_a_text(text, expected):
    assert numbers.answer(text) == (None if expected is None else Decimal(expected))


@settings(max_examples=100, deadline=None)
@given(st.decimals(-(10**9), 10**9, places=3), st.sampled_from(["{}", "{:,}"]))
def test_a_printed_number_is_read_back(value, form):
    for text in ("{}", "It is {}.", "1 2 3 so #### {}", "**${}**", "={}%"):
        assert numbers.answer(text.format(form.format(value))) == value


@settings(max_examples=100, deadline=None)
@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(
        [",", "{,}", "\\,", ",\\!", "\\!", "{,}\\!", "{\\,}", "\u202f", "'"]
    ),
)
def test_every_separator_of_thousands_is_read_as_a_comma(value, separator):
    written = f"{value:,}".replace(",", separator)
    for text in ("{}", "so ${}$ in all.", "\\boxed{{{}}}", "1 2 3 #### {}"):
        assert numbers.answer(text.format(written)) == value
    assert numbers.exact(f"${written}$") == value


@pytest.mark.parametrize("text", ["", "$", "72 eggs", "3 4", "1,23", "12,", "x"])
def test_what_is_not_one_number_is_none(text):
    assert numbers.exact(text) is None


def test_a_fraction_without_decimals_is_exact():
    third = numbers.answer(r"\frac{1}{3}")
    assert third == Fraction(1, 3) == numbers.answer("2/6")
    assert numbers.shown(third) == "1/3"
    assert third != numbers.answer("2/3")


def test_a_number_is_shown_without_trailing_zeros():
    values = ("1.50e3", "2.50", "10", "-0.10", "1e3")
    shown = [numbers.shown(Decimal(value)) for value in values]
    assert shown == ["1500", "2.5", "10", "-0.1", "1000"]
