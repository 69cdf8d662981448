"""Options that sub-commands share, and how a config comes from the command line."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import platformdirs
import tyro

from jaxlora import route
from jaxlora.names import flag_hint
from jaxlora.studies.two_hop.config import (
    METHODS,
    PRESETS,
    TwoHopConfig,
    from_plain,
)

T = TypeVar("T")

Preset = Annotated[
    str,
    tyro.conf.arg(
        metavar="{" + "|".join(PRESETS) + "}",
        help="quick: one seed. standard: three. full: five seeds, five coverages.",
    ),
]
From = Annotated[
    Path | None,
    tyro.conf.arg(
        name="from", metavar="RESULTS.JSON", help="Repeat the run of a results.json."
    ),
]
# A model field that is a config or none is no sub-command.
Config = Annotated[TwoHopConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands]


def cache_dir() -> Path:
    """Where bases and experts are cached unless told otherwise."""
    return Path(platformdirs.user_cache_dir("jaxlora"))


def starting_point(arguments: Sequence[str]) -> tuple[str, Path | None, TwoHopConfig]:
    """Finds ``--preset`` and ``--from``: they set the defaults of all other flags.

    Raises:
      ValueError: if the preset does not exist, or the file holds no configuration.
    """
    preset, path = "", None
    for i, word in enumerate(arguments):
        name, _, value = word.partition("=")
        value = value or (arguments[i + 1] if i + 1 < len(arguments) else "")
        if name == "--preset":
            preset = value
        if name == "--from":
            path = Path(value)
    if path is not None:
        if preset:
            raise ValueError(
                "Got both --preset and --from; a results.json already says everything."
            )
        return "quick", path, read_config(path)
    preset = preset or "quick"
    if preset not in PRESETS:
        raise ValueError(
            f"No preset {preset!r}; there are {', '.join(PRESETS)}."
            + flag_hint(preset, PRESETS, most=3)
        )
    return preset, None, PRESETS[preset]


def read_config(path: Path) -> TwoHopConfig:
    """Reads the configuration in a results.json (or study.json).

    Raises:
      ValueError: if there is none, naming what was found instead.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"No file {path}; expected the results.json of a run."
        ) from None
    except OSError as error:
        raise ValueError(
            f"Cannot read {path}: {error.strerror}; expected the results.json of a run."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}.") from None
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise ValueError(f"{path} has no 'config'; expected the results.json of a run.")
    if found.get("study") != "two-hop":
        raise ValueError(
            f"{path} is of the study {found.get('study')!r}, expected 'two-hop'."
        )
    return from_plain(TwoHopConfig, found["config"])


EVERY = {"--methods": METHODS, "--routers": route.names()}
"""What the word ``all`` stands for after a flag."""


def parse(kind: type[T], prog: str, arguments: Sequence[str], default: T) -> T:
    """Parses flags with tyro; ``--methods all`` stands for every method.

    ``--routers all`` stands for every route.

    Raises:
      ValueError: if a flag does not exist, naming the nearest ones.
    """
    words = spell_out(arguments, EVERY)
    check_flags(words, default, prog)
    return tyro.cli(kind, prog=prog, args=words, default=default)


def spell_out(
    arguments: Sequence[str], every: Mapping[str, Sequence[str]]
) -> list[str]:
    """Replaces the word ``all`` after a flag by everything that it stands for.

    >>> spell_out(["--methods", "all"], {"--methods": ("mean", "sum")})
    ['--methods', 'mean', 'sum']
    """
    words = list(arguments)
    for i, word in enumerate(words[:-1]):
        if word in every and words[i + 1] == "all":
            words[i + 1 : i + 2] = every[word]
    return words


def check_flags(words: Sequence[str], default: Any, prog: str) -> None:
    """Refuses flags that are no fields of ``default``, a config in flags."""
    known = ["--help", *_flags(default)]
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name.replace("_", "-") not in known:
            raise ValueError(
                f"No option {name}; `{prog} --help` lists all {len(known)}."
                + flag_hint(name, known, most=3)
            )


def _flags(value: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        name = field.name.strip("_").replace("_", "-")
        if isinstance(inner, TwoHopConfig):
            yield from _flags(inner)
        elif dataclasses.is_dataclass(inner):
            yield from _flags(inner, f"{prefix}{name}.")
        else:
            yield f"--{prefix}{name}"
            if isinstance(inner, bool):
                yield f"--{prefix}no-{name}"
