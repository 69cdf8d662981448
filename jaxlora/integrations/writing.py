"""Text written until a string: what evaluation harnesses ask of a model.

A decoder stops at token ids, a harness at strings, which may start anywhere in a token.
A row therefore ends at every token whose own text holds one of the strings, and the
text is cut at the first of them afterwards: that saves steps, and never changes a text.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import models
from jaxlora.models import tokenizer as tokenizers
from jaxlora.models.reuse import Reuse
from jaxlora.models.tokenizer import Tokenizer

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of one option, the number of new tokens; the first that is given counts."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "repetition_penalty": (1, None),
    "min_p": (0, None),
    "seed": (None,),
}
"""Options that are not supported, and the values at which they do nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writing:
    """How texts are continued."""

    max_new_tokens: int
    """At most; the longest prompt has max_length less this."""
    until: tuple[str, ...] = ()
    """The text ends before the first of these."""
    temperature: float = 0.0
    """0 is greedy."""
    top_k: int = 0
    """Sample among the most likely tokens only; 0 keeps all."""
    top_p: float = 1.0
    """Sample among the most likely tokens that together reach this probability."""
    thought: str | None = None
    """What ends the thoughts of a reasoning model; text up to the last is dropped."""


def settings(
    options: Mapping[str, Any], default: int = 256, thought: str | None = None
) -> Writing:
    """Reads the generation options of a harness task.

    ``do_sample: false`` is greedy whatever the temperature; sampling without a
    temperature has 1, and keeps every token unless ``top_k`` or ``top_p`` is given.

    Args:
      options: ``until``, one of ``LIMITS``, do_sample, temperature, top_k, top_p.
      default: new tokens, if no limit is given.
      thought: see :class:`Writing`.

    Raises:
      ValueError: if an option would change the text and is not supported.

    >>> settings({"until": "Q:", "temperature": 0.5, "do_sample": False}, 8)
    Writing(max_new_tokens=8, until=('Q:',), temperature=0.0, top_k=0, top_p=1.0,
            thought=None)
    """
    given = dict(options)
    until = given.pop("until", None) or ()
    limits = [given.pop(name, None) for name in LIMITS]
    sample, temperature = given.pop("do_sample", None), given.pop("temperature", None)
    if temperature is None:
        temperature = 1.0 if sample else 0.0
    top_k, top_p = given.pop("top_k", None), given.pop("top_p", None)
    odd = {k: v for k, v in given.items() if v not in NEUTRAL.get(k, ())}
    if odd:
        raise ValueError(
            f"The task asks for {odd}, which would change its texts and is not "
            f"supported; there are until, do_sample, temperature, top_k, top_p and "
            f"{', '.join(LIMITS)}, and --gen_kwargs can set them."
        )
    return Writing(
        max_new_tokens=int(next((n for n in limits if n is not None), default)),
        until=tuple(s for s in ([until] if isinstance(until, str) else until) if s),
        temperature=0.0 if sample is False else float(temperature),
        top_k=max(0, int(top_k or 0)),
        top_p=1.0 if top_p is None else float(top_p),
        thought=thought,
    )


def write(
    reuse: Reuse,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    how: Writing,
    *,
    batch: int = 16,
    key: jax.Array | None = None,
) -> Iterator[tuple[int, str]]:
    """Yields the index and the continuation of each prompt, the longest prompts first.

    Prompts are padded on the left to powers of two, and a last batch is filled with
    copies of its last row, which end when it does: one program for each length.

    Args:
      reuse: what answers.
      tokenizer: of the model.
      prompts: token ids, at least one each.
      how: where texts end, and how tokens are chosen.
      batch: rows of one call.
      key: PRNG key, if the temperature is not 0.

    Raises:
      ValueError: if a prompt is empty, or longer than the model's context less the
        new tokens.
    """
    room = reuse.model.config.max_length - how.max_new_tokens
    longest = max(map(len, prompts), default=0)
    if longest > room:
        raise ValueError(
            f"A prompt has {longest} tokens, expected at most {room}: of the "
            f"{reuse.model.config.max_length} that the model sees at once, "
            f"{how.max_new_tokens} are to be new."
        )
    stop = (*tokenizer.eos_ids, *stops(tokenizer, how))
    for i, rows in enumerate(_batches(prompts, batch)):
        chosen = [prompts[row] for row in rows] + [prompts[rows[-1]]] * batch
        length = min(tokenizers.bucket(len(chosen[0])), room)
        tokens, mask = tokenizers.pad_left(chosen[:batch], tokenizer.pad_id, length)
        made = models.generate(
            reuse.model,
            reuse.base,
            models.Inputs(jnp.asarray(tokens), jnp.asarray(mask)),
            models.Decoding(
                max_new_tokens=how.max_new_tokens,
                temperature=how.temperature,
                top_k=how.top_k,
                top_p=how.top_p,
                stop=stop,
                pad=tokenizer.pad_id,
            ),
            key=None if key is None else jax.random.fold_in(key, i),
            **reuse.arguments(),
        )
        found, sizes = np.asarray(made.tokens), np.asarray(made.lengths)
        for row, ids, size in zip(rows, found, sizes, strict=False):
            yield row, _text(tokenizer, ids[:size].tolist(), how)


def stops(tokenizer: Tokenizer, how: Writing) -> tuple[int, ...]:
    """Returns the tokens whose own text holds a string that ends the text.

    None while a model may still be thinking: the string counts after that only.
    """
    if not how.until or how.thought is not None:
        return ()
    every = [[i] for i in range(tokenizer.vocab_size)]
    texts = tokenizer.backend.decode_batch(every, skip_special_tokens=False)
    return tuple(i for i, t in enumerate(texts) if any(s in t for s in how.until))


def cut(text: str, until: Sequence[str]) -> str:
    """Returns what comes before the first of some strings.

    >>> cut("7. Q: 8", ["Q:", "."])
    '7'
    """
    found = [i for i in (text.find(s) for s in until) if i >= 0]
    return text[: min(found, default=len(text))]


def _text(tokenizer: Tokenizer, ids: list[int], how: Writing) -> str:
    if ids and ids[-1] in tokenizer.eos_ids:
        ids = ids[:-1]
    text = tokenizer.decode(ids)
    if how.thought is not None:
        text = text.rpartition(how.thought)[2].lstrip()
    return cut(text, how.until)


def _batches(prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Indices of prompts that share a padded length, the longest first."""
    groups: dict[int, list[int]] = {}
    for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
        groups.setdefault(tokenizers.bucket(len(prompts[i])), []).append(i)
    for members in groups.values():
        for start in range(0, len(members), size):
            yield members[start : start + size]
