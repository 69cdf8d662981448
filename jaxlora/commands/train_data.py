"""Data files of ``jaxlora train``: the adapter's name of each, and what it became."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from jaxlora.tasks.data_sets import Counts

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
    if twice := sorted({x for x in stems if stems.count(x) > 1}):
        raise ValueError(
            f"Two data files would both be adapter {twice[0]!r}, as an adapter has the "
            f"name of its file; rename one."
        )
    return stems


def name(source: str) -> str:
    """Returns a file's stem, a folder's name, or a data set's.

    Args:
      source: as it was given.

    Raises:
      ValueError: if it has none.

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
