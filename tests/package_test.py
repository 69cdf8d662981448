"""The package as a whole: versions agree, imports point downward, files are found."""

import ast
import pathlib
from importlib import metadata

import jaxlora

ROOT = pathlib.Path(jaxlora.__file__).parent
# Each part may import from parts of its own or a lower floor; see CONTRIBUTING.md.
FLOORS = {
    "names": 0,
    "tree": 0,
    "registry": 1,
    "lora": 1,
    "spectrum": 2,
    "spectra": 3,
    "merge": 3,
    "route": 3,
    "theory": 3,
    "models": 4,
    "tasks": 4,
    "io": 4,
    "parallel": 4,
    "testing": 4,
    "reuse": 5,
    "train": 5,
    "evaluate": 5,
    "studies": 6,
    "integrations": 6,
    "report": 7,
    "commands": 8,
    "cli": 9,
}


def parts(name: str) -> str:
    return name.split(".")[1] if name.startswith("jaxlora.") else ""


def imports(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "jaxlora":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("jaxlora."):
                yield parts(node.module)
        elif isinstance(node, ast.Import):
            yield from (parts(a.name) for a in node.names if parts(a.name))


def test_version_is_that_of_the_distribution():
    assert jaxlora.__version__ == metadata.version("jaxlora")


def test_imports_point_downward():
    seen = 0
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        for there in imports(path):
            seen += 1
            assert FLOORS[there] <= FLOORS[here], f"{path} imports {there}"
    assert seen > 100


def test_merges_gates_and_theory_know_nothing_of_flax():
    for part in ("merge", "route", "theory"):
        for path in (ROOT / part).rglob("*.py"):
            assert "flax" not in path.read_text(), path


def test_data_files_are_in_the_package():
    assert (ROOT / "report" / "page.html.jinja").is_file()
    assert (ROOT / "report" / "theory.html.jinja").is_file()
    assert (ROOT / "report" / "shared.html.jinja").is_file()
    assert (ROOT / "studies" / "two_hop" / "predictions.json").is_file()
    assert (ROOT / "studies" / "theory" / "predictions.json").is_file()
    assert (ROOT / "py.typed").is_file()
