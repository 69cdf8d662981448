"""Numbers as they come: a CSV file that goes on after a kill, and TensorBoard."""

import csv
import types

import numpy as np
import pytest

from jaxlora import cli
from jaxlora.commands import scalars, talk

TOTALS = {"ann": 3, "bo": 5}


def recent(start, count=2):
    """Losses and norms [2, E, K] that say which they are."""
    x = np.arange(start, start + count) + 0.5 * np.arange(2)[:, None]
    return np.stack([x, 10 * x]).astype(np.float32)


def rows(folder):
    with (folder / scalars.LOSSES).open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_losses_are_there_after_each_chunk(tmp_path):
    added = []
    losses = scalars.Losses(tmp_path, TOTALS, lambda *x: added.append(x))
    losses(2, 5, recent(0))
    assert rows(tmp_path) == [
        ["ann", "0", "0", "0"],
        ["bo", "0", "0.5", "5"],
        ["ann", "1", "1", "10"],
        ["bo", "1", "1.5", "15"],
    ]
    losses(4, 5, recent(2))
    losses(5, 5, recent(4))  # the last update fills the chunk only
    assert [row[:2] for row in rows(tmp_path)[4:]] == [
        ["ann", "2"],
        ["bo", "2"],
        ["bo", "3"],
        ["bo", "4"],
    ]
    assert added[:2] == [("loss/ann", 0.0, 0), ("gradient_norm/ann", 0.0, 0)]


def test_updates_that_are_repeated_stand_once(tmp_path):
    for stop in (4, 2):  # the second start went on from update 2
        losses = scalars.Losses(tmp_path, TOTALS, lambda *_: None)
        for start in range(4 - stop, 4, 2):
            losses(start + 2, 5, recent(start))
        with (tmp_path / scalars.LOSSES).open("a") as file:
            file.write("ann,3,")  # killed in the midst of a row
    losses = scalars.Losses(tmp_path, TOTALS, lambda *_: None)
    losses(5, 5, recent(4))
    updates = [tuple(row[:2]) for row in rows(tmp_path)]
    assert len(updates) == len(set(updates)) == sum(TOTALS.values())


def test_reports_of_a_study_are_rows(tmp_path):
    with (
        talk.heard(talk.split(["study"])[1]),
        scalars.stages({"pretrain": "base"}, tmp_path) as move,
    ):
        move("pretrain", 1, 4, "seed 0, x: loss 0.25")
    with (tmp_path / scalars.STAGES).open(newline="") as file:
        head, row = csv.reader(file)
    assert head[1:] == ["stage", "done", "total", "text"]
    assert row[1:] == ["pretrain", "1", "4", "seed 0, x: loss 0.25"]
    assert "base 1/4" in (tmp_path / talk.LOG).read_text()


def test_scalars_reach_tensorboard_if_wanted(tmp_path, monkeypatch):
    added = []

    def writer(folder, **_):
        add = lambda *x: added.append((folder, *x))  # noqa: E731
        return types.SimpleNamespace(add_scalar=add, close=lambda: added.append("end"))

    fake = types.SimpleNamespace(SummaryWriter=writer)
    monkeypatch.setattr(scalars.importlib, "import_module", lambda _: fake)
    for word, expected in (("--tensorboard", 2), ("-q", 0)):
        with (
            talk.heard(talk.split([word])[1]),
            scalars.stages({"experts": "experts"}, tmp_path) as move,
        ):
            move("experts", 1, 4, "seed 0: loss 0.25")
            move("experts", 2, 4, "seed 0")
        assert len(added) == expected
        if added:
            assert added[0] == (str(tmp_path / "tensorboard"), "experts/loss", 0.25, 1)
        added.clear()


def test_tensorboard_is_refused_where_it_is_missing(capsys, monkeypatch, tmp_path):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(scalars.importlib, "import_module", missing)
    with (
        talk.heard(talk.split(["--tensorboard"])[1]),
        pytest.raises(ValueError, match=r"pip install 'jaxlora\[tensorboard\]'"),
    ):
        scalars.check()
    scalars.check()  # not asked for


def test_a_command_without_numbers_says_that_it_has_none(capsys):
    assert cli.main(["merge", "--list", "--tensorboard"]) == 0
    assert "--tensorboard: nothing, as this command keeps" in capsys.readouterr().err
    assert cli.main(["merge", "--list"]) == 0
    assert "--tensorboard" not in capsys.readouterr().err


def test_words_of_every_command_are_no_flags_of_one(capsys):
    assert cli.main(["-q", "--version"]) == 0
    assert capsys.readouterr().out.startswith("jaxlora ")
