"""Every example runs from top to bottom; a notebook asserts what it claims.

Notebooks run without Jupyter: their code cells, in order, in one namespace.
"""

import ast
import json
import os
import pathlib

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _as_a_user(optax_promotes):
    """JAX's own defaults; see tests/conftest.py."""


def code_cells(path):
    """The source of each code cell of a notebook."""
    cells = json.loads(path.read_text())["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def run(sources, path):
    """The namespace after all sources have run in it, as in a kernel."""
    space = {"__name__": "example"}
    for i, source in enumerate(sources):
        exec(compile(source, f"{path.name}[{i}]", "exec"), space)
    return space


def definitions(source):
    """Functions and classes by name, as syntax trees without positions."""
    return {
        node.name: ast.dump(node)
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def test_there_are_examples():
    names = {path.name for path in (*SCRIPTS, *NOTEBOOKS)}
    assert names == {"own_model.py", "own_model.ipynb", "own_merge_and_gate.ipynb"}


def test_own_model_serves_all_machines_by_routing(capsys):
    path = EXAMPLES / "own_model.py"
    table = run([path.read_text()], path)["main"]()
    assert len(capsys.readouterr().out.splitlines()) == len(table)
    for i in range(4):
        expert = table[f"expert {i}"]
        assert expert[i] < 0.2 * table["base alone"][i]
        assert expert[i] == expert.min()  # of its machine, and of no other
    assert (table["average-activation"] < 0.3 * table["base alone"]).all()
    assert table["mean"].mean() > 0.5 * table["base alone"].mean()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_claims_hold(path, capsys):
    cells = code_cells(path)
    assert any("assert " in cell for cell in cells)
    run(cells, path)
    assert capsys.readouterr().out


def test_the_notebook_of_own_model_is_the_script():
    script = definitions((EXAMPLES / "own_model.py").read_text())
    cells = code_cells(EXAMPLES / "own_model.ipynb")
    notebook = definitions("\n\n".join(cells))
    assert script.keys() - notebook.keys() == {"main"}
    assert {name: script[name] for name in notebook} == notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_was_run_in_order_and_holds_no_paths(path):
    book = json.loads(path.read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    printed = [out["text"] for cell in code for out in cell["outputs"]]
    assert printed
    assert not any(os.sep + "tmp" in line for text in printed for line in text)
