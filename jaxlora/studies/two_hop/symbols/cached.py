"""What earlier runs left in the cache: bases with their A->B and B->C experts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxlora import lora
from jaxlora.evaluate.schema import Arm, Cell, Split
from jaxlora.models import Decoder
from jaxlora.studies.two_hop.items import Key
from jaxlora.studies.two_hop.symbols import (
    bases,
    expert_rows,
    experts,
    libraries,
    questions,
)
from jaxlora.studies.two_hop.symbols.config import PRESETS, TwoHopConfig
from jaxlora.studies.two_hop.symbols.recipes import kinds
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.experts import Expert, Group, groups
from jaxlora.tree import Tree


class CachedPairs(NamedTuple):
    """A base, the A->B and B->C experts of some groups, and questions about them."""

    model: Decoder
    pad: int
    """Id of the padding token."""
    params: Tree
    groups: tuple[Group, ...]
    libraries: lora.Library
    """[G, 2, ...]: A->B, then B->C."""
    tokens: jax.Array
    """[G, 3 * N, 3]: hop 1, hop 2 and two-hop of N people; small groups repeat one."""
    at: jax.Array
    """[G, 3 * N]: positions at which they are answered."""
    written: jax.Array
    """[G, N, 5]: two-hop questions whose position 3 asks for the bridge, and whose
    position 4 is filled with it."""
    keys: tuple[Mapping[Split, Key], ...]
    """Right answers, by group."""
    accuracy: np.ndarray
    """Accuracy of every expert on its own facts, [2 * G]."""


def cached_pairs(
    cache: Path, seeds: Sequence[int], cells: Sequence[Cell]
) -> Iterator[tuple[str, CachedPairs | str]]:
    """Yields the name of every cached base with its pairs, or why it has none.

    Nothing is trained here.

    Args:
      cache: the cache folder of ``jaxlora study two-hop``.
      seeds: of its presets, those that count.
      cells: whose groups.
    """
    for preset, config in PRESETS.items():
        if preset == "full" or not (cache / "bases").is_dir():
            continue
        for seed in (x for x in config.numbers if x in seeds):
            base = _base(config, seed, cache)
            if base is not None:
                given = (base, config, cache)
                pairs = _missing(*given) or _pairs(*given, cells)
                yield f"{preset}, seed {seed}", pairs


def _base(config: TwoHopConfig, seed: int, cache: Path) -> bases.Base | None:
    people = world.generate(config.world, seed)
    model = bases.vocabulary(config.model, people.vocab)
    key = bases.key_of(seed, people, model.config, config.pretrain)
    if not (cache / "bases" / key).is_dir():
        return None
    (base,) = bases.train([seed], [people], config.model, config.pretrain, cache)
    return base


def _missing(base: bases.Base, config: TwoHopConfig, cache: Path) -> str:
    """The programs of experts that are not in the cache."""
    every = tuple(dict.fromkeys(kinds(config.experts).values()))
    some = expert_rows.programs(base, groups(base.world), every, config.experts.draw)
    keys = [experts.key_of(base, x, config.lora, config.experts) for x in some]
    lost = [key for key in keys if not (cache / "libraries" / key).is_dir()]
    return f"{len(lost)} of {len(keys)} sets" if lost else ""


def _pairs(
    base: bases.Base, config: TwoHopConfig, cache: Path, cells: Sequence[Cell]
) -> CachedPairs:
    trained = experts.train(base, config.lora, config.experts, cache)
    asked = questions.ask(base, trained.groups, 1)
    chosen = [g for g, group in enumerate(trained.groups) if group.cell in cells]
    index = np.asarray(chosen)
    pairs = libraries.stacked(trained, Arm.PAIR)
    hops = (Expert.HOP1, Expert.HOP2)
    return CachedPairs(
        base.model,
        base.pad,
        base.params,
        tuple(trained.groups[g] for g in chosen),
        jax.tree.map(lambda x: x[index], pairs),
        asked.questions.direct[index, : 3 * asked.people],
        asked.questions.at[index, : 3 * asked.people],
        asked.questions.written[index],
        tuple(asked.keys[g] for g in chosen),
        np.asarray([trained.accuracy[name][g] for name in hops for g in chosen]),
    )
