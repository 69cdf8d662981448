"""How prompts are continued, and which prompts can be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.models.decoder import Decoder
from jaxlora.models.inputs import Inputs, Tokens


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How prompts are continued."""

    max_new_tokens: int
    """N: a row ends here at the latest."""
    temperature: float = 0.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Sample among the k most likely tokens only; 0 keeps all."""
    top_p: float = 1.0
    """Sample among the most likely tokens that together reach this probability."""
    stop: tuple[int, ...] = ()
    """Ids that end a row."""
    pad: int = 0
    """Id that fills a row after its end."""

    def __post_init__(self):
        fine = self.max_new_tokens >= 1 and self.top_k >= 0 and 0 < self.top_p <= 1
        if not fine or not self.temperature >= 0:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens}, temperature={self.temperature},"
                f" top_k={self.top_k}, top_p={self.top_p}: expected at least one token,"
                f" temperature >= 0, top_k >= 0 and 0 < top_p <= 1."
            )


def prompts_of(given: Tokens) -> Inputs:
    """Returns prompts with their mask, checked before a decoder sees them.

    Args:
      given: token ids [B, T], or :class:`Inputs` with a mask of those padded on the
        left.

    Raises:
      ValueError: if there is no prompt or token, there are segments or positions, or a
        mask has another shape, a hole, or a row that does not end in a token.
    """
    inputs = given if isinstance(given, Inputs) else Inputs(given)
    tokens, mask, segments, positions, tree = inputs
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(
            f"Prompts have shape {tokens.shape}, expected [B, T] with one prompt and "
            f"one token at least."
        )
    if any(x is not None for x in (segments, positions, tree)):
        raise ValueError(
            "Got segments or positions of prompts, expected a mask: rows are padded on "
            "the left, and the cache counts their tokens."
        )
    if mask is None:
        return Inputs(tokens, jnp.ones(tokens.shape, bool))
    if mask.shape != tokens.shape:
        raise ValueError(
            f"The mask has shape {mask.shape}, expected that of the prompts, "
            f"{tokens.shape}."
        )
    if not isinstance(mask, jax.core.Tracer):
        _check_padding(np.asarray(mask))
    return inputs


def check(
    model: Decoder, tokens: jax.Array, decoding: Decoding, key: jax.Array | None
) -> None:
    """Refuses what a model cannot continue.

    Args:
      model: a decoder.
      tokens: [B, T] prompts.
      decoding: how they are continued.
      key: PRNG key, or None.

    Raises:
      ValueError: if there is no key for sampling, or prompt and new tokens pass
        max_length of learned positions.
    """
    if decoding.temperature > 0 and key is None:
        raise ValueError(
            f"temperature is {decoding.temperature}, but no key was given; sampling "
            f"needs key=jax.random.key(...), and temperature 0 needs none."
        )
    longest, most = tokens.shape[1] + decoding.max_new_tokens, model.config.max_length
    if model.config.positions == "learned" and longest > most:
        raise ValueError(
            f"Prompt and new tokens are {longest} tokens, but the model has learned "
            f"positions for {most}; ask for fewer."
        )


def _check_padding(mask: np.ndarray) -> None:
    if not mask[:, -1].all():
        raise ValueError(
            "A prompt does not end in a token; pad on the left, and leave out empty "
            "prompts."
        )
    if (mask[:, :-1] & ~mask[:, 1:]).any():
        raise ValueError(
            "A prompt's mask has a hole, expected padding on the left and nowhere else."
        )
