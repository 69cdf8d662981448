"""Syntax trees of short texts; the parser never sees what could hurt it."""

import ast
import re
import warnings
from typing import Any, NoReturn

from jaxlora.tasks.arithmetic_numbers import Limits
from jaxlora.tasks.refusals import Reason, refuse

_COMMENT = re.compile(r"#[^\r\n]*")
_WARNS = re.compile(r"\\|\b\d[\d_.]*[A-Za-z]")  # '\d' and '1if' make the parser warn


def parse(text: str, mode: str, limits: Limits) -> Any:
    """Returns the syntax tree of a text; nothing is compiled or run.

    Args:
      text: of an expression or a program.
      mode: ``eval`` or ``exec``, the grammar's two starts.
      limits: checked before the parser sees the text.

    Raises:
      RefusedError: if it is too long or deep, not ASCII outside comments, or no Python.
    """
    if len(text) > limits.characters:
        refuse(
            Reason.CHARACTERS,
            f"The text has {len(text)} characters",
            f"at most {limits.characters}",
        )
    # Python reads some letters as others, and some spaces as none.
    if not text.isascii() and not _COMMENT.sub("", text).isascii():
        refuse(Reason.CHARACTERS, "The text has letters beyond ASCII", "ASCII alone")
    if sum(map(text.count, "([{")) > limits.depth and nesting(text) > limits.depth:
        too_deep(limits)
    try:
        if not _WARNS.search(text):
            return ast.parse(text, mode=mode)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode=mode)
    except (RecursionError, MemoryError):
        too_deep(limits)
    except (SyntaxError, ValueError) as error:
        cause = getattr(error, "msg", "letters that cannot be written")
        refuse(Reason.SYNTAX, f"The text is no Python ({cause})", "plain arithmetic")


def nesting(text: str) -> int:
    """Returns how deep brackets stand in each other, closed or not.

    >>> nesting("((1) + (2)")
    2
    """
    deepest = depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def too_deep(limits: Limits) -> NoReturn:
    """Raises RefusedError."""
    refuse(
        Reason.DEPTH, "The text is nested too deeply", f"at most {limits.depth} levels"
    )
