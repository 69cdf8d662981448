import contextlib
import re
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.io.patterns import Budget, ends, matches

LEAVES = (
    "a",
    "b",
    r"\.",
    ".",
    "[ab]",
    "[^a]",
    "[]a]",
    r"[\w-]",
    r"\w",
    r"\d",
    "^",
    "$",
)
LEAVES += (r"\b", r"\A", r"\Z", "_", r"\x61", "", "é", r"\-")
REPEATS = ("*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", "??", "{0}", "{")


def regexes():
    def grow(inner):
        return st.one_of(
            st.builds("{}{}".format, inner, inner),
            st.builds("({}|{})".format, inner, inner),
            st.builds("(?P<n>{})".format, inner),
            st.builds("(?:{}){}".format, inner, st.sampled_from(REPEATS)),
            st.builds("(?={}){}".format, inner, inner),
            st.builds("(?!{}){}".format, inner, inner),
        )

    return st.recursive(st.sampled_from(LEAVES), grow, max_leaves=8)


def accepted(pattern):
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


ASKED = given(regexes().filter(accepted), st.text("ab._1", min_size=1, max_size=6))


def agrees(pattern, text):
    whole = re.fullmatch(pattern, text) is not None
    assert matches(pattern, text, Budget()) is whole
    after = re.match(rf"(.*\.)?({pattern})$", text) is not None
    assert ends(pattern, text, Budget()) is after


@settings(max_examples=60, deadline=None)
@ASKED
def test_the_answers_are_those_of_re(pattern, text):
    agrees(pattern, text)


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@ASKED
def test_many_answers_are_those_of_re(pattern, text):
    agrees(pattern, text)


REAL = [
    r".*\.(self_attn|mlp)\.(q_proj|k_proj|up_proj)",
    r"^(language_model|model\.language_model)(?=\.).*\.(q_proj|o_proj)$",
    r"^(?!.*vision).*(?:q_proj|k_proj)",
    r"(?:.*?(?:language|text).*?(?:self_attn|attn|mlp).*?(?:q_proj|o_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj)))",
    r"model\.layers\.(1[0-9]|2[0-3])\.mlp\.\w+",
]


@pytest.mark.parametrize("pattern", REAL)
def test_patterns_of_the_world(pattern):
    names = [
        f"{prefix}layers.{i}.{inner}"
        for prefix in ("model.", "model.language_model.", "vision.")
        for i in (1, 12)
        for inner in ("self_attn.q_proj", "mlp.up_proj", "self_attn.o_proj.x")
    ]
    found = [name for name in names if matches(pattern, name, Budget())]
    assert found == [name for name in names if re.fullmatch(pattern, name)]
    assert 0 < len(found) < len(names)


@pytest.mark.parametrize("pattern", ["(a+)+b", r"(\w+\.?)+b", "(?=(a+)+b)a*"])
@pytest.mark.parametrize("how", [matches, ends])
def test_patterns_that_hang_elsewhere(pattern, how):
    start = time.perf_counter()
    with contextlib.suppress(ValueError):  # some it sees through, and says no
        assert not how(pattern, "a" * 200, Budget(0.2))
    assert time.perf_counter() - start < 60


def test_what_is_spent_is_bounded():
    budget = Budget(0.2)
    start = time.perf_counter()

    def spend():
        for i in range(10**6):
            matches("(a|b)*c", "ab" * 20_000 + str(i), budget)

    with pytest.raises(ValueError, match=r"the pattern .* takes too long"):
        spend()
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"is no regular expression \(missing"),
        ("a**", r"is no regular expression \(multiple repeat"),
        ("a{99999999999999999999}", "is no regular expression"),
        ("x|" * 1001, "has 2002 characters, expected at most 2000"),
        ("(?(1)a|b)", "is no regular expression"),
        ("(" * 900, "is no regular expression"),
    ],
)
def test_patterns_that_are_refused(pattern, message):
    with pytest.raises(ValueError, match=message) as caught:
        matches(pattern, "a", Budget())
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(?:a){4000000000}", "a"),
        ("(?:(?:(?:a){9999}){9999}){9999}", "a"),
        ("q_proj{s<=1:[a-z]}", "q_projx"),  # one letter more, to other libraries
        ("q_proj{s<=1:[a-z]}", "q_proj{s<=1:a}"),
        ("[[:alpha:]]", "a]"),
        ("[[:alpha:]]", "b"),
        ("[a-z&&[aeiou]]", "&]"),
        ("[a||b]", "|"),
        ("(?i)[k-l]_proj", "\u212a_proj"),
        ("(?i)straße", "STRASSE"),
        (r"\Aq_proj\Z", "q_proj"),
        ("(?:(?:a|b)*+)c", "ababc"),
        ("a)(b", "ab"),
    ],
)
def test_what_other_libraries_read_otherwise(pattern, text):
    """As re reads it, in little memory, or refused where it does not."""
    for ask, expression in ((matches, pattern), (ends, rf"(.*\.)?({pattern})$")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = re.fullmatch(expression, text) is not None
        except re.error:
            with pytest.raises(ValueError, match="is no regular expression"):
                ask(pattern, text, Budget())
        else:
            assert ask(pattern, text, Budget()) is expected
