"""What tyro prints, caught as text: help is tidied, a refusal becomes one sentence."""

import contextlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tyro

from jaxlora.commands import pages, talk
from jaxlora.commands.catalog import COMMANDS, TEXT_STUDIES
from jaxlora.commands.flags.help_text import WIDTH, common, common_first, tidy
from jaxlora.commands.flags.synonyms import meant
from jaxlora.names import flag_hint, hint

T = TypeVar("T")
_ROUTE = {"--top-k": "--route-top-k", "--temperature": "--route-temperature"}
RENAMED: Mapping[str, Mapping[str, str]] = {
    "jaxlora generate": {"--sample-top-k": "--top-k"},
    "jaxlora eval": {**_ROUTE, "--limit": "--records"},
    "jaxlora forward": _ROUTE,
    "jaxlora gate": _ROUTE,
    "jaxlora routes": {**_ROUTE, "--out": "--figure", "--csv": "--table"},
    "jaxlora inspect": {"--json": "--table"},
    "jaxlora diagnose": {"--rows": "--data"},
    "jaxlora merge": {"--data": "--statistics"},
}
"""By command, old words whose meaning another command had, and the new ones."""
_HELP = frozenset({"-h", "--help"})
_KINDS = {"INT": "a whole number", "'int'": "a whole number", "FLOAT": "a number"}
_VALUE = r"Error parsing (\S+): (?:invalid literal for int\(\) with base 10|could not "
_VALUE += r"convert string to float|Could not find valid parse for arguments): (.*)"
_UNION = (
    r"Error parsing (\S+): no type matching .* could be instantiated from \[(.*?)\]"
)


def parse(
    kind: type[T], prog: str, words: Sequence[str], known: Sequence[str], **more: Any
) -> T:
    """As ``tyro.cli``, with help and refusals in our form.

    Args:
      kind: the dataclass of the flags.
      prog: the command.
      words: what was given.
      known: every flag.
      **more: of ``tyro.cli``.

    Raises:
      ValueError: if tyro refuses the words, in one sentence.
      SystemExit: after help.
    """
    asked = bool(_HELP & set(words))
    out, err = io.StringIO(), io.StringIO()
    try:
        # Into text that is no terminal's, tyro draws neither frames nor colours.
        with (
            # Refusals get so many columns that no word of them is broken.
            environment(COLUMNS=str(WIDTH if asked else 10_000)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            return tyro.cli(kind, prog=prog, args=words, **more)
    except ValueError as error:  # of a dataclass whose flags have no prefix
        if type(error) is not ValueError:
            raise
        raise ValueError(_by_flag("", str(error), known)) from None
    except SystemExit as ended:
        if ended.code:
            raise ValueError(sentence(err.getvalue(), prog, known)) from None
        text = common_first(tidy(out.getvalue()), common(prog, known))
        entry = COMMANDS.get(prog.removeprefix("jaxlora "))
        text += talk.HELP * (prog in talk.LONG)
        text += talk.MANY * (entry is not None and entry.many)
        print(text, end="")
        raise


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Variables that others ask the system for, such as COLUMNS, for a while.

    Args:
      **values: by name.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


def no_option(name: str, known: Sequence[str], prog: str, hints: int = 1) -> str:
    """The sentence for a flag that does not exist, or is called otherwise now.

    >>> no_option("--sede", ["--seed", "--out"], "jaxlora merge")
    'No option --sede; `jaxlora merge --help` lists all 2. Did you mean --seed?'
    >>> no_option("--csv", ["--table", "--out"], "jaxlora routes")
    'No option --csv: it is --table now; `jaxlora routes --help` lists all 2.'
    >>> no_option("--adapter", ["--seeds"], "jaxlora study two-hop")
    'No option --adapter without --model DIR: it belongs to the study of a language ...
    """
    if (now := RENAMED.get(prog, {}).get(name)) in known:
        return (
            f"No option {name}: it is {now} now; `{prog} --help` lists all "
            f"{len(known)}."
        )
    study = prog.removeprefix("jaxlora ")
    field = f".{name.lstrip('-')}"  # of a config has the nearer hint below
    if study in TEXT_STUDIES and not any(x.endswith((name, field)) for x in known):
        page = pages.file(study + pages.TEXT).read_text(encoding="utf-8")
        if name in pages.flags(page):
            return (
                f"No option {name} without --model DIR: it belongs to the study of a "
                f"language model; `{prog} --model DIR --help` lists its options."
            )
    same = meant(name, known)[:hints]
    nearest = f" Did you mean {' or '.join(same)}?" if same else ""
    nearest = nearest or flag_hint(name, known, most=hints)
    return f"No option {name}; `{prog} --help` lists all {len(known)}.{nearest}"


def no_flag(name: str, shown: str, usage: str) -> str:
    """The sentence for the name of an argument that is given without one.

    >>> no_flag("--model", "MODEL", "jaxlora fuse MODEL ADAPTER")
    'No option --model: MODEL stands without it, as in `jaxlora fuse MODEL ADAPTER`.'
    """
    return f"No option {name}: {shown} stands without it, as in `{usage}`."


def no_value(name: str, prog: str) -> str:
    """The sentence for a flag after which nothing stands.

    >>> no_value("--out", "jaxlora merge")
    'Got --out without a value; `jaxlora merge --help` says what it takes.'
    """
    return f"Got {name} without a value; `{prog} --help` says what it takes."


def sentence(text: str, prog: str, known: Sequence[str]) -> str:
    r"""What tyro says of words that it refuses, with a way out.

    Args:
      text: as tyro prints it: a title, what is wrong, and help of the flag.
      prog: the command.
      known: every flag.

    >>> sentence("Missing argument\n---\n Missing value for argument '--seeds'. Ex"
    ...          "pected 1 values.\n---\n For full helptext, run x", "jaxlora x", [])
    'Got --seeds without a value; `jaxlora x --help` says what it takes.'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")][1:]
    ends = ("Argument helptext", "For full helptext")
    count = next((i for i, x in enumerate(lines) if x.startswith(ends)), len(lines))
    body, more = " ".join(lines[:count]), " ".join(lines[count:])
    if body.startswith("Missing from"):
        return _missing(lines[1:count], prog, known)
    if match := re.match(r"Missing value for argument '([^']+)'", body):
        return no_value(match[1], prog)
    if match := re.match(
        r"invalid choice '(.*)' for argument '(.*)'\. .*\((.*)\)", body
    ):
        return _choice(*match.groups())
    if match := re.match(r"Unrecognized options: (\S+)", body):
        return _surplus(match[1], prog, known)
    if match := re.match(_VALUE, body):
        kind = "INT " * ("int()" in body)
        return _value(match[1], match[2].strip("[]"), kind + more)
    if match := re.match(_UNION, body):
        return _value(match[1], match[2], more + body)
    if match := re.match(r"Error parsing (\S+): (.*)", body):
        return _by_flag(match[1], match[2], known)
    return f"{body.rstrip('.')}; `{prog} --help` lists every option."


def _missing(lines: Sequence[str], prog: str, known: Sequence[str]) -> str:
    """Of pairs of lines: what is required, and its help; then what is no option.

    >>> _missing(["--model DIR", "A folder.", "Unrecognized options:", "my/model"],
    ...          "jaxlora eval", [])
    'Got no --model DIR (A folder); did you mean --model my/model? `jaxlora eval ...'
    """
    surplus = ""
    for i, line in enumerate(lines):
        if line.startswith("Unrecognized options:"):
            words = " ".join(lines[i:]).split()[2:]
            lines, surplus = lines[:i], words[0] if words else ""
            break
    if surplus.startswith("-"):
        return no_option(surplus, known, prog)
    names, helps = lines[::2], [x.removesuffix("(required)") for x in lines[1::2]]
    what = " and no ".join(names)
    meaning = "; ".join(text.strip().rstrip(".") for text in helps)
    flag = names[0].partition(" ")[0]
    hint = f"did you mean {flag} {surplus}? " if surplus and flag[:1] == "-" else ""
    return f"Got no {what} ({meaning}); {hint}`{prog} --help` shows how it is given."


def _choice(got: str, flag: str, choices: str) -> str:
    """For a value that is none of a few.

    >>> _choice("locl", "--search", "'local', 'exhaustive'")
    "--search is 'locl', expected local or exhaustive; did you mean 'local'?"
    """
    names = [name.strip(" '") for name in choices.split(",")]
    expected = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"{flag} is {got!r}, expected {expected}{hint(got, names)}"


def _surplus(word: str, prog: str, known: Sequence[str]) -> str:
    if word.startswith("-"):
        return no_option(word, known, prog)
    nearest = flag_hint(f"--{word}", known)
    return (
        f"Got {word!r}, which belongs to no option; `{prog} --help` lists all "
        f"{len(known)}.{nearest}"
    )


def _value(flag: str, got: str, more: str) -> str:
    """For a value that is no number; ``more`` is the help of the flag.

    >>> _value("--seeds", "'two'", "--seeds INT Number of bases. (default: 1)")
    "--seeds is 'two', expected a whole number, as in `--seeds 1`."
    """
    kinds = (kind for name, kind in _KINDS.items() if name in more)
    default = re.search(r"\(default: ([^()]+)\)", more)
    shown = default[1] if default and default[1] != "None" else "1"
    expected = next(kinds, "a number")
    return f"{flag} is {got}, expected {expected}, as in `{flag} {shown}`."


def _by_flag(where: str, message: str, known: Sequence[str]) -> str:
    """A sentence of ours, in which a field is called by its flag.

    >>> _by_flag("config.lora", "alpha is 0, expected more.", ["--lora.alpha"])
    '--lora.alpha is 0, expected more.'
    """
    field, space, rest = message.partition(" ")
    group = where.removeprefix("config").lstrip(".")
    names = (f"--{group}.{field}", f"--{field}")  # a group may have no prefix
    flags = [flag for x in names if (flag := x.replace("_", "-")) in known]
    if not flags or not rest.startswith(("is ", "has ")):
        return message
    return f"{flags[0]}{space}{rest}"
