"""How bases are trained, and what they must be able to do."""

import dataclasses

from jaxlora.studies.harness.config import at_least, distinct, positive, share

FORMATS = ("context", "misled", "written", "document")
"""Formats beside the direct one that a base may be trained on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How a base is trained, and the criteria that it must meet."""

    learning_rate: float = 2e-3
    """AdamW rate after the warm-up."""
    warmup: int = 200
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """On all parameters but norm scales and biases."""
    batch: int = 512
    """Direct rows a step."""
    extra_batch: int = 256
    """Rows of written bridges, documents and made-up contexts, on every tenth step."""
    extra_every: int = 10
    """Distance of those steps; 10 keeps them at 10% of all batches."""
    formats: tuple[str, ...] = FORMATS
    """Formats of those rows; a base cannot be asked in one that it never saw."""
    chunk: int = 250
    """Steps between two looks at the criteria; a multiple of extra_every."""
    max_steps: int = 5000
    """Give up on a base, and report it as failed, after this many steps."""
    format_steps: int = 2000
    """A base that passed goes on to at most this step for its extra formats."""
    min_one_hop: float = 0.99
    """Criterion: one-hop recall of known facts."""
    min_two_hop: float = 0.95
    """Criterion: held-out two-hop accuracy on familiar facts, non-study relations."""
    min_copy: float = 0.99
    """Criterion: copying familiar and new names."""
    min_format: float = 0.9
    """Criterion of each extra format; below it the control is marked unavailable."""

    def __post_init__(self):
        at_least(self, 1, "warmup", "batch", "extra_batch", "chunk", "max_steps")
        positive(self, "learning_rate")
        distinct("formats", self.formats, FORMATS)
        share(self, "min_one_hop", "min_two_hop", "min_copy", "min_format")
        if self.extra_every < 2 or self.chunk % self.extra_every:
            raise ValueError(
                f"chunk is {self.chunk} and extra_every {self.extra_every}: expected a "
                f"chunk that is a multiple of an extra_every of at least 2."
            )
