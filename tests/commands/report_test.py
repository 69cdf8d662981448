"""Joining shares that ran on machines of several kinds."""

import json
import pathlib

import pytest

from jaxlora import locks
from jaxlora.commands import report, study_text
from jaxlora.studies.harness import share as shares_of
from jaxlora.studies.two_hop.text.config import STUDY


@pytest.fixture
def write(tmp_path):
    """A function that writes the folder of a share, and returns its name."""

    def share(name: str, **config) -> str:
        (tmp_path / name / "blocks").mkdir(parents=True)
        (tmp_path / name / "blocks" / f"{name}.json").write_text(name)
        stored = {"study": STUDY, "config": config, "code": "x"}
        (tmp_path / name / "study.json").write_text(json.dumps(stored))
        return str(tmp_path / name)

    return share


@pytest.fixture
def calls(monkeypatch):
    """What the command of the study is called with."""
    every = []
    monkeypatch.setattr(study_text, "run", lambda words: every.append(words) or 0)
    return every


def test_how_a_share_was_run_may_differ_and_its_mesh_is_not_that_of_the_report(
    write, calls, tmp_path
):
    shares = [
        write("a", seeds=2, model="/a/llama", mesh="data=4", ask={"batch": 16}),
        write("b", seeds=2, model="/b/llama", mesh="data=8", ask={"batch": 8}),
    ]
    assert report.run([*shares, "--out", str(tmp_path / "out")]) == 0
    given = study_text.parse(["--model", "m", *calls[0][2:]])
    assert (given.mesh, given.out) == ("", tmp_path / "out")
    (words,) = calls
    assert words[words.index("--mesh") + 1] == ""
    assert (tmp_path / "out/blocks/b.json").is_file()


def test_what_a_share_is_may_not_differ(write, calls, tmp_path):
    shares = [write("a", seeds=2), write("b", seeds=3)]
    with pytest.raises(ValueError, match=r"no shares of one study: config\.seeds"):
        report.run([*shares, "--out", str(tmp_path / "out")])
    assert not calls


def test_an_earlier_report_is_replaced_under_its_lock(
    write, calls, tmp_path, monkeypatch
):
    shares, out = [write("a", seeds=2)], write("out", seeds=3)

    def join(folders, folder: pathlib.Path, free):
        assert [path.name for path in folder.iterdir()] == [locks.NAME]
        with pytest.raises(locks.BusyError), locks.folder(folder):
            pytest.fail("two writers")

    monkeypatch.setattr(shares_of, "join", join)
    assert report.run([*shares, "--out", out, "--force"]) == 0
    assert len(calls) == 1
