"""Flags that say how the next token of a text is chosen."""

import dataclasses
from typing import Annotated

import numpy as np
import tyro

from jaxlora.reuse.decode import TextDecoding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Sample among the most likely tokens only; 0 keeps all."""
    top_p: float = 1.0
    """Sample among the most likely tokens that together reach this probability."""
    seed: int = 0
    """Of sampling, and of a merge that draws; the same seed gives the same text."""

    def __post_init__(self):
        for name, fine, wanted in (
            ("temperature", 0 <= self.temperature < np.inf, "0 or more"),
            ("top-k", self.top_k >= 0, "0 (all) or more"),
            ("top-p", 0 < self.top_p <= 1, "above 0, up to 1"),
        ):
            if not fine:
                got = getattr(self, name.replace("-", "_"))
                raise ValueError(f"--{name} is {got}, expected {wanted}.")
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise ValueError(
                "--top-k and --top-p choose among sampled tokens, but --temperature "
                "is 0, which samples none; set it above 0, or use --route-top-k if a "
                "route's experts are meant."
            )

    def texts(self, max_new_tokens: int) -> TextDecoding:
        """How texts are continued, to the end of a model's answer.

        Args:
          max_new_tokens: at most.
        """
        return TextDecoding(
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


Sample = Annotated[Sampling, tyro.conf.arg(name="")]
