"""Lines of tables and bars of figures: which arm, under which method, asked what.

Sections are in the order in which a table is read: what must fail, what is asked, and
what must work.
"""

from typing import NamedTuple

from jaxlora.evaluate.schema import USUAL, Arm, Method, Split


class Line(NamedTuple):
    """What is looked up in every cell, and what it is called."""

    label: str
    library: Arm
    method: Method = Method.NONE
    split: Split = Split.TWO_HOP


NEGATIVE_LINES = (
    Line("base", Arm.BASE),
    Line("A->B alone", Arm.HOP1),
    Line("B->C alone", Arm.HOP2),
    Line("random", Arm.RANDOM, Method.MEAN),
    Line("permuted", Arm.PERMUTED, Method.MEAN),
    Line("shuffled answers", Arm.SHUFFLED, Method.MEAN),
)
PAIR_LINES = tuple(Line(method.value, Arm.PAIR, method) for method in USUAL)
FORMAT_LINES = (
    Line("written bridge", Arm.PAIR, Method.MEAN, Split.WRITTEN),
    Line("identity rows", Arm.IDENTITY, Method.MEAN),
)
TRIPLE_LINES = (
    Line("with A->C", Arm.TRIPLE, Method.MEAN),
    Line("A->C of others", Arm.TRIPLE_OTHERS, Method.MEAN),
)
POSITIVE_LINES = (
    Line("A->C alone", Arm.TARGET),
    Line("joint LoRA", Arm.JOINT),
    Line("full fine-tuning", Arm.FULL),
    Line("one document", Arm.DOCUMENT),
    Line("facts in context", Arm.BASE, Method.NONE, Split.CONTEXT),
)
SECTIONS: tuple[tuple[str, tuple[Line, ...]], ...] = (
    ("Negative controls", NEGATIVE_LINES),
    ("2-combination", PAIR_LINES),
    ("Other formats (mean)", FORMAT_LINES),
    ("3-combination (mean)", TRIPLE_LINES),
    ("Positive controls", POSITIVE_LINES),
)
