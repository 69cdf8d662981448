"""The output folder: whose it is, what it keeps, and what a full disk leaves."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxlora.evaluate.schema import Library, Method
from jaxlora.studies.two_hop import store
from jaxlora.studies.two_hop.blocks import Outcome
from jaxlora.studies.two_hop.items import COLUMNS
from jaxlora.studies.two_hop.rows import Block
from jaxlora.tasks.two_hop.records import Record

BLOCK = Block(1.0, 3, Library.PAIR, Method.MEAN)


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


def test_a_new_folder_is_claimed_and_stays_ours(tmp_path, tiny):
    out = tmp_path / "new" / "folder"
    store.claim(out, tiny)
    before = contents(out)
    assert json.loads(before["study.json"])["config"] == store.plain(tiny)
    store.claim(out, tiny)
    assert contents(out) == before


def test_an_empty_folder_is_fine(tmp_path, tiny):
    store.claim(tmp_path, tiny)
    assert (tmp_path / "study.json").is_file()


def refused(out: Path, config, *people) -> str:
    before = contents(out) if out.is_dir() else out.read_bytes()
    with pytest.raises(ValueError, match=r"choose another --out") as caught:
        store.claim(out, config, *people)
    assert (contents(out) if out.is_dir() else out.read_bytes()) == before
    message = str(caught.value)
    assert "\n" not in message
    assert str(out) in message
    return message


def test_a_folder_with_other_files_is_refused(tmp_path, tiny):
    (tmp_path / "thesis.tex").write_text("precious")
    assert "holds no two-hop study" in refused(tmp_path, tiny)


def test_a_file_is_no_folder(tmp_path, tiny):
    path = tmp_path / "file"
    path.write_text("precious")
    assert "holds no two-hop study" in refused(path, tiny)


def test_another_study_is_refused_by_name(tmp_path, tiny):
    text = json.dumps({"study": "word-problems", "config": store.plain(tiny)})
    (tmp_path / "study.json").write_text(text)
    assert "'word-problems', not 'two-hop'" in refused(tmp_path, tiny)


def test_another_configuration_is_refused_by_field(tmp_path, tiny):
    store.claim(tmp_path, tiny)
    world = dataclasses.replace(tiny.world, people=4)
    message = refused(tmp_path, dataclasses.replace(tiny, world=world))
    assert "world.people is 3 there and 4 here" in message
    assert "fields differ" not in message
    two = dataclasses.replace(tiny, world=world, resamples=51)
    assert "(2 fields differ)" in refused(tmp_path, two)


@pytest.mark.parametrize(
    "free", [{"seeds_at_once": 7}, {"data_dir": Path("elsewhere")}], ids=str
)
def test_how_a_study_is_run_may_differ(tmp_path, tiny, free):
    store.claim(tmp_path, tiny)
    store.claim(tmp_path, dataclasses.replace(tiny, **free))


def test_a_facts_file_that_has_changed_is_refused(tmp_path, tiny):
    config = dataclasses.replace(tiny, facts=Path("people.jsonl"))
    ann = Record(kind="one_hop", prompt=("ann", "r00"), answer=("bob",))
    store.claim(tmp_path, config, [ann])
    store.claim(tmp_path, config, (ann,))
    other = dataclasses.replace(ann, answer=("cid",))
    assert "people.jsonl has changed" in refused(tmp_path, config, [other])


@pytest.mark.parametrize("what", ["jaxlora", "the predictions file"])
def test_a_run_does_not_mix_old_and_new(tmp_path, tiny, monkeypatch, what):
    store.claim(tmp_path, tiny, (), "one hash")
    store.claim(tmp_path, tiny, (), "one hash")
    if what == "jaxlora":
        monkeypatch.setattr(store.code, "STUDY", "edited")
        message = refused(tmp_path, tiny, (), "one hash")
    else:
        message = refused(tmp_path, tiny, (), "another hash")
    assert f"before {what} changed" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"study": "two-hop", "conf', "not readable JSON"),
        (b"\xff\xfe\x00", "not readable JSON"),
        (b"[]", "names no study and config"),
        (b'{"study": "two-hop"}', "names no study and config"),
    ],
)
def test_an_unreadable_study_json_is_refused(tmp_path, tiny, text, reason):
    (tmp_path / "study.json").write_bytes(text)
    assert reason in refused(tmp_path, tiny)


def test_what_is_saved_is_what_is_loaded(tmp_path, outcome):
    store.save(tmp_path, BLOCK, outcome)
    found = store.load(tmp_path, BLOCK)
    assert found.notes == outcome.notes
    pd.testing.assert_frame_equal(
        found.items, outcome.items, check_exact=False, rtol=1e-9, atol=1e-10
    )


def test_every_block_has_a_file_of_its_own():
    blocks = {
        Block(level, seed, library, method)
        for level in (0.0, 0.333, 0.334, 1 / 3, 1.0)
        for seed in (1, 11)
        for library in Library
        for method in Method
    }
    paths = {store.path_of(Path("out"), block) for block in blocks}
    assert len(paths) == len(blocks)
    assert all(path.parent == Path("out/blocks") for path in paths)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: b"\xff" + text,
        lambda text: b"[]",
        lambda text: b"{}",
        lambda text: b'{"notes": {}, "items": {}}',
        lambda text: text.replace(b'"error"', b'"eror"'),
        lambda text: text.replace(b'"notes": {', b'"notes": 3, "other": {'),
    ],
)
def test_a_damaged_block_is_no_block(tmp_path, outcome, damage):
    assert store.load(tmp_path, BLOCK) is None
    store.save(tmp_path, BLOCK, outcome)
    path = store.path_of(tmp_path, BLOCK)
    path.write_bytes(damage(path.read_bytes()))
    assert store.load(tmp_path, BLOCK) is None


@pytest.mark.parametrize("where", ["write", "rename"])
def test_a_full_disk_leaves_the_old_file_and_no_other(
    tmp_path, outcome, monkeypatch, where
):
    store.save(tmp_path, BLOCK, outcome)
    before = contents(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    changed = outcome._replace(notes={"own": {}})
    with monkeypatch.context() as patched:
        target = "fsync" if where == "write" else "replace"
        patched.setattr(os if where == "write" else Path, target, full)
        with pytest.raises(OSError, match="No space"):
            store.save(tmp_path, BLOCK, changed)
    assert contents(tmp_path) == before
    store.save(tmp_path, BLOCK, changed)
    assert store.load(tmp_path, BLOCK).notes == {"own": {}}


def test_plain_configs_are_flat_by_dotted_names(tiny):
    flat = store.flat(store.plain(tiny))
    assert flat["world.people"] == 3
    assert flat["lora.rank"] == 2
    assert flat["seeds"] == 2
