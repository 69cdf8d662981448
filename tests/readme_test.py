"""READMEs: short at the top, every line of code run, every package with a page."""

import glob
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
READMES = sorted(
    path.relative_to(ROOT)
    for part in (".", "jaxlora/**", "experiments/**", "tpu", "tests/**")
    for path in ROOT.glob(f"{part}/README.md")
)
LINES = 150


def collected() -> set[pathlib.Path]:
    """READMEs that pytest reads as doctests, where it is given no arguments."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    out = set()
    for pattern in settings["tool"]["pytest"]["ini_options"]["testpaths"]:
        for match in glob.glob(pattern, root_dir=ROOT):
            path = ROOT / match
            out |= {path} if path.is_file() else set(path.rglob("README.md"))
    return {path.relative_to(ROOT) for path in out}


def blocks(text: str):
    """Fenced blocks, each with its language."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readme_at_the_top_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES


def test_pytest_reads_every_readme():
    assert len(READMES) > 20
    assert set(READMES) == collected()


@pytest.mark.parametrize("path", READMES, ids=str)
def test_every_line_of_python_is_a_doctest(path):
    for language, text in blocks((ROOT / path).read_text(encoding="utf-8")):
        if language in ("python", "py", "pycon"):
            first = text.lstrip().splitlines()[0]
            assert first.startswith(">>> "), text
        else:
            # What is imported or called in Python must not hide in another block.
            assert not re.search(r"^(import|from) [\w.]+", text, re.MULTILINE), text
            assert language in ("bash", "json", "text"), (language, text)


def test_every_package_has_a_page():
    for package in (ROOT / "jaxlora").iterdir():
        if (package / "__init__.py").is_file() and package.name != "commands":
            assert (package / "README.md").is_file(), package
