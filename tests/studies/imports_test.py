"""A study uses the harness and the public face of another study, never its inside."""

import ast
import pathlib

import pytest

from jaxlora import studies

ROOT = pathlib.Path(studies.__file__).parent
STUDIES = sorted(
    path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()
)


def imported(file: pathlib.Path) -> set[str]:
    """Modules below jaxlora.studies that a file imports, as ``study.module``."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name of a package may be a module of it.
            for alias in node.names:
                below = ROOT.parents[1].joinpath(*node.module.split("."), alias.name)
                module = below.is_dir() or below.with_suffix(".py").exists()
                names.add(f"{node.module}.{alias.name}" if module else node.module)
    prefix = "jaxlora.studies."
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


@pytest.mark.parametrize("study", STUDIES)
def test_no_study_imports_the_inside_of_another(study):
    files = list((ROOT / study).rglob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            other = name.split(".")[0]
            allowed = {study} if study == "harness" else {study, "harness"}
            assert other in allowed or name == other, f"{file.name} imports {name}"


def test_the_studies_are_looked_at():
    assert {"harness", "theory", "two_hop"} <= set(STUDIES)
    assert imported(ROOT / "theory" / "decoder.py") >= {"two_hop", "theory.design"}
