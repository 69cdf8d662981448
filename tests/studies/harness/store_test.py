"""The output folder: whose it is, what it keeps, and what a full disk leaves."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxlora.studies.harness import Outcome, Study, store
from jaxlora.studies.harness.config import flat, plain

COLUMNS = ("cell", "person", "split", "covered", "loss")


@dataclasses.dataclass(frozen=True)
class World:
    people: int = 3


@dataclasses.dataclass(frozen=True)
class Config:
    """A config that once called its world a planet."""

    RENAMED = {"planet": "world"}  # noqa: RUF012

    resamples: int = 50
    at_once: int = 1
    facts: Path | None = None
    world: World = World()


TINY = Config()
FILE = Path("block.json")


def claim(out, config=TINY, people=(), code="code", predictions="", study="two-hop"):
    Study(
        name=study,
        config=config,
        code=code,
        people=people,
        predictions=predictions,
        free=("at_once",),
    ).claim(out)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def outcome():
    n = 4
    columns = dict.fromkeys(COLUMNS, 0) | {
        "cell": "R-OO",
        "person": np.arange(n),
        "split": ["two-hop", "hop 1", "two-hop", "hop 1"],
        "covered": [True, False, True, True],
        "loss": [1 / 3, 1e-7, 123.456, np.nan],
    }
    return Outcome(pd.DataFrame(columns, index=range(n)), {"own": {"R-OO": 2 / 3}})


def test_a_new_folder_is_claimed_and_stays_ours(tmp_path):
    out = tmp_path / "new" / "folder"
    claim(out)
    before = contents(out)
    assert json.loads(before["study.json"])["config"] == plain(TINY)
    claim(out)
    assert contents(out) == before


def test_an_empty_folder_is_fine(tmp_path):
    claim(tmp_path)
    assert (tmp_path / "study.json").is_file()


def refused(out: Path, config=TINY, **more) -> str:
    before = contents(out) if out.is_dir() else out.read_bytes()
    with pytest.raises(ValueError, match=r"choose another --out") as caught:
        claim(out, config, **more)
    assert (contents(out) if out.is_dir() else out.read_bytes()) == before
    message = str(caught.value)
    assert "\n" not in message
    assert str(out) in message
    return message


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "holds no two-hop study" in refused(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    assert "holds no two-hop study" in refused(path)


def test_another_study_is_refused_by_name(tmp_path):
    text = json.dumps({"study": "word-problems", "config": plain(TINY)})
    (tmp_path / "study.json").write_text(text)
    assert "'word-problems', not 'two-hop'" in refused(tmp_path)


def test_another_configuration_is_refused_by_field(tmp_path):
    claim(tmp_path)
    world = dataclasses.replace(TINY.world, people=4)
    message = refused(tmp_path, dataclasses.replace(TINY, world=world))
    assert "world.people is 3 there and 4 here" in message
    assert "fields differ" not in message
    two = dataclasses.replace(TINY, world=world, resamples=51)
    said = refused(tmp_path, two)
    assert "(2 fields differ)" in said
    assert "--from" not in said
    (tmp_path / "results.json").touch()
    assert f"with --from {tmp_path / 'results.json'}." in refused(tmp_path, two)


def test_a_pipe_is_no_study_json(tmp_path):
    os.mkfifo(tmp_path / "study.json")
    assert "holds no two-hop study" in refused(tmp_path)


def test_how_a_study_is_run_may_differ(tmp_path):
    claim(tmp_path)
    claim(tmp_path, dataclasses.replace(TINY, at_once=7))


def test_a_folder_with_the_field_names_of_earlier_versions_is_understood(tmp_path):
    claim(tmp_path)
    stored = json.loads((tmp_path / "study.json").read_text())
    stored["config"]["planet"] = stored["config"].pop("world")
    (tmp_path / "study.json").write_text(json.dumps(stored))
    claim(tmp_path)
    changed = dataclasses.replace(TINY, world=World(people=4))
    assert "world.people is 3 there and 4 here" in refused(tmp_path, changed)


def test_a_facts_file_that_has_changed_is_refused(tmp_path):
    config = dataclasses.replace(TINY, facts=Path("people.jsonl"))
    claim(tmp_path, config, people=["ann"])
    claim(tmp_path, config, people=("ann",))
    assert "people.jsonl has changed" in refused(tmp_path, config, people=["bob"])


@pytest.mark.parametrize("what", ["jaxlora", "the predictions file"])
def test_a_run_does_not_mix_old_and_new(tmp_path, what):
    claim(tmp_path)
    claim(tmp_path)
    field = "code" if what == "jaxlora" else "predictions"
    message = refused(tmp_path, **{field: "another hash"})
    assert f"before {what} changed" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"study": "two-hop", "conf', "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[]", "names no study and config"),
        (b'{"study": "two-hop"}', "names no study and config"),
    ],
)
def test_an_unreadable_study_json_is_refused(tmp_path, text, reason):
    (tmp_path / "study.json").write_bytes(text)
    assert reason in refused(tmp_path)


def test_what_is_saved_is_what_is_loaded(tmp_path, outcome):
    store.save(tmp_path / FILE, outcome)
    found = store.load(tmp_path / FILE, COLUMNS)
    assert found.notes == outcome.notes
    pd.testing.assert_frame_equal(
        found.items, outcome.items, check_exact=False, rtol=1e-9, atol=1e-10
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: b"\xff" + text,
        lambda text: b"[]",
        lambda text: b"{}",
        lambda text: b'{"notes": {}, "items": {}}',
        lambda text: text.replace(b'"loss"', b'"los"'),
        lambda text: text.replace(b'"notes": {', b'"notes": 3, "other": {'),
    ],
)
def test_a_damaged_block_is_no_block(tmp_path, outcome, damage):
    assert store.load(tmp_path / FILE, COLUMNS) is None
    store.save(tmp_path / FILE, outcome)
    path = tmp_path / FILE
    path.write_bytes(damage(path.read_bytes()))
    assert store.load(tmp_path / FILE, COLUMNS) is None


@pytest.mark.parametrize("where", ["write", "rename"])
def test_a_full_disk_leaves_the_old_file_and_no_other(
    tmp_path, outcome, monkeypatch, where
):
    store.save(tmp_path / FILE, outcome)
    before = contents(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    changed = outcome._replace(notes={"own": {}})
    with monkeypatch.context() as patched:
        target = "fsync" if where == "write" else "replace"
        patched.setattr(os if where == "write" else Path, target, full)
        with pytest.raises(OSError, match="No space"):
            store.save(tmp_path / FILE, changed)
    assert contents(tmp_path) == before
    store.save(tmp_path / FILE, changed)
    assert store.load(tmp_path / FILE, COLUMNS).notes == {"own": {}}


def test_plain_configs_are_flat_by_dotted_names():
    fields = flat(plain(TINY))
    assert fields == {
        "resamples": 50,
        "at_once": 1,
        "facts": None,
        "world.people": 3,
    }


def test_what_was_measured_once_is_remembered(tmp_path):
    assert store.remembered(tmp_path / "known.json", lambda: [1]) == [1]
    assert store.remembered(tmp_path / "known.json", lambda: [2]) == [1]
    (tmp_path / "known.json").write_text("[")
    assert store.remembered(tmp_path / "known.json", lambda: [3]) == [3]
