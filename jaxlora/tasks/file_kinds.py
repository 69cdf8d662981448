"""What a file is that should be text or JSON, told by how it begins.

A cause that is none ("byte 0x8b is not UTF-8") sends people to the wrong place.
"""

from collections.abc import Mapping
from pathlib import Path

BEGINNINGS: Mapping[bytes, str] = {
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PK\x03\x04": "a zip archive (or a sheet of Excel)",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"SQLite format 3": "a SQLite database",
    **{b"\x80" + bytes([i]): "a pickle, which may run code" for i in range(2, 6)},
    b"\x93NUMPY": "an array of NumPy",
    b"\x89HDF": "an HDF5 file",
    b"%PDF-": "a PDF",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"version https://git-lfs": "a pointer of Git LFS, and not the file (git lfs pull)",
    b"<!doctype": "a page of HTML, as a failed download leaves it",
    b"<html": "a page of HTML, as a failed download leaves it",
}
"""By the first bytes of a file; of what begins with <, in small letters."""
SUFFIXES: Mapping[str, str] = {
    ".csv": "a table of comma-separated values",
    ".tsv": "a table of tab-separated values",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".xml": "XML",
}
"""By a name's end."""
_EXPECTED = "one JSON object a line"


def check(path: Path, begin: bytes, expected: str = _EXPECTED) -> None:
    """Refuses what is no text, or text of another form.

    Args:
      path: of the file.
      begin: its first bytes.
      expected: what should be there, for messages.

    Raises:
      ValueError: that says what the file is.
    """
    plain = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    marked = plain.lower() if plain.startswith(b"<") else begin
    kind = next((x for y, x in BEGINNINGS.items() if marked.startswith(y)), None)
    if kind is None and plain[:1] not in (b"{", b"[", b""):
        kind = SUFFIXES.get(path.suffix.lower())
    if kind is None and b"\0" in begin:
        kind = "text in UTF-16, or damaged, as it holds zero bytes"
    if kind is not None:
        raise ValueError(f"{path} is {kind}; expected {expected}, in UTF-8.")
