"""How bases and experts of the word-problem study are made, and what they must do."""

import dataclasses

from jaxlora.studies.harness.config import at_least, positive, share

MOST_TEMPLATES = 5
"""Solution templates that there are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Numbers, operations and levels of the problems."""

    modulus: int = 13
    """p: problems are over the integers modulo p."""
    known_binary: int = 2
    """Binary operations that the base knows, of add, subtract, multiply, divide."""
    known_unary: int = 8
    """Unary ones: how far the role of the new operations is covered."""
    new: int = 6
    """Unary operations that the base sees as names only; one expert for each."""
    levels: int = 4
    """The highest number of operations in a problem."""
    templates: int = 2
    """Solution templates that the base knows: the common one, the other, and up to
    three that share something with both."""

    def __post_init__(self):
        at_least(self, 3, "new")
        at_least(self, 2, "templates")
        # Experts see problems of up to three operations.
        at_least(self, 3, "levels")
        if self.templates > MOST_TEMPLATES:
            raise ValueError(
                f"templates is {self.templates}, expected 2 to {MOST_TEMPLATES}: there "
                f"are no more."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How a base is trained, and the criteria that it must meet."""

    rows: int = 40_000
    """Problems with written steps, of all levels and templates alike."""
    answer_rows: int = 20_000
    """Problems that are answered without steps, of the levels 1 and 2."""
    names: float = 0.15
    """Share of problems that hold names of new operations; their results weigh 0."""
    learning_rate: float = 2e-3
    """AdamW rate after the warm-up."""
    warmup: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """On all parameters but norm scales and biases."""
    batch: int = 192
    """Written rows a step."""
    answer_batch: int = 128
    """Rows of answers alone, on every ``answer_every``-th step."""
    answer_every: int = 4
    """Distance of those steps."""
    chunk: int = 200
    """Steps between two looks at the criteria; a multiple of answer_every."""
    max_steps: int = 4000
    """Give up on a base, and report it as failed, after this many steps."""
    answer_steps: int = 0
    """A base that passed goes on to at most this step for answers without steps."""
    items: int = 400
    """Problems asked of every level and template for a criterion."""
    min_known: float = 0.95
    """Criterion: problems of unseen skeletons, at every level in every template."""
    min_answer: float = 0.9
    """Criterion of answers without steps; below it that control is unavailable."""

    def __post_init__(self):
        counts = ("rows", "answer_rows", "batch", "answer_batch", "chunk", "max_steps")
        at_least(self, 1, "warmup", "items", *counts)
        positive(self, "learning_rate")
        share(self, "names", "min_known", "min_answer")
        if self.answer_every < 2 or self.chunk % self.answer_every:
            raise ValueError(
                f"chunk is {self.chunk} and answer_every {self.answer_every}: expected "
                f"a chunk that is a multiple of an answer_every of at least 2."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """How experts are trained, and the criteria that they must meet."""

    rows: int = 1024
    """Rows of an expert's data set."""
    rehearsal: float = 0.5
    """Share of them that hold known operations only."""
    draw: int = 48
    """Rows of a step."""
    steps: int = 120
    """Steps of Adam."""
    learning_rate: float = 4e-3
    full_learning_rate: float = 5e-4
    """Rate of full fine-tuning."""
    at_once: int = 6
    """Experts that one program trains."""
    min_own: float = 0.99
    """Criterion: an expert's own operation, in the template it was trained on."""

    def __post_init__(self):
        at_least(self, 1, "draw", "steps", "at_once")
        # Fewer leave a level of some expert without a row.
        at_least(self, 32, "rows")
        positive(self, "learning_rate", "full_learning_rate")
        share(self, "rehearsal", "min_own")
