"""Why a text is refused that should be plain arithmetic."""

import ast
import enum
from typing import NoReturn


class Reason(enum.StrEnum):
    """What was wrong, for counting."""

    SYNTAX = "syntax"
    """No Python at all."""
    CHARACTERS = "characters"
    """Too long, or letters beyond ASCII."""
    NODES = "nodes"
    DEPTH = "depth"
    MAGNITUDE = "magnitude"
    DIVISION = "division by zero"
    NAME = "unknown name"
    TYPE = "type"
    """Arithmetic on what is no number."""
    OPERATOR = "operator"
    CALL = "call"
    ATTRIBUTE = "attribute"
    TEXT = "text"
    """Strings, and formatted ones, which may hide calls."""
    CONTAINER = "container"
    """Lists and their kin, comprehensions and subscripts, which allocate."""
    FUNCTION = "function"
    """Functions, lambdas, classes and generators."""
    LOOP = "loop"
    BRANCH = "branch"
    IMPORT = "import"
    ASSIGNMENT = "assignment"
    """To anything but one name, or inside an expression."""
    STATEMENT = "statement"
    ANSWER = "no answer"


class RefusedError(ValueError):
    """A text that is not plain arithmetic, or costs too much; ``reason`` says why."""

    def __init__(self, reason: Reason, message: str):
        super().__init__(message)
        self.reason = reason


CONSTRUCTS = {
    getattr(ast, name): reason
    for reason, names in {
        Reason.CALL: "Call Await",
        Reason.ATTRIBUTE: "Attribute",
        Reason.TEXT: "JoinedStr FormattedValue",
        Reason.CONTAINER: "List Tuple Set Dict ListComp SetComp DictComp GeneratorExp "
        "Subscript Slice Starred",
        Reason.FUNCTION: "Lambda FunctionDef AsyncFunctionDef ClassDef Return Yield "
        "YieldFrom",
        Reason.LOOP: "For While AsyncFor Break Continue",
        Reason.BRANCH: "If IfExp Match Try TryStar Assert Raise",
        Reason.IMPORT: "Import ImportFrom",
        Reason.ASSIGNMENT: "Assign AugAssign AnnAssign NamedExpr "
        "Delete Global Nonlocal",
    }.items()
    for name in names.split()
    if hasattr(ast, name)
}
"""Reasons by kind of node; of all others it is ``Reason.STATEMENT``."""


def refuse(reason: Reason, got: str, expected: str) -> NoReturn:
    """Raises RefusedError with one sentence."""
    raise RefusedError(reason, f"{got}, expected {expected}.")
