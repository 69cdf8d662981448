"""Arms of the boundary study as its tables and figures show them."""

from typing import NamedTuple

from jaxlora.evaluate.schema import Arm, Method
from jaxlora.report import draw


class Shown(NamedTuple):
    """An arm as tables and figures show it."""

    label: str
    arm: Arm
    methods: tuple[Method, ...]
    """Of several, the best."""
    color: str
    shape: str = "o"


_ALONE = (Method.NONE,)
OTHERS = tuple(
    x
    for x in Method
    if x not in (Method.NONE, Method.MEAN, Method.SUM, Method.ARROW, Method.ORACLE)
)
SHOWN = (
    Shown("mean", Arm.PAIR, (Method.MEAN,), draw.BLUE),
    Shown("sum", Arm.PAIR, (Method.SUM,), draw.RED),
    Shown("best other merge", Arm.PAIR, OTHERS, draw.PURPLE),
    Shown("Arrow", Arm.PAIR, (Method.ARROW,), draw.SKY),
    Shown("oracle, searched", Arm.PAIR, (Method.ORACLE,), draw.ORANGE),
    Shown("joint LoRA", Arm.JOINT, _ALONE, draw.GREEN, "D"),
    Shown("A->B alone", Arm.HOP1, _ALONE, draw.GREYS[1], "s"),
    Shown("B->C alone", Arm.HOP2, _ALONE, draw.GREYS[2], "s"),
    Shown("A->C expert", Arm.TARGET, _ALONE, draw.INK, "^"),
)
MEAN, SUM, JOINT = SHOWN[0], SHOWN[1], SHOWN[5]
CONTROLS = (
    *((arm, Method.NONE) for arm in (Arm.BASE, Arm.HOP1, Arm.HOP2)),
    *(
        (arm, method)
        for arm in (Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED, Arm.REVERSED)
        for method in (Method.MEAN, Method.SUM)
    ),
)
"""What must fail where two experts are needed."""
