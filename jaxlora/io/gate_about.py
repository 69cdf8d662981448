"""What a gate's file says beside its arrays: library, base, and how it was made."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlora.io import tensors, trust
from jaxlora.io.library_entries import Scalar
from jaxlora.strangers import data

VERSION = 2
"""Of the format, with hashes; the first, without them, is read as well."""

FIELDS = ("top_k", "temperature")
"""Fields of a route that a file may change."""


_STORED_FINGERPRINT = "base_mark"  # its name in files, which stays


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What a gate was made for, and how."""

    route: str
    """Name of its preset, or ``module:attribute``."""
    experts: tuple[str, ...]
    """Names of the E experts, in order."""
    fields: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Those of ``FIELDS`` that differ from the preset's."""
    base: str | None = None
    """Name of the base."""
    base_fingerprint: tuple[float, ...] = ()
    """Of :func:`.gate_file.fingerprint`; empty if it is not known."""
    training: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    """How the keys came about, as JSON scalars."""

    def __post_init__(self):
        text = (self.route, *self.experts, self.base or "")
        if not all(isinstance(x, str) and x.isprintable() for x in text):
            raise ValueError("route, experts and base must be lines of text.")
        if not self.route or not self.experts:
            raise ValueError("it names no route, or no experts.")
        if odd := sorted(set(self.fields) - set(FIELDS)):
            raise ValueError(
                f"it changes the field {odd[0]!r}, expected only {FIELDS}."
            )
        # JSON in Python reads NaN and Infinity, which no score survives.
        if not all(map(_is_number, (*self.fields.values(), *self.base_fingerprint))):
            raise ValueError("fields and base_fingerprint must be finite numbers.")
        plain = (str, bool, int, float, type(None))
        if not all(isinstance(x, plain) for x in self.training.values()):
            raise ValueError("training must be an object of text, numbers or booleans.")


def dumps(about: About) -> str:
    """Returns the text of what a file says.

    Args:
      about: what the gate was made for.

    >>> loads(dumps(About(route="linear", experts=("ann", "bo")))).experts
    ('ann', 'bo')
    """
    facts = {"version": VERSION, **dataclasses.asdict(about)}
    facts[_STORED_FINGERPRINT] = facts.pop("base_fingerprint")
    return json.dumps(facts, allow_nan=False, sort_keys=True)


def file_hash(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256, in hex, of all that a gate's file says and holds.

    Args:
      text: as :func:`dumps` made it.
      arrays: by name.
    """
    sums = {name: _array_hash(values) for name, values in arrays.items()}
    return trust.json_hash({"about": text, "arrays": sums})


def _array_hash(values: np.ndarray) -> list[Any]:
    sha256 = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return [list(values.shape), values.dtype.name, sha256]


def version(text: str) -> int:
    """Returns the version of the format.

    Args:
      text: that :func:`loads` read.
    """
    return json.loads(text)["version"]


def loads(text: str) -> About:
    """Reads what a file says.

    Args:
      text: as :func:`dumps` writes it.

    Raises:
      ValueError: if it is another text.
    """
    raw = data.loads(text)
    fields = {field.name for field in dataclasses.fields(About)} - {"base_fingerprint"}
    known = {"version", _STORED_FINGERPRINT, *fields}
    # A field that is not known may change what the gate means: refuse it.
    if not isinstance(raw, dict) or set(raw) != known:
        odd = sorted(set(raw) ^ known) if isinstance(raw, dict) else ["an object"]
        raise ValueError(f"it differs from what is expected in {', '.join(odd)[:200]}")
    if raw.pop("version") not in (1, VERSION):
        raise ValueError(f"it is of another version than {VERSION}")
    for name in ("experts", _STORED_FINGERPRINT):
        if not isinstance(raw[name], list):
            raise ValueError(f"{name} is {tensors.short(raw[name])}, expected a list")
    for name in ("fields", "training"):
        if not isinstance(raw[name], dict):
            raise ValueError(f"{name} is {tensors.short(raw[name])}, not an object")
    experts, fingerprint = raw.pop("experts"), raw.pop(_STORED_FINGERPRINT)
    return About(experts=tuple(experts), base_fingerprint=tuple(fingerprint), **raw)


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
