"""Conversations to text, by the chat template that comes with a checkpoint.

Templates are Jinja, in the dialect of Hugging Face: ``messages``,
``add_generation_prompt``, ``bos_token`` and the other special tokens,
``raise_exception``, ``strftime_now``, ``tojson``, loop controls, and the
``generation`` tag, whose content is passed through.
"""

import datetime
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser

from jaxlora.strangers.fuel import METER, Fuel
from jaxlora.strangers.sandbox import Sandbox
from jaxlora.strangers.text import line

LENGTH = 200_000
"""Characters of a template at most; those in use have some thousands."""


class Generation(Extension):
    """``{% generation %}...{% endgeneration %}`` is what stands between."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Returns the statements up to the end tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def answers(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    asked: Sequence[tuple[int, bool]],
    **variables: Any,
) -> list[tuple[str, str]]:
    """Renders beginnings of a conversation.

    Args:
      template: Jinja source.
      messages: turns, in order.
      asked: of each rendering, how many turns, and whether the next one is opened.
      **variables: ``today``, ``special_tokens`` and ``tools``, as of :func:`render`.

    Returns:
      ("text", a rendering) or ("error", why there is none) of each.
    """
    out = []
    for turns, opened in asked:
        try:
            text = render(template, messages[:turns], opened, **variables)
        except ValueError as error:
            out.append(("error", str(error)))
        else:
            out.append(("text", text))
    return out


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    special_tokens: Mapping[str, str],
    today: str,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """Returns the text of a conversation; for the limited process alone.

    Args:
      template: Jinja source; it is foreign code, and runs without access to Python
        (:mod:`.sandbox`).
      messages: turns, in order; each has a role and a content, both strings; a call of
        tools may have None for its content.
      add_generation_prompt: append what opens the assistant's turn?
      special_tokens: bos_token, eos_token and so on, as the template names them.
      today: the date that ``strftime_now`` prints, as 2024-07-26.
      tools: what the assistant may call.

    Raises:
      ValueError: if the template is no Jinja, is refused for what it does, or refuses
        the conversation.
    """
    day = datetime.date.fromisoformat(today)
    checked = [_checked(message, i) for i, message in enumerate(messages)]
    variables: dict[str, Any] = {
        "messages": checked,
        "add_generation_prompt": add_generation_prompt,
        "tools": tools,
        "documents": None,
        "strftime_now": functools.partial(_strftime, day),
        METER: Fuel(),
    }
    compiled = _compiled(template)
    try:
        return compiled.render({**special_tokens, **variables})
    except MemoryError:
        raise
    except _RefusedError as error:
        raise ValueError(
            f"The chat template refuses this conversation of roles "
            f"{', '.join(m['role'] for m in checked) or 'none'}: {_one_line(error)}"
        ) from None
    except Exception as error:  # foreign code may raise anything
        raise ValueError(_failed(error)) from None


class _RefusedError(TemplateError):
    """What a template raises on purpose."""


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    if len(template) > LENGTH:
        raise ValueError(
            f"The chat template has {len(template)} characters, expected at most "
            f"{LENGTH}; is this file a template?"
        )
    sandbox = Sandbox((Generation,), raise_exception=_raise)
    try:
        return sandbox.compiled(template)
    except Exception as error:  # deep nesting raises RecursionError, MemoryError, ...
        raise ValueError(_failed(error)) from None


def _failed(error: Exception) -> str:
    if isinstance(error, TemplateSyntaxError):
        return (
            f"The chat template is no valid Jinja, line {error.lineno}: "
            f"{_one_line(error.message)}"
        )
    if isinstance(error, SecurityError):
        return f"The chat template is refused as unsafe: {_one_line(error)}"
    return (
        f"The chat template fails on this conversation "
        f"({type(error).__name__}): {_one_line(error)}"
    )


def _one_line(error: Any) -> str:
    shown = line(error).rstrip(".") or "no reason given"
    return f"{shown}."


def _raise(message: object) -> None:
    raise _RefusedError(str(message)[:300])


def _strftime(today: datetime.date, form: str) -> str:
    if re.sub(r"%-?[a-zA-Z%]", "", form).count("%") or len(form) > 100:
        raise SecurityError(f"{form[:20]!r} is no plain format of a date")
    return datetime.datetime.combine(today, datetime.time()).strftime(form)


def _checked(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    for field in ("role", "content"):
        bare = field == "content" and "tool_calls" in message
        value = message.get(field)
        if not isinstance(value, str) and not (bare and value is None):
            raise ValueError(
                f"Message {index} has {field} {message.get(field)!r:.60}, expected a "
                f'string, as in {{"role": "user", "content": "Hello"}}.'
            )
    return dict(message)
