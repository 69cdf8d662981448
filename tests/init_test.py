"""``import jaxlora`` takes no time, offers its parts, and is that of this tree."""

import pathlib
import subprocess
import sys

import pytest

import jaxlora

ROOT = pathlib.Path(jaxlora.__file__).parents[1]
# Not for import: what reads the command line, and helpers of the parts.
INNER = {"cli", "commands", "files", "locks", "names", "registry", "stopping"}
INNER |= {"periods", "strangers"}


def said(code, folder="/"):
    """What a new process prints, which starts in a folder."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=folder
    )
    return done.stdout.strip()


def test_the_import_is_light():
    code = (
        "import sys, time; start = time.process_time(); import jaxlora; "
        "print(time.process_time() - start, 'jax' in sys.modules, "
        "'numpy' in sys.modules, len(dir(jaxlora)) > 12)"
    )
    seconds, *loaded = said(code).split()
    assert loaded == ["False", "False", "True"]
    assert float(seconds) < 0.3


def test_every_part_is_offered():
    parts = {path.stem for path in (ROOT / "jaxlora").glob("*.py")}
    parts |= {path.parent.name for path in (ROOT / "jaxlora").glob("*/__init__.py")}
    assert set(jaxlora.PARTS) == parts - INNER - {"__init__"}
    assert set(jaxlora.PARTS) <= set(dir(jaxlora))
    for name in jaxlora.PARTS:
        if name != "integrations":  # needs the harness
            assert getattr(jaxlora, name).__name__ == f"jaxlora.{name}"


def test_a_part_that_does_not_exist_names_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'merge'"):
        _ = jaxlora.merg  # pyrefly: ignore


def test_an_installation_is_not_shadowed_by_the_folder():
    code = "import jaxlora; print(jaxlora.__file__)"
    elsewhere, here = pathlib.Path(said(code)), pathlib.Path(said(code, ROOT))
    # Else some other copy is installed, and what runs depends on where one stands.
    assert elsewhere.samefile(here), "run `pip install -e .` once more"
    assert here.samefile(jaxlora.__file__)
