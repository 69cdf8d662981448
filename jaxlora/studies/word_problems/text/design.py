"""Which experts there are, and which of them a system that is asked is made of.

Along *levels*, an easy and a medium expert in one format are combined: the question is
what they solve of the hard level. Along *formats*, two experts on the same easy and
medium problems in different formats are.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxlora.evaluate.schema import Arm, Method
from jaxlora.studies.two_hop import Block
from jaxlora.studies.word_problems.text.config import ProblemsConfig

ALONE = (Arm.EXPERT_A, Arm.EXPERT_B, Arm.JOINT)
COMBINED = (Arm.PAIR, Arm.RANDOM)
TRAINED = ("easy", "medium")
"""Levels whose experts are combined."""


class Expert(NamedTuple):
    """What an expert learns; problems of every level in every format."""

    levels: tuple[str, ...]
    formats: tuple[str, ...]

    @property
    def name(self) -> str:
        """In words.

        >>> Expert(("easy", "medium"), ("plain",)).name
        'easy + medium, plain'
        """
        return f"{' + '.join(self.levels)}, {' + '.join(self.formats)}"


class Regime(NamedTuple):
    """What the two experts of a combination differ in."""

    formats: tuple[str, ...]
    """One if they differ in their levels; else the format of each."""

    @property
    def by_level(self) -> bool:
        """Do the experts differ in their levels, and not in their formats?"""
        return len(self.formats) == 1

    @property
    def condition(self) -> tuple[tuple[str, Any], ...]:
        """What every row of it names."""
        axis = "levels" if self.by_level else "formats"
        return (("experts differ in", axis), ("format", " + ".join(self.formats)))

    def block(self, seed: int, arm: Arm, method: Method = Method.NONE) -> Block:
        """Where what a system answered is stored.

        Args:
          seed: of the experts.
          arm: the system.
          method: that combines its experts.
        """
        return Block(None, seed, arm, method, self.condition)


def regimes(config: ProblemsConfig) -> tuple[Regime, ...]:
    """Experts of two levels in each format, then in each two formats.

    Args:
      config: has the formats.
    """
    pairs = itertools.combinations(config.formats, 2)
    return (*(Regime((form,)) for form in config.formats), *map(Regime, pairs))


def experts(config: ProblemsConfig) -> tuple[Expert, ...]:
    """Every expert of the study, once.

    Args:
      config: has the formats.
    """
    arms = (*ALONE, Arm.HARD)
    every = (x for r in regimes(config) for arm in arms for x in members(r, arm))
    return tuple(dict.fromkeys(every))


def members(regime: Regime, arm: Arm) -> tuple[Expert, ...]:
    """The experts of a system; random ones are made of the two that are combined.

    Args:
      regime: what the two experts differ in.
      arm: the system; base and few-shot have none.
    """
    if arm in (Arm.BASE, Arm.FEW_SHOT):
        return ()
    if regime.by_level:
        a, b = (Expert((level,), regime.formats) for level in TRAINED)
    else:
        a, b = (Expert(TRAINED, (form,)) for form in regime.formats)
    table = {
        Arm.EXPERT_A: (a,),
        Arm.EXPERT_B: (b,),
        Arm.JOINT: (Expert(TRAINED, regime.formats),),
        Arm.HARD: (Expert(("hard",), regime.formats[:1]),),
    }
    return table.get(arm, (a, b))


def plan(config: ProblemsConfig, regime: Regime) -> Iterator[tuple[Arm, Method]]:
    """The systems of a regime with their methods; the base is asked apart.

    Args:
      config: has the methods.
      regime: what the two experts differ in.
    """
    yield from ((arm, Method.NONE) for arm in ALONE)
    if regime.by_level:
        yield Arm.HARD, Method.NONE
        if config.ask.shots:
            yield Arm.FEW_SHOT, Method.NONE
    for method in map(Method, config.methods):
        yield from ((arm, method) for arm in COMBINED)


def same_as(regime: Regime, arm: Arm) -> tuple[Regime, Arm]:
    """Where the answers of a system are: those of one format are joint ones of it.

    Args:
      regime: what the two experts differ in.
      arm: the system.

    >>> same_as(Regime(("plain", "python")), Arm.EXPERT_B)
    (Regime(formats=('python',)), <Arm.JOINT: 'joint'>)
    """
    singles = (Arm.EXPERT_A, Arm.EXPERT_B)
    if regime.by_level or arm not in singles:
        return regime, arm
    return Regime((regime.formats[singles.index(arm)],)), Arm.JOINT
