"""Stories and solutions, by hand and for thousands of problems in every format."""

import itertools
from typing import get_args

import numpy as np
import pytest

from jaxlora.tasks.word_problems import (
    checker,
    english,
    formats,
    graph,
    operations,
    sampling,
    templates,
)
from jaxlora.tasks.word_problems.english import Step, Story
from jaxlora.tasks.word_problems.templates import S, Template

OPS = operations.plain(1000)
EVERY = get_args(formats.Format)
WRITTEN = [t for t in templates.ALL if not t.numbers]
# (5 + 3) = 8, 12 / 8 is none: 16 - 8 = 8, then 8 * 8.
TREE = Story(
    "",
    (
        Step("Ada", 0, 5, 3, 8, "", ""),
        Step("Ben", 1, 16, 8, 8, "", "Ada"),
        Step("Cleo", 2, 8, 8, 64, "Ada", "Ben"),
    ),
)
BY_HAND = {
    "plain": (
        "Ada: the sum of 5 and 3 is 8.\n"
        "Ben: the difference of 16 and 8 is 8.\n"
        "Cleo: the product of 8 and 8 is 64.\n"
        "#### 64"
    ),
    "annotated": (
        "Ada: the sum of 5 and 3 is <<5+3=8>>8.\n"
        "Ben: the difference of 16 and 8 is <<16-8=8>>8.\n"
        "Cleo: the product of 8 and 8 is <<8*8=64>>64.\n"
        "#### 64"
    ),
    "python": (
        "# sum\nada = 5 + 3  # 8\n"
        "# difference\nben = 16 - ada  # 8\n"
        "# product\ncleo = ada * ben  # 64\n"
        "answer = cleo"
    ),
    "markup": (
        '<step who="Ada"><op>sum</op><of>5</of><by>3</by><is>8</is></step>\n'
        '<step who="Ben"><op>difference</op><of>16</of><by>8</by><is>8</is></step>\n'
        '<step who="Cleo"><op>product</op><of>8</of><by>8</by><is>64</is></step>\n'
        "<answer>64</answer>"
    ),
}
each_form = pytest.mark.parametrize("form", EVERY)


def stories(n, draw=sampling.trees, seed=0, levels=(1, 2, 3), clause=False):
    rng = np.random.default_rng(seed)
    problems = draw(rng, n, OPS, levels)
    if clause:
        problems = sampling.distract(rng, problems, OPS)
    return problems, english.tell(rng, problems, OPS)


@each_form
def test_solutions_by_hand(form):
    assert formats.write(TREE, form, S) == BY_HAND[form]
    read = formats.read(BY_HAND[form], form, S)
    assert [tuple(step) for step in read.steps] == [tuple(x[1:5]) for x in TREE.steps]
    assert read.answer == 64


@pytest.mark.parametrize("clause", [False, True])
@pytest.mark.parametrize("draw", [sampling.chains, sampling.trees])
def test_ten_thousand_problems_in_every_format_and_template(draw, clause):
    problems, told = stories(10_000, draw, clause=clause)
    answers = graph.answers(problems).tolist()
    assert [story.answer for story in told] == answers
    # Each takes its turn, so that all 32 combinations have hundreds of problems.
    turns = list(itertools.product(EVERY, WRITTEN))
    for i, (form, template) in enumerate(turns):
        some = told[i :: len(turns)]
        texts = [formats.write(story, form, template) for story in some]
        assert checker.of_text(some, texts, form, template, OPS) == []


def test_programs_compute_their_answers():
    """By Python, which knows nothing of our reader."""
    _, told = stories(300)
    for story, template in zip(told, itertools.cycle(WRITTEN), strict=False):
        names = {}
        exec(formats.write(story, "python", template), {"__builtins__": {}}, names)
        assert names["answer"] == story.answer


@pytest.mark.parametrize("draw", [sampling.chains, sampling.trees])
def test_prompts_are_short_and_say_every_number(draw):
    problems, told = stories(5000, draw, clause=True)
    assert max(len(story.question.split()) for story in told) <= 48
    x, y = graph.operands(problems)
    for i, story in enumerate(told):
        words = story.question.replace("1/", "").replace(".", "").split()
        for s in np.flatnonzero(problems.operations[i] >= 0):
            if problems.left[i, s] < 0:
                assert str(x[i, s]) in words
            if problems.right[i, s] < 0:
                assert str(y[i, s]) in words
        assert f" {story.steps[-1].who} " in story.question.split("How many")[1]


def test_a_person_is_told_of_before_others_are_compared_to_them():
    _, told = stories(2000, clause=True)
    for story in told:
        known = set()
        for sentence in story.question.split(". ")[:-1]:
            who, *rest = sentence.replace("'s", "").split()
            mentioned = {word for word in rest if word[0].isupper()}
            assert mentioned <= known
            assert who not in known
            known.add(who)


def test_a_clause_that_does_not_matter_is_told_and_not_solved():
    with_, without = stories(200, clause=True)[1], stories(200)[1]
    assert [len(x.steps) for x in with_] == [len(x.steps) for x in without]
    # Somewhere before the last sentence, not always at the end.
    last = [x.question.split(". ")[-2].split()[0] == x.steps[-1].who for x in with_]
    assert 0 < np.mean(last) < 1


def test_same_seed_same_words():
    texts = [[story.question for story in stories(50, seed=s)[1]] for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@each_form
def test_another_template_does_not_parse(form):
    for template in WRITTEN:
        read = formats.read(BY_HAND[form], form, template)
        assert (None in read.steps) == (template != S)


@pytest.mark.parametrize(
    ("form", "before", "after", "what"),
    [
        ("plain", "is 64", "is 65", "result"),
        ("plain", "5 and 3", "5 and 4", "operand"),
        ("plain", "of 16", "of 17", "left"),
        ("plain", "product", "sum", "operation"),
        ("plain", "#### 64", "#### 46", "answer"),
        ("plain", "\n#### 64", "", "answer"),
        ("plain", "product of", "product by", "operation"),
        ("annotated", "8*8=64", "8+8=64", "operation"),
        ("annotated", "8*8=64", "8*8=65", "operation"),
        ("python", "16 - ada", "16 - dan", "operation"),
        ("python", "ada * ben", "ada + ben", "operation"),
        ("python", "= cleo", "= ben", "answer"),
        ("markup", "<is>64", "<is>9", "result"),
        ("markup", "</step>\n<answer>", "</step>\nSo\n<answer>", "steps"),
    ],
)
def test_a_wrong_solution_is_noticed(form, before, after, what):
    assert before in BY_HAND[form]
    text = BY_HAND[form].replace(before, after)
    wrong = checker.of_text([TREE], [text], form, S, OPS)
    assert what in {x.what for x in wrong}


def test_bad_requests():
    with pytest.raises(ValueError, match="Unknown format 'latex', expected one of pl"):
        formats.write(TREE, "latex", S)
    with pytest.raises(ValueError, match="Unknown format 'latex'"):
        formats.read("", "latex", S)
    for do in (formats.write, formats.read):
        with pytest.raises(ValueError, match="names its numbers, which only symbols"):
            do(TREE if do is formats.write else "", "plain", templates.R)
    problems = stories(1)[0]
    with pytest.raises(ValueError, match="got a set modulo 13"):
        english.tell(np.random.default_rng(0), problems, operations.modular(13))
    with pytest.raises(ValueError, match="1 texts for 0 stories"):
        checker.of_text([], ["x"], "plain", S, OPS)
    with pytest.raises(ValueError, match="Unknown template words2/operator-first/aft"):
        Template(2)
