"""Random chains that tests of word problems share, drawn without the package."""

import numpy as np

from jaxlora.tasks.word_problems import graph


def random_chains(ops, n, seed=0, steps=3):
    """N chains of 1 to ``steps`` operations; right operands are not 0."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(1, steps + 1, n)
    ids = rng.integers(0, ops.count, (n, steps))
    ids = np.where(np.arange(steps) < levels[:, None], ids, graph.NO_STEP)
    numbers = rng.integers(1, ops.size, (n, steps))
    return graph.chains(ops, ids, rng.integers(0, ops.size, n), numbers)
