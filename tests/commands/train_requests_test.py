"""What ``jaxlora train`` is asked: its examples, its flags, and what it refuses."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from jaxlora import cli, lora
from jaxlora.commands import train
from jaxlora.commands.flags import training
from jaxlora.models import tokenizer
from jaxlora.tasks import text as records
from jaxlora.train import packed, session
from lines import overridden
from trainings import FLAGS, RECORDS, call, write


@pytest.fixture(autouse=True, scope="module")
def _setting(optax_promotes):
    """Every test of this module; see tests/conftest.py."""


def untrained(program, base, run, plan, rows, libraries):
    """In place of ``packed.updates``, for tests of what is around it."""
    shape = rows.tokens.shape[:2]
    report = packed.Report(np.ones(shape), np.ones(shape))
    return run.replace(step=run.step + shape[1]), report


def test_the_examples_work(speaking, files, tmp_path, monkeypatch, shown):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packed, "updates", untrained)
    for path in ("gsm8k.jsonl", "ann.jsonl", "bo.jsonl", "FOLDER/a.jsonl"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(files[0], tmp_path / path)
    with open(files[0]) as file:
        rows = [json.loads(line) for line in file]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "MODEL").symlink_to(speaking("plain"))
    commands = shown(train.DESCRIPTION)
    folders = (["gsm8k"], ["ann", "bo"], ["alpaca"], ["FOLDER"])
    for words, names in zip(commands, folders, strict=True):
        assert cli.main(words) == 0
        wanted = {*names, *RECORDS}
        assert set(os.listdir("LIBRARY")) == wanted
        shutil.rmtree("LIBRARY")


def test_flags_reach_the_run(speaking, files, tmp_path, monkeypatch):
    seen = []

    def spy(model, base, rows, config, training, **options):
        seen.append((model.config, config, training, options))
        raise ValueError("seen")

    monkeypatch.setattr(session, "train_experts", spy)
    some = "--weight-decay 0.1 --clip 0 --warmup 0.2 --accumulate 3 --epochs 0.5"
    more = "--together 1 --remat on --seed 7 --alpha 3 --batch 2"
    flags = [*some.split(), *more.split()]
    code, said = call(speaking("plain"), files, tmp_path / "out", *flags)
    assert code == 2
    assert said.endswith("jaxlora: seen\n")
    model, config, training, options = seen[0]
    assert model.remat
    assert (config.alpha, config.rank, config.targets) == (3, 4, lora.ALL_LINEAR)
    assert (training.warmup, training.accumulate, training.batch) == (0.2, 3, 2)
    assert (training.epochs, training.steps) == (0.5, 0)
    assert (training.weight_decay, training.clip) == (0.1, 0)
    assert (training.seed, training.together, options["mesh"]) == (7, 1, None)
    # A row more than there are is one too many.
    call(speaking("plain"), files, tmp_path / "out", "--batch", "999")
    assert not seen[1][0].remat
    assert 10 < seen[1][2].batch < 30  # several examples a row


@pytest.mark.parametrize(
    "words",
    ["--data A B", "--data A --data B", "--data=A --data=B", "--data A --data=B"],
)
def test_files_are_repeated_or_listed(words):
    flags = ["--model", "M", "--out", "O", "--targets", "x", "y", "--targets", "z"]
    for order in ([*words.split(), *flags], [*flags, *words.split()]):
        given = train.parse(order)
        assert given.data == ("A", "B")
        assert given.targets == ("x", "y", "z")
    assert train.parse([*words.split(), *flags[:4]]).targets == ()


def test_adapters_have_the_names_of_their_sources(tmp_path, monkeypatch):
    folder = tmp_path / "ann.v2" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / ".jsonl").touch()
    for source, name in (
        ("x/ann.jsonl", "ann"),
        ("bo.train.json", "bo.train"),
        (".", "deep"),
        ("..", "ann.v2"),
        (f"{folder}/", "deep"),
        ("tfds:gsm8k/main:train", "gsm8k-main-train"),
        ("gsm8k/main:test", "gsm8k-main-test"),
    ):
        assert training.adapter_names([source]) == [name]
    with pytest.raises(ValueError, match=r"\.jsonl gives the adapter no name"):
        training.adapter_names([".jsonl"])


def with_token(folder, id):
    """Gives the tokenizer of a folder a token that the model has no row for."""
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text())
    told["model"]["vocab"]["zebra"] = id
    path.write_text(json.dumps(told))


@pytest.fixture
def models_there(speaking, hf, tmp_path_factory):
    """Folders by the word that stands for each below."""
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(speaking("plain"), other, dirs_exist_ok=True)
    with_token(other, 256)
    return {"M": speaking("plain"), "OTHER": other, "MUTE": hf / "llama" / "base"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--model M", "No --data was given, expected a file at least"),
        ("--data A", "Got no --model"),
        ("--model M --data gone.jsonl", "gone.jsonl is not there"),
        ("--model M --data empty.jsonl", "empty.jsonl is empty; expected"),
        ("--model M --data empty.jsonl --skip-bad", "empty.jsonl is empty"),
        ("--model M --data long.jsonl", "long: No example is left to train on: 2 are"),
        ("--model M --data A x/A", "Two data files would both be adapter 'sums'"),
        ("--model M --data A A", "Two data files would both be adapter 'sums'"),
        ("--model M --data list.jsonl", "list.jsonl:2: got [1], expected an object"),
        ("--model gone --data A", "gone"),
        ("--model MUTE --data A", "has no tokenizer.json"),
        ("--model OTHER --data A", "is this the tokenizer of another model?"),
        ("--model M --data A --targets .*q_prj", "'.*q_prj'"),
        ("--model M --data A --rank 99", "LoRA rank is 99, expected 1 to"),
        ("--model M --data A --rank 0", "--rank is 0, expected 1 or more"),
        ("--model M --data A --alpha 0", "alpha is 0.0, expected a positive"),
        ("--model M --data A --epochs 0", "--epochs is 0.0"),
        ("--model M --data A --epochs inf", "--epochs is inf"),
        ("--model M --data A --batch 0", "--batch is 0, expected 1 or more"),
        ("--model M --data A --length 0", "--length is 0, expected 1 or more"),
        ("--model M --data A --clip -1", "--clip is -1.0, expected a number, 0"),
        ("--model M --data A --weight-decay nan", "--weight-decay is nan"),
        ("--model M --data A --seed -1", "--seed is -1, expected 0 or more"),
        ("--model M --data A --mesh expert=8", "does not divide 1 data files"),
        ("--model M --data A --mesh data=8", "does not divide 4 rows of --batch; 1, 2"),
        ("--model M --data A --mesh fsdp=3", "expected a product of 8"),
        ("--model M --data A --mesh experts=8", "did you mean expert?"),
        ("--model M --data A --mesh data=x", "expected a number from 1 on, or -1"),
        ("--model M --data A --mesh data=2,data=4", "names data twice"),
        ("--model M --data A --learn-rate 1", "Did you mean --learning-rate?"),
        ("--model M --data A --out long.jsonl", "long.jsonl is a file, expected a"),
    ],
)
def test_a_bad_request_writes_nothing(
    models_there, files, tmp_path, monkeypatch, capsys, words, expected
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packed, "updates", lambda *_: pytest.fail("it trained"))
    (tmp_path / "x").mkdir()
    shutil.copy(files[0], tmp_path / "x" / "sums.json")
    write(tmp_path / "empty.jsonl", [])
    write(tmp_path / "long.jsonl", [{"prompt": "x" * 999, "answer": "y"}] * 2)
    write(tmp_path / "list.jsonl", [{"prompt": "x", "answer": "y"}, [1]])
    before = sorted(tmp_path.rglob("*"))
    places = models_there | {"A": files[0], "x/A": "x/sums.json"}
    flags = [str(places.get(word, word)) for word in words.split()]
    assert cli.main(overridden(["train", "--out", "library", *FLAGS, *flags])) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert "Traceback" not in said.err
    assert sorted(tmp_path.rglob("*")) == before


def test_prompts_that_are_not_what_is_learnt_are_found(speaking):
    words = tokenizer.load(speaking("chatml"))
    record = records.record({"prompt": "Who?", "answer": "Ann"}, "people:1")
    assert not records.asked_apart([record], words)
    opened = "{% if add_generation_prompt %}<think>{% endif %}"
    thinking = dataclasses.replace(words, chat_template=words.chat_template + opened)
    assert records.asked_apart([record], thinking)
