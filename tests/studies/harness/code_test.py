"""The hash of code: what moves it, what does not, on a copy of the package."""

import pathlib
import shutil

import pytest

import jaxlora
from jaxlora.studies.harness import code

PACKAGE = pathlib.Path(jaxlora.__file__).parent
BASES = "jaxlora.studies.two_hop.symbols.bases"
LOSS = "train/step.py"


@pytest.fixture
def package(tmp_path):
    """A copy of the package's source, to be edited."""
    copied = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def edit(package, file, old, new):
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""', '"""Edited. '),
        ("\ndef cross_entropy(", "\n# Why?\n\n\ndef cross_entropy(\n    "),
        ("\nimport ", "\n\n\nimport "),
    ],
    ids=["docstring", "comment and layout", "layout"],
)
def test_prose_and_layout_keep_the_hash(package, old, new):
    before = code.digest(BASES, root=package)
    edit(package, LOSS, old, new)
    assert code.digest(BASES, root=package) == before


def test_docstrings_of_functions_classes_and_fields_keep_the_hash(tmp_path):
    plain = "class A:\n  x: int = 1\n\n  def f(s):\n    return 1\n"
    documented = (
        'class A:\n  """A."""\n  x: int = 1\n  """X."""\n\n'
        '  def f(s):\n    """F."""\n    return 1  # why\n'
    )
    sources = (plain, documented, plain.replace("= 1", "= 2"))
    hashes = [
        code.digest("small.m", root=small(tmp_path / str(i), {"m": source}))
        for i, source in enumerate(sources)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_an_edit_of_the_loss_moves_bases_and_what_is_beside_them_does_not(package):
    before = code.digest(BASES, root=package)
    for beside in ("report/figures.py", "commands/train.py", "theory/edits.py"):
        (package / beside).write_text("x = 1\n")
    assert code.digest(BASES, root=package) == before
    edit(package, LOSS, "\ndef cross_entropy(", "\nEDITED = 1\n\n\ndef cross_entropy(")
    assert code.digest(BASES, root=package) != before


SYMBOLS = BASES.removesuffix("bases")


@pytest.mark.parametrize(
    ("file", "moved"),
    [
        (LOSS, {"bases", "experts", "protocol"}),
        ("train/full_batch.py", {"experts", "protocol"}),
        ("merge/sparse.py", {"protocol"}),
        ("studies/two_hop/summary.py", {"protocol"}),
        ("report/page.py", set()),
    ],
)
def test_rows_depend_on_more_than_experts_and_they_on_more_than_bases(
    package, file, moved
):
    names = ("bases", "experts", "protocol")
    before = {name: code.digest(SYMBOLS + name, root=package) for name in names}
    edit(package, file, "\nfrom ", "\nEDITED = 1\nfrom ")
    after = {name: code.digest(SYMBOLS + name, root=package) for name in names}
    assert {name for name in names if after[name] != before[name]} == moved


def test_a_decoder_is_followed_to_where_it_is_defined(package):
    """``jaxlora.models`` re-exports generation too, which decides no base."""
    before = code.digest(BASES, root=package)
    edit(package, "models/generate.py", "\nimport ", "\nEDITED = 1\nimport ")
    edit(package, "models/__init__.py", '"""\n', '"""\n\nimport jax as jax\n')
    assert code.digest(BASES, root=package) == before
    edit(package, "models/attention.py", "\nimport ", "\nEDITED = 1\nimport ")
    assert code.digest(BASES, root=package) != before


def small(folder, modules):
    """A made-up package, from its modules' sources."""
    root = folder / "small"
    for name, source in {"__init__": "", **modules}.items():
        file = root.joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return root


@pytest.mark.parametrize(
    ("start", "moves"),
    [
        ("import small.a", True),
        ("import small.a as x", True),
        ("from small import a", True),
        ("from small.a import f", True),
        ("from .a import f", True),
        ("from . import a", True),
        ("def g():\n    from small.a import f", True),
        ("if TYPE_CHECKING:\n    from small.a import f", True),
        ("from small.p import shown", True),
        ("from small import p\np.shown", True),
        ("import small.p", True),
        ("from small import p\nuse(p)", True),
        ("from small.p import *", True),
        ("from small.p import c", True),
        ("from small.b import f", False),
        ("from small import p", False),
        ("from small import p\np.other", False),
        ("from small.p import other", False),
        ("from other.a import f", False),
    ],
)
def test_imports_are_followed_in_every_form(tmp_path, start, moves):
    modules = {
        "start": start,
        "a": "f = 1",
        "b": "f = 1",
        "p.__init__": "from small.b import f as other\n"
        "from small.p.c import f as shown\n"
        "from small.p import c as c",
        "p.c": "from small.a import f",
    }
    root = small(tmp_path, modules)
    before = code.digest("small.start", root=root)
    (root / "a.py").write_text("f = 2")
    assert (code.digest("small.start", root=root) != before) is moves


def test_a_new_import_and_a_changed_re_export_are_followed(tmp_path):
    modules = {
        "start": "from small.p import f\nfrom small import a, b",
        "a": "f = 1",
        "b": "f = 1",
        "c": "f = 1",
        "p.__init__": "from small.a import f as f",
    }
    root = small(tmp_path, modules)
    before = code.digest("small.start", root=root)
    (root / "p" / "__init__.py").write_text("from small.b import f as f")
    swapped = code.digest("small.start", root=root)
    (root / "b.py").write_text("from small import c\nf = 1")
    imported = code.digest("small.start", root=root)
    (root / "c.py").write_text("f = 2")
    assert len({before, swapped, imported, code.digest("small.start", root=root)}) == 4


def test_a_package_that_computes_counts_where_it_is_passed(tmp_path):
    modules = {"p.__init__": "__version__ = 1", "p.m": "f = 1", "q.m": "f = 1"}
    root = small(tmp_path, modules)
    before = code.digest("small.p.m", root=root)
    (root / "p" / "__init__.py").write_text("__version__ = 2")
    assert code.digest("small.p.m", root=root) == before
    (root / "p" / "__init__.py").write_text("switch_on()")
    assert code.digest("small.p.m", root=root) != before


def test_a_package_is_all_its_modules(tmp_path):
    root = small(tmp_path, {"p.__init__": "", "p.q.m": "f = 1"})
    before = code.digest("small.p", root=root)
    (root / "p" / "q" / "m.py").write_text("f = 2")
    assert code.digest("small.p", root=root) != before


def test_a_module_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"module 'jaxlora\.tre'; did you mean 'jaxl"):
        code.digest("jaxlora.tre")
    root = small(tmp_path, {"start": "import small.gone"})
    with pytest.raises(ValueError, match=r"Unknown module 'small\.gone'"):
        code.digest("small.start", root=root)
