"""The ``jaxlora`` command: models and their adapters, studies, and data sets.

Exit codes: 0 done, 1 some base failed its criteria, 2 bad input, 130 stopped by SIGINT
(Ctrl-C), 75 by SIGTERM: 0 and 1 only if everything is written, with a signal that came
too late, too. Errors are one sentence on stderr.
"""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import jaxlora
from jaxlora import stopping
from jaxlora.commands import (
    pages,
    processes,
    profiling,
    programs,
    sentences,
    talk,
)
from jaxlora.commands.catalog import (
    COMMANDS,
    GROUPS,
    HELP,
    LIGHT,
    TEXT_STUDIES,
    Entry,
    members,
    named,
)
from jaxlora.names import near
from jaxlora.strangers.text import visible

Command = Callable[[Sequence[str]], int]

ENDED = "It had ended before it could be stopped: everything is written."
"""Said after a signal that came too late; the exit code is then that of any end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    words, speech = talk.split(given)
    if words[:1] == ["help"] and len(words) > 1:  # `jaxlora help merge`
        words = [*words[1:], "--help"]
    entry = _entry(words)
    with stopping.handled() as asked, talk.heard(speech):
        try:
            code = _run(given, words, asked)
            if asked.number is not None and not processes.is_child() and code < 2:
                print(f"jaxlora: {ENDED}", file=sys.stderr)
            return code
        except SystemExit as ended:  # --help, or flags that tyro explained and refused
            return ended.code if isinstance(ended.code, int) else 2
        except BrokenPipeError:  # the reader of a pipe (head) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt as stop:
            _say(sentences.stopped(entry, stop))
            return stopping.code_of(stop)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if processes.is_child() and (loss := sentences.of_loss(error)):
                _say(loss)
                return processes.AGAIN
            sentence = sentences.of_error(entry, error)
            if sentence is None:
                raise
            code = _say(sentence)
            processes.part()
            return code


def process() -> NoReturn:
    """Runs the command line of this process, and ends it."""
    programs.keep(on=talk.NO_PROGRAMS not in sys.argv)
    try:
        code = main()
    except Exception:  # an error of ours
        if not processes.is_child():
            raise
        # At the interpreter's end JAX would wait for the other processes, which wait
        # for this one.
        traceback.print_exc()
        code = 1
    stopping.leave(code, at_once=processes.is_child() and code != 0)


def _run(given: list[str], words: list[str], asked: stopping.Asked) -> int:
    if (text := _text(words)) is not None:
        print(text, end="")
        return 0
    entry = _entry(words)
    if not entry.many and processes.is_asked(words):
        raise ValueError(_alone(words))
    words, others = processes.split(words, os.environ if entry.many else {})
    if others is None:
        return _call(words, asked)
    if not processes.is_child():
        asked.at_once = False
        return processes.watch(given, asked)
    with processes.entered(others, resumes=entry.resumes and entry.polls):
        return _call(words, asked)


def _call(words: list[str], asked: stopping.Asked) -> int:
    command, rest = _find(words)
    # While modules are imported a signal ends the process; from here on it is read
    # where a command can stop.
    asked.at_once = False
    stopping.check()
    speech = talk.current()
    with profiling.traced(speech):
        code = command(rest)
    if speech.board and not speech.boarded:
        speech.say(f"{talk.BOARD}: nothing, as this command keeps no numbers.")
    return code


def _text(words: Sequence[str]) -> str | None:
    """Help, or the version, if that is all that words ask for."""
    if not words or words[0] in ("-h", "--help") or list(words) == ["help"]:
        return HELP
    if list(words) == ["--version"]:
        return f"jaxlora {jaxlora.__version__}\n"
    return pages.answer(words)


def _alone(words: Sequence[str]) -> str:
    """The sentence for a command that is no part of a run of several processes.

    >>> _alone(["inspect", "A"])
    '`jaxlora inspect` is one process, and takes no --processes, ...'
    """
    every = {**COMMANDS, **{f"{x} --model": y for x, y in TEXT_STUDIES.items()}}
    several = ", ".join(name for name, entry in every.items() if entry.many)
    return (
        f"`jaxlora {named(list(words))}` is one process, and takes no --processes, "
        f"--process, --coordinator or --wait; those that may be several are {several}. "
        f"A two-hop study is spread over machines by --share I/N."
    )


def _say(sentence: str) -> int:
    print(f"jaxlora: {visible(sentence)}", file=sys.stderr)
    return 2


def _entry(words: Sequence[str]) -> Entry:
    """What is known of a command, without finding out whether it exists."""
    name = " ".join(words[:2])
    if " ".join(words) in LIGHT:
        return LIGHT[" ".join(words)]
    if name in TEXT_STUDIES and pages.is_of_text(words):
        return TEXT_STUDIES[name]
    return COMMANDS.get(" ".join(words[:1]), COMMANDS.get(name, Entry("")))


def _alike(x: str, y: str) -> float:
    return difflib.SequenceMatcher(None, x, y).ratio()


def _find(words: list[str]) -> tuple[Command, list[str]]:
    """Finds the command, without importing JAX for help or a misspelling."""
    entry = _entry(words)
    if entry.module:
        module = importlib.import_module(f"jaxlora.commands.{entry.module}")
        return module.run, words[1 if words[0] in COMMANDS else 2 :]
    if len(words) == 1 and words[0] in GROUPS:
        names = members(words[0])
        there = f"there are {', '.join(names[:-1])} and {names[-1]}"
        raise ValueError(f"`jaxlora {words[0]}` needs a name; {there}.")
    raise ValueError(_no_command(words))


def _no_command(words: Sequence[str]) -> str:
    """The sentence for words that begin with no command.

    >>> _no_command(["--verison"])
    'No option --verison before a command; did you mean `jaxlora --version`?'
    """
    if words[0].startswith("-"):
        nearest = near(words[0], ("--version", "--help"))
        hint = (
            f"; did you mean `jaxlora {nearest[0]}`?"
            if nearest
            else (": options follow the command, as in `jaxlora merge A B --out DIR`.")
        )
        return f"No option {words[0]} before a command{hint}"
    name = " ".join(words[: 2 if words[0] in GROUPS else 1])
    tries = (" ".join(words[:2]), words[0])
    nearest = [match for word in tries for match in near(word, COMMANDS)]
    nearest.sort(key=lambda match: -max(_alike(match, word) for word in tries))
    # `two-hop` is a study and a data set: what ends so comes before what is alike.
    ends = [match for match in COMMANDS if match.split()[1:] == [words[0]]]
    ends = [] if words[0] in GROUPS else ends  # "study" also ends `plan study`
    shown = " or ".join(f"`jaxlora {match}`" for match in ends or nearest[:1])
    hint = f"; did you mean {shown}?" if shown else "."
    return f"No command {name!r}; there are {', '.join(COMMANDS)}{hint}"


if __name__ == "__main__":
    process()
