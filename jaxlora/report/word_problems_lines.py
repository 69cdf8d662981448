"""Arms of the word-problem study as its tables and figures show them."""

from collections.abc import Iterable
from typing import NamedTuple

from jaxlora.evaluate.schema import Arm, Method
from jaxlora.report import draw

COLORS = {Method.MEAN: draw.BLUE, Method.SUM: draw.RED, Method.ARROW: draw.SKY}
"""Of the methods that every preset may have."""
SPARE = (draw.PURPLE, draw.ORANGE, "#6A3D9A", "#A6761D", draw.YELLOW)
"""Of further methods, in turn."""
TITLES = {Method.ARROW: "Arrow"}


class Shown(NamedTuple):
    """An arm as tables and figures show it."""

    label: str
    arm: Arm
    method: Method = Method.NONE
    color: str = draw.INK
    shape: str = "o"

    @property
    def use(self) -> tuple[Arm, Method]:
        """The arm, and how its experts are combined."""
        return self.arm, self.method


JOINT = Shown("joint LoRA", Arm.JOINT, color=draw.GREEN, shape="D")
EXPERT_A = Shown("A alone", Arm.EXPERT_A, color=draw.GREYS[1], shape="s")
EXPERT_B = Shown("B alone", Arm.EXPERT_B, color=draw.GREYS[2], shape="s")
HARD = Shown("expert of the hard level", Arm.HARD, color=draw.GREEN, shape="D")
BASE = Shown("base", Arm.BASE, color=draw.GREYS[0], shape="s")
ALONE = (EXPERT_A.use, EXPERT_B.use)
CONTROLS = (Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED, Arm.SAME_DATA)
"""What must fail, under the same method."""
BOUNDS = (
    JOINT,
    Shown("full fine-tuning", Arm.FULL),
    Shown("expert of the test problems", Arm.PRACTISED),
    Shown("expert of others' problems", Arm.PRACTISED_OTHERS),
)
"""What may succeed, and what practice of the form alone gives."""


def title(method: Method) -> str:
    """What a method is called.

    Args:
      method: any.

    >>> title(Method.ARROW), title(Method.TIES)
    ('Arrow', 'ties')
    """
    return TITLES.get(method, str(method))


def combined(methods: Iterable[Method], arm: Arm = Arm.PAIR) -> list[Shown]:
    """Returns combinations with a colour each.

    Args:
      methods: that combine the experts.
      arm: what is combined.
    """
    out: list[Shown] = []
    for method in methods:
        spare = SPARE[sum(x.method not in COLORS for x in out) % len(SPARE)]
        out.append(Shown(title(method), arm, method, COLORS.get(method, spare)))
    return out
