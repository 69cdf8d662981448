"""One rule for every command: nothing that exists is overwritten without --force."""

import json
import shutil

import pytest

from jaxlora import cli
from jaxlora.commands.catalog import COMMANDS, TEXT_STUDIES
from jaxlora.commands.pages import TEXT, file, flags

PLANS = {f"plan {name}" for name in ("train", "route", "merge", "study")}
SILENT = {"data questions", "diagnose", "info", "completion", *PLANS}
"""Commands that write nothing."""
NEEDED = {"forward": "--tokens ids.json", "eval": "--data data.jsonl --metric exact"}
ROUTED = "--adapter a b --route uniform --tokens ids.json"


@pytest.fixture
def place(hf, speaking, tmp_path, monkeypatch):
    """The current folder: a model, the adapters a and b alone and as a library."""
    shutil.copytree(speaking("plain"), tmp_path / "base")
    for name, source in (("a", "plain"), ("b", "plain2")):
        for folder in (tmp_path / name, tmp_path / "library" / name):
            shutil.copytree(hf / "llama" / source, folder)
    (tmp_path / "ids.json").write_text("[[5, 6, 7]]")
    (tmp_path / "data.jsonl").write_text('{"question": "Who?", "answer": "Bo"}\n')
    shutil.copy(tmp_path / "data.jsonl", tmp_path / "other.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted({*COMMANDS} - SILENT))
def test_every_command_that_writes_has_force(name):
    assert "--force" in flags(file(name).read_text())
    if name in TEXT_STUDIES:
        assert "--force" in flags(file(name + TEXT).read_text())


FILES = [
    ("forward base --tokens ids.json", "--out", "x.npy"),
    ("eval --model base --data data.jsonl --metric exact", "--out", "x.jsonl"),
    ("generate base --prompt Hi --max-new-tokens 2", "--out", "x.jsonl"),
    (f"routes base {ROUTED}", "--figure", "x.svg"),
    (f"routes base {ROUTED}", "--table", "x.json"),
    ("inspect a b", "--figure", "x.pdf"),
    ("inspect a b", "--table", "x.csv"),
    ("inspect a b", "--table", "x.json"),
    (
        "gate base --adapter a b --route retrieval --data data.jsonl other.jsonl",
        "--out",
        "x.safetensors",
    ),
]


@pytest.mark.parametrize(("words", "flag", "name"), FILES)
def test_a_file_is_replaced_with_force_only(place, capsys, words, flag, name):
    (place / name).write_text("mine")
    call = [*words.split(), flag, name]
    before = sorted(place.rglob("*"))
    assert cli.main(call) == 2
    said = capsys.readouterr()
    assert said.err == (
        f"jaxlora: {name} exists already and is not overwritten; give another name, or "
        f"--force to replace it.\n"
    )
    assert said.out == ""
    assert (place / name).read_text() == "mine"
    assert sorted(place.rglob("*")) == before
    assert cli.main([*call, "--force"]) == 0
    assert (place / name).read_bytes() != b"mine"
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "kind", "marker"),
    [
        ("merge a b --method mean", "adapter", "adapter_config.json"),
        ("fuse base a", "checkpoint", "config.json"),
    ],
)
def test_a_folder_is_replaced_with_force_only(place, capsys, words, kind, marker):
    call = [*words.split(), "--out", "made"]
    assert cli.main(call) == 0
    (place / "made" / "README.md").write_text("of the old one")
    capsys.readouterr()
    assert cli.main(call) == 2
    assert f"--force to replace the {kind} in it" in capsys.readouterr().err
    assert (place / "made" / "README.md").is_file()
    assert cli.main([*call, "--force"]) == 0
    assert not (place / "made" / "README.md").exists()
    assert (place / "made" / marker).is_file()
    (place / "made" / "thesis.tex").write_text("precious")
    assert cli.main([*call, "--force"]) == 2
    assert "'thesis.tex', which no" in capsys.readouterr().err


def test_a_report_is_no_exception(place, capsys):
    (place / "report").mkdir()
    (place / "report" / "fidelity.csv").write_text("mine")
    call = [
        "merge",
        "a",
        "b",
        "--method",
        "mean",
        "--out",
        "made",
        "--report",
        "report",
    ]
    assert cli.main(call) == 2
    assert "fidelity.csv exists already" in capsys.readouterr().err
    assert not (place / "made").exists()


@pytest.mark.parametrize(
    "words",
    [
        "forward base --tokens ids.json --out ids.json",
        "generate base --prompts data.jsonl --out ../{here}/data.jsonl",
        "eval --model base --data data.jsonl --metric exact --out data.jsonl",
        "gate base --adapter a b --route retrieval --data data.jsonl other.jsonl "
        "--out other.jsonl",
        "inspect a b --table a",
        "merge a b --method mean --out b",
        "fuse base a --out base",
    ],
)
def test_what_is_read_is_not_written_over_by_force_neither(place, capsys, words):
    before = {x: x.read_bytes() for x in place.rglob("*") if x.is_file()}
    assert cli.main([*words.format(here=place.name).split(), "--force"]) == 2
    said = capsys.readouterr().err
    assert ", which is read too and is not overwritten, by --force neither; " in said
    assert {x: x.read_bytes() for x in place.rglob("*") if x.is_file()} == before


LIBRARY = [
    "forward base --adapter {} --merge mean --tokens ids.json --out {out}.npy",
    "generate base --adapter {} --route arrow --prompt Hi --out {out}.jsonl",
    "routes base --adapter {} --route arrow --tokens ids.json --table {out}.csv",
    "gate base --adapter {} --route retrieval --data data.jsonl other.jsonl "
    "--out {out}.safetensors",
    "inspect {} --table {out}.json",
    "eval --model base --adapter {} --merge sum --data data.jsonl --metric exact "
    "--out {out}.jsonl",
    "merge {} --method mean --out {out}",
    "fuse base {} --merge mean --out {out}",
]


@pytest.mark.parametrize("words", LIBRARY)
def test_a_library_stands_for_its_adapters(place, capsys, words):
    for i, given in enumerate(("a b", "library")):
        assert cli.main(words.format(given, out=f"out{i}").split()) == 0
        said = capsys.readouterr().err
        line = "library is a library of 2 adapters, in this order: a, b."
        assert (line in said) == bool(i)
    one, two = sorted(place.glob("out*"))
    if one.is_dir():
        one, two = (next(x.glob("*model.safetensors")) for x in (one, two))
    assert one.read_bytes() == two.read_bytes()


def of_base(folder, name):
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = name
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("words", [words for words in LIBRARY if "base" in words])
def test_a_base_that_is_not_the_adapters_own_is_warned_of(place, capsys, words):
    call = words.format("a b", out="out").split()
    of_base(place / "a", "org/base")
    assert cli.main(call) == 0
    assert "by its config" not in capsys.readouterr().err
    of_base(place / "b", "org/chat")
    (flag,) = {"--out", "--table"} & set(call)
    call[call.index(flag) + 1] = call[call.index(flag) + 1].replace("out", "again")
    assert cli.main(call) == 0
    said = capsys.readouterr().err
    assert (
        "jaxlora: The adapter b is of org/chat, by its config, and not of base; "
        in said
    )
    assert said.count("by its config") == 1


@pytest.mark.parametrize(
    ("words", "now"),
    [
        ("generate base --sample-top-k 3", "--top-k"),
        ("eval --limit 3", "--records"),
        ("eval --top-k 3", "--route-top-k"),
        ("forward base --temperature 3", "--route-temperature"),
        ("gate base --top-k=3", "--route-top-k"),
        ("routes base --csv x.csv", "--table"),
        ("routes base --out x.png", "--figure"),
        ("inspect a --json x.json", "--table"),
        ("diagnose base --rows a b", "--data"),
        ("merge a b --method regmean --data x", "--statistics"),
    ],
)
def test_an_old_word_is_answered_by_the_new_one(refused, words, now):
    assert f"it is {now} now; `jaxlora" in refused(*words.split())


def test_a_word_has_one_meaning_in_all_commands():
    """What may stand after a flag is the same wherever it is short of a prefix."""
    route, sampled = {"--route-top-k", "--route-temperature"}, {"--top-k", "--top-p"}
    for name in COMMANDS:
        given = set(flags(file(name).read_text()))
        if sampled & given:
            assert name == "generate"
            assert "--temperature" in given
        else:
            assert "--temperature" not in given
        assert len(route & given) in (0, 2)
