r"""Conversations to text, by the chat template that comes with a checkpoint.

Templates are Jinja, in the dialect of Hugging Face. They are foreign code, so they run
in a process that has little memory and time (:mod:`jaxlora.strangers.child`), and there
in a sandbox that keeps them from Python (:mod:`jaxlora.strangers.templates`).
"""

import dataclasses
import datetime
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlora.strangers.child import LimitError, shared

Message = Mapping[str, Any]
"""{"role": "user", "content": "..."}."""

TODAY = datetime.date(2024, 7, 26)
"""The date that templates print: fixed, so that two runs see the same prompt.

It is the one that Llama 3's own template falls back to.
"""
PLAIN = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For models without a template, where the caller asks: ``User: ...``, a line each."""
SECONDS = 1.5
"""Processor time of one request, which takes some milliseconds."""
CHARACTERS = 200_000
"""Characters of conversations that add another second."""


def render(
    template: str,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    special_tokens: Mapping[str, str] | None = None,
    today: datetime.date = TODAY,
) -> str:
    r"""Returns the text of a conversation.

    Args:
      template: Jinja source.
      messages: turns, in order; each has a role and a content, both strings.
      add_generation_prompt: append what opens the assistant's turn?
      special_tokens: bos_token, eos_token and so on, as the template names them.
      today: what ``strftime_now`` prints.

    Raises:
      ValueError: if the template is no Jinja, is refused for what it does or takes, or
        refuses the conversation.

    >>> render(PLAIN, [{"role": "user", "content": "Hi"}])
    'User: Hi\nAssistant:'
    """
    asked = [(len(messages), add_generation_prompt)]
    (text,) = beginnings(
        template, messages, asked, special_tokens=special_tokens, today=today
    )
    if isinstance(text, ValueError):
        raise text
    return text


def beginnings(
    template: str,
    messages: Sequence[Message],
    asked: Sequence[tuple[int, bool]],
    *,
    special_tokens: Mapping[str, str] | None = None,
    today: datetime.date = TODAY,
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[str | ValueError]:
    """Renders beginnings of a conversation, all in one request.

    Args:
      template: Jinja source.
      messages: turns, in order.
      asked: of each rendering, how many turns, and whether the assistant's next one is
        opened.
      special_tokens: as of :func:`render`.
      today: as of :func:`render`.
      tools: what the assistant may call.

    Returns:
      The text of each, or why there is none.
    """
    size = sum(len(str(value)) for message in messages for value in message.values())
    size += sum(len(str(tool)) for tool in tools)
    try:
        parts = _worker(template).ask(
            SECONDS + size * len(asked) / CHARACTERS,
            messages=list(map(dict, messages)),
            asked=asked,
            special_tokens=dict(special_tokens or {}),
            today=today.isoformat(),
            tools=list(map(dict, tools)) or None,
        )
    except ValueError as error:
        return [error] * len(asked)
    return [text if kind == "text" else ValueError(text) for kind, text in parts]


@dataclasses.dataclass
class _Worker:
    """One template in the process that all share; what harmed once is not run again."""

    template: str
    harm: str = ""

    def ask(self, seconds: float, **variables: Any) -> list[tuple[str, str]]:
        if self.harm:
            raise ValueError(self.harm)
        try:
            return shared().ask("render", seconds, template=self.template, **variables)
        except LimitError as error:
            self.harm = f"The chat template is refused on this conversation: {error}."
            raise ValueError(self.harm) from None
        except TypeError as error:
            raise ValueError(f"A message holds what is no JSON ({error}).") from None


@functools.lru_cache(maxsize=16)
def _worker(template: str) -> _Worker:
    return _Worker(template)
