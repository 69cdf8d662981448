"""What commands say beside their results: how much of it, and a log of all of it.

Some words belong to every command, and are taken out before its own flags are read:
``-q`` (no progress and no notes), ``-v`` (a line for each report), ``--tensorboard``,
``--profile DIR`` and ``--no-program-cache``.
"""

import contextlib
import contextvars
import dataclasses
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

PROFILE, NO_PROGRAMS = "--profile", "--no-program-cache"
WORDS = {"-q": -1, "--quiet": -1, "-v": 1, "--verbose": 1}
BOARD = "--tensorboard"
LOG = "log.txt"
LONG = (
    "jaxlora train",
    "jaxlora gate",
    "jaxlora eval",
    "jaxlora generate",
    "jaxlora merge",
    "jaxlora forward",
    "jaxlora study two-hop",
    "jaxlora study boundary",
    "jaxlora study theory",
    "jaxlora study word-problems",
)
"""Commands whose help explains the words; the others take them, too."""
HELP = """\

 progress
 ------------------------------------------------------------------------------
  -q, -v            No progress and no notes; or a line for each report.
  --tensorboard     Scalars for TensorBoard, too, where numbers are kept in
                    --out as they come: training and studies.
  --profile DIR     Trace half a minute of the run, for xprof or TensorBoard.
  --no-program-cache
                    Compile anew; otherwise programs of earlier runs are used
                    (JAX_COMPILATION_CACHE_DIR, else the user's cache folder).
"""
MANY = """\

 several processes: the same command on every host, over all their devices
 ------------------------------------------------------------------------------
  --processes N|auto
                    How many; auto finds all of this out on Cloud TPU, GKE,
                    Slurm and MPI. Or JAX_NUM_PROCESSES.
  --process I       Which of them this is, from 0. Or JAX_PROCESS_ID.
  --coordinator HOST:PORT
                    Of process 0, which writes. Or JAX_COORDINATOR_ADDRESS.
  --wait SECONDS    For all to come (default: 300).
"""
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclasses.dataclass
class Talk:
    """How much a command says, and where it is kept."""

    level: int = 0
    """-1 quiet, 0 as usual, 1 verbose."""
    board: bool = False
    """Scalars for TensorBoard too?"""
    writes: bool = True
    """Does this process write files? Of several of one run, the first does."""
    boarded: bool = False
    """Does the command have scalars to keep?"""
    wrong: str = ""
    """A sentence, if the words do not fit."""
    profile: Path | None = None
    """Folder of a trace, if one is wanted."""
    traced: Any = None
    """What hears of each report of progress while a trace is made."""
    path: Path | None = None
    """Of the log, once there is a folder for it."""
    lines: list[str] = dataclasses.field(default_factory=list)
    """What was said before."""

    def say(self, text: str) -> None:
        """Prints a sentence on stderr; with ``-q`` it only goes to the log."""
        if self.level < 0:
            self.note(text)
        else:
            print(text, file=sys.stderr)

    def note(self, text: str) -> None:
        """Adds lines to the log, each with its time."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        plain = _CODES.sub("", text).splitlines()
        self.lines += [f"{now} {line.rstrip()}".rstrip() + "\n" for line in plain]
        if self.path is not None:
            # A full disk is a matter of the run, not of its log.
            with (
                contextlib.suppress(OSError),
                self.path.open("a", encoding="utf-8") as file,
            ):
                file.write("".join(self.lines))
            self.lines.clear()

    def keep(self, folder: Path) -> None:
        """Begins, or goes on with, the log in a folder; once."""
        # No lines are of a caller without a command.
        if self.writes and self.path is None and self.lines:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / LOG
            self.note("")


_TALK: contextvars.ContextVar[Talk | None] = contextvars.ContextVar(
    "talk", default=None
)


def current() -> Talk:
    """How the command that runs talks; as usual if none does."""
    return _TALK.get() or Talk()


def split(given: Sequence[str]) -> tuple[list[str], Talk]:
    """Takes the words of this module out of a command line.

    >>> words, talk = split(["train", "-q", "--out", "x", "--tensorboard"])
    >>> words, talk.level, talk.board
    (['train', '--out', 'x'], -1, True)
    """
    words, profiles = _values(PROFILE, given)
    rest = [x for x in words if x not in (*WORDS, BOARD, NO_PROGRAMS)]
    level = next((WORDS[word] for word in reversed(words) if word in WORDS), 0)
    talk = Talk(level, BOARD in words)
    if len(profiles) > 1:
        talk.wrong = f"Got {PROFILE} twice, expected it once."
    elif "" in profiles:
        talk.wrong = f"{PROFILE} needs the name of a folder for the trace."
    talk.profile = Path(profiles[0]) if profiles else None
    talk.note(f"$ {shlex.join(['jaxlora', *given])}")
    return rest, talk


def _values(flag: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Takes a flag and its values out of words; one without a value gives ""."""
    values, rest, left = [], [], list(words)
    while left:
        word = left.pop(0)
        name, equals, text = word.partition("=")
        if name != flag:
            rest.append(word)
        elif equals or not left or left[0].startswith("-"):
            values.append(text)
        else:
            values.append(left.pop(0))
    return rest, values


@contextlib.contextmanager
def heard(talk: Talk) -> Iterator[None]:
    """Notes what is printed in this block on both streams."""
    token = _TALK.set(talk)
    out, err = sys.stdout, sys.stderr
    mine = [_Heard(stream, talk) for stream in (out, err)]
    sys.stdout, sys.stderr = mine
    try:
        yield
    finally:
        for stream in mine:
            stream.end()
        sys.stdout, sys.stderr = out, err
        _TALK.reset(token)


def terminal() -> TextIO:
    """Standard error itself: the frames of a bar are no lines of a log."""
    return getattr(sys.stderr, "unheard", sys.stderr)


class _Heard:
    """A stream whose lines are noted."""

    def __init__(self, stream: TextIO, talk: Talk):
        self.unheard, self._talk, self._begun = stream, talk, ""

    def write(self, text: str) -> int:
        lines = (self._begun + text).split("\n")
        self._begun = lines.pop()
        if lines:
            self._talk.note("\n".join(lines) + "\n")
        return self.unheard.write(text)

    def end(self) -> None:
        if self._begun:
            self._talk.note(self._begun)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unheard, name)
