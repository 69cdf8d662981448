"""From words to a dataclass of flags, by tyro; what tyro lacks is done to the words.

Before tyro sees them, old flags become new ones, values of a repeatable flag that
follow each other become repetitions, and a flag that does not exist, is given twice or
without a value is refused in one sentence.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import tyro

from jaxlora.commands.flags import outputs, refusals
from jaxlora.commands.flags.words import Flag, check, grouped

T = TypeVar("T")

Several: TypeAlias = tyro.conf.UseAppendAction[tuple[str, ...]]
"""Values of a repeatable flag, which may also follow each other: ``--data A B``."""

ALIASES: Mapping[str, Mapping[str, str]] = {
    "jaxlora study two-hop": {
        "--thresholds.level": "--thresholds.confidence",
        "--gates.min-own": "--criteria.min-own",
        "--gates.min-context": "--criteria.min-context",
        "--gates.min-two-hop": "--criteria.min-two-hop",
        "--train.at-once": "--train.together",
        "--format": "--world.form",
    },
    "jaxlora data two-hop": {
        "--thresholds.level": "--thresholds.confidence",
        "--format": "--world.form",
    },
    "jaxlora study theory": {"--level": "--confidence"},
}
"""By command, short and old flags and the ones that they stand for; in no help."""


def flags(kind: Any, prefix: str = "") -> dict[str, Flag]:
    """Returns the flags of a dataclass and of those in it.

    Args:
      kind: a dataclass; its positional arguments count as flags, too.
      prefix: of the names, such as ``model.``.
    """
    every: dict[str, Flag] = {}
    for field in dataclasses.fields(kind):
        marks = getattr(field.type, "__metadata__", ())
        declared: Any = field.type
        inner = declared.__origin__ if marks else declared
        name = field.name.strip("_").replace("_", "-")
        if tyro.conf.Suppress in marks:
            continue
        if dataclasses.is_dataclass(inner):
            flat = any(getattr(mark, "name", None) == "" for mark in marks)
            every |= flags(inner, prefix if flat else f"{prefix}{name}.")
        else:
            flag = Flag(f"{prefix}{name}", inner, marks)
            every[f"--{prefix}{name}"] = flag
            if inner is bool and tyro.conf.FlagCreatePairsOff not in marks:
                every[f"--{prefix}no-{name}"] = flag
    return every


def names(kind: Any) -> list[str]:
    """Names of every flag of a dataclass, ``--help`` first, no positional argument."""
    every = flags(kind).items()
    return ["--help", *(name for name, flag in every if not flag.positional)]


def parse(
    kind: type[T],
    prog: str,
    words: Sequence[str],
    *,
    description: str | None = None,
    default: T | None = None,
    every: Mapping[str, Sequence[str]] | None = None,
) -> T:
    """Parses the words of a command.

    Args:
      kind: the dataclass of the flags.
      prog: the command.
      words: what was given.
      description: above the flags in the help; None for the dataclass's docstring.
      default: values of the flags that are not given; None for the dataclass's own.
      every: what the word ``all`` stands for after a flag, by flag.

    Raises:
      ValueError: if a flag does not exist, naming the nearest, its value does not fit,
        or what is read would be written over.
      SystemExit: after help.
    """
    given = spell_out(renamed(words, ALIASES.get(prog, {})), every or {})
    known, listed = flags(kind), names(kind)
    # A config has many flags with names alike; the hint then names up to three.
    hints = 1 if default is None else 3
    for name, _ in grouped(given)[1:]:
        if name in known and known[name].positional:
            usage = " ".join(flag.shown for flag in known.values() if flag.positional)
            raise ValueError(
                refusals.no_flag(name, known[name].shown, f"{prog} {usage}")
            )
        if name not in listed:
            raise ValueError(refusals.no_option(name, listed, prog, hints))
    if "--help" not in given:
        check(given, known, prog, empty=default is not None)
    positional = any(flag.positional for flag in known.values())
    for name, flag in known.items():
        if flag.repeats:
            given = spread(name, given, positional=positional)
    more: dict[str, Any] = {} if default is None else {"default": default}
    parsed = refusals.parse(kind, prog, given, listed, description=description, **more)
    outputs.check_apart(parsed)
    return parsed


def renamed(words: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Replaces old flags by the new ones.

    Args:
      words: what was given.
      aliases: old flag to new flag.

    >>> renamed(["--old=1", "x", "--old"], {"--old": "--new"})
    ['--new=1', 'x', '--new']
    """
    out = []
    for word in words:
        name, equals, value = word.partition("=")
        out.append(f"{aliases.get(name.replace('_', '-'), name)}{equals}{value}")
    return out


def spell_out(words: Sequence[str], every: Mapping[str, Sequence[str]]) -> list[str]:
    """Replaces the word ``all`` after a flag by everything that it stands for.

    >>> every = {"--methods": ("mean", "sum"), "--axes": ("level",)}
    >>> spell_out(["--methods", "all", "--axes", "all"], every)
    ['--methods', 'mean', 'sum', '--axes', 'level']
    """
    out: list[str] = []
    for word in words:
        flag = out[-1] if out else ""
        out += every[flag] if word == "all" and flag in every else [word]
    return out


def spread(flag: str, words: Sequence[str], *, positional: bool = True) -> list[str]:
    """Repeats a flag before each of its values.

    Of a command with a positional argument that starts with a flag, a value may be
    followed by that argument, which is not the flag's: each flag keeps one value.

    Args:
      flag: the flag.
      words: what was given.
      positional: does the command take words without a flag?

    >>> spread("--adapter", ["model", "--adapter", "a", "b", "--merge", "sum"])
    ['model', '--adapter', 'a', '--adapter', 'b', '--merge', 'sum']
    """
    out: list[str] = []
    taken, several = 0, not (positional and words and words[0].startswith("-"))
    for word in words:
        if word == flag:
            taken = 1
        elif word.startswith("-"):
            taken = 0
        elif taken > 1 and several:
            out.append(flag)
        taken += bool(taken) and word != flag
        out.append(word)
    return out


def value_of(flag: str, words: Sequence[str]) -> str | None:
    """The last value of a flag, found without parsing; empty if it has none.

    >>> value_of("--method", ["a", "--method=ties"]), value_of("--out", ["a"])
    ('ties', None)
    """
    value = None
    for i, word in enumerate(words):
        name, equals, text = word.partition("=")
        if name == flag:
            after = (words[i + 1 : i + 2] or [""])[0]
            value = text if equals else after * (not after.startswith("--"))
    return value


def at_least(least: int, given: Any, *names: str) -> None:
    """Refuses a size below ``least``, by the name of its flag.

    Args:
      least: the smallest value that is fine.
      given: has the sizes as attributes.
      *names: of these attributes.

    Raises:
      ValueError: with the flag, its value, and what was expected.
    """
    for name in names:
        if getattr(given, name) < least:
            flag, got = name.replace("_", "-"), getattr(given, name)
            raise ValueError(f"--{flag} is {got}, expected {least} or more.")
