"""Conversations as an evaluation harness wants them: closed, or with an open last turn.

A task may begin the answer itself ("The answer is"). The text then ends within the
assistant's turn, where a chat template would close it; the same is
``continue_final_message`` in transformers, and found in the same way: by a mark.
"""

import logging
from collections.abc import Sequence

from jaxlora.models.chat import Message
from jaxlora.models.tokenizer import Tokenizer

MARK = "CONTINUE_FROM_HERE "
"""Stands at the end of the last turn while the template runs; its space shows whether
the template keeps white space there."""

_log = logging.getLogger(__name__)


def text(tokenizer: Tokenizer, messages: Sequence[Message], *, closed: bool) -> str:
    """Returns a conversation as text.

    A template that refuses a system turn (Gemma's) gets the conversation without it,
    as in the harness, and a warning says so.

    Args:
      tokenizer: holds the chat template.
      messages: turns; each has a role and a content.
      closed: end with what opens the assistant's turn, or within the last turn?

    Raises:
      ValueError: as :meth:`.Tokenizer.render`, or if the template does not show the
        last turn that is to be continued.
    """
    render = _closed if closed else _open
    rest = [message for message in messages if message["role"] != "system"]
    try:
        return render(tokenizer, messages)
    except ValueError as error:
        if tokenizer.chat_template is None or len(rest) == len(messages):
            raise
        without = render(tokenizer, rest)
        _log.warning("Left out the system turn. %s", error)
        return without


def _closed(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    return tokenizer.render(messages)


def _open(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    *before, last = messages
    marked = {**last, "content": last["content"] + MARK}
    rendered = tokenizer.render([*before, marked], add_generation_prompt=False)
    start, mark, after = rendered.rpartition(MARK.strip())
    if not mark:
        raise ValueError(
            f"The chat template does not show the {last['role']} turn that is to be "
            f"continued; expected its content, as given, in the text."
        )
    return start if after.startswith(" ") else start.rstrip()
