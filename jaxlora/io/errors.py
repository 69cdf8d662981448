"""Errors that say which file or folder they are about.

A message is prefixed with a path by what the error *carries*, never by looking for the
path in the text: a folder called ``a`` or ``layers`` is in most sentences.
"""

import contextlib
from collections.abc import Generator
from pathlib import Path


class PathError(ValueError):
    """A ValueError about a file or folder, which its sentence names.

    Args:
      path: the file or folder.
      sentence: the whole message, with the path in it.
    """

    def __init__(self, path: Path | str, sentence: str):
        # Both are arguments, or the error could not be pickled by another process.
        super().__init__(path, sentence)
        self.path = Path(path)

    def __str__(self) -> str:
        return self.args[1]


@contextlib.contextmanager
def naming(path: Path | str) -> Generator[None, None, None]:
    """Prefixes a ValueError with ``path``, unless it is about a path in there already.

    Args:
      path: the file or folder that is read within the context.

    Raises:
      PathError: in place of any other ValueError, with the sentence ``path: message``.

    >>> with naming("adapters/a"):
    ...     raise ValueError("r is 0, expected 1 or more.")
    Traceback (most recent call last):
        ...
    jaxlora.io.errors.PathError: adapters/a: r is 0, expected 1 or more.
    """
    outer = Path(path)
    try:
        yield
    except ValueError as error:
        # An error about a file within the folder says more than the folder does.
        inner = error.path if isinstance(error, PathError) else None
        if inner is not None and inner.is_relative_to(outer):
            raise
        raise PathError(outer, f"{path}: {error}") from None
