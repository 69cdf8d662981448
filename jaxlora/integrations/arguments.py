"""What the command line of a harness gives, as the types that are meant."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxlora import reuse
from jaxlora.io import gate_file
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import Reuse


@dataclasses.dataclass(frozen=True)
class Options:
    """A checkpoint, its adapters, and how the harness asks; its ``--model_args``."""

    pretrained: str
    """A folder in Hugging Face's format."""
    _: dataclasses.KW_ONLY
    adapters: str | Sequence[str] = ()
    """PEFT folders; a list, or one string with ``:`` between (``;`` on Windows)."""
    merge: str | None = None
    """Name of a merge that makes one adapter of them."""
    weights: str | float | Sequence[float] | None = None
    """Of a merge; a list, or one string with ``:`` between them."""
    route: str | None = None
    """Name of a route that chooses among them for every token."""
    gate: str | None = None
    """File of ``jaxlora gate``: what a route learned from data; it names its route."""
    general: str | Sequence[str] = ()
    """PEFT folders, as ``adapters``, whose mean the route genknowsub takes out of
    these."""
    top_k: int | None = None
    """Experts that a route keeps; by default as the route says."""
    temperature: float | None = None
    """Divides a route's scores, by default as the route says; not that of sampling,
    which each task sets in its ``generation_kwargs``."""
    tokenizer: str | None = None
    """A folder, if not that of the checkpoint."""
    dtype: str = "auto"
    """float32, bfloat16, or auto for that of the checkpoint."""
    batch_size: int | str = 16
    """Rows at once; ``auto`` is 16."""
    max_length: int | None = None
    """Tokens that the model may see at once; by default all it can."""
    max_gen_toks: int = 256
    """New tokens, where a task does not say."""
    truncate: bool = True
    """Drop the start of prompts that are too long, as the harness does, or refuse
    them?"""
    prefix_token_id: int | None = None
    """What a text without context follows; by default the bos, or else the eos."""
    think_end_token: str | None = None
    """What ends a reasoning model's thoughts, such as ``</think>``; text up to there is
    dropped."""
    seed: int = 0
    """Of sampling, and of merges and gates that draw."""
    max_batch_size: int | None = None
    """Not used; the harness passes it."""
    device: str | None = None
    """Not used, as JAX chooses; the harness passes it."""


def split(value: Any) -> list[Any]:
    """Returns the values of a list, or of a text with the path separator between.

    Args:
      value: as the harness gives it; a single number is a list of one.

    >>> split(0.5), split(["a:b", "c"])
    ([0.5], ['a:b', 'c'])
    """
    if isinstance(value, str):
        return [part for part in value.split(os.pathsep) if part]
    return list(value) if isinstance(value, Sequence) else [value]


def load(options: Options) -> Reuse:
    """Reads a checkpoint and its adapters; a gate in a file says what is not given.

    Args:
      options: what the harness gives.

    Raises:
      ValueError: as ``reuse.load`` and ``gate_file.load``, or if the gate is one of
        another route, of other adapters or of another base.
    """
    adapters, weights = split(options.adapters), options.weights
    route: dict[str, Any] = {
        name: getattr(options, name) for name in ("route", "top_k", "temperature")
    }
    given: dict[str, Any] = {
        "general_folders": split(options.general),
        "merge": options.merge,
        "weights": None if weights is None else [float(w) for w in split(weights)],
        "key": jax.random.key(options.seed),
        "dtype": None if options.dtype == "auto" else options.dtype,
    }
    if options.gate is None:
        return reuse.load(options.pretrained, adapters, **route, **given)
    path = Path(options.gate)
    gate = gate_file.load(path)
    given |= gate_file.asked(path, gate, adapters, **route)
    loaded = reuse.load(options.pretrained, adapters, gate=gate.state, **given)
    gate_file.check_base(gate, loaded.base)
    return loaded


def length(given: int | None, most: int) -> int:
    """Returns how many tokens the model sees at once: all it can, or fewer.

    Args:
      given: as many as are asked for; None is all.
      most: what the model was made for.

    Raises:
      ValueError: if more are asked for.
    """
    if given is not None and not 1 <= given <= most:
        raise ValueError(
            f"max_length is {given}, expected 1 to {most}, what the model was made for."
        )
    return most if given is None else given


def rows(given: int | str) -> int:
    """Returns the rows of one call; ``auto`` and ``auto:4`` are 16.

    Args:
      given: a number, or a text.

    Raises:
      ValueError: if it is no number.
    """
    text = str(given)
    if text.partition(":")[0] == "auto":
        return 16
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"batch_size is {given!r}, expected a number or 'auto'.")
    return int(text)


def prefix(tokenizer: Tokenizer, given: int | None) -> int:
    """Returns the token before a text without context: as given, the bos, or the eos.

    Args:
      tokenizer: of the model.
      given: the id that is asked for, or None.

    Raises:
      ValueError: if there is none.
    """
    for i in (given, tokenizer.bos_id, *tokenizer.eos_ids):
        if i is not None:
            return i
    raise ValueError(
        "The tokenizer names neither a bos nor an eos, one of which goes before a text "
        "without context; give prefix_token_id."
    )
