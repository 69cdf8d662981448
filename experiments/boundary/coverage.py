"""Do intervals cover the truth where libraries, or bases, differ? By simulation.

Success rates of libraries are drawn from a beta distribution whose mean is the truth,
and people from their library's rate: the intra-library correlation is the share of a
person's variance that lies between libraries. A part of it may lie between seeds.
Shown are the share of intervals that hold the truth, and their mean width, of

- *old*: a percentile bootstrap over seeds and people,
- *three levels*: one over seeds, libraries and people,
- *new*: ``jaxlora.evaluate.statistics.bootstrap``, and for differences ``paired``.

Run: ``python experiments/boundary/coverage.py > experiments/boundary/coverage.md``
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator

import numpy as np

from jaxlora.evaluate import resampling, statistics
from jaxlora.evaluate.statistics import Interval

TRIALS, RESAMPLES, CONFIDENCE = 500, 500, 0.95


@dataclasses.dataclass(frozen=True)
class World:
    """How success rates vary."""

    seeds: int
    libraries: int
    """Of a seed."""
    people: int
    """Of a library."""
    mean: float
    """The truth."""
    between_libraries: float = 0.0
    """Correlation of two people of a library beyond that of their seed."""
    between_seeds: float = 0.0
    """Correlation of two people of a seed."""


def draw(world: World, rng: np.random.Generator) -> np.ndarray:
    """Right or wrong [S, L, N] of every person."""
    shape = (world.seeds, world.libraries, world.people)
    seeds = beta(rng, np.full(shape[:1], world.mean), world.between_seeds)
    rates = np.broadcast_to(seeds[:, None], shape[:2])
    rates = beta(rng, rates, world.between_libraries)
    return (rng.random(shape) < rates[..., None]).astype(float)


def beta(rng: np.random.Generator, mean: np.ndarray, correlation: float) -> np.ndarray:
    """Rates around a mean, with variance ``correlation * mean * (1 - mean)``."""
    if not correlation:
        return mean
    inside, size = np.clip(mean, 1e-9, 1 - 1e-9), 1 / correlation - 1
    return rng.beta(inside * size, (1 - inside) * size)


def percentile(nested: list, rng: np.random.Generator) -> Interval:
    """The percentile interval of nested items; Wilson's where all of them agree."""
    values = np.concatenate([x for libraries in nested for x in libraries])
    mean, n = float(values.mean()), len(values)
    if values.min() == values.max() and mean in (0, 1):
        return statistics.wilson(int(values.sum()), n, CONFIDENCE)
    means = resampling.means(nested, rng, RESAMPLES)
    tail = (1 - CONFIDENCE) / 2
    lo, hi = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(lo), float(hi), n)


def old(items: np.ndarray, rng: np.random.Generator) -> Interval:
    """Seeds and people, as if a seed were one library."""
    return percentile([[seed.ravel()] for seed in items], rng)


def three_levels(items: np.ndarray, rng: np.random.Generator) -> Interval:
    """Seeds, libraries and people."""
    return percentile([list(seed) for seed in items], rng)


def new(items: np.ndarray, rng: np.random.Generator) -> Interval:
    """What the package prints."""
    flat, of = by_seed(items)
    more = {"libraries": of}
    return statistics.bootstrap(flat, rng, CONFIDENCE, RESAMPLES, **more)


def by_seed(items: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The values and the library of every item, seed by seed."""
    S, L, N = items.shape
    return list(items.reshape(S, -1)), [np.repeat(np.arange(L), N)] * S


METHODS: dict[str, Callable[[np.ndarray, np.random.Generator], Interval]] = {
    "old": old,
    "three levels": three_levels,
    "new": new,
}


def shares(world: World, trials: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Coverage and mean width of each method.

    Args:
      world: how success rates vary.
      trials: studies that are simulated.
      seed: of the simulation.
    """
    rng = np.random.default_rng(seed)
    samples = [draw(world, rng) for _ in range(trials)]
    out = {}
    for name, method in METHODS.items():
        found = [method(items, rng) for items in samples]
        hits = [x.lo <= world.mean <= x.hi for x in found]
        widths = [x.hi - x.lo for x in found]
        out[name] = (float(np.mean(hits)), float(np.mean(widths)))
    return out


def differences(
    world: World, control: float, trials: int
) -> tuple[float, float, float]:
    """Coverage and width of paired intervals, and how often one is above 0.

    Args:
      world: of what is compared.
      control: the mean of what it is compared with, which varies the same way.
      trials: studies that are simulated.
    """
    rng, found = np.random.default_rng(1), []
    for _ in range(trials):
        x, of = by_seed(draw(world, rng))
        y, _ = by_seed(draw(dataclasses.replace(world, mean=control), rng))
        arguments = (x, y, rng, CONFIDENCE, RESAMPLES)
        found.append(statistics.paired(*arguments, libraries=of).difference)
    truth = world.mean - control
    hits = np.mean([x.lo <= truth <= x.hi for x in found])
    above = np.mean([x.lo > 0 for x in found])
    return float(hits), float(np.mean([x.hi - x.lo for x in found])), float(above)


def worlds() -> Iterator[World]:
    """Every world of the first table."""
    sizes = ((3, 3, 21), (4, 3, 16), (4, 4, 24), (5, 4, 16))
    spreads = ((0.0, 0.0), (0.05, 0.0), (0.1, 0.0), (0.2, 0.0), (0.05, 0.05))
    for size, mean, spread in itertools.product(sizes, (0.05, 0.3, 0.8), spreads):
        yield World(*size, mean, *spread)


def main(trials: int) -> None:
    """Prints both tables."""
    print("# Coverage of the intervals\n")
    print((__doc__ or "").partition("\n\n")[2].partition("Run:")[0].strip() + "\n")
    print(
        f"{trials:,} studies a line, nominal {CONFIDENCE:.2f}; the standard error of a"
    )
    print(f"coverage of {CONFIDENCE:.2f} is {(0.0475 / trials) ** 0.5:.3f}.\n")
    names = (f"{name}: coverage | width" for name in METHODS)
    header = ("seeds x libraries x people", "truth", "libraries", "seeds", *names)
    print("## Shares\n\n`libraries`, `seeds`: the correlation within each.\n")
    print(f"| {' | '.join(header)} |\n|{'--|' * (4 + 2 * len(METHODS))}")
    for x in worlds():
        print(shares_line(x, trials), flush=True)
    print("\n## Paired differences, new\n\n`above`: the lower bound is above 0.\n")
    more = ("control", "coverage", "width", "above")
    print(f"| {' | '.join((*header[:4], *more))} |\n|{'--|' * 8}")
    for x, control in itertools.product(worlds(), (0.05, 0.3)):
        if x.mean in (0.05, 0.3) and control <= x.mean and x.between_libraries == 0.1:
            print(difference_line(x, control, trials), flush=True)


def shares_line(x: World, trials: int) -> str:
    """One line of the first table."""
    found = shares(x, trials).values()
    cells = " | ".join(f"{hit:.3f} | {width:.2f}" for hit, width in found)
    return f"{_start(x)} | {cells} |"


def difference_line(x: World, control: float, trials: int) -> str:
    """One line of the second table."""
    hit, width, above = differences(x, control, trials)
    return f"{_start(x)} | {control} | {hit:.3f} | {width:.2f} | {above:.3f} |"


def _start(x: World) -> str:
    sizes = f"{x.seeds} x {x.libraries} x {x.people}"
    return f"| {sizes} | {x.mean} | {x.between_libraries} | {x.between_seeds}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS)
