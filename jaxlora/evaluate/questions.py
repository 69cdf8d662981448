"""Which records a model can be asked, and what is left out of them."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxlora.evaluate import answers
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import Reuse, decode
from jaxlora.tasks.text import Record


class Questions(NamedTuple):
    """Records that can be asked, and what was left out."""

    records: list[Record]
    """Each has an answer that the metric can compare with."""
    prompts: list[list[int]]
    """Their token ids."""
    bad: int
    """Left out, as they cannot be asked or compared."""
    too_long: int
    """Left out, as their prompts leave no room in the context."""


def usable(
    records: Sequence[Record], source: str, metric: str, *, skip_bad: bool
) -> tuple[list[Record], int]:
    """Returns records with an answer to compare with, and how many have none.

    Args:
      records: to choose from.
      source: where they are from, for messages.
      metric: a name of ``answers.METRICS``.
      skip_bad: leave out records without an answer, and count them.

    Raises:
      ValueError: with file and line, if one has none and bad ones are not skipped; if
        none is left.
    """
    kept = []
    for record in records:
        try:
            if not record.answer:
                raise ValueError(
                    "The record has no answer, expected a prompt and an answer."
                )
            answers.METRICS[metric]("", record.answer)
            kept.append(record)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{record.where}: {error}") from None
    bad = len(records) - len(kept)
    if not kept:
        raise ValueError(
            f"{source} has no record with an answer for --metric {metric}; {bad} were "
            f"skipped."
        )
    return kept, bad


def askable(
    records: Sequence[Record],
    bad: int,
    source: str,
    tokenizer: Tokenizer,
    reuse: Reuse,
    *,
    skip_bad: bool,
) -> Questions:
    """Encodes the prompts that fit into a model's context.

    Args:
      records: with answers.
      bad: how many were left out before.
      source: where they are from, for messages.
      tokenizer: of the model.
      reuse: the model.
      skip_bad: leave out records that cannot be rendered, and count them.

    Raises:
      ValueError: if one cannot be rendered and bad ones are not skipped; if none is
        left.
    """
    kept, prompts, too_long = [], [], 0
    for record in records:
        try:
            ids = decode.encode(record, tokenizer)
        except ValueError:
            if not skip_bad:
                raise
            bad += 1
            continue
        if decode.room(reuse, ids):
            kept.append(record)
            prompts.append(ids)
        else:
            too_long += 1
    if not kept:
        raise ValueError(
            f"No record of {source} can be asked: {too_long} leave no room in the "
            f"context of {reuse.model.config.max_length} tokens, {bad} were skipped."
        )
    return Questions(kept, prompts, bad, too_long)
