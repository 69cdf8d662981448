"""What a library knows of its experts: names, files, ranks, and where they come from.

Every field is checked when it is set: file names are names within the folder, hashes
are hashes, and provenance is text, numbers, booleans or null.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from jaxlora.io import tensors
from jaxlora.names import check_several

Scalar: TypeAlias = str | int | float | bool | None

MAX_RANK = 2**16
"""As in an adapter_config.json."""

# No slash and no leading dot: the name cannot leave the folder.
_FILE = re.compile(r"[A-Za-z0-9][\w-]{0,100}\.safetensors", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an expert comes from; whatever is not known is None."""

    alpha: float | None = None
    """LoRA's alpha; what counts are the scales among the tensors."""
    data: str | None = None
    """Hash, or another name, of the data it was trained on."""
    seed: int | None = None
    """Of its training."""
    facts: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    """Anything else, as JSON scalars."""

    def __post_init__(self):
        _check_given("alpha", self.alpha, _is_number, "a finite number")
        _check_given("data", self.data, _is_line, "a line of text")
        _check_given("seed", self.seed, _is_count, "a whole number from 0")
        _check("facts", self.facts, _is_facts, "an object of text, numbers or booleans")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One expert."""

    name: str
    """One line of text."""
    file: str
    """Name of its file within the folder."""
    sha256: str
    """Of that file."""
    ranks: Mapping[str, int]
    """Rank of each site, padding left out."""
    origin: Origin = dataclasses.field(default_factory=Origin)
    """Where it comes from."""

    def __post_init__(self):
        _check("name", self.name, _is_name, "a line of text")
        _check("file", self.file, _is_file, "a name such as 'expert-1.safetensors'")
        _check("sha256", self.sha256, _is_hash, "64 hexadecimal digits")
        _check("ranks", self.ranks, _is_ranks, f"numbers from 1 to {MAX_RANK} by site")
        for site in self.ranks:
            check_site(site)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entries:
    """All experts of a library, in order."""

    base: str | None
    """Identity of the base."""
    experts: tuple[Entry, ...]
    """Names are there once each."""

    def __post_init__(self):
        _check_given("base", self.base, _is_line, "a line of text")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the experts."""
        return tuple(entry.name for entry in self.experts)

    def added(self, entry: Entry) -> "Entries":
        """Returns the entries with one more.

        Args:
          entry: goes to the end.

        Raises:
          ValueError: if its name is taken.
        """
        self.check_new(entry.name)
        return dataclasses.replace(self, experts=(*self.experts, entry))

    def check_new(self, name: str) -> None:
        """Refuses the name of an expert that is there already.

        Args:
          name: of a new expert.

        Raises:
          ValueError: naming it.
        """
        if name in self.names:
            raise ValueError(
                f"The library has an expert {name!r} already; a name is there once."
            )

    def without(self, name: str) -> "Entries":
        """Returns the entries with one less.

        Args:
          name: of the expert that is left out.

        Raises:
          ValueError: if there is none of this name.
        """
        self.chosen([name])
        kept = tuple(entry for entry in self.experts if entry.name != name)
        return dataclasses.replace(self, experts=kept)

    def chosen(self, names: Sequence[str] | None) -> "Entries":
        """Returns the entries of some experts.

        Args:
          names: of the experts, in the order that is wanted; None for all.

        Raises:
          ValueError: if a name is unknown, or asked for twice, or a single one stands
            where a list is meant.
        """
        if names is None:
            return self
        check_several("names", names)
        known = {entry.name: entry for entry in self.experts}
        for i, name in enumerate(names):
            if name not in known:
                raise ValueError(
                    f"The library has no expert {name!r}; it has "
                    f"{', '.join(map(repr, self.names[:8])) or 'none'}."
                )
            if name in names[:i]:
                raise ValueError(f"The expert {name!r} is asked for twice.")
        return dataclasses.replace(self, experts=tuple(known[name] for name in names))


def check_site(site: str) -> None:
    """Refuses a name that is no path of a leaf, such as ``layers/attn/q_proj/kernel``.

    Args:
      site: the name.

    Raises:
      ValueError: naming it.
    """
    parts = site.split("/")
    if not _is_line(site) or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"The site {site[:80]!r} has no name of a leaf, expected parts joined by /."
        )


def _check(field: str, value: Any, test: Callable[[Any], bool], expected: str) -> None:
    if not test(value):
        raise ValueError(f"{field} is {tensors.short(value)}, expected {expected}.")


def _check_given(field: str, value: Any, test: Callable[[Any], bool], expected: str):
    if value is not None:  # which means that it is not known
        _check(field, value, test, expected)


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 1000 and value.isprintable()


def _is_name(value: Any) -> bool:
    return _is_line(value) and bool(value)


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and _FILE.fullmatch(value) is not None


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**64


def _is_number(value: Any) -> bool:
    integer = type(value) is int and abs(value) < 2**63  # bool is an int as well
    return integer or (isinstance(value, float) and math.isfinite(value))


def _is_ranks(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        # A bool is an int to isinstance.
        isinstance(site, str) and type(rank) is int and 1 <= rank <= MAX_RANK
        for site, rank in value.items()
    )


def _is_facts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _is_name(key)
        and (fact is None or isinstance(fact, str | bool) or _is_number(fact))
        for key, fact in value.items()
    )
