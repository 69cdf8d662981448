"""``library.json``: which experts a library has, and where they come from.

Every field that is read is checked: file names are names within the folder, hashes are
hashes, and provenance is text, numbers, booleans or null.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from jaxlora.io import tensors
from jaxlora.io.errors import naming
from jaxlora.io.header import Entry as Shape

Scalar: TypeAlias = str | int | float | bool | None

INDEX = "library.json"
"""The name of the file."""

VERSION = 1
"""Of the format; another one is refused."""

MAX_RANK = 2**16
"""As in an adapter_config.json."""

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
        _check("alpha", self.alpha, _is_number, "a finite number")
        _check("data", self.data, _is_line, "a line of text")
        _check("seed", self.seed, _is_count, "a whole number from 0")
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
        _check("base", self.base, _is_line, "a line of text")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the experts."""
        return tuple(entry.name for entry in self.experts)

    def added(self, entry: Entry) -> "Entries":
        """Returns the entries with one more.

        Raises:
          ValueError: if its name is taken.
        """
        self.check_new(entry.name)
        return dataclasses.replace(self, experts=(*self.experts, entry))

    def check_new(self, name: str) -> None:
        """Refuses the name of an expert that is there already.

        Raises:
          ValueError: naming it.
        """
        if name in self.names:
            raise ValueError(
                f"The library has an expert {name!r} already; a name is there once."
            )

    def without(self, name: str) -> "Entries":
        """Returns the entries with one less.

        Raises:
          ValueError: if there is none of this name.
        """
        self.chosen([name])
        kept = tuple(entry for entry in self.experts if entry.name != name)
        return dataclasses.replace(self, experts=kept)

    def chosen(self, names: Sequence[str] | None) -> "Entries":
        """Returns those of these names, in this order; all, if None.

        Raises:
          ValueError: if a name is unknown, or asked for twice.
        """
        if names is None:
            return self
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


def dumps(found: Entries) -> str:
    """Returns the text of library.json."""
    experts = [dataclasses.asdict(entry) for entry in found.experts]
    whole = {"version": VERSION, "base": found.base, "experts": experts}
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def read(folder: Path) -> Entries:
    """Reads and checks library.json.

    Raises:
      ValueError: naming the file, the field, what it holds and what was expected.
    """
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {INDEX}, expected a library; jaxlora.io.library writes "
            f"one, and adapters of PEFT are read by jaxlora.io.collection."
        )
    raw = tensors.read_json(path, unique=True)
    with naming(path):
        return _entries(raw)


def check_site(site: str) -> None:
    """Refuses a name that is no path of a leaf, such as ``layers/attn/q_proj/kernel``.

    Raises:
      ValueError: naming it.
    """
    parts = site.split("/")
    if not _is_line(site) or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"The site {site[:80]!r} has no name of a leaf, expected parts joined by /."
        )


def check_tensors(path: Path, entry: Entry, found: Mapping[str, Shape]) -> None:
    """Refuses a file whose tensors are not those of the entry.

    Raises:
      ValueError: naming file, tensor, what was found and what was expected.
    """
    expected = {
        f"{site}/{part}" for site in entry.ranks for part in ("a", "b", "scale")
    }
    if odd := sorted(expected ^ found.keys()):
        state = "lacks" if odd[0] in expected else "has"
        raise ValueError(
            f"{path} {state} the tensor {odd[0]!r}, unlike what {INDEX} says of "
            f"{entry.name!r}."
        )
    for site, rank in entry.ranks.items():
        a, b, scale = (found[f"{site}/{part}"].shape for part in ("a", "b", "scale"))
        whole = len(a) == len(b) >= 2 and a[:-2] == b[:-2] == scale
        if not whole or a[-1] != rank or b[-2] != rank or not all(a + b):
            raise ValueError(
                f"{path} has a, b, scale of {site!r} with the shapes {a}, {b}, "
                f"{scale}, expected [..., D, {rank}], [..., {rank}, F], [...]: {INDEX} "
                f"gives it the rank {rank}."
            )
        for part in ("a", "b", "scale"):
            tensors.check_dtype(f"{site}/{part}", found[f"{site}/{part}"])


def _entries(raw: Mapping[str, Any]) -> Entries:
    if type(raw.get("version")) is not int or raw["version"] != VERSION:
        raise ValueError(
            f"it has the version {str(raw.get('version'))[:40]}, expected {VERSION}; "
            f"it is no library, or of another release of jaxlora."
        )
    experts = raw.get("experts")
    if not isinstance(experts, list) or any(not isinstance(e, dict) for e in experts):
        raise ValueError("experts is no list of objects.")
    found = Entries(base=raw.get("base"), experts=())
    whole: list[Entry] = []
    for i, fields in enumerate(experts):
        try:
            whole.append(_entry(fields))
        except ValueError as error:
            raise ValueError(f"expert {i}: {error}") from None
    names = [entry.name for entry in whole]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"it lists the expert {twice!r} twice, expected once.")
    return dataclasses.replace(found, experts=tuple(whole))


def _entry(fields: Mapping[str, Any]) -> Entry:
    origin = fields.get("origin")
    _check("origin", origin, lambda x: isinstance(x, dict), "an object")
    known = {field.name for field in dataclasses.fields(Origin)}
    parts = {key: origin[key] for key in known & origin.keys()} if origin else {}
    given: dict[str, Any] = {
        key: fields.get(key) for key in ("name", "file", "sha256", "ranks")
    }
    return Entry(**given, origin=Origin(**parts))


def _check(field: str, value: Any, test: Callable[[Any], bool], expected: str) -> None:
    if field in ("alpha", "data", "seed", "base", "origin") and value is None:
        return
    if not test(value):
        raise ValueError(f"{field} is {tensors.short(value)}, expected {expected}.")


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
    whole = type(value) is int and abs(value) < 2**63
    return whole or (isinstance(value, float) and math.isfinite(value))


def _is_ranks(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(site, str) and type(rank) is int and 1 <= rank <= MAX_RANK
        for site, rank in value.items()
    )


def _is_facts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _is_name(key)
        and (fact is None or isinstance(fact, str | bool) or _is_number(fact))
        for key, fact in value.items()
    )
