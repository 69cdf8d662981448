"""Help of every command, written beforehand: to read it takes no JAX.

What a flag means stands in the dataclasses of the commands, which take seconds to
import. So their help is kept as text in ``help_pages``, and a test holds it to what the
commands say. After a change of flags:

    python -m jaxlora.commands.pages
"""

import contextlib
import importlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from jaxlora.commands.catalog import (
    COMMANDS,
    GROUPS,
    TEXT_STUDIES,
    group_help,
    named,
)
from jaxlora.files import write_text

FOLDER = Path(__file__).parent / "help_pages"
TEXT = " --model"
"""Ends the name of the page of a study of a language model."""
SURROUNDINGS = {"COLUMNS": "80", "XDG_CACHE_HOME": "/home/you/.cache"}
"""Environment in which pages are written, so that they are the same everywhere."""
_ASK = ("-h", "--help")


def names() -> list[str]:
    """Names of the pages: commands, and studies of a language model."""
    return [*COMMANDS, *(name + TEXT for name in TEXT_STUDIES)]


def file(name: str) -> Path:
    """Where a page is kept.

    >>> file("study two-hop --model").name
    'study-two-hop-model.txt'
    """
    return FOLDER / f"{name.replace('--', '').replace(' ', '-')}.txt"


def answer(words: Sequence[str]) -> str | None:
    """The help that words ask for; None if they ask for something else.

    Args:
      words: of the command line, after ``jaxlora``.
    """
    if words[-1] not in _ASK:
        return None
    if len(words) == 2 and words[0] in GROUPS:
        return group_help(words[0])
    name = named(list(words))
    between = words[len(name.split()) : -1]
    if name in TEXT_STUDIES and between and is_of_text(between) and len(between) <= 2:
        name, between = name + TEXT, []
    # With other flags, such as --preset, help shows their defaults: see flags/study.
    path = file(name)
    if not name or between or not path.is_file():
        return None
    return path.read_text(encoding="utf-8")


def is_of_text(words: Sequence[str]) -> bool:
    """Whether a language model is named.

    >>> is_of_text(["study", "two-hop", "--model=DIR"]), is_of_text(["--model.mlp"])
    (True, False)
    """
    return any(word.partition("=")[0] == "--model" for word in words)


def flags(text: str) -> list[str]:
    r"""The flags that a page explains, in their order.

    >>> flags(" -----\n  -h, --help\n      --not this\n  --chat, --no-chat  --nor\n")
    ['--help', '--chat', '--no-chat']
    """
    heads = re.findall(r"^  (-.*?)(?:  .*)?$", text, re.MULTILINE)
    return [flag for head in heads for flag in re.findall(r"--\w[\w.-]*", head)]


def render(name: str) -> str:
    """The help of a command as it is now, by importing it.

    Args:
      name: one of :func:`names`.
    """
    entry = (TEXT_STUDIES if name.endswith(TEXT) else COMMANDS)[name.removesuffix(TEXT)]
    module = importlib.import_module(f"jaxlora.commands.{entry.module}")
    refusals = importlib.import_module("jaxlora.commands.flags.refusals")
    out = io.StringIO()
    words = ["--model", "DIR"] * name.endswith(TEXT)
    with (
        refusals.environment(**SURROUNDINGS),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        module.run([*words, "--help"])
    return out.getvalue()


def methods() -> str:
    """The rows of ``jaxlora merge --list --all`` as they are now, as JSON."""
    tables = importlib.import_module("jaxlora.commands.merge_tables")
    return json.dumps(tables.rows(), indent=1, ensure_ascii=False) + "\n"


def write() -> None:
    """Writes every page, and the list of methods, anew."""
    for name in names():
        write_text(file(name), render(name))
    choice = importlib.import_module("jaxlora.commands.merge_choice")  # needs rich
    write_text(choice.EVERY, methods())


if __name__ == "__main__":
    write()
