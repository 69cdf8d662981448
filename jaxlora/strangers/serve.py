"""What a limited process does: reads requests, works within limits, replies.

Started by :class:`jaxlora.strangers.child.Child`. Whatever a request raises is its
reply; where time or memory ends, the process may end too, and the asker is told so.
"""

import faulthandler
import os
import re
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from jaxlora.strangers.messages import packed, unpacked
from jaxlora.strangers.text import line

REQUEST_BYTES = 2**29
"""Of one request."""


def main(memory: int) -> None:
    """Answers requests on standard input until it is closed.

    Args:
      memory: bytes of address space that this process may have.
    """
    limit(memory)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Libraries print, panics among others, and would print into the replies.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    kept: dict[str, Any] = {}
    while True:
        try:
            operation, seconds, arguments = unpacked(requests, REQUEST_BYTES)
        except EOFError:
            return
        clock(seconds)
        reply = answer(OPERATIONS[operation], kept, arguments)
        clock(0)
        replies.write(reply)
        replies.flush()


def limit(memory: int) -> None:
    """Bounds what this process may do, as far as its operating system can.

    Args:
      memory: bytes of address space.
    """
    warnings.simplefilter("ignore")
    try:
        import resource
    except ImportError:  # the standard library has it on Unix only
        return
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))


def clock(seconds: float) -> None:
    """Ends this process after so much of its processor time, or never for 0.

    Args:
      seconds: from now on.
    """
    if hasattr(signal, "setitimer"):
        # Nothing handles the signal: it ends C and Rust code as well as Python.
        signal.setitimer(signal.ITIMER_PROF, seconds)
    elif seconds:
        faulthandler.dump_traceback_later(seconds, exit=True)
    else:
        faulthandler.cancel_dump_traceback_later()


def answer(work: Callable[..., Any], kept: dict[str, Any], arguments: Mapping) -> bytes:
    """Returns the reply to one request.

    Args:
      work: the operation.
      kept: what operations keep from one request to the next.
      arguments: of the operation.
    """
    try:
        return packed({"value": work(kept, **arguments)})
    except MemoryError:
        return _broken("it needs more memory than is allowed")
    except ValueError as error:
        return packed({"error": str(error), "broken": False})
    except BaseException as error:  # a panic of Rust is no Exception
        return _broken(f"its library fails ({type(error).__name__}: {line(error)})")


def _broken(clause: str) -> bytes:
    return packed({"error": clause, "broken": True})


def _match(kept: dict[str, Any], pattern: str, text: str) -> tuple[bool, float]:
    """Does a regular expression match all of a text, and what time did that take?"""
    begin = time.process_time()
    try:
        matched = re.fullmatch(pattern, text) is not None
        return matched, time.process_time() - begin
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None


def _render(kept: dict[str, Any], **arguments: Any) -> list[tuple[str, str]]:
    from jaxlora.strangers import templates  # Jinja is slow to import

    return templates.answers(**arguments)


def _load(kept: dict[str, Any], path: str, **frame: Any) -> dict[str, Any]:
    from jaxlora.strangers import sentencepiece, tokens

    kept["tokenizer"] = tokens.load(path, **frame)
    named = sentencepiece.special(path) if path.endswith(".model") else {}
    return tokens.facts(kept["tokenizer"]) | {"named": named}


def _call(kept: dict[str, Any], method: str, arguments: list) -> Any:
    from jaxlora.strangers import tokens

    return tokens.METHODS[method](kept["tokenizer"], *arguments)


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "match": _match,
    "render": _render,
    "load": _load,
    "call": _call,
}
"""What can be asked for, by name."""
