"""Word problems a second on one core: drawn and rendered, as tokens and in English."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from jaxlora.tasks import word_problems as wp
from jaxlora.tasks.word_problems import formats, records, sampling, templates
from jaxlora.tasks.word_problems.vocab import row_length

N, ROUNDS = 20_000, 5
LEVELS = (1, 2, 3)


def rate(make: Callable[[], object]) -> float:
    """Problems a second, the median of several rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        make()
        times.append(time.perf_counter() - start)
    return N / statistics.median(times)


def symbols() -> None:
    """Chains of 1 to 3 operations modulo 13, in either template."""
    rng, vocab = np.random.default_rng(0), wp.Vocab(wp.modular(13))
    chains = sampling.chains(rng, N, vocab.operations, LEVELS)
    wp.render(chains, rng.integers(2, size=N), vocab, row_length(3))


def english(graph: str, level: int) -> None:
    """Records of one level with solutions in annotated steps, as they are stored."""
    rng, ops = np.random.default_rng(0), wp.plain()
    draw = {"chains": sampling.chains, "trees": sampling.trees}[graph]
    for story in wp.tell(rng, draw(rng, N, ops, [level]), ops):
        formats.write(story, "annotated", templates.S)


def stored() -> None:
    """Every field of the records, with skeletons split between train and test."""
    records.generate(records.Config(train=N - N // 8, test=N // 8), 0)


if __name__ == "__main__":
    print(f"symbols, chains, levels 1-3: {rate(symbols):,.0f} problems/s")
    for graph, level in (("chains", 3), ("trees", 3), ("trees", 4), ("trees", 6)):
        speed = rate(lambda g=graph, k=level: english(g, k))
        print(f"English, {graph}, level {level}: {speed:,.0f} problems/s")
    print(f"records, chains, levels 1-3: {rate(stored):,.0f} problems/s")
