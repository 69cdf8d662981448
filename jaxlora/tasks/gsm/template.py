"""Templates of GSM-Symbolic, P1 and P2, read from a user's files.

Only ``question_annotated`` and ``answer_annotated`` are the template's problem. The
plain ``question`` of P1 and P2 is still the easier problem of GSM8K, so it is not read.
Source: Mirzadeh et al., arXiv 2410.05229 (data CC BY-NC-ND: not part of this package).
"""

import ast
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jaxlora.tasks import jsonl
from jaxlora.tasks.gsm import expressions
from jaxlora.tasks.gsm.expressions import Choice
from jaxlora.tasks.refusals import Reason, RefusedError, refuse

Path = str | os.PathLike[str]
EXPECTED = (
    '{"question_annotated": "{n,3} cups ...\\n#init:\\n- $n = range(2, 9)\\n'
    '#conditions:\\n- n > 2\\n#answer: n * 2", "answer_annotated": "... #### {n*2}"}'
)
SLOT = re.compile(r"\{\s*(\w+)\s*,\s*([^{}]*?)\s*\}")
"""A slot of a question: the name of a value, and what it was in GSM8K."""
FILLED = re.compile(r"\{([^{}]*)\}")
"""A slot of an answer: an expression."""

_PARTS = re.compile(
    r"(?P<question>.*?)^#init:(?P<init>.*?)(?:^#conditions:(?P<conditions>.*?))?"
    r"^#answer\s*[:=](?P<answer>.*)",
    re.DOTALL | re.MULTILINE,
)
_LINE = re.compile(r"^-\s*", re.MULTILINE)
_BINDING = re.compile(r"\$?([\w\s,$]+?)\s*=(?!=)(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Binding:
    """Values that are drawn together: entries of one list."""

    names: tuple[str, ...]
    choice: Choice


@dataclasses.dataclass(frozen=True)
class Condition:
    """What must hold of drawn values."""

    node: ast.AST
    names: frozenset[str]
    """The values that it is about."""


@dataclasses.dataclass(frozen=True)
class Template:
    """A problem with slots, and how to fill them."""

    question: str
    """With slots ``{name, default}``."""
    solution: str
    """With slots ``{expression}``; its last line is ``#### {expression}``."""
    bindings: tuple[Binding, ...]
    conditions: tuple[Condition, ...]
    answer: ast.AST
    defaults: Mapping[str, str]
    """By name, what the slots of the question hold in the problem of GSM8K."""
    slots: Mapping[str, ast.AST]
    """By text, the expressions of the solution."""
    original: int
    """Index into the test split of GSM8K."""
    where: str
    """The file, for messages."""

    @property
    def names(self) -> frozenset[str]:
        """Those of all values."""
        return frozenset(name for x in self.bindings for name in x.names)


def read(folder: Path) -> Iterator[Template]:
    """Yields the templates of a folder, in the order of their files' names.

    Args:
      folder: with a file ``*.json`` a template, or one such file.

    Raises:
      ValueError: with the file, if there is none, or one is no template.
    """
    path = pathlib.Path(folder)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} has no *.json, expected a template of {EXPECTED}.")
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ValueError(
                f"Cannot read {file}: {error.strerror or error}; expected a folder of "
                f"templates, a JSON file each."
            ) from None
        yield template(jsonl.parse(content, str(file)), str(file))


def template(fields: Mapping[str, Any], where: str) -> Template:
    """Returns the template that a file holds.

    Args:
      fields: with ``question_annotated``, ``answer_annotated`` and ``id_orig``.
      where: the file, for messages.

    Raises:
      ValueError: with the file, if a section is missing, an expression is anything but
        arithmetic and lists, or a slot or condition names a value that is not drawn.
    """
    record = dict(fields)
    annotated = jsonl.text(record, "question_annotated", where, EXPECTED)
    solution = jsonl.text(record, "answer_annotated", where, EXPECTED)
    parts = _PARTS.fullmatch(annotated)
    if not parts:
        raise ValueError(
            f"{where}: 'question_annotated' lacks #init: or #answer:, expected "
            f"{EXPECTED}; the plain 'question' is the problem of GSM8K."
        )
    try:
        parsed = Template(
            question=parts["question"].strip(),
            solution=solution.strip(),
            bindings=tuple(map(_binding, _lines(parts["init"]))),
            conditions=tuple(map(_condition, _lines(parts["conditions"] or ""))),
            # One answer is a bare $name.
            answer=expressions.tree(parts["answer"].strip().lstrip("$")),
            defaults=dict(SLOT.findall(parts["question"])),
            slots={x: expressions.tree(x) for x in FILLED.findall(solution)},
            original=int(fields.get("id_orig", -1)),
            where=where,
        )
    except RefusedError as error:
        raise ValueError(f"{where}: {error}") from None
    _check_names(parsed)
    return parsed


def _lines(section: str) -> list[str]:
    return [line.strip() for line in _LINE.split(section) if line.strip()]


def _binding(line: str) -> Binding:
    match = _BINDING.fullmatch(line)
    if not match:
        refuse(Reason.SYNTAX, f"{line!r:.60} in #init draws nothing", "name = list")
    names = tuple(name.strip(" $") for name in match[1].split(","))
    choice = expressions.choice(match[2])
    if choice.count != len(names) or len(choice.items) < len(names):
        got = f"{line!r:.60} draws {choice.count} of {len(choice.items)} entries"
        refuse(Reason.TYPE, got, f"{len(names)}, one for each name")
    return Binding(names, choice)


def _condition(line: str) -> Condition:
    node = expressions.tree(line)
    names = names_of(node)
    if not names:
        got = f"The condition {line!r:.60} is about no value"
        refuse(Reason.TYPE, got, "a drawn one in it")
    return Condition(node, names)


def names_of(node: ast.AST) -> frozenset[str]:
    """Returns the values that an expression is about.

    Args:
      node: of :func:`expressions.tree`.
    """
    names = {x.id for x in ast.walk(node) if isinstance(x, ast.Name)}
    return frozenset(names - set(expressions.FUNCTIONS))


def _check_names(parsed: Template) -> None:
    uses = [*(x.node for x in parsed.conditions), parsed.answer, *parsed.slots.values()]
    used = set(parsed.defaults).union(*map(names_of, uses))
    if strange := sorted(used - parsed.names):
        raise ValueError(
            f"{parsed.where}: {strange[0]!r} is used and never drawn; #init draws "
            f"{', '.join(sorted(parsed.names))}."
        )
