"""The package as a whole: versions agree, imports point downward, names speak."""

import ast
import functools
import graphlib
import pathlib
from collections import Counter
from importlib import metadata

import pytest

import jaxlora

ROOT = pathlib.Path(jaxlora.__file__).parent
# Each part may import from parts of its own or a lower floor; see CONTRIBUTING.md.
FLOORS = {
    "files": 0,
    "locks": 0,
    "names": 0,
    "periods": 0,
    "stopping": 0,
    "strangers": 0,
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
    "diagnose": 5,
    "plan": 6,
    "studies": 7,
    "integrations": 7,
    "report": 8,
    "commands": 9,
    "cli": 10,
}
# Imports of one study's inside by another; what studies share is in studies/harness.
CROSSINGS = 0
# Values that travel together are one dataclass. What may still take more, and how much:
PARAMETERS = 8
LONG: dict[str, int] = {}
# Names that say nothing about a value, and how often a part may still bind one of them.
EMPTY = {"found", "told", "said", "own", "one", "put", "made", "whole"}
CEILINGS: dict[str, int] = {}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Syntax trees by dotted name below ``jaxlora``, which itself is the empty name."""
    out = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        out[name.removesuffix("__init__").removesuffix(".")] = ast.parse(
            path.read_text()
        )
    return out


def targets(module: ast.Module) -> list[str]:
    """What a module imports from jaxlora, as names below it, wherever it does."""
    out = []
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module:
            out += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            out += [alias.name for alias in node.names]
    return [x.removeprefix("jaxlora.") for x in out if x.startswith("jaxlora.")]


def module_of(name: str) -> str:
    """The module that a name is, or that it is defined in."""
    return name if name in modules() else name.rpartition(".")[0]


def functions(tree: ast.AST, prefix: str = ""):
    """Public functions and methods that a module defines, with their names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (
            not node.name.startswith("_") or node.name in ("__init__", "__call__")
        ):
            yield prefix + node.name, node.args


def width(args: ast.arguments) -> int:
    """Parameters, ``*args`` and ``**kwargs`` for one each, ``self`` for none."""
    plain = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    stars = (args.vararg is not None) + (args.kwarg is not None)
    return sum(arg.arg not in ("self", "cls") for arg in plain) + stars


def bound(tree: ast.AST) -> Counter[str]:
    """How often each name is bound: to a value, an argument or a function."""
    out = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            out[node.id] += 1
        elif isinstance(node, ast.arg):
            out[node.arg] += 1
        elif isinstance(node, ast.FunctionDef | ast.ExceptHandler) and node.name:
            out[node.name] += 1
        elif isinstance(node, ast.alias) and node.asname:
            out[node.asname] += 1
    return out


def test_version_is_that_of_the_distribution():
    assert jaxlora.__version__ == metadata.version("jaxlora")


def test_imports_point_downward():
    edges = [
        (here, there.partition(".")[0])
        for here, module in modules().items()
        if here
        for there in targets(module)
    ]
    assert len(edges) > 100
    for here, there in edges:
        assert FLOORS[there] <= FLOORS[here.partition(".")[0]], f"{here} -> {there}"


def test_no_module_imports_itself_by_a_detour():
    graph = {
        here: {module_of(there) for there in targets(module)} - {here}
        for here, module in modules().items()
    }
    assert sum(map(len, graph.values())) > 300
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which shows one


def test_no_study_imports_the_inside_of_another():
    studies = {x.name for x in (ROOT / "studies").iterdir() if x.is_dir()}
    studies -= {"harness", "__pycache__"}
    assert len(studies) > 1
    crossings = {
        f"{here} imports {there}"
        for here, module in modules().items()
        if here.startswith("studies.") and here.split(".")[1] in studies
        for there in map(module_of, targets(module))
        if there.startswith("studies.")
        and there.count(".") > 1  # not its face alone
        and there.split(".")[1] in studies - {here.split(".")[1]}
    }
    assert len(crossings) <= CROSSINGS, "\n".join(crossings)


def test_no_public_function_takes_more_than_eight_parameters():
    widths = {
        f"{where}.{name}": width(args)
        for where, module in modules().items()
        if not any(part.startswith("_") for part in where.split("."))
        for name, args in functions(module)
    }
    assert len(widths) > 500
    long = {x: n for x, n in widths.items() if n > LONG.get(x, PARAMETERS)}
    assert not long
    assert not {x for x in LONG if widths.get(x, PARAMETERS + 1) <= PARAMETERS}


@pytest.mark.parametrize("part", FLOORS)
def test_names_say_what_a_thing_is(part):
    uses = {
        (where, name): count
        for where, module in modules().items()
        if where.partition(".")[0] == part
        for name, count in bound(module).items()
        if name in EMPTY
    }
    assert sum(uses.values()) <= CEILINGS.get(part, 0), uses


def test_every_way_to_bind_a_name_is_counted():
    source = """
    import x as a
    def b(c, *d, e=1, **f): pass
    for g in (h := 1, 2): i: int = g
    with x as j: k += [l for l in m if n(o=p)]
    try: pass
    except x as q: r, (s, *t) = u.v = lambda w: w
    """
    counts = bound(ast.parse("if y:\n" + source))
    assert counts == Counter("abcdefghijklqrstw")


def test_merges_gates_and_theory_know_nothing_of_flax():
    for part in ("merge", "route", "theory"):
        for path in (ROOT / part).rglob("*.py"):
            assert "flax" not in path.read_text(), path


def test_data_files_are_in_the_package():
    assert (ROOT / "report" / "page.html.jinja").is_file()
    assert (ROOT / "report" / "theory.html.jinja").is_file()
    assert (ROOT / "report" / "regimes.html.jinja").is_file()
    assert (ROOT / "report" / "shared.html.jinja").is_file()
    for name in ("predictions", "predictions_league", "predictions_text"):
        assert (ROOT / "studies" / "two_hop" / f"{name}.json").is_file()
    assert (ROOT / "studies" / "theory" / "predictions.json").is_file()
    assert (ROOT / "diagnose" / "coefficients.json").is_file()
    assert (ROOT / "py.typed").is_file()


def test_ci_keeps_the_compiler_of_tpus_out_of_the_environment_of_the_suite():
    # JAX takes it up where it is installed: the second run would test something else.
    script = ROOT.parent / ".ci/run"
    if not script.is_file():
        pytest.skip("no checkout")
    installs = [line for line in script.read_text().splitlines() if "install" in line]
    assert not [line for line in installs if "tpu]" in line]
    assert any("--target .venv-tpu" in line for line in installs)
