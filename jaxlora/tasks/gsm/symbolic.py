"""GSM-Symbolic, P1 and P2: instances of each template, asked as parallel test sets.

An ``instance`` is a test set: one rendering of every template. A model is judged by the
mean over the sets and by their spread. Source: Mirzadeh et al., arXiv 2410.05229; its
data is test data only (CC BY-NC-ND, with a canary) and no part of this package.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxlora.tasks import jsonl
from jaxlora.tasks.gsm.records import Problem, problem

Path = str | os.PathLike[str]
NUMBERS = ("id", "instance", "original_id")
"""Fields of a record that are whole numbers from 0."""
EXPECTED = (
    '{"id": 0, "instance": 0, "question": "...", "answer": "...\\n#### 24", '
    '"original_id": 0}'
)


@dataclasses.dataclass(frozen=True)
class Instance:
    """A template with the values of one test set."""

    problem: Problem
    template: int
    instance: int
    """The test set."""
    original: int
    """Index into the test split of GSM8K."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """How a share of right answers varies over parallel test sets."""

    mean: float
    deviation: float
    """Standard deviation between the sets (n - 1 in the denominator)."""
    sets: tuple[float, ...]
    """The share of each set, in the order of its number."""


def read(path: Path) -> Iterator[Instance]:
    """Yields the instances of a file, one at a time.

    Args:
      path: a JSON-lines file, as ``GSM_symbolic.jsonl``, ``GSM_p1.jsonl`` or
        ``GSM_p2.jsonl``.

    Raises:
      ValueError: with file and line, if a record is bad.
    """
    for number, fields in jsonl.read(path):
        yield instance(fields, f"{os.fspath(path)}:{number}")


def instance(fields: dict[str, Any], where: str) -> Instance:
    """Returns the instance that a record stands for.

    Args:
      fields: of the record.
      where: file and line, for messages.

    Raises:
      ValueError: with file and line, if a field is missing or no number from 0, or the
        answer does not end in exactly one number.
    """
    for name in NUMBERS:
        value = fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(
                f"{where}: {name!r} is {value!r:.60}, expected a whole number from 0, "
                f"as in {EXPECTED}; is this a file of GSM-Symbolic?"
            )
    template, number, original = (fields[name] for name in NUMBERS)
    return Instance(problem(fields, where), template, number, original)


def sets(path: Path) -> Mapping[int, tuple[Instance, ...]]:
    """Returns the parallel test sets of a file: by instance, in the order of templates.

    Args:
      path: as for :func:`read`.

    Raises:
      ValueError: with file and line, if a record is bad or there twice; if a set lacks
        a template that another has, so that the sets are not parallel.
    """
    every: dict[int, dict[int, Instance]] = {}
    for item in read(path):
        chosen = every.setdefault(item.instance, {})
        if item.template in chosen:
            raise ValueError(
                f"{item.problem.where}: template {item.template} of instance "
                f"{item.instance} is there twice, first at "
                f"{chosen[item.template].problem.where}; expected each once."
            )
        chosen[item.template] = item
    _check_parallel(every, os.fspath(path))
    return {
        number: tuple(chosen[i] for i in sorted(chosen))
        for number, chosen in sorted(every.items())
    }


def spread(correct: ArrayLike, instances: Sequence[int] | np.ndarray) -> Spread:
    """Returns mean and standard deviation of the share of right answers over sets.

    Args:
      correct: is each answer right? [N]
      instances: the test set of each [N]

    Raises:
      ValueError: if the lengths differ, or there are fewer than two sets.

    >>> spread([1, 0, 1, 1], [0, 0, 1, 1])
    Spread(mean=0.75, deviation=0.3535533905932738, sets=(0.5, 1.0))
    """
    right, which = np.asarray(correct, float), np.asarray(instances)
    if right.ndim != 1 or right.shape != which.shape:
        raise ValueError(
            f"Got right answers of shape {right.shape} and instances of shape "
            f"{which.shape}, expected one number of each for every problem."
        )
    names, index = np.unique(which, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"Got {len(names)} test set, expected at least two, or there is no spread; "
            f"GSM-Symbolic has 50 instances of each template."
        )
    shares = np.bincount(index, weights=right) / np.bincount(index)
    mean, deviation = float(shares.mean()), float(shares.std(ddof=1))
    return Spread(mean, deviation, tuple(map(float, shares)))


def _check_parallel(every: Mapping[int, Mapping[int, Instance]], name: str) -> None:
    templates = set().union(*every.values())
    for number, chosen in sorted(every.items()):
        if missing := sorted(templates - set(chosen)):
            raise ValueError(
                f"{name}: instance {number} lacks template {missing[0]} "
                f"({len(missing)} missing of {len(templates)}); expected parallel "
                f"sets, so the file was cut, perhaps."
            )
