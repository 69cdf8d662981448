"""What a relation's phrasings are."""

from typing import NamedTuple


class Forms(NamedTuple):
    """How a relation is asked for and stated, with ``{x}``; sentences have ``{y}``."""

    train: tuple[str, ...]
    """Questions and beginnings of statements, answered by the tail."""
    test: tuple[str, ...]
    """Questions that are never trained."""
    nouns: tuple[str, ...]
    """Descriptions of the tail, as in "the spouse of {x}"; for training."""
    test_noun: str
    """A description that is never trained."""
    sentences: tuple[str, ...]
    """The fact as a whole sentence."""
