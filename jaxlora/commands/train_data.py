"""Data files of ``jaxlora train``: the adapter's name of each, and its rows of tokens.

What is left out of a file is counted, and said before training starts.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from jaxlora.commands import bars
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import packing, text
from jaxlora.tasks.packing import Rows
from jaxlora.tasks.text import Read, Record
from jaxlora.train.training import Training

Counts: TypeAlias = dict[str, Any]
"""What a file became, as training.json has it."""
LOOKED_AT = 20
"""Records of a file whose prompts are compared with what is learnt."""
LEFT_OUT = ("bad_lines", "refused", "too_long", "truncated", "no_answer")


def names(sources: Sequence[str]) -> list[str]:
    """Returns the name of each source's adapter.

    Args:
      sources: as they were given.

    Raises:
      ValueError: if there is no source, or two would have one name.
    """
    if not sources:
        raise ValueError("No --data was given, expected a file at least.")
    stems = [name(source) for source in sources]
    twice = sorted({x for x in stems if stems.count(x) > 1})
    if twice:
        raise ValueError(
            f"Two data files would both be adapter {twice[0]!r}, as an adapter has the "
            f"name of its file; rename read."
        )
    return stems


def name(source: str) -> str:
    """Returns a file's stem, a folder's name, or a data set's.

    Args:
      source: as it was given.

    Raises:
      ValueError: if it has nread.

    >>> name("data/gsm8k.train.jsonl"), name("tfds:gsm8k/main:train")
    ('gsm8k.train', 'gsm8k-main-train')
    """
    path = Path(source).expanduser()
    if not path.exists() and path.suffix not in (".json", ".jsonl"):
        return source.removeprefix("tfds:").replace("/", "-").replace(":", "-")
    last = os.path.basename(os.path.abspath(path))  # of "." and ".." too
    stem = last.removesuffix(".jsonl").removesuffix(".json")
    if not stem:
        raise ValueError(f"--data {source} gives the adapter no name; rename it.")
    return stem


def read(sources: Mapping[str, str], *, skip_bad: bool = False) -> dict[str, text.Read]:
    """Reads every source, by the name of its adapter; raises as ``text.read``."""
    return {
        name: text.read(source, skip_bad=skip_bad) for name, source in sources.items()
    }


def pack(
    data: Mapping[str, Read],
    words: Tokenizer,
    length: int,
    *,
    seed: int = 0,
    truncate: bool = False,
    skip_bad: bool = False,
) -> tuple[dict[str, Rows], dict[str, Counts]]:
    """Makes rows of ``length`` tokens of every source, and counts what they hold.

    Args:
      data: records by the name of the adapter.
      words: the tokenizer.
      length: T of a row.
      seed: of the order in which examples are packed.
      truncate: cut examples longer than a row, instead of leaving them out.
      skip_bad: leave out records that cannot be rendered.

    Raises:
      ValueError: with the adapter's name, as ``text.encode``.
    """
    rows, counts = {}, {}
    with bars.bar("packing") as move:
        for i, (name, read) in enumerate(data.items()):
            move(name, i, len(data))
            try:
                encoded = text.encode(
                    read.records, words, length, truncate=truncate, skip_bad=skip_bad
                )
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            rows[name] = packing.pack(encoded.examples, length, seed)
            counts[name] = _count(read, encoded, rows[name])
            counts[name]["asked_apart"] = asked_apart(read.records, words)
    return rows, counts


def asked_apart(records: Sequence[Record], words: Tokenizer) -> bool:
    """Will a model be asked with other tokens than those it learns to answer after?

    Some chat templates open an answer for generation with what they leave out of a
    whole conversation: DeepSeek-R1's with ``<think>``. Looks at the first few records;
    the last token of a prompt may merge with the answer, and is not compared.

    Args:
      records: of one file.
      words: the tokenizer.
    """
    for record in records[:LOOKED_AT]:
        try:
            asked = text.prompt(record, words)[:-1]
            learnt = text.encode_one(record, words).tokens[: len(asked)].tolist()
        except ValueError:  # plain text, or refused and counted
            continue
        if asked != learnt:
            return True
    return False


def _count(read: Read, encoded: text.Encoded, rows: Rows) -> Counts:
    about = packing.report(rows)
    return dataclasses.asdict(about) | {
        "efficiency": round(about.efficiency, 4),
        "bad_lines": read.skipped,
        "refused": encoded.refused,
        "too_long": encoded.too_long,
        "truncated": encoded.truncated,
        "no_answer": encoded.no_answer,
        "first_error": read.first_error or encoded.first_error,
    }


def say(counts: Mapping[str, Counts], length: int, updates: Mapping[str, int]) -> None:
    """Prints what each file became, and what was left out of it, on stderr.

    Args:
      counts: by the name of the adapter.
      length: tokens of a row.
      updates: of each adapter.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for name, count in counts.items():
        left = ", ".join(
            f"{count[key]} {key.replace('_', ' ')}" for key in LEFT_OUT if count[key]
        )
        console.print(
            f"{name}: {count['examples']} examples in {count['rows']} rows of {length} "
            f"tokens, {100 * count['efficiency']:.0f}% full; {updates[name]} updates"
            + (f"; left out or cut: {left}" if left else "")
        )
        if count["asked_apart"]:
            console.print(
                "  the chat template opens an answer for generation otherwise than in "
                "training (with <think>, say): a trained adapter is asked what it did "
                "not learn to answer"
            )
        if count["first_error"]:
            console.print(f"  first of them: {count['first_error']}")


def fitted(training: Training, rows: Mapping[str, Rows]) -> Training:
    """A microbatch has no more rows than the largest data set.

    Args:
      training: as it was asked for.
      rows: of each data set.
    """
    most = max(len(part.tokens) for part in rows.values())
    return dataclasses.replace(training, batch=min(training.batch, most))
