"""The problems that experts learn and that models are asked, from files or our own."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxlora.studies.word_problems.text.config import (
    ENGLISH,
    LEVELS,
    ProblemsConfig,
)
from jaxlora.tasks import gsm, jsonl
from jaxlora.tasks import word_problems as wp
from jaxlora.tasks.gsm import symbolic
from jaxlora.tasks.word_problems.skeletons import Part

EVERY = "all"
"""The level of a problem of GSM-Symbolic, whose files are levels themselves."""
NO_SET = -1
"""The test set and the template of a problem that belongs to none."""


class Problem(NamedTuple):
    """A problem with its solutions."""

    question: str
    solutions: Mapping[str, str]
    """By format; a format in which it cannot be written is missing."""
    answer: Fraction
    level: str
    english: bool
    """Is it of our own world, whose plain steps are sentences?"""
    test: int = 0
    """Number of the test that asks it."""
    instance: int = NO_SET
    """The parallel test set of GSM-Symbolic that it is in."""
    template: int = NO_SET
    """The template of GSM-Symbolic that it is an instance of."""


class Data(NamedTuple):
    """What one seed trains on and asks."""

    lessons: Mapping[str, tuple[Problem, ...]]
    """By level, at most so many as the configuration has rows."""
    asked: tuple[Problem, ...]
    """Of all tests, one after the other."""
    shots: tuple[Problem, ...]
    """Worked examples, easy and medium in turn."""
    notes: tuple[str, ...]
    """What was left out, in sentences."""


class _Candidates(NamedTuple):
    """Problems of a source by level, and how many could not be used."""

    by_level: Mapping[str, list[Problem]]
    unwritten: int = 0
    """Without a solution in one of the formats."""
    outside: int = 0
    """Of no level."""


_English: TypeAlias = Callable[[str], Mapping[Part, list[Problem]]]
"""Gives problems of our own of a level, by part."""


def prepare(config: ProblemsConfig, seed: int) -> Data:
    """Chooses the problems of a seed; same arguments and files, same problems.

    A question that is asked is never trained on, and experts of all formats of a level
    learn the same problems.

    Args:
      config: sources, levels, formats and numbers.
      seed: of the choice.

    Raises:
      ValueError: with file and line, if a record is bad or training data has a canary;
        if a level has no problem to learn, or a test none to ask.
    """
    english = functools.cache(functools.partial(_english, config, seed))
    asked = tuple(
        problem._replace(test=number)
        for number, source in enumerate(config.asked)
        for problem in _test(config, source, seed, english)
    )
    known = {problem.question for problem in asked}
    candidates = _lessons(config, english)
    lessons, notes = {}, []
    for place, level in enumerate(LEVELS):
        every = candidates.by_level[level]
        fresh = [problem for problem in every if problem.question not in known]
        if not fresh:
            raise ValueError(
                f"{config.data} has no {level} problem to learn: {len(every)} have "
                f"{_ends(config, level)} steps and solutions in every format, and all "
                f"of them are asked as well; choose another file or other levels."
            )
        lessons[level] = _some(fresh, config.rows, [seed, 1, place])
        if len(lessons[level]) < config.rows:
            notes.append(f"{level}: {len(fresh)} problems to learn of {config.rows}")
    if candidates.unwritten or candidates.outside:
        notes.append(
            f"{config.data}: {candidates.unwritten} problems without a solution in "
            f"every format, {candidates.outside} of no level"
        )
    pairs = zip(lessons["easy"], lessons["medium"], strict=False)
    shots = tuple(problem for pair in pairs for problem in pair)
    return Data(lessons, asked, shots[: config.ask.shots], tuple(notes))


def digests(config: ProblemsConfig) -> list[str]:
    """Hashes of the files that a configuration reads, in their order.

    Args:
      config: names them.
    """
    files = [Path(x) for x in (config.data, *config.asked) if x != ENGLISH]
    return [hashlib.sha256(x.read_bytes()).hexdigest() for x in files if x.is_file()]


def texts(problems: Iterable[Problem], formats: Iterable[str]) -> list[dict[str, str]]:
    """Records to train on: every problem in every format.

    Args:
      problems: with solutions in the formats.
      formats: their names.
    """
    return [
        {"question": problem.question, "answer": problem.solutions[form]}
        for form in formats
        for problem in problems
    ]


def _lessons(config: ProblemsConfig, english: _English) -> _Candidates:
    if config.data == ENGLISH:
        return _Candidates({x: english(x)["train"] for x in LEVELS})
    return _file(config, config.data, lessons=True)


def _test(
    config: ProblemsConfig, source: str, seed: int, english: _English
) -> Iterator[Problem]:
    """The problems of a test, level by level or set by set."""
    if source != ENGLISH and _is_symbolic(source):
        yield from _symbolic(config, source)
        return
    if source == ENGLISH:
        by_level = {x: english(x)["test"] for x in LEVELS}
    else:
        by_level = _file(config, source, lessons=False).by_level
    if not any(by_level.values()):
        raise ValueError(
            f"{source} has no problem of 1 to {config.hard[1]} steps in a level, so "
            f"there is nothing to ask; set --easy, --medium and --hard to its steps."
        )
    for place, some in enumerate(by_level.values()):
        yield from _some(some, config.ask.problems, [seed, 2, place])


def _some(problems: list[Problem], most: int, seed: list[int]) -> tuple[Problem, ...]:
    order = np.random.default_rng(seed).permutation(len(problems))[:most]
    return tuple(problems[i] for i in order.tolist())


def _english(
    config: ProblemsConfig, seed: int, level: str
) -> dict[Part, list[Problem]]:
    """Problems of our own, by part; the same ones whatever the formats."""
    first, last = config.levels[level]
    options = wp.Config(
        train=config.rows,
        test=config.ask.problems,
        levels=tuple(range(first, last + 1)),
        graph=config.english.graph,
        idle=config.english.idle,
        limit=config.english.limit,
    )
    # Levels draw apart: their problems would begin with the same numbers.
    number = seed * len(LEVELS) + LEVELS.index(level)
    forms: tuple[Any, ...] = config.formats
    every = [dataclasses.replace(options, form=form) for form in forms]
    written = [wp.generate(x, number) for x in every]
    return {
        part: [
            _of_records(records, level)
            for records in zip(*(x[part] for x in written), strict=True)
        ]
        for part in written[0]
    }


def _of_records(records: Sequence[wp.Record], level: str) -> Problem:
    """A problem of our own from its records, one a format."""
    solutions = {x.form: x.answer for x in records}
    answer = Fraction(records[0].result)
    return Problem(records[0].question, solutions, answer, level, english=True)


def _file(config: ProblemsConfig, source: str, lessons: bool) -> _Candidates:
    """Problems of a file in the form of GSM8K; lessons need every format."""
    by_level: dict[str, list[Problem]] = {x: [] for x in LEVELS}
    unwritten = outside = 0
    for problem in gsm.read(source):
        if lessons:
            gsm.example(problem, "plain")  # refuses what has a canary
        level = _level(config, len(problem.steps))
        if level is None:
            outside += 1
            continue
        solutions = _solutions(problem, config.formats)
        if lessons and len(solutions) < len(config.formats):
            unwritten += 1
            continue
        by_level[level].append(_of(problem, solutions, level))
    return _Candidates(by_level, unwritten, outside)


def _symbolic(config: ProblemsConfig, source: str) -> Iterator[Problem]:
    sets = symbolic.sets(source)
    for number in sorted(sets)[: config.ask.sets or None]:
        for item in sets[number]:
            solutions = _solutions(item.problem, config.formats)
            problem = _of(item.problem, solutions, EVERY)
            yield problem._replace(instance=number, template=item.template)


def _of(problem: gsm.Problem, solutions: Mapping[str, str], level: str) -> Problem:
    answer = Fraction(problem.answer)
    return Problem(problem.question, solutions, answer, level, english=False)


def _solutions(problem: gsm.Problem, formats: Iterable[str]) -> dict[str, str]:
    """In those formats in which it can be written."""
    out = {}
    for form in formats:
        try:
            out[form] = gsm.written(problem, form)
        except ValueError:  # no straight-line program gives its answer
            continue
    return out


def _level(config: ProblemsConfig, steps: int) -> str | None:
    return next((x for x, (a, b) in config.levels.items() if a <= steps <= b), None)


def _ends(config: ProblemsConfig, level: str) -> str:
    return " to ".join(map(str, config.levels[level]))


def _is_symbolic(source: str) -> bool:
    return "instance" in next(jsonl.read(source))[1]
