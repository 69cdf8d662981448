"""``jaxlora data word-problems`` writes what the generator gives."""

from jaxlora import cli
from jaxlora.tasks import jsonl
from jaxlora.tasks.word_problems import builder, records
from jaxlora.tasks.word_problems.records import Config
from jaxlora.tasks.word_problems.templates import Template

FLAGS = "--train 12 --test 6 --levels 2 --form python --template.words 1 --seed 3"
CONFIG = Config(train=12, test=6, levels=(2,), form="python", template=Template(1))


def test_both_forms_are_written_and_named(tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["data", "word-problems", *FLAGS.split(), "--out", str(out)]) == 0
    expected = records.generate(CONFIG, 3)
    shown = "".join(capsys.readouterr().out.split())
    assert "train:12problems" in shown
    answers = [row["answer"] for _, row in jsonl.read(out / "test.jsonl")]
    assert answers == [record.answer for record in expected["test"]]
    folder = next(out.glob("word_problems/seed3-*/1.0.0"))
    assert builder.read(folder) == expected


def test_files_are_overwritten_with_force_only(tmp_path, capsys):
    words = ["data", "word-problems", *FLAGS.split(), "--out", str(tmp_path)]
    assert cli.main(words) == 0
    before = (tmp_path / "train.jsonl").read_bytes()
    record = next(tmp_path.glob("word_problems/*/1.0.0/*.array_record*"))
    good = record.read_bytes()
    record.write_bytes(b"damaged")
    (tmp_path / "train.jsonl").write_text("mine")
    assert cli.main(words) == 2
    assert "train.jsonl exists already" in capsys.readouterr().err
    assert (tmp_path / "train.jsonl").read_text() == "mine"
    assert cli.main([*words, "--force"]) == 0
    assert (tmp_path / "train.jsonl").read_bytes() == before
    assert record.read_bytes() == good


def test_bad_input_is_one_sentence(tmp_path, capsys):
    words = ["data", "word-problems", "--out", str(tmp_path / "out"), "--levels", "9"]
    assert cli.main(words) == 2
    assert "Unknown level 9, expected 1 to 8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
