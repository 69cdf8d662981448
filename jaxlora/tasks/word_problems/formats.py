"""Solutions in English: plain steps, annotated steps, programs and markup.

Each format is crossed with the templates: which words, in which order, and where the
result stands. English writes all numbers as digits: a template with named numbers is
refused. A pattern both writes a step and reads it back. Plain and annotated
solutions end in ``#### N``, as GSM8K (Cobbe et al., arXiv 2110.14168) does.
"""

import functools
import re
from typing import Literal, NamedTuple, TypeAlias, get_args

from jaxlora.tasks.word_problems.english import Step, Story
from jaxlora.tasks.word_problems.templates import Template

Format: TypeAlias = Literal["plain", "annotated", "python", "markup"]
SIGNS = ("+", "-", "*", "/")
"""Of the operations in annotations; in programs ``//`` divides exactly."""
PROGRAM_SIGNS = ("+", "-", "*", "//")
WORDS = (
    ("sum", "difference", "product", "quotient"),
    ("total", "rest", "multiple", "share"),
)
"""Of the operations, by the vocabulary of a template."""
_PLAIN = {
    ("operator-first", "after"): "{who}: the {word} of {left} and {right} is {result}.",
    ("operand-first", "after"): "{who}: {left} and {right} have the {word} {result}.",
    (
        "operator-first",
        "before",
    ): "{who}: {result} is the {word} of {left} and {right}.",
    ("operand-first", "before"): "{who}: {result} is {left} and {right} as a {word}.",
}
_PYTHON = {
    ("operator-first", "after"): "# {word}\n{line}  # {result}",
    ("operand-first", "after"): "{line}  # {word}: {result}",
    ("operator-first", "before"): "# {result}: {word}\n{line}",
    ("operand-first", "before"): "# {result}\n{line}  # {word}",
}
_MARKUP = {
    ("operator-first", "after"): "{op}{of}{by}{is}",
    ("operand-first", "after"): "{of}{by}{op}{is}",
    ("operator-first", "before"): "{is}{op}{of}{by}",
    ("operand-first", "before"): "{is}{of}{by}{op}",
}
_FINAL = {
    "plain": "#### {result}",
    "annotated": "#### {result}",
    "python": "answer = {who}",
    "markup": "<answer>{result}</answer>",
}


class ReadStep(NamedTuple):
    """What one written step says; operands of programs are looked up."""

    operation: int
    left: int
    right: int
    result: int


class Read(NamedTuple):
    """A solution as it was read."""

    steps: tuple[ReadStep | None, ...]
    """None for what is no step in the format and template."""
    answer: int | None
    """The final answer, none if it is missing."""


def write(story: Story, form: Format, template: Template) -> str:
    """Writes a solution, a step a line, and the final answer.

    Args:
      story: its steps are written.
      form: plain, annotated, python or markup.
      template: words, order, and place of the result.

    Raises:
      ValueError: if the format is unknown, or the template names its numbers.

    >>> add = Story("", (Step("Ada", 0, 5, 3, 8, "", ""),))
    >>> print(write(add, "annotated", Template()))
    Ada: the sum of 5 and 3 is <<5+3=8>>8.
    #### 8
    """
    pattern, words = _pattern(form, template), WORDS[template.words]
    lines = [pattern.format(**_fields(step, form, words)) for step in story.steps]
    last = story.steps[-1]
    final = _FINAL[form].format(who=last.who.lower(), result=last.result)
    return "\n".join((*lines, final))


def read(text: str, form: Format, template: Template) -> Read:
    """Reads a solution step by step.

    Args:
      text: as :func:`write` writes it, or a model does.
      form: plain, annotated, python or markup.
      template: words, order, and place of the result.

    Returns:
      Its steps and final answer. A line that is no step in this format and template
      is None, and so is a step whose annotation contradicts its words.

    Raises:
      ValueError: if the format is unknown, or the template names its numbers.
    """
    step, final = _readers(form, template)
    known: dict[str, int] = {}
    steps: list[ReadStep | None] = []
    at = 0
    while at < len(text):
        if match := step.match(text, at):
            steps.append(_step(match, form, WORDS[template.words], known))
        elif match := final.match(text, at):
            answer = known.get(match[1]) if form == "python" else int(match[1])
            return Read(tuple(steps), answer)
        else:
            match = _LINE.match(text, at)
            steps.append(None)
        at = match.end() + 1 if match else len(text)
    return Read(tuple(steps), None)


def check(form: Format, template: Template) -> None:
    """Refuses what cannot be written in English.

    Args:
      form: plain, annotated, python or markup.
      template: words, order, and place of the result.

    Raises:
      ValueError: if the format is unknown, or the template names its numbers.
    """
    if form not in get_args(Format):
        raise ValueError(
            f"Unknown format {form!r}, expected one of {', '.join(get_args(Format))}."
        )
    if template.numbers:
        raise ValueError(
            f"Template {template.name} names its numbers, which only symbols do; "
            f"expected numbers 0, digits, in English."
        )


def _fields(step: Step, form: Format, words: tuple[str, ...]) -> dict[str, object]:
    fields = step._asdict()
    signs = PROGRAM_SIGNS if form == "python" else SIGNS
    fields |= {"word": words[step.operation], "sign": signs[step.operation]}
    if form == "python":
        fields["who"] = step.who.lower()
        fields["left"] = step.left_who.lower() or step.left
        fields["right"] = step.right_who.lower() or step.right
    return fields


def _step(
    match: re.Match, form: Format, words: tuple[str, ...], known: dict[str, int]
) -> ReadStep | None:
    """One step, None where it is inconsistent; ``known`` gets its variable."""
    fields = match.groupdict()
    signs = PROGRAM_SIGNS if form == "python" else SIGNS
    left, right = _value(fields["left"], known), _value(fields["right"], known)
    operation, result = words.index(fields["word"]), int(fields["result"])
    known[fields["who"]] = result
    if (
        left is None
        or right is None
        or fields.get("sign") not in (None, signs[operation])
    ):
        return None
    return ReadStep(operation, left, right, result)


def _value(operand: str, known: dict[str, int]) -> int | None:
    return int(operand) if operand.lstrip("-").isdigit() else known.get(operand)


@functools.cache
def _pattern(form: Format, template: Template) -> str:
    check(form, template)
    key = (template.order, template.place)
    if form == "python":
        return _PYTHON[key].replace("{line}", "{who} = {left} {sign} {right}")
    if form == "markup":
        tags = {"op": "word", "of": "left", "by": "right", "is": "result"}
        inside = {tag: f"<{tag}>{{{name}}}</{tag}>" for tag, name in tags.items()}
        return f'<step who="{{who}}">{_MARKUP[key].format(**inside)}</step>'
    marked = "<<{left}{sign}{right}={result}>>{result}"
    return _PLAIN[key].replace(
        "{result}", marked if form == "annotated" else "{result}"
    )


@functools.cache
def _readers(form: Format, template: Template) -> tuple[re.Pattern, re.Pattern]:
    """Expressions that match one step, and the final answer."""
    number = r"-?\d{1,18}"
    operand = rf"{number}|[a-z]+" if form == "python" else number
    kinds = {"who": r"[A-Za-z]+", "left": operand, "right": operand, "result": number}
    kinds["word"] = "|".join(WORDS[template.words])
    kinds["sign"] = "|".join(map(re.escape, sorted({*SIGNS, *PROGRAM_SIGNS})[::-1]))
    expression = re.escape(_pattern(form, template))
    for name, kind in kinds.items():
        here = re.escape(f"{{{name}}}")
        # The same field again must say the same.
        expression = expression.replace(here, f"(?P<{name}>{kind})", 1)
        expression = expression.replace(here, f"(?P={name})")
    last = re.escape(_FINAL[form])
    for name in ("who", "result"):
        last = last.replace(re.escape(f"{{{name}}}"), f"({kinds[name]})")
    return re.compile(expression + r"(?=\n|$)"), re.compile(last + r"\s*$")


_LINE = re.compile(r"[^\n]*")
