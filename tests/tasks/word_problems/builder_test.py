"""What is stored is what is generated, as array_record and as JSON lines."""

import collections
import dataclasses
import sys

import pytest

from jaxlora import tasks
from jaxlora.tasks import jsonl
from jaxlora.tasks.word_problems import builder, records, templates
from jaxlora.tasks.word_problems.records import Config

SMALL = Config(train=60, test=20, graph="trees", idle=0.5, common=0.5, form="plain")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return builder.write(SMALL, 0, tmp_path_factory.mktemp("data"))


def test_reading_gives_back_what_is_generated(stored):
    assert builder.read(stored) == records.generate(SMALL, 0)
    assert "tensorflow" not in sys.modules


def test_order_on_disk_is_not_the_generators(stored):
    source = builder.tfds.builder_from_directory(stored).as_data_source("train")
    on_disk = [source[i]["index"] for i in range(len(source))]
    assert on_disk != sorted(on_disk)


def test_same_seed_same_bytes(tmp_path):
    texts = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        files = records.write_jsonl(SMALL, seed, tmp_path / name)
        texts.append([file.read_bytes() for file in files.values()])
    assert texts[0] == texts[1] != texts[2]


def test_json_lines_are_a_users_data(tmp_path):
    files = records.write_jsonl(SMALL, 0, tmp_path)
    made = records.generate(SMALL, 0)["test"]
    rows = [row for _, row in jsonl.read(files["test"])]
    assert rows == [dataclasses.asdict(record) for record in made]
    read = tasks.read(files["test"]).records
    assert [r.answer for r in read] == [r.answer for r in made]
    assert all(row["answer"].endswith(f"#### {row['result']}") for row in rows)


def test_no_test_skeleton_is_trained():
    parts = records.generate(dataclasses.replace(SMALL, train=2000, test=500), 0)
    train, test = ({r.skeleton for r in x if r.level > 1} for x in parts.values())
    assert len(train) > len(test) > 10
    assert not train & test


def test_half_of_the_rows_are_in_the_common_template():
    counts = collections.Counter(
        r.template for r in records.generate(SMALL, 0)["train"]
    )
    assert counts == {templates.S.name: 30, templates.R_IN_DIGITS.name: 30}


def test_half_of_the_questions_have_a_clause_that_does_not_matter():
    config = dataclasses.replace(SMALL, graph="chains")
    made = records.generate(config, 0)["train"]
    # A chain has a sentence for its start, one a step, and the question.
    more = [len(r.question.split(". ")) - r.level - 2 for r in made]
    assert collections.Counter(more) == {0: 30, 1: 30}


def test_names_differ_where_records_may(monkeypatch):
    other = dataclasses.replace(SMALL, levels=(1, 2))
    names = [builder.config(*x).name for x in ((SMALL, 0), (SMALL, 1), (other, 0))]
    assert len(set(names)) == 3
    monkeypatch.setattr(builder, "CODE", builder.CODE + b"# edited")
    assert builder.config(SMALL, 0).name not in names


def test_a_finished_dataset_is_reused(stored, monkeypatch):
    monkeypatch.setattr(builder.records, "generate", None)
    assert builder.write(SMALL, 0, stored.parents[2]) == stored


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    whole = builder.WordProblems._generate_examples

    def interrupted(self, rows):
        yield from list(whole(self, rows))[:3]
        raise KeyboardInterrupt

    monkeypatch.setattr(builder.WordProblems, "_generate_examples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        builder.write(SMALL, 0, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_what_is_no_dataset(stored, tmp_path):
    with pytest.raises(ValueError, match="holds no finished dataset"):
        builder.read(tmp_path)
    with pytest.raises(ValueError, match="holds no finished dataset"):
        builder.read(stored.parents[2])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"graph": "forests"}, "graph is 'forests', expected one of chains, trees"),
        ({"other": templates.R}, "operand-first/after/named numbers names its numbers"),
        ({"form": "latex"}, "form is 'latex', expected one of plain, annotated"),
        ({"idle": 1.5}, r"idle is 1.5, expected a share"),
        ({"test_share": 0.0}, r"test share of 0.0, expected"),
        ({"train": 0}, "Got 0 train and 1000 test"),
    ],
)
def test_bad_configurations(asked, message):
    with pytest.raises(ValueError, match=message):
        Config(**asked)


def test_an_unknown_level():
    with pytest.raises(ValueError, match="Unknown level 12"):
        records.generate(Config(train=5, test=5, levels=(2, 12)), 0)
