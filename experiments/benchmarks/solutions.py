"""Written solutions: programs run, steps read and scored a second, on one core.

    python experiments/benchmarks/solutions.py

Nothing here uses JAX. Programs are as experts write them, three to five lines; the
parser of Python alone (``ast.parse``) is printed beside them, for it bounds the rest.
"""

import ast
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import tyro

from jaxlora.evaluate import solution_text, solutions
from jaxlora.tasks import programs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Items a second."""

    items: int = 5000
    """Programs and texts in each measurement."""
    rows: int = 100_000
    """Solutions of three steps in arrays."""
    repeats: int = 7
    """Measurements; the median counts."""
    seed: int = 0
    """Of the numbers in programs and steps."""


Measure = tuple[str, int, Callable[[], object]]
"""What is measured, how many items it does, and a run of it."""


def main(given: Arguments) -> None:
    """Prints a line for each measurement."""
    rng = np.random.default_rng(given.seed)
    print(f"{'':44} {'items/s':>12} {'us each':>9}")
    for part in (running, reading, scoring):
        for name, items, run in part(given, rng):
            seconds = median(run, given.repeats)
            each = 1e6 * seconds / items
            print(f"{name:44} {items / seconds:12,.0f} {each:9.2f}", flush=True)


def running(given: Arguments, rng: np.random.Generator) -> Sequence[Measure]:
    """Programs of 3 to 5 lines, and what parsing alone takes."""
    out: list[Measure] = []
    for lines in (3, 4, 5):
        texts = [program(rng, lines) for _ in range(given.items)]
        for name, run in (("ast.parse alone", ast.parse), ("run", programs.run)):
            what = f"programs of {lines} lines: {name}"
            out.append((what, given.items, lambda f=run, x=texts: each(f, x)))
    return out


def reading(given: Arguments, rng: np.random.Generator) -> Sequence[Measure]:
    """Texts of three steps in each format, and their first error."""
    texts = {form: [] for form in solution_text.FORMATS}
    for _ in range(given.items):
        for form, text in texts_of(rng.integers(1, 100, 4).tolist()).items():
            texts[form].append(text)
    right = solution_text.read(texts["annotated"][0], "annotated")

    def score(form: str) -> None:
        read = solution_text.FORMATS[form]
        each(lambda text: solutions.first_error(right, read(text)), texts[form])

    steps = 3 * given.items
    return [(f"steps read and scored: {f}", steps, lambda f=f: score(f)) for f in texts]


def scoring(given: Arguments, rng: np.random.Generator) -> Sequence[Measure]:
    """Steps in symbols, all at once, half of the solutions with a random token."""
    right = rng.integers(0, 13, (given.rows, 3, 3))
    written = right.copy()
    half = np.arange(given.rows // 2)
    places = rng.integers(0, 3, (2, len(half)))
    written[half, places[0], places[1]] = rng.integers(-1, 13, len(half))
    run = lambda: solutions.first_errors(right, written, right)  # noqa: E731
    return [("steps scored in arrays", 3 * given.rows, run)]


def each(run: Callable[[str], object], texts: Sequence[str]) -> None:
    """Runs all; nothing is kept, for many trees alive slow the collector down."""
    for text in texts:
        run(text)


def program(rng: np.random.Generator, lines: int) -> str:
    """A program of that many lines, the last a print."""
    text = [f"a0 = {rng.integers(1, 100)} * {rng.integers(1, 100)}"]
    for i in range(1, lines - 1):
        text.append(f"a{i} = a{i - 1} {rng.choice(list('+-*'))} {rng.integers(1, 100)}")
    return "\n".join([*text, f"print(a{lines - 2})"])


def texts_of(numbers: Sequence[int]) -> dict[str, str]:
    """One solution of three steps in every format."""
    w, x, y, z = numbers
    a, b, c = w * x, w * x + y, w * x + y - z
    steps = [("*", w, x, a), ("+", a, y, b), ("-", b, z, c)]
    return {
        "plain": "\n".join(f"{i} {op} {j} = {k}" for op, i, j, k in steps),
        "annotated": "\n".join(f"It is <<{i}{op}{j}={k}>>{k}" for op, i, j, k in steps),
        "python": f"a = {w} * {x}\nb = a + {y}\nc = b - {z}\nprint(c)",
        "markup": "\n".join(
            f'<step op="{op}" left="{i}" right="{j}">{k}</step>'
            for op, i, j, k in steps
        ),
    }


def median(run: Callable[[], object], repeats: int) -> float:
    """Seconds of CPU; one call before does not count."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
