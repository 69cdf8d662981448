"""What a checkpoint is of, as text: compared before anything is read of it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxlora import tree as named
from jaxlora.tree import Tree

SHORT = 40
"""Characters of a value that a message shows, at most."""
FEW = 3
"""Differences that a message names, at most."""


def check_made_by(
    folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Refuses the checkpoint of another run, and says in what the two differ.

    Args:
      folder: of the checkpoint, for the message.
      stored: what it was made by, as JSON has it.
      wanted: what it must have been made by.

    Raises:
      ValueError: naming up to three facts with both values, where these are short.

    >>> check_made_by(Path("x"), {"training": {"rate": 1}}, {"training": {"rate": 2}})
    Traceback (most recent call last):
        ...
    ValueError: x holds the checkpoint of another run: training.rate is 1 there and ...
    """
    here = json.loads(json.dumps(wanted, default=str))  # as it would come back
    old, new = dict(_flat(stored)), dict(_flat(here))
    differ = sorted(x for x in old | new if old.get(x, "") != new.get(x, ""))
    if differ:
        # Values first that can be shown: they tend to be why others differ.
        differ.sort(key=lambda name: _is_long(name, old, new))
        shown = [_difference(name, old, new) for name in differ[:FEW]]
        more = [f"{len(differ) - FEW} more differ"] * (len(differ) > FEW)
        raise ValueError(
            f"{folder} holds the checkpoint of another run: "
            f"{', '.join((*shown, *more))}; give another folder, or remove this one to "
            f"start again."
        )


def _flat(facts: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names such as ``training.rate``, and values as JSON."""
    if isinstance(facts, Mapping) and facts:
        for key, value in facts.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(facts)


def _is_long(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    return max(len(facts.get(name, "")) for facts in (old, new)) > SHORT


def _difference(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    # A hash, or the sums of rows, say nothing to anybody.
    if _is_long(name, old, new):
        if name not in old:
            return f"{name} is here only"
        return f"{name} changed since" if name in new else f"{name} is there only"
    there, here = (facts.get(name, "nothing") for facts in (old, new))
    return f"{name} is {there} there and {here} here"


def leaves(tree: Tree) -> dict[str, str]:
    """What each leaf is, by its name.

    Args:
      tree: arrays, or their shapes.

    >>> leaves({"head": jax.numpy.ones((128, 98))})
    {'head': 'float32[128, 98]'}
    """
    return {
        name: f"{jax.numpy.dtype(leaf.dtype).name}{list(leaf.shape)}"
        for name, leaf in named.flatten(tree).items()
    }


def check_leaves(
    folder: Path, stored: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    """Refuses a checkpoint whose arrays are others than those that are wanted.

    Args:
      folder: of the checkpoint, for the message.
      stored: what its leaves are.
      wanted: what they must be.

    Raises:
      ValueError: naming the first leaf that has another shape or type, or is missing.
    """
    # Orbax casts a wrong type silently, and resizes nothing: compare before reading.
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"Checkpoint {folder} holds {name!r} as {stored.get(name, 'nothing')}, "
                f"expected {wanted.get(name, 'nothing')}; it was written by another "
                f"configuration, so delete the folder or use another one."
            )
