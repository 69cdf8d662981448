"""``--profile DIR``: half a minute of a run, for xprof, TensorBoard or Perfetto.

It begins with the first report of progress, when all is compiled: a trace of a whole
training would take gigabytes and show the same step again and again.
"""

import contextlib
import importlib
import os
import tempfile
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
        self._failed = ""

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
    def words(self) -> str:
        """Where the trace is, or why there is none."""
        if self._failed:
            return f"none could be made ({self._failed})"
        if self._begun is None:
            return "nothing, as it ended before its first report of progress"
        return f"{self._folder}; `xprof --logdir {self._folder}` shows it"

    def _call(self, name: str, *given: str) -> None:
        # A run is worth more than its trace: no room on the disk does not end it.
        try:
            self._profiler(name, *given)
        except (OSError, RuntimeError) as error:
            self._over, self._failed = True, str(error).splitlines()[0][:200]

    @staticmethod
    def _profiler(name: str, *given: str) -> None:
        getattr(importlib.import_module("jax.profiler"), name)(*given)


@contextlib.contextmanager
def traced(words: talk.Talk) -> Iterator[None]:
    """Traces the commands of this block, if ``--profile`` says so.

    Args:
      words: on how the command talks.

    Raises:
      ValueError: if there can be no such folder.
      OSError: if it could not be written.
    """
    if words.wrong:
        raise ValueError(words.wrong)
    if words.profile is None:
        yield
        return
    _check(words.profile)
    words.traced = profile = Profile(words.profile)
    try:
        yield
    finally:
        profile.end()
        words.say(f"Profile: {profile.words}.")


def _check(folder: Path) -> None:
    """Refuses a folder that cannot be written, before hours of work."""
    there = next(x for x in (folder, *folder.absolute().parents) if x.exists())
    if not there.is_dir():
        raise ValueError(
            f"--profile is {folder}, but {there} is a file, expected a folder to write "
            f"into."
        )
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        code = error.errno or 0
        raise OSError(code, os.strerror(code), str(there)) from None
