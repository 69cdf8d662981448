"""Which code made a number: a hash of the modules that decide it.

Caches and output folders are named by such a hash, so that an edited jaxlora never
mixes its results with old ones. The hash is over syntax trees: comments, docstrings and
layout change nothing. The modules are followed from import statements, so that no list
of them can go stale, and a re-export counts as the module that defines the name, or
every hash would be one of the whole package.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from jaxlora.names import unknown

_ROOT = Path(__file__).parents[2]
_WHOLE = "*"
_CARRIERS = frozenset(
    f"jaxlora.{name}"
    for name in ("files", "locks", "io.checkpoint", "io.errors", "io.trust")
)
"""Modules that carry values to the disk and back, and check that they are the same: how
they do it decides no value, and trained bases survive a change of it."""


class _Name(NamedTuple):
    """A name in a module; the empty name is the module itself."""

    module: str
    name: str = ""


class _Source(NamedTuple):
    """What the hash reads of one file."""

    syntax: str
    imports: tuple[tuple[str, _Name], ...]
    """Each name that an import statement binds, and what it stands for."""
    attributes: Mapping[str, Set[str]]
    """What is read of each name, as ``apply`` in ``models.apply``."""
    values: Set[str]
    """The names that are used as values: anything may be read of them."""
    defines: bool
    """Whether more stands there than imports and names such as ``__version__``."""


def digest(*modules: str, root: Path = _ROOT) -> str:
    """Returns the SHA-256, in hex, of modules and of every module that they import.

    Imports inside functions and for type checkers count; imports from other packages,
    ``importlib`` and data files do not. The files are read when this is called: call it
    while the module that uses the hash is imported, since a file edited later is not
    the code that runs. A new version of Python may change every hash, as it may change
    its syntax trees.

    Args:
      modules: names such as ``"jaxlora.train.pretrain"``; a package is all its modules.
      root: the folder of the package, whose name the names of modules begin with.

    Raises:
      ValueError: if a module does not exist.

    >>> digest("jaxlora.tree") == digest("jaxlora.tree", "jaxlora.names")
    True
    >>> digest("jaxlora.tree") == digest("jaxlora.lora")
    False
    """
    _file.cache_clear()
    _read.cache_clear()
    text = hashlib.sha256()
    for module, imports in sorted(_closure(modules, root).items()):
        text.update(f"{module} {imports} {_read(module, root).syntax}".encode())
    return text.hexdigest()


def _closure(modules: tuple[str, ...], root: Path) -> dict[str, list[_Name]]:
    """Every module that is reached, with what its imports stand for."""
    waiting = [module for name in modules for module in _inside(name, root)]
    reached: dict[str, list[_Name]] = {}
    while waiting:
        module = waiting.pop()
        if module in reached or module in _CARRIERS:
            continue
        # The names are hashed too: a re-export may come to mean another module.
        reached[module] = sorted(set(_imported(module, root)))
        waiting += [name.module for name in reached[module]]
        # Python runs the packages on the path; most of them only re-export.
        parts = module.split(".")
        parents = (".".join(parts[:count]) for count in range(1, len(parts)))
        waiting += [p for p in parents if _file(p, root) and _read(p, root).defines]
    return reached


def _imported(module: str, root: Path) -> Iterator[_Name]:
    """What a module imports, each as the name and module that define it."""
    source = _read(module, root)
    for bound, imported in source.imports:
        targets = [_defined(imported, root)]
        package = targets[0] and not targets[0].name and targets[0].module
        used = bound == _WHOLE or bound in source.values
        if package and not used and _is_package(package, root):
            # A package of which only attributes are read: only those decide.
            names = (x for x in source.attributes.get(bound, ()) if x[:2] != "__")
            targets = [_defined(_Name(package, name), root) for name in names]
        for target in targets:
            if target is not None and target.name:
                yield target
            elif target is not None:
                yield from map(_Name, _inside(target.module, root))


def _defined(name: _Name, root: Path) -> _Name | None:
    """Follows re-exports to the definition; None for another package's."""
    if name.module.split(".")[0] != root.name:
        return None
    if not name.name or not _is_package(name.module, root):
        return name
    exported = dict(_read(name.module, root).imports).get(name.name, name)
    if exported != name:  # equal: the package imports its own submodule
        return _defined(exported, root)
    below = f"{name.module}.{name.name}"
    return _Name(below) if _file(below, root) else name


def _inside(module: str, root: Path) -> list[str]:
    """A module, or every module in the folder of a package."""
    if not _is_package(module, root):
        return [module]
    folder = root.parent.joinpath(*module.split("."))
    below = (f.relative_to(root.parent) for f in folder.rglob("*.py"))
    return [".".join(f.with_suffix("").parts).removesuffix(".__init__") for f in below]


def _is_package(module: str, root: Path) -> bool:
    file = _file(module, root)
    return file is not None and file.name == "__init__.py"


@functools.cache  # for one digest: a graph of imports asks for a file many times
def _file(module: str, root: Path) -> Path | None:
    path = root.parent.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@functools.cache  # likewise
def _read(module: str, root: Path) -> _Source:
    file = _file(module, root)
    if file is None:
        raise ValueError(unknown("module", module, _inside(root.name, root)))
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return _parsed(file.read_bytes(), package)


@functools.lru_cache(maxsize=1024)  # by content: most files serve several hashes
def _parsed(source: bytes, package: str) -> _Source:
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    attributes: dict[str, set[str]] = {}
    read = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            attributes.setdefault(node.value.id, set()).add(node.attr)
            read.add(node.value)
    names = {node for node in nodes if isinstance(node, ast.Name)}
    values = {node.id for node in names - read}
    imports = tuple(_bindings(nodes, package))
    defines = not all(map(_declares, tree.body))
    _drop_docstrings(nodes)
    return _Source(ast.dump(tree), imports, attributes, values, defines)


def _bindings(nodes: Iterable[ast.AST], package: str) -> Iterator[tuple[str, _Name]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                # ``import a.b`` binds ``a``, but what is meant is all of ``a.b``.
                dotted = "." in alias.name and alias.asname is None
                bound = _WHOLE if dotted else alias.asname or alias.name
                yield bound, _Name(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -node.level + 1 or None] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield alias.asname or alias.name, _Name(module, alias.name)


def _declares(node: ast.stmt) -> bool:
    """Whether a statement is an import, a docstring or sets a ``__name__``."""
    if isinstance(node, ast.Assign):
        names = [getattr(target, "id", "") for target in node.targets]
        return all(name.startswith("__") for name in names)
    return isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node)


def _is_docstring(node: ast.AST) -> bool:
    """Whether a statement is a lone string: of a module, class, function or field."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _drop_docstrings(nodes: Iterable[ast.AST]) -> None:
    for node in nodes:
        for name in ("body", "orelse", "finalbody"):
            below = getattr(node, name, None)
            if isinstance(below, list):  # of statements; a lambda's is an expression
                setattr(node, name, [x for x in below if not _is_docstring(x)])
