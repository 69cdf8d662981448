"""The words of a results table: every value that a row may hold, in one file.

A row is one measurement: ``study, seed, familiarity, knows, library, method, split,
metric, value, n, lo, hi, condition``. Nothing that varies between two runs of one
config (times, paths) may enter a row.
"""

import dataclasses
import json
import math
import re
from enum import EnumType, StrEnum
from typing import Any

from jaxlora import merge, route
from jaxlora.evaluate.statistics import Interval
from jaxlora.tasks.two_hop.cells import Cell as Cell

COLUMNS = (
    "study",
    "seed",
    "familiarity",
    "knows",
    "library",
    "method",
    "split",
    "metric",
    "value",
    "n",
    "lo",
    "hi",
    "condition",
)


class Arm(StrEnum):
    """A system that a study asks, by the adapters that take part in it."""

    BASE = "base"
    HOP1 = "A->B"
    HOP2 = "B->C"
    TARGET = "A->C"
    TARGET_OTHERS = "A->C of others"
    PAIR = "2-combination"
    TRIPLE = "3-combination"
    TRIPLE_OTHERS = "3-combination, A->C of others"
    IDENTITY = "2-combination + identity rows"
    COUNTERFACTUAL1 = "counterfactual hop 1"
    COUNTERFACTUAL2 = "counterfactual hop 2"
    SHUFFLED = "shuffled answers"
    RANDOM = "random"
    PERMUTED = "permuted"
    REVERSED = "layers reversed"
    JOINT = "joint"
    FULL = "full fine-tuning"
    DOCUMENT = "A->C from one document"
    EXPERT_A = "expert A"
    EXPERT_B = "expert B"
    SAME_DATA = "same data"
    COUNTERFACTUAL_A = "counterfactual A"
    COUNTERFACTUAL_B = "counterfactual B"
    PRACTISED = "expert of the test problems"
    PRACTISED_OTHERS = "expert of others' problems"
    HARD = "expert of the hard level"
    THREE = "3 experts"
    FOUR = "4 experts"
    SIX = "6 experts"
    FEW_SHOT = "few-shot"

    @classmethod
    def _missing_(cls, value: object) -> "Arm | None":
        # Results of before call it after its rows, not after what it is.
        return cls.DOCUMENT if value == "one document" else None


_USUAL = ("mean", "sum", "factor-mean", "arrow", "uniform", "oracle")


class _Generated(EnumType):
    """Lets ``Method.NAME`` be written of members that are made of the registries."""

    def __getattr__(cls, name: str) -> "Method":
        raise AttributeError(f"No method {name}.")


class Method(StrEnum, metaclass=_Generated):
    """How an arm uses its adapters; ``NONE`` for at most one adapter.

    Every merge of ``merge.names()`` and every route of ``route.names()`` is a member:
    ``Method.TIES_PEFT`` is ``"ties[peft]"``. Tables follow their order.
    """

    _ignore_ = ["_preset"]  # noqa: RUF012 (the enum takes it away)
    NONE = "none"
    for _preset in dict.fromkeys((*_USUAL, *route.names(), *merge.names())):
        vars()[re.sub(r"\W+", "_", _preset.upper()).strip("_")] = _preset


USUAL = tuple(map(Method, _USUAL))
"""The methods of a study that names none; tables have a line for each of them."""


class Split(StrEnum):
    """What is asked."""

    HOP1 = "hop 1"
    HOP2 = "hop 2"
    TWO_HOP = "two-hop"
    WRITTEN = "two-hop, written bridge"
    WRITTEN_BRIDGE = "the written bridge itself"
    CONTEXT = "two-hop, facts in context"
    OWN = "own facts"
    FAMILIAR_ONE_HOP = "familiar one-hop"
    FAMILIAR_TWO_HOP = "familiar two-hop"
    FAMILIAR_WRITTEN = "familiar, written bridge"
    FAMILIAR_MISLED = "familiar, another bridge given"
    FAMILIAR_DOCUMENT = "familiar, one document"
    RANDOM_CONTEXT = "random facts in context"
    COPY = "copy"
    SKILL_A = "skill A"
    SKILL_B = "skill B"
    CHAIN_A = "skill A in chains"
    CHAIN_B = "skill B in chains"
    BOTH = "both skills"
    THREE_SKILLS = "three skills"
    FOUR_SKILLS = "four skills"
    KNOWN = "known problems"
    ANSWER_A = "skill A, answer only"
    ANSWER_B = "skill B, answer only"
    ANSWER_BOTH = "both skills, answer only"
    ANSWER_KNOWN = "known problems, answer only"
    PROBLEMS = "word problems"


class Metric(StrEnum):
    """What is measured; shares and accuracies are in [0, 1], losses in nats."""

    ACCURACY = "accuracy"
    RANK = "rank"
    LOSS = "loss"
    LOSS_GAP = "loss minus shuffled"
    CHANCE = "chance"
    ONE_OF_N = "1/N"
    MAJORITY = "majority answer"
    COUNTERFACTUAL = "counterfactual accuracy"
    BRIDGE = "error: bridge"
    RELATION2 = "error: r2 of A"
    OLD = "error: old answer"
    OTHER = "error: other"
    DIFFERENCE = "paired difference"
    LOSS_GAP_DIFFERENCE = "paired difference: loss minus shuffled"
    RANK_DIFFERENCE = "paired difference: rank"
    STEPS_RIGHT = "all steps right"
    PRODUCT = "product of kept skills"
    RATIO = "both skills / product"
    OPERAND = "first wrong step: operand"
    OPERATION = "first wrong step: operation"
    ARITHMETIC = "first wrong step: arithmetic"
    ORDER = "first wrong step: order"
    TEMPLATE = "first wrong step: template"
    MISSING = "first wrong step: missing"
    EXTRA = "first wrong step: extra"
    SPREAD = "standard deviation over test sets"
    STEPS = "steps"
    PHI = "phi"
    PASSED = "criterion passed"
    AVAILABLE = "control available"
    ROUTE_WEIGHT = "route: weight of A->B"
    ROUTE_ENTROPY = "route: entropy"
    ROUTE_AGREEMENT = "route: token's own expert"
    ROUTE_CERTAINTY = "route: right where sure"


ERROR_METRICS = (Metric.BRIDGE, Metric.RELATION2, Metric.OLD, Metric.OTHER)
STEP_ERRORS = (
    Metric.OPERAND,
    Metric.OPERATION,
    Metric.ARITHMETIC,
    Metric.ORDER,
    Metric.TEMPLATE,
    Metric.MISSING,
    Metric.EXTRA,
)
"""Shares of solutions, by what is wrong with the first wrong step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Address:
    """Which measurement a row holds: all of it but the seed and the numbers."""

    cell: Cell | None
    """``None`` for measurements of the base that belong to no cell."""
    arm: Arm
    method: Method
    split: Split
    metric: Metric
    coverage: float | None = None
    """Share of the base's facts seen in a composition; ``None`` if nobody knows."""
    covered: bool | None = None
    """Of people whose facts were seen in one, or of the others; ``None``: of all."""
    where: tuple[tuple[str, Any], ...] = ()
    """What else varies, for example (("layer", 0), ("token", "last"))."""
    regime: tuple[tuple[str, Any], ...] = ()
    """What base and experts were trained on, for example (("rho", 0.5),)."""

    def at(self, **changes: Any) -> "Address":
        """Returns the address with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def condition(self) -> dict[str, Any]:
        """The last column of its row."""
        named = {"coverage": self.coverage, "covered": self.covered}
        named = {k: x for k, x in named.items() if x is not None}
        return named | dict(self.regime) | dict(self.where)

    @property
    def draws(self) -> str:
        """Text from which the resamples of this measurement are seeded.

        Intervals are a function of this text: its words are those of the first results
        and stay, whatever the classes of today are called.
        """
        coverage = 1.0 if self.coverage is None else self.coverage
        return (
            f"Place(coverage={coverage!r}, cell={self.cell!r}, "
            f"library=<Library.{self.arm.name}: {self.arm.value!r}>, "
            f"method={self.method!r}, split={self.split!r}, metric={self.metric!r}, "
            f"covered={self.covered!r}, where={self.where!r}"
            f"{f', regime={self.regime!r}' if self.regime else ''})"
        )


def row(seed: int | str, address: Address, value: Interval) -> dict[str, Any]:
    """Returns one row: the keys of ``COLUMNS`` but the study's name.

    Args:
      seed: of the base, or ``"all"`` for a value pooled over seeds.
      address: what is measured.
      value: the measurement; what is no number becomes an empty entry.
    """
    cell = address.cell
    return {
        "seed": seed,
        "familiarity": cell.familiarity if cell else "",
        "knows": cell.knows if cell else "",
        "library": address.arm.value,
        "method": address.method.value,
        "split": address.split.value,
        "metric": address.metric.value,
        "value": _rounded(value.value),
        "n": value.n,
        "lo": _rounded(value.lo),
        "hi": _rounded(value.hi),
        "condition": json.dumps(address.condition, sort_keys=True),
    }


def _rounded(x: float) -> float | None:
    return round(float(x), 6) if math.isfinite(x) else None
