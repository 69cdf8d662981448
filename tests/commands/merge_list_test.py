"""What ``jaxlora merge`` says of its methods, and methods of your own."""

import functools
import pathlib
import shutil
import sys

from jaxlora import cli, merge
from jaxlora.commands import merge as command
from jaxlora.commands import merge_tables, printing
from jaxlora.commands.flags import merge_fields, parsing
from merge_runs import run

MINE = """
from jaxlora import merge

def thrice(share=1.0, loud=False):
    assert not loud
    return merge.chain(merge.weighted_sum(), space="factor")

plain = merge.preset("sum")
number = 3
"""


def test_a_method_of_your_own(small, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_own_merges.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [x for x in sys.path if x])
    before = list(sys.path)
    for i, flags in enumerate(("thrice --share 0.5 --loud false", "plain")):
        method = f"--method my_own_merges:{flags}".split()
        assert run(small, ("plain", "plain2"), *method, out=tmp_path / f"m{i}") == 0
    capsys.readouterr()
    bad = {
        "thrice --density 1": "no field 'density'; its fields: share, loud",
        "thrice --loud 1": "--loud is '1', expected true or false",
        "plain --share 1": "No option --share",
        "number": "expected a Merge",
        "none": "Cannot import",
    }
    for flags, expected in bad.items():
        method = f"--method my_own_merges:{flags}".split()
        assert run(small, ("plain", "plain2"), *method, out=tmp_path / "bad") == 2
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()
    assert sys.path == before


def test_the_long_list_has_every_method(capsys):
    assert cli.main(["merge", "--list", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0]: line for line in lines if line.strip()}
    for name in merge.names():
        assert name in shown
    assert "own data" in shown["regmean"]
    assert "all but gauge, linearity" in shown["factor-mean"]
    assert " yes " in shown["dare"]
    assert " yes " not in shown["ties"]


def test_the_list_says_which_to_try_first(capsys):
    assert cli.main(["merge", "--list"]) == 0
    short = capsys.readouterr().out
    assert command.run(["--list"]) == 0
    assert capsys.readouterr().out == short
    assert "merge --list --all" in short
    assert "dare" not in short


def test_the_list_of_one_has_its_fields_and_laws(capsys):
    assert cli.main(["merge", "--list", "ties", "regmean"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "--density, by default 0.2",
        "--by, by default mass",
        f"gauge: {merge.LAWS['gauge']}",
        "[in, in]",
    ):
        assert words in shown
    for name, expected in {"teis": "did you mean 'ties'", "--rank": "names of"}.items():
        assert cli.main(["merge", "--list", name]) == 2
        assert expected in capsys.readouterr().err


def test_a_narrow_terminal_has_fewer_columns(capsys, monkeypatch):
    narrow = functools.partial(printing.Console, width=80)
    monkeypatch.setattr(printing, "console", narrow)
    assert cli.main(["merge", "--list", "--all"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:90])) <= 80
    assert "…" not in shown
    assert "needs own data" in " ".join(shown.split())


def test_what_is_said_of_methods_is_so():
    for name in merge.names():
        made = merge.describe(name).make()
        assert (name in merge_tables.NEEDS) == (made.data != "free")


def test_help_has_every_field(capsys):
    assert cli.main(["merge", "--help"]) == 0
    shown = capsys.readouterr().out
    for field in merge_fields.every():
        assert f"  --{field.replace('_', '-')} " in command.DESCRIPTION
    flags = set(parsing.names(command.Arguments))
    assert not {f"--{field}" for field in merge_fields.every()} & flags
    assert "--weights W..." in shown


def test_the_examples_work(small, tmp_path, monkeypatch, shown):
    monkeypatch.chdir(tmp_path)
    places = {"A": small / "plain", "B": small / "plain2", "C": small / "rslora"}
    tied = pathlib.Path(__file__).parents[1] / "data/adapters/tied"
    places |= {
        "DORA": tied / "dora",
        "LORA": tied / "head",
        "MODEL": tied / "base",
    }
    places["LIBRARY"] = tmp_path / "eight"
    for i in range(8):
        shutil.copytree(small / "plain", places["LIBRARY"] / str(i))
    commands = shown(command.DESCRIPTION)
    assert len(commands) == 11
    for i, flags in enumerate(commands):
        flags = [str(places.get(w, w)) for w in flags]
        assert cli.main([f"MERGED{i}" if w == "MERGED" else w for w in flags]) == 0
        assert (tmp_path / f"MERGED{i}").is_dir() == ("--out" in flags)
