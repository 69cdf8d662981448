"""Flags that studies share, and how a config comes from the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import platformdirs
import tyro

from jaxlora import route
from jaxlora.commands.flags import parsing
from jaxlora.io.errors import naming
from jaxlora.names import flag_hint
from jaxlora.strangers import data
from jaxlora.studies.harness.config import from_plain
from jaxlora.studies.two_hop.config import METHODS
from jaxlora.studies.two_hop.symbols.config import PRESETS, TwoHopConfig

T = TypeVar("T")


class Source(NamedTuple):
    """Where a study's configuration comes from, before flags change it."""

    study: str
    """Its name in results.json."""
    kind: Any
    """The class of its configuration."""
    presets: Mapping[str, Any]
    """Configurations by name; the first is the default."""
    methods: Sequence[str] = METHODS
    """What ``--methods all`` and ``--ranked all`` stand for."""


TWO_HOP = Source("two-hop", TwoHopConfig, PRESETS)
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


def starting_point(
    arguments: Sequence[str], source: Source = TWO_HOP
) -> tuple[str, Path | None, Any]:
    """Finds ``--preset`` and ``--from``: they set the defaults of all other flags.

    Args:
      arguments: the words of the command.
      source: the study.

    Returns:
      The preset's name, the file if there is one, and the configuration.

    Raises:
      ValueError: if the preset does not exist, or the file holds no configuration.
    """
    preset, file = (
        parsing.value_of(flag, arguments) for flag in ("--preset", "--from")
    )
    presets, usual = source.presets, next(iter(source.presets))
    if file is not None:
        if preset:
            raise ValueError(
                "Got both --preset and --from; a results.json already says everything."
            )
        return usual, Path(file), read_config(Path(file), source)
    preset = preset or usual
    if preset not in presets:
        raise ValueError(
            f"No preset {preset!r}; there are {', '.join(presets)}."
            + flag_hint(preset, presets, most=3)
        )
    return preset, None, presets[preset]


def read_config(path: Path, source: Source = TWO_HOP) -> Any:
    """Reads the configuration in a results.json (or study.json).

    Args:
      path: of the file.
      source: the study whose file it must be.

    Raises:
      ValueError: if there is none, naming what was found instead.
    """
    try:
        results = data.read(path, what="the results.json of a run", finite=False)
    except FileNotFoundError:
        raise ValueError(
            f"No file {path}; expected the results.json of a run."
        ) from None
    except OSError as error:
        raise ValueError(
            f"Cannot read {path}: {error.strerror}; expected the results.json of a run."
        ) from None
    if not isinstance(results, dict) or not isinstance(results.get("config"), dict):
        raise ValueError(f"{path} has no 'config'; expected the results.json of a run.")
    if results.get("study") != source.study:
        raise ValueError(
            f"{path} is of the study {results.get('study')!r}, expected "
            f"{source.study!r}."
        )
    with naming(path):
        return from_plain(source.kind, results["config"])


def parse_config(
    kind: type[T], prog: str, words: Sequence[str], source: Source = TWO_HOP
) -> T:
    """Parses flags over the configuration that ``--preset`` or ``--from`` names.

    Args:
      kind: the dataclass of the flags, with the fields preset, from_ and config.
      prog: the command.
      words: what was given; ``--methods all`` is every method, ``--routers all`` every
        route.
      source: the study.

    Raises:
      ValueError: if a flag or a preset does not exist, or the file is none of a run.
    """
    preset, path, config = starting_point(words, source)
    make: Any = kind
    default = make(preset=preset, from_=path, config=config)
    every = dict.fromkeys(("--methods", "--ranked"), source.methods)
    every["--routers"] = route.names()
    return parsing.parse(kind, prog, words, default=default, every=every)
