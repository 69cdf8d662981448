"""What experts of symbols are trained on: rows of every group, and layers."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.recipes import Kind
from jaxlora.tasks.two_hop import practice
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tasks.two_hop.records import encode, row_length
from jaxlora.train.step import Batch


def programs(
    base: Base, people: Sequence[Group], every: Sequence[Kind], draw: int
) -> list[tuple[Kind, ...]]:
    """Groups kinds whose rows have one length, and one number of rows in a step.

    Args:
      base: whose words.
      people: the groups.
      every: the kinds.
      draw: rows of a step; 0 for all.
    """
    sizes: dict[tuple[int, int], list[Kind]] = {}
    for kind in every:
        sets = data_sets(base, people, kind)
        most = max(map(len, sets))
        longest = max(row_length(r, base.world.vocab.form) for x in sets for r in x)
        key = longest, min(most, draw) if draw else most
        sizes.setdefault(key, []).append(kind)
    return [tuple(some) for some in sizes.values()]


def masks(base: Base, some: Sequence[Kind]) -> np.ndarray:
    """Which layers each kind may change, [kinds, L].

    Args:
      base: whose layers.
      some: the kinds.

    Raises:
      ValueError: if a kind names a layer that is not there.
    """
    count = base.model.config.num_layers
    out = np.zeros((len(some), count), bool)
    for i, kind in enumerate(some):
        beyond = [layer for layer in kind.layers if layer >= count]
        if beyond:
            raise ValueError(
                f"Layer {beyond[0]} of the {kind.expert} expert does not exist: the "
                f"base has {count} layers, 0 to {count - 1}."
            )
        out[i, list(kind.layers or range(count))] = True
    return out


def data_sets(base: Base, people: Sequence[Group], kind: Kind):
    """Returns the data set of every group.

    Args:
      base: whose words.
      people: the groups.
      kind: of the experts.
    """
    vocab = base.world.vocab
    return [
        practice.rows(group, kind.expert, vocab, kind.practices, people)
        for group in people
    ]


def encoded(base: Base, people: Sequence[Group], some: Sequence[Kind]) -> Batch:
    """Encodes data sets of unequal size as [kinds * G, N, T]; unused rows weigh 0.

    Args:
      base: whose words.
      people: the groups.
      some: the kinds.
    """
    vocab = base.world.vocab
    sets = [data for kind in some for data in data_sets(base, people, kind)]
    most = max(map(len, sets))
    length = max(row_length(r, vocab.form) for data in sets for r in data)
    rows = [
        [
            np.pad(x, [(0, most - len(data)), (0, 0)])
            for x in encode(data, vocab, length)
        ]
        for data in sets
    ]
    return Batch(*(jnp.asarray(np.stack(x)) for x in zip(*rows, strict=True)))
