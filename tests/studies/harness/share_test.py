"""Shares of a study, and joining them."""

import json

import pytest

from jaxlora.studies.harness import share


def test_shares_are_all_cells_each_once():
    cells = list(range(11))
    parts = [share.read(f"{i}/4", len(cells)).of(cells) for i in range(4)]
    assert sorted(cell for part in parts for cell in part) == cells
    assert share.read("", 11).of(cells) == cells


@pytest.mark.parametrize(
    ("text", "cells", "says"),
    [
        ("4/4", 9, "expected I/N with I from 0 to N - 1"),
        ("1", 9, "--share is '1'"),
        ("-1/2", 9, "--share is '-1/2'"),
        ("2/3", 2, "the study has 2 independent cells"),
        ("1/2", 1, "the study has 1 independent cell "),
    ],
)
def test_a_share_that_is_none_is_refused(text, cells, says):
    with pytest.raises(ValueError, match=says):
        share.read(text, cells)


def study(folder, name: str, **config) -> None:
    (folder / name / "blocks").mkdir(parents=True)
    stored = {"study": "two-hop", "config": {"seeds": 2} | config, "code": "x"}
    (folder / name / "study.json").write_text(json.dumps(stored))
    (folder / name / "blocks" / f"{name}.json").write_text(name)
    (folder / name / ".lock").write_text("")
    (folder / name / "results.csv").write_text("of a part")


def test_blocks_of_all_shares_come_together(tmp_path):
    for name in "ab":
        study(tmp_path, name)
    for _ in range(2):  # joining again changes nothing
        share.join([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    files = {
        x.relative_to(tmp_path / "out").as_posix() for x in tmp_path.rglob("out/**/*")
    }
    assert files >= {"study.json", "blocks/a.json", "blocks/b.json"}
    assert not files & {".lock", "results.csv"}
    assert (tmp_path / "out/blocks/a.json").read_text() == "a"


def test_shares_of_different_studies_are_refused(tmp_path):
    study(tmp_path, "a")
    study(tmp_path, "b", first_seed=7)
    with pytest.raises(ValueError, match=r"no shares of one study: config\.first_seed"):
        share.join([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    (tmp_path / "c").mkdir()
    with pytest.raises(ValueError, match=r"holds no study\.json of a study"):
        share.join([tmp_path / "c"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", share.MEASURED)
def test_what_was_measured_comes_along_and_must_be_equal(tmp_path, name):
    for folder in "abc":
        study(tmp_path, folder)
    for folder in "bc":  # the first share had not come so far
        (tmp_path / folder / name).write_text("[1]")
    folders = [tmp_path / folder for folder in "abc"]
    share.join(folders, tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "[1]"
    (tmp_path / "c" / name).write_text("[2]")
    with pytest.raises(ValueError, match=f"{name} differ: the shares measured"):
        share.join(folders, tmp_path / "new")
    assert not (tmp_path / "new").exists()
