"""Help as tyro writes it, made easier to read.

Empty defaults go, lines that are too long are broken, and of a long command the flags
that most runs need come first, under a title of their own.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence

WIDTH = 80
"""Columns of help."""
_STUDY = ("preset", "seeds", "methods", "out", "cache-dir", "from")
_TEXT = ("model", "seeds", "methods", "out", "cache-dir", "config", "lora.rank")
_RUN = ("adapter", "merge", "weights", "route", "gate")
_LEARN = ("out", "epochs", "learning-rate", "batch", "length", "seed")
COMMON: Mapping[str, Sequence[str]] = {
    "study two-hop": (
        *_STUDY,
        "coverages",
        "facts",
        "experts.steps",
        "lora.rank",
    ),
    "study boundary": (*_STUDY, "rhos", "coverages", "axes", "lora.rank"),
    "study word-problems": (
        *_STUDY,
        "overlaps",
        "world.levels",
        "experts.steps",
        "lora.rank",
    ),
    "study two-hop --model": (*_TEXT, "adapter", "facts", "people"),
    "study word-problems --model": (*_TEXT, "data", "train.steps", "ask.problems"),
    "data two-hop": (
        "preset",
        "seeds",
        "first-seed",
        "coverages",
        "out",
        "from",
        "world.entities",
        "world.relations",
        "world.pairs",
        "world.people",
    ),
    "train": ("model", "data", "rank", *_LEARN, "dtype"),
    "merge": (
        "method",
        "out",
        "weights",
        "rank",
        "base",
        "report",
        "seed",
        "mesh",
        "force",
        "list",
    ),
    "gate": ("adapter", "route", "data", *_LEARN, "list"),
    "generate": (
        "prompt",
        "prompts",
        *_RUN,
        "max-new-tokens",
        "temperature",
        "out",
    ),
    "eval": ("model", "data", "metric", *_RUN, "max-new-tokens", "out"),
}
"""By command, the ten flags that come first."""
_ENTRY = re.compile(r"^  (?:-\w, )?--([\w.-]+)")
Lines = list[str]


def tidy(text: str) -> str:
    r"""Help without empty defaults, doubled quotes and blank lines, and lines too long.

    Args:
      text: as tyro writes it.

    >>> tidy("--axes STR\n  What to ``sweep``.   (default:\n  None)\n\n\n--out\n")
    '--axes STR\n  What to `sweep`.\n\n--out\n'
    """
    text = re.sub(r"\s*\(default:\s*(?:None|'')?\s*\)", "", text).replace("``", "`")
    text = re.sub(r"\{None\}\|", "", text)
    lines = []
    for line in map(str.rstrip, text.splitlines()):
        lines += textwrap.wrap(line, WIDTH) if len(line) > WIDTH + 10 else [line]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


def common_first(text: str, wanted: Sequence[str]) -> str:
    r"""Moves flags of all sections to one before them; what else there is stays.

    Args:
      text: tidy help.
      wanted: names of flags without dashes, in their order.

    >>> print(common_first(" options\n -----\n  --b INT\n      B.\n  --a\n", ["a"]))
     what most runs need
     -----
      --a
    <BLANKLINE>
     options
     -----
      --b INT
          B.
    <BLANKLINE>
    """
    lines = text.splitlines()
    if " options" not in lines or not wanted:
        return text
    start = lines.index(" options")
    rest, entries = _split(lines[start:], wanted)
    named = [entries[name] for name in wanted if name in entries]
    title = [" what most runs need", lines[start + 1]]
    before = [*lines[:start], *title, *(x for entry in named for x in entry), ""]
    return "\n".join([*before, *rest]) + "\n"


def common(prog: str, known: Sequence[str]) -> Sequence[str]:
    """The flags that come first in the help of a command; none if it is short.

    Args:
      prog: the command.
      known: its flags; of two studies with one name, ``--model`` tells them apart.
    """
    name = prog.removeprefix("jaxlora ")
    model = f"{name} --model" if "--model" in known else name
    return COMMON.get(model, COMMON.get(name, ()))


def _split(lines: Lines, wanted: Sequence[str]) -> tuple[Lines, dict[str, Lines]]:
    """Lines without the entries of some flags, and those entries."""
    rest: Lines = []
    entries: dict[str, Lines] = {}
    into = rest
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if entry := _ENTRY.match(line):
            into = entries.setdefault(entry[1], []) if entry[1] in wanted else rest
        elif not (line or after).startswith(" " * 6):  # no words of that entry
            into = rest
        into.append(line)
    return rest, entries
