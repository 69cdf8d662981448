"""Which code made a number: hashes of the package's own source.

Caches and output folders are named by, or hold, the hash of the code that decides what
is in them, so that an edited or upgraded jaxlora never mixes its results with old ones.
"""

import hashlib
from pathlib import Path

import jaxlora

ROOT = Path(jaxlora.__file__).parent


def digest(*parts: str) -> str:
    """Returns the SHA-256, in hex, of the Python source of some parts of the package.

    Args:
      parts: files or folders below ``jaxlora``, such as ``"train"``.

    Raises:
      ValueError: if a part holds no source.

    >>> digest("lora.py") == digest("lora.py", "lora.py") != digest("tree.py")
    True
    """
    files: set[Path] = set()
    for part in parts:
        path = ROOT / part
        found = {path} if path.is_file() else set(path.rglob("*.py"))
        if not found:
            raise ValueError(f"jaxlora has no source at {part!r}.")
        files |= found
    text = hashlib.sha256()
    for file in sorted(files):
        text.update(file.relative_to(ROOT).as_posix().encode())
        text.update(file.read_bytes())
    return text.hexdigest()


# Taken on import: a file that is edited while a study runs is not what runs.
_BASES = ("tasks", "models", "train", "studies/two_hop/bases.py")
_EXPERTS = (*_BASES, "lora.py", "tree.py", "studies/two_hop/libraries.py")
_STUDY = (*_EXPERTS, "spectrum.py", "merge", "route", "evaluate", "studies")

BASES = digest(*_BASES)
"""Of the code that decides a base."""

EXPERTS = digest(*_EXPERTS)
"""Of the code that decides an expert."""

STUDY = digest(*_STUDY)
"""Of the code that decides a row: all but reports, commands and files."""
