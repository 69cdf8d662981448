"""The design, written down before the results: which bases, regimes and arms.

A *point* is one kind of base with its seeds; a *regime* is what the two experts of a
pair are trained on, and the template in which their problems are asked.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxlora.evaluate.schema import Arm, Method
from jaxlora.studies.word_problems.config import WordProblemsConfig
from jaxlora.studies.word_problems.kinds import LEVELS, Kind, Skill
from jaxlora.studies.word_problems.recipes import (
    MOST_TEMPLATES,
    PretrainConfig,
    WorldConfig,
)
from jaxlora.studies.word_problems.worlds import (
    COMMON,
    NAMES,
    OTHER,
    SAME_NUMBERS,
    SAME_ORDER,
    SAME_WORDS,
)

CONTROLS = (
    Arm.RANDOM,
    Arm.PERMUTED,
    Arm.SHUFFLED,
    Arm.SAME_DATA,
    Arm.COUNTERFACTUAL_A,
    Arm.COUNTERFACTUAL_B,
)
"""What a verdict rests on, beside the base and the experts alone."""
PLAIN = (Method.MEAN, Method.SUM)
JUDGED = (*PLAIN, Method.ARROW)
"""Methods with a verdict; of others the combination and random experts are asked."""
SIZES = {Arm.THREE: 3, Arm.FOUR: 4, Arm.SIX: 6}
"""Arms that merge more experts than a problem of two skills needs."""
EASY, MEDIUM, HARD = ((level,) for level in LEVELS)
"""Levels that an expert may be confined to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Half:
    """The rows of one expert of a pair."""

    share: float = 1.0
    other: int = OTHER
    levels: tuple[int, ...] = LEVELS
    answers: float = 0.0

    def skill(self, operation: int, moved: bool = False) -> Skill:
        """What it learns.

        Args:
          operation: number of the new one.
          moved: counterfactual results?
        """
        fields = dataclasses.asdict(self)
        return Skill(operation, moved=moved, **fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regime:
    """What the experts of every pair are trained on, and how problems are asked."""

    name: str
    first: Half = Half()
    second: Half = Half()
    asked: int = COMMON
    """Number of the template in which problems are asked."""
    same_operation: bool = False
    """Do both learn the first operation, on problems of other levels?"""
    full: bool = False
    """Are experts that practise the test problems, and full fine-tuning, asked too?"""
    sizes: bool = False
    """Are libraries of more experts asked too?"""
    ranked: bool = False
    """Are methods ranked?"""
    judged: bool = False
    """Is every control asked, so that there are verdicts? Else random experts alone."""

    @property
    def condition(self) -> tuple[tuple[str, Any], ...]:
        """What every row of it names."""
        return (
            ("regime", self.name),
            ("overlap", self.second.share),
            ("first rows", describe(self.first)),
            ("second rows", describe(self.second)),
            ("asked in", NAMES[self.asked]),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One kind of base, its seeds and what they are asked."""

    name: str
    seeds: tuple[int, ...]
    world: WorldConfig
    pretrain: PretrainConfig
    regimes: tuple[Regime, ...]
    methods: tuple[Method, ...]

    @property
    def condition(self) -> tuple[tuple[str, Any], ...]:
        """What every row of it names."""
        return (("base", self.name), ("known unary", self.world.known_unary))

    def plan(self, regime: Regime) -> Iterator[tuple[Arm, Method]]:
        """The arms of a regime with their methods; the base is asked apart.

        Args:
          regime: one of its regimes.
        """
        alone = [Arm.EXPERT_A, Arm.EXPERT_B]
        alone += [Arm.HARD] if regime.same_operation else [Arm.JOINT]
        if regime.full:
            alone += [Arm.FULL, Arm.PRACTISED]
            # With three operations, two others would be one of the pair.
            alone += [Arm.PRACTISED_OTHERS] if self.world.new > 3 else []
        yield from ((arm, Method.NONE) for arm in alone)
        sizes = [arm for arm, size in SIZES.items() if size <= self.world.new]
        for method in self.methods:
            controls = CONTROLS if method in JUDGED else CONTROLS[:1]
            if not regime.judged:
                controls = () if regime.ranked else CONTROLS[:1]
            more = sizes if regime.sizes and method in PLAIN else []
            yield from ((arm, method) for arm in (Arm.PAIR, *controls, *more))


def describe(half: Half) -> str:
    """The rows of one expert, in words.

    Args:
      half: of a pair.

    >>> describe(Half(share=0.25)), describe(Half(levels=(1,)))
    ('0.25 common, else other; levels 1 to 3', 'common; level 1')
    """
    ends = f"levels {half.levels[0]} to {half.levels[-1]}"
    levels = f"level {half.levels[0]}" if len(half.levels) == 1 else ends
    if half.answers:
        levels += f"; {half.answers:g} without steps"
    if half.share == 1:
        return f"common; {levels}"
    if half.share == 0:
        return f"{NAMES[half.other]}; {levels}"
    return f"{half.share:g} common, else {NAMES[half.other]}; {levels}"


def pairs(world: WorldConfig) -> tuple[tuple[int, int], ...]:
    """Pairs of new operations in a ring: each is first once and second once.

    Args:
      world: has the number of new operations.

    >>> pairs(WorldConfig(new=3))
    ((0, 1), (1, 2), (2, 0))
    """
    return tuple((i, (i + 1) % world.new) for i in range(world.new))


def members(
    arm: Arm, regime: Regime, pair: Sequence[int], count: int
) -> tuple[Kind, ...]:
    """The experts of an arm, for one pair of new operations.

    Args:
      arm: with at least one expert.
      regime: what its experts are trained on.
      pair: numbers of its operations.
      count: number of new operations.
    """
    a = regime.first.skill(pair[0])
    b = regime.second.skill(pair[0 if regime.same_operation else 1])
    moved_a, moved_b = (dataclasses.replace(x, moved=True) for x in (a, b))
    beyond = [regime.first.skill((pair[0] + i) % count) for i in range(2, count)]
    others = tuple(regime.first.skill((x + 2) % count) for x in pair)
    hard = dataclasses.replace(a, levels=HARD)
    table: Mapping[Arm, tuple[Kind, ...]] = {
        Arm.EXPERT_A: (Kind((a,)),),
        Arm.EXPERT_B: (Kind((b,)),),
        Arm.JOINT: (Kind((a, b)),),
        Arm.FULL: (Kind((a, b)),),
        Arm.HARD: (Kind((hard,)),),
        Arm.PRACTISED: (Kind((a, b), together=True),),
        Arm.PRACTISED_OTHERS: (Kind(others, together=True),),
        Arm.SAME_DATA: (Kind((a,)), Kind((a,), draw=1)),
        Arm.SHUFFLED: (Kind((moved_a,)), Kind((moved_b,))),
        Arm.COUNTERFACTUAL_A: (Kind((moved_a,)), Kind((b,))),
        Arm.COUNTERFACTUAL_B: (Kind((a,)), Kind((moved_b,))),
    }
    if arm in SIZES:
        more = (Kind((skill,)) for skill in beyond)
        return (Kind((a,)), Kind((b,)), *more)[: SIZES[arm]]
    # Random and permuted experts are made of the two themselves.
    return table.get(arm, (Kind((a,)), Kind((b,))))


def overlap(share: float, **more: Any) -> Regime:
    """The dial: the second expert's rows in the first one's template.

    Args:
      share: of them.
      more: other fields of the regime.
    """
    return Regime(name="overlap", second=Half(share=share), **more)


def templates() -> tuple[Regime, ...]:
    """Which part of a template must be shared, and which template is asked."""
    apart = {"none shared": OTHER, "same order": SAME_ORDER}
    apart |= {"same words": SAME_WORDS, "same numbers": SAME_NUMBERS}
    none = Half(share=0.0)
    return (
        Regime(name="all shared"),
        *(
            Regime(name=name, second=Half(share=0.0, other=number))
            for name, number in apart.items()
        ),
        Regime(name="both in the other", first=none, second=none),
        Regime(
            name="both and asked in the other", first=none, second=none, asked=OTHER
        ),
    )


def without_steps() -> Regime:
    """Both experts answer some of their problems without steps too."""
    half = Half(answers=0.3)
    return Regime(name="answers too", first=half, second=half, judged=True)


def levels() -> tuple[Regime, ...]:
    """Experts of some levels: two operations, and one operation at two levels."""
    names = {"easy": EASY, "medium": MEDIUM, "hard": HARD}
    same = tuple(
        Regime(name=f"{name} problems", first=Half(levels=x), second=Half(levels=x))
        for name, x in names.items()
    )
    ladder = Regime(
        name="easy + medium, one skill",
        first=Half(levels=EASY),
        second=Half(levels=MEDIUM),
        same_operation=True,
    )
    return (*same, ladder)


def points(config: WordProblemsConfig) -> tuple[Point, ...]:
    """All points of a configuration, in the order in which they are run.

    Args:
      config: of the study.
    """
    return tuple(p for p in _points(config) if p.seeds and p.regimes)


def _points(config: WordProblemsConfig) -> Iterator[Point]:
    dial = tuple(
        overlap(share, full=share == 1, judged=True)
        for share in sorted(config.overlaps)
    )
    methods = tuple(map(Method, config.methods))
    yield _point(config, "headline", dial[::-1], methods, seeds=config.numbers)
    chosen = {"levels": levels(), "experts": (overlap(1.0, sizes=True),)}
    ladder = tuple(x for axis in config.axes for x in chosen.get(axis, ()))
    yield _point(config, "axes", ladder)
    if "templates" in config.axes:
        world = dataclasses.replace(config.world, templates=MOST_TEMPLATES)
        yield _point(config, "templates", templates(), world=world)
    if "answers" in config.axes:
        recipe = config.answer_pretrain
        yield _point(config, "answers", (without_steps(),), pretrain=recipe)
    for known in config.coverages:
        world = dataclasses.replace(config.world, known_unary=known)
        yield _point(config, "coverage", (overlap(1.0, judged=True),), world=world)
    ranked = tuple(map(Method, config.ranked))
    if ranked:
        yield _point(config, "leaderboard", (overlap(1.0, ranked=True),), ranked)


def _point(
    config: WordProblemsConfig,
    name: str,
    regimes: tuple[Regime, ...],
    methods: tuple[Method, ...] = PLAIN,
    **more: Any,
) -> Point:
    """A point of the map, unless its seeds are given."""
    fields: dict[str, Any] = {"seeds": config.map_numbers, "world": config.world}
    fields |= {"pretrain": config.pretrain} | more
    return Point(name=name, regimes=regimes, methods=methods, **fields)
