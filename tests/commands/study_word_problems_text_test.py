"""``jaxlora study word-problems --model`` from flags to files, without a model."""

import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest

from jaxlora.commands import study_word_problems_text as command
from jaxlora.evaluate.schema import Arm
from jaxlora.studies.harness import Outcome
from jaxlora.studies.word_problems.text import answer, learning, protocol
from jaxlora.studies.word_problems.text.config import METHODS
from lines import overridden
from tests import checkpoints

FLAGS = """
--formats plain python --methods mean --rows 3 --ask.problems 4 --resamples 20
--ask.new-tokens 9 --ask.shots 1 --min-own 0
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = checkpoints.qwen2(tmp_path_factory.mktemp("model"))
    path = out / "config.json"
    fields = json.loads(path.read_text()) | {"max_position_embeddings": 2048}
    path.write_text(json.dumps(fields))
    return out


def guess(setting, regime, arm, method):
    """Right or wrong at random, the same for the same system."""
    setting = setting()
    seed = zlib.crc32(f"{regime} {arm} {method}".encode())
    correct = np.random.default_rng(seed).integers(2, size=len(setting.asked))
    fields = {name: [getattr(x, name) for x in setting.asked] for name in COPIED}
    rest = {"correct": correct, "form": "plain", "steps": correct, "error": -1}
    items = pd.DataFrame(fields | rest | {"ended": 1})
    return Outcome(items[list(answer.COLUMNS)], {})


COPIED = ("test", "level", "instance", "template")


@pytest.fixture(autouse=True)
def _no_models(monkeypatch):
    monkeypatch.setattr(protocol, "load", lambda *_: protocol.Loaded(None, {}, None))
    monkeypatch.setattr(learning, "learn", lambda *_: {})
    monkeypatch.setattr(protocol, "_answer", guess)


def words(folder, tmp_path, *more):
    out = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]
    return overridden(["--model", str(folder), *FLAGS, *more, *out])


def test_a_run_leaves_rows_and_tables(folder, tmp_path, capsys):
    assert command.run(words(folder, tmp_path)) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"results.csv", "results.json", "tables.md", "blocks"}
    shown = capsys.readouterr().out
    assert "2-combination, mean" in shown
    assert "few-shot" in shown
    assert "minus hard expert" in shown
    markdown = (tmp_path / "out" / "tables.md").read_text()
    assert "## Word problems solved" in markdown
    assert "## Combinations minus others" in markdown
    assert str(Arm.HARD) not in markdown  # it is called by its level there
    again = ["--config", str(tmp_path / "out" / "results.json")]
    assert command.run([*again, *words(folder, tmp_path)[-4:]]) == 0


def test_experts_below_the_criterion_are_exit_code_1(folder, tmp_path, capsys):
    more = ("--min-own", "1", "--formats", "plain")
    assert command.run(words(folder, tmp_path, *more)) == 1
    shown = capsys.readouterr().out
    assert "Below the criterion" in shown
    assert "expert, plain, on english" in shown


def test_files_are_asked_by_path(folder, tmp_path):
    record = {"question": "2 + 3?", "answer": "2+3 = <<2+3=5>>5\n#### 5"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(record))
    mine = str(tmp_path / "mine.jsonl")
    more = ("--formats", "plain", "--tests", "english", mine)
    assert command.run(words(folder, tmp_path, *more)) == 0
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    tests = {json.loads(x)["test"] for x in rows["condition"]}
    assert tests == {"english", "mine"}


def test_a_config_file_sets_the_defaults_and_flags_outdo_it(tmp_path):
    path = tmp_path / "options.json"
    path.write_text('{"rows": 7, "seeds": 4, "easy": [1, 1], "lora": {"rank": 3}}')
    given = command.parse(["--model", "m", "--config", str(path), "--seeds", "2"])
    assert (given.rows, given.seeds, given.easy, given.lora.rank) == (7, 2, (1, 1), 3)
    assert command.parse(["--methods", "all"]).methods == METHODS
    assert command.parse(["--hard", "5", "8"]).hard == (5, 8)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--modle", "x"], "No option --modle.*Did you mean --model"),
        (["--config", "no.json"], "Cannot read no.json"),
        ([], "--model DIR names a checkpoint"),
        (["--model", "no/such"], "no/such"),
    ],
)
def test_bad_words(given, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        command.run([*given, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--data", "--tests"])
def test_a_missing_file(folder, tmp_path, flag):
    more = (flag, "no.jsonl") + (("--tests", "english") if flag == "--data" else ())
    with pytest.raises(ValueError, match=r"no\.jsonl"):
        command.run(words(folder, tmp_path, *more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--formats", "prose"], "formats has 'prose'; there are plain"),
        (["--hard", "5", "99"], "problems of our own have 1 to 8"),
        (["--data", "a.jsonl"], "nobody is asked"),
        (["--methods", "oracle"], "methods has 'oracle'"),
    ],
)
def test_values_that_do_not_fit(given, sentence, tmp_path):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        command.run([*given, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
