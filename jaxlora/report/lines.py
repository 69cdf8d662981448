"""Lines of tables and bars of figures: which library, used how, asked what.

Sections are in the order in which a table is read: what must fail, what is asked, and
what must work.
"""

from typing import NamedTuple

from jaxlora.evaluate.schema import USUAL, Library, Method, Split


class Line(NamedTuple):
    """What is looked up in every cell, and what it is called."""

    label: str
    library: Library
    method: Method = Method.NONE
    split: Split = Split.TWO_HOP


NEGATIVE_LINES = (
    Line("base", Library.BASE),
    Line("A->B alone", Library.HOP1),
    Line("B->C alone", Library.HOP2),
    Line("random", Library.RANDOM, Method.MEAN),
    Line("permuted", Library.PERMUTED, Method.MEAN),
    Line("shuffled answers", Library.SHUFFLED, Method.MEAN),
)
PAIR_LINES = tuple(Line(method.value, Library.PAIR, method) for method in USUAL)
FORMAT_LINES = (
    Line("written bridge", Library.PAIR, Method.MEAN, Split.WRITTEN),
    Line("identity rows", Library.IDENTITY, Method.MEAN),
)
TRIPLE_LINES = (
    Line("with A->C", Library.TRIPLE, Method.MEAN),
    Line("A->C of others", Library.TRIPLE_OTHERS, Method.MEAN),
)
POSITIVE_LINES = (
    Line("A->C alone", Library.TARGET),
    Line("joint LoRA", Library.JOINT),
    Line("full fine-tuning", Library.FULL),
    Line("one document", Library.DOCUMENT),
    Line("facts in context", Library.BASE, Method.NONE, Split.CONTEXT),
)
SECTIONS: tuple[tuple[str, tuple[Line, ...]], ...] = (
    ("Negative controls", NEGATIVE_LINES),
    ("2-combination", PAIR_LINES),
    ("Other formats (mean)", FORMAT_LINES),
    ("3-combination (mean)", TRIPLE_LINES),
    ("Positive controls", POSITIVE_LINES),
)
