"""The arms of the two-hop study: which experts take part, and how they are combined."""

from collections.abc import Mapping, Sequence

import jax

from jaxlora import merge, route
from jaxlora.evaluate.schema import USUAL, Arm, Method
from jaxlora.studies.two_hop.config import CommonConfig
from jaxlora.tasks.two_hop.experts import Expert
from jaxlora.train import combine

MEMBERS: Mapping[Arm, tuple[Expert, ...]] = {
    Arm.HOP1: (Expert.HOP1,),
    Arm.HOP2: (Expert.HOP2,),
    Arm.TARGET: (Expert.TARGET,),
    Arm.TARGET_OTHERS: (Expert.TARGET_SECOND,),
    Arm.JOINT: (Expert.JOINT,),
    Arm.DOCUMENT: (Expert.DOCUMENT,),
    Arm.PAIR: (Expert.HOP1, Expert.HOP2),
    Arm.TRIPLE: (Expert.HOP1, Expert.HOP2, Expert.TARGET),
    Arm.TRIPLE_OTHERS: (Expert.HOP1, Expert.HOP2, Expert.TARGET_SECOND),
    Arm.IDENTITY: (Expert.HOP1, Expert.IDENTITY),
    Arm.COUNTERFACTUAL1: (Expert.COUNTER1, Expert.HOP2),
    Arm.COUNTERFACTUAL2: (Expert.HOP1, Expert.COUNTER2),
    Arm.SHUFFLED: (Expert.COUNTER1, Expert.COUNTER2),
    Arm.RANDOM: (Expert.HOP1, Expert.HOP2),
    Arm.PERMUTED: (Expert.HOP1, Expert.HOP2),
    Arm.REVERSED: (Expert.HOP1_REVERSED, Expert.HOP2_REVERSED),
}
ALONE = tuple(arm for arm, members in MEMBERS.items() if len(members) == 1)
# Experts that are not confined to layers have none to exchange.
COMBINED = tuple(arm for arm in MEMBERS if arm not in (*ALONE, Arm.REVERSED))
# What a verdict rests on: of other methods than the usual ones, this is what is asked.
NEEDED = (
    Arm.PAIR,
    Arm.TRIPLE,
    Arm.COUNTERFACTUAL1,
    Arm.COUNTERFACTUAL2,
    Arm.SHUFFLED,
    Arm.RANDOM,
    Arm.PERMUTED,
)
JUDGED_ALONE = (Arm.HOP1, Arm.HOP2, Arm.TARGET, Arm.JOINT)
"""Single experts that a verdict, or its headline, rests on."""
COUNTERFACTUALS = (Arm.COUNTERFACTUAL1, Arm.COUNTERFACTUAL2)
# Held-out A->C experts come in two halves; each is asked about the other half.
OTHERS = (Arm.TARGET_OTHERS, Arm.TRIPLE_OTHERS)
# The oracle's labels name the A->B and the B->C expert; a third has no token.
NOT_FOR_ORACLE = (Arm.TRIPLE, Arm.TRIPLE_OTHERS)
DRAWS = 7919
"""Folded into a seed's key, so that merges and experts draw apart."""


def plan(
    methods: Sequence[str], placed: bool = False, extra: bool = True
) -> list[tuple[Arm, Method]]:
    """All arms of one base with their methods, in order; the base comes first.

    The usual methods combine every set of experts, others those that a verdict rests
    on.

    Args:
      methods: names of merges and routes.
      placed: are experts confined to layers, which may then be exchanged?
      extra: ask arms that no verdict rests on?
    """
    single = (*ALONE, Arm.FULL) if extra else JUDGED_ALONE
    out = [(arm, Method.NONE) for arm in (Arm.BASE, *single)]
    for method in map(Method, methods):
        some = COMBINED if extra and method in USUAL else NEEDED
        for arm in (*some, Arm.REVERSED) if placed else some:
            if method is not Method.ORACLE or arm not in NOT_FOR_ORACLE:
                out.append((arm, method))
    return out


def merges(method: Method) -> bool:
    """Is the method a merge, and not a route or none?"""
    return str(method) in merge.names()


def routes(method: Method) -> bool:
    """Is the method a route, and not a merge or none?"""
    return str(method) in route.names()


def route_of(method: Method, config: CommonConfig) -> route.Route:
    """Returns the route that a method names; Arrow as the configuration has it."""
    if method is not Method.ARROW:
        return route.preset(str(method))
    top_k, temperature = config.arrow_top_k or None, config.arrow_temperature
    return route.preset("arrow", top_k=top_k, temperature=temperature)


def obstacle(arm: Arm, method: Method, layers: int) -> str:
    """Why a method cannot combine an arm's experts, in a sentence; empty if it can.

    Args:
      arm: any.
      method: any.
      layers: L of the base.

    >>> obstacle(Arm.TRIPLE, Method.MEAN, 4)
    ''
    >>> obstacle(Arm.TRIPLE, Method.SLERP, 4)[:35]
    'slerp interpolates between two expe'
    >>> obstacle(Arm.TRIPLE, Method.PLACED_SUM, 2)[:27]
    'Got 3 experts for 2 layers,'
    """
    if not merges(method) or arm not in MEMBERS:
        return ""
    return combine.obstacle(str(method), len(MEMBERS[arm]), layers)


def members(arm: Arm, first_half: bool = False) -> tuple[Expert, ...]:
    """The experts of an arm.

    Args:
      arm: with at least one expert.
      first_half: take the held-out A->C expert that was trained on the first half of
        the people, in the place of the one that was trained on the second.
    """
    swap = {Expert.TARGET_SECOND: Expert.TARGET_FIRST} if first_half else {}
    return tuple(swap.get(name, name) for name in MEMBERS[arm])


def judged(arm: Arm) -> tuple[Expert, ...]:
    """The experts whose criterion an arm rests on: both halves of held-out ones."""
    return (*MEMBERS[arm], Expert.TARGET_FIRST) if arm in OTHERS else MEMBERS[arm]


def key(seed: int, arm: Arm) -> jax.Array:
    """The key of an arm's merges: one for all methods.

    What differs between two methods that draw is then not their luck.
    """
    merging = jax.random.fold_in(jax.random.key(seed), DRAWS)
    return jax.random.fold_in(merging, list(Arm).index(arm))
