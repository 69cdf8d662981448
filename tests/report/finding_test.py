"""The sentence that a reader takes home is right for every outcome."""

import pytest

from jaxlora.report.finding import sentence

NO, YES, OPEN = "no transfer", "composes", "undecided"


def results(*labels, value=0.012, back="retrieves"):
    """A run whose methods have these verdicts."""
    number = {"value": value, "lo": value / 2, "hi": value * 2, "n": 300}
    names = ("mean", "sum", "arrow", "ties", "svd", "tsv")
    of = {n: number | {"label": x} for n, x in zip(names, labels, strict=False)}
    given = {"method": "mean", "label": back, **number, "value": 0.89}
    found = number | {"chance": 0.02, "combinations": of}
    return {"finding": found | {"given_back": given if back else None}}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([NO] * 6, "None of 6 combinations joins facts from two experts (0.01 ["),
        ([NO, "no gain"], "None of 2 combinations joins"),
        ([NO], "The combination does not join facts from two experts (0.01"),
        ([YES] * 3, "All 3 combinations join facts from two experts (0.01 ["),
        ([YES], "The combination joins facts from two experts"),
        ([OPEN] * 3, "Whether 3 combinations join facts from two experts is undecided"),
        (
            [YES, NO, NO],
            "1 of 3 combinations joins facts from two experts: mean 0.01",
        ),
        ([YES, YES, NO], "2 of 3 combinations join facts from two experts: mean 0.01"),
        ([YES, NO, OPEN], "; chance 0.02; 1 does not; 1 is undecided; an expert"),
        ([NO, NO, OPEN], "No combination was seen to join facts from two experts"),
        ([NO, "invalid", OPEN], "1 is undecided; 1 could not be judged"),
        ([NO, "likelihood transfer"], "None of 2 combinations joins"),
        ([NO, "likelihood transfer"], "1 makes the answer likelier, but not the first"),
        (["invalid"] * 2, "Nothing follows on facts from two experts: a criterion"),
        (["composes with the base", NO], "1 of 2 combinations joins"),
    ],
)
def test_words_follow_the_verdicts(labels, words):
    assert words in sentence(results(*labels))


@pytest.mark.parametrize(
    ("back", "words"),
    [
        ("retrieves", "an expert that saw the answers gives them back (0.89)."),
        (NO, "an expert that saw the answers does not give them back (0.89)."),
        (OPEN, "whether an expert that saw the answers gives them back is undecided"),
    ],
)
def test_an_expert_that_saw_the_answers_is_told_beside_it(back, words):
    assert words in sentence(results(NO, NO, back=back))


def test_without_such_an_expert_nothing_is_said_of_it():
    for back in (None, "invalid"):
        assert "saw the answers" not in sentence(results(NO, back=back))


def test_runs_of_earlier_versions_have_no_such_sentence():
    assert sentence({}) == sentence({"finding": None}) == ""
