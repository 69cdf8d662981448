"""Prompts decoded in batches of similar length, for commands that generate text."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxlora import models
from jaxlora.models import tokenizer as tokenizers
from jaxlora.models.reuse import Reuse
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import text
from jaxlora.tasks.text import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    """Divides the logits; 0 takes the most likely token."""
    sample_top_k: int = 0
    """Sample among the most likely tokens only; 0 keeps all."""
    top_p: float = 1.0
    """Sample among the most likely tokens that together reach this probability."""
    seed: int = 0
    """Of sampling, and of a merge that draws; the same seed gives the same text."""

    def __post_init__(self):
        for name, fine, wanted in (
            ("temperature", 0 <= self.temperature < np.inf, "0 or more"),
            ("sample-top-k", self.sample_top_k >= 0, "0 (all) or more"),
            ("top-p", 0 < self.top_p <= 1, "above 0, up to 1"),
        ):
            if not fine:
                got = getattr(self, name.replace("-", "_"))
                raise ValueError(f"--{name} is {got}, expected {wanted}.")
        if not self.temperature and (self.sample_top_k or self.top_p < 1):
            raise ValueError(
                "--sample-top-k and --top-p choose among sampled tokens, but "
                "--temperature is 0, which samples none; set it above 0."
            )


GREEDY = Sampling()
"""The most likely token, always."""

Sample = Annotated[Sampling, tyro.conf.arg(name="")]


class Said(NamedTuple):
    """What a model said to one prompt."""

    text: str
    """Without special tokens."""
    tokens: int
    """How many, the end token included."""
    ended: bool
    """Did it end by itself? If not, it was cut at the limit."""


def batches(lengths: Sequence[int], batch: int) -> Iterator[tuple[list[int], int]]:
    """Yields (rows, length): prompts of similar length, and what they are padded to.

    Sorted by length and cut every ``batch`` rows, so that there are as few batches as
    can be, and as few lengths (powers of two) to compile for.

    >>> list(batches([40, 3, 17], batch=2))
    [([1, 2], 32), ([0], 64)]
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        yield rows, tokenizers.bucket(lengths[rows[-1]])


def decode(
    found: Reuse,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch: int,
    sampling: Sampling = GREEDY,
    tell: Callable[[int], None] = lambda _: None,
) -> list[Said]:
    """Continues every prompt until an end token or the limit.

    Args:
      found: the model and what it runs with.
      tokenizer: of the model.
      prompts: token ids, one list a prompt; none empty, or as long as the context.
      max_new_tokens: the limit; where the context ends before it, that is.
      batch: prompts at once; a last, smaller batch is filled up.
      sampling: how tokens are chosen.
      tell: called with the number of prompts that are done.

    Returns:
      One answer a prompt, in their order.
    """
    out: dict[int, Said] = {}
    limits = [min(max_new_tokens, room(found, prompt)) for prompt in prompts]
    size = min(batch, 1 << max(0, len(prompts) - 1).bit_length())
    for i, (rows, length) in enumerate(batches([len(p) for p in prompts], batch)):
        filled = rows + rows[-1:] * (size - len(rows))
        tokens, mask = tokenizers.pad_left(
            [prompts[row] for row in filled], tokenizer.pad_id, length
        )
        made = models.generate(
            found.model,
            found.base,
            models.Inputs(jnp.asarray(tokens), jnp.asarray(mask)),
            models.Decoding(
                max_new_tokens=max(limits[row] for row in rows),
                temperature=sampling.temperature,
                top_k=sampling.sample_top_k,
                top_p=sampling.top_p,
                stop=tokenizer.eos_ids,
                pad=tokenizer.pad_id,
            ),
            key=jax.random.fold_in(jax.random.key(sampling.seed), i),
            **found.arguments(),
        )
        ids, sizes = np.asarray(made.tokens), np.asarray(made.lengths)
        for at, row in enumerate(rows):
            own = ids[at, : min(sizes[at], limits[row])]
            out[row] = _said(tokenizer, own.tolist())
        tell(len(out))
    return [out[row] for row in range(len(prompts))]


def load_tokenizer(folder: Path, found: Reuse) -> Tokenizer:
    """Reads the tokenizer of a checkpoint.

    Raises:
      ValueError: if there is none, or it is of another vocabulary than the model.
    """
    tokenizer = tokenizers.load(folder)
    tokenizers.check(tokenizer, found.model.config.vocab_size)
    return tokenizer


def encode(item: Record, tokenizer: Tokenizer) -> list[int]:
    """Returns the token ids of a record's prompt, as they were in training.

    Raises:
      ValueError: with file and line, if the chat template refuses the conversation.
    """
    ids = text.prompt(item, tokenizer)
    if not ids:
        raise ValueError(f"{item.where or 'The prompt'} has no token, expected some.")
    return ids


def room(found: Reuse, prompt: Sequence[int]) -> int:
    """Tokens that the model's context leaves after a prompt; 0 if it is too long."""
    return max(0, found.model.config.max_length - len(prompt))


def _said(tokenizer: Tokenizer, ids: list[int]) -> Said:
    ended = bool(ids) and ids[-1] in tokenizer.eos_ids
    return Said(tokenizer.decode(ids[:-1] if ended else ids), len(ids), ended)
