"""The extension decides the format: figures as PNG, SVG or PDF, tables as CSV and more.

Equal content gives equal bytes: no format says when it was written, or by which version
of matplotlib.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from jaxlora.files import write_text, write_whole
from jaxlora.report.grid import Grid, markdown_table

FIGURES = (".png", ".svg", ".pdf")
TABLES = (".csv", ".json", ".md")
_SILENT = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def check(path: Path | None, known: Sequence[str], what: str) -> None:
    """Refuses a file whose extension names none of the formats.

    Args:
      path: of the file; None is no file.
      known: extensions, such as ``FIGURES``.
      what: it will hold, in words.

    Raises:
      ValueError: naming those that exist.

    >>> check(Path("map.jpg"), FIGURES, "figure")
    Traceback (most recent call last):
        ...
    ValueError: map.jpg ends in '.jpg', but a figure is written as .png, .svg or .pdf.
    """
    if path is None or path.suffix.lower() in known:
        return
    ending = f"ends in {path.suffix!r}" if path.suffix else "has no extension"
    names = " or ".join(filter(None, [", ".join(known[:-1]), known[-1]]))
    raise ValueError(f"{path} {ending}, but a {what} is written as {names}.")


def encode(figure: Figure, extension: str) -> bytes:
    """Returns a figure in the format of an extension.

    Args:
      figure: a finished one.
      extension: one of ``FIGURES``.
    """
    buffer = io.BytesIO()
    # Without a salt, SVG has names that are drawn at random.
    with mpl.rc_context({"svg.hashsalt": "jaxlora"}):
        figure.savefig(buffer, format=extension[1:], metadata=_SILENT[extension])
    return buffer.getvalue()


def draw(figure: Figure, path: Path) -> Path:
    """Writes a figure, whole or not at all, as its extension says; returns the path.

    Args:
      figure: a finished one.
      path: ends in one of ``FIGURES``.

    Raises:
      ValueError: if it ends in something else.
    """
    check(path, FIGURES, "figure")
    return write_whole(path, encode(figure, path.suffix.lower()))


def tabulate(frame: pd.DataFrame, path: Path) -> Path:
    """Writes a table, whole or not at all, as its extension says; returns the path.

    Args:
      frame: its index is left out.
      path: ends in one of ``TABLES``; JSON is a list of objects.

    Raises:
      ValueError: if it ends in something else.
    """
    check(path, TABLES, "table")
    make = {".csv": _csv, ".json": _json, ".md": _markdown}[path.suffix.lower()]
    return write_text(path, make(frame))


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False)


def _json(frame: pd.DataFrame) -> str:
    text = frame.to_json(orient="records", double_precision=15)
    return f"{json.dumps(json.loads(text), indent=1)}\n"


def _markdown(frame: pd.DataFrame) -> str:
    cells = frame.astype(object).where(frame.notna(), "-").map(str)
    body = tuple(map(tuple, cells.to_numpy().tolist()))
    return markdown_table(Grid("", tuple(map(str, frame.columns)), body)) + "\n"
