"""``--profile DIR``: half a minute of a run, for xprof, TensorBoard or Perfetto.

It begins with the first report of progress, when all is compiled: a trace of a whole
training would take gigabytes and show the same step again and again.
"""

import contextlib
import importlib
import time
from collections.abc import Iterator
from pathlib import Path

from jaxlora.commands import talk

SECONDS = 30.0
"""That are traced, at most."""


class Profile:
    """A trace that begins and ends at reports of progress."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._begun: float | None = None
        self._over = False

    def report(self) -> None:
        """Begins the trace, or ends it when it is long enough."""
        if self._begun is None:
            self._begun = time.monotonic()
            self._call("start_trace", str(self._folder))
        elif not self._over and time.monotonic() - self._begun > SECONDS:
            self.end()

    def end(self) -> None:
        """Ends the trace, if it is at work, and writes it."""
        if self._begun is not None and not self._over:
            self._over = True
            self._call("stop_trace")

    @property
    def empty(self) -> bool:
        """Has nothing been traced?"""
        return self._begun is None

    @staticmethod
    def _call(name: str, *given: str) -> None:
        getattr(importlib.import_module("jax.profiler"), name)(*given)


@contextlib.contextmanager
def traced(words: talk.Talk) -> Iterator[None]:
    """Traces the commands of this block, if ``--profile`` says so.

    Args:
      words: on how the command talks.
    """
    if words.profile is None:
        yield
        return
    words.traced = profile = Profile(words.profile)
    try:
        yield
    finally:
        profile.end()
        where = f"{words.profile}; `xprof --logdir {words.profile}` shows it"
        text = "nothing, as it ended before its first report of progress"
        words.say(f"Profile: {text if profile.empty else where}.")
