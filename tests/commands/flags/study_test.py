"""Flags: presets, --from, misspellings, and values that do not fit."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxlora.commands import study
from jaxlora.commands.flags import study as flags
from jaxlora.studies.harness.config import flat, plain
from jaxlora.studies.two_hop.config import METHODS
from jaxlora.studies.two_hop.symbols.config import PRESETS, TwoHopConfig


def parsed(*words) -> TwoHopConfig:
    return flags.parse_config(study.Arguments, "jaxlora", words).config


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
def test_a_preset_sets_the_defaults_of_all_other_flags(preset, form):
    words = form.format("--preset", preset).split()
    assert parsed(*words) == PRESETS[preset]
    changed = parsed("--lora.rank", "3", *words, "--seeds", "2")
    lora = dataclasses.replace(PRESETS[preset].lora, rank=3)
    assert changed == dataclasses.replace(PRESETS[preset], seeds=2, lora=lora)


def test_quick_is_the_default():
    assert parsed() == PRESETS["quick"]


@pytest.mark.parametrize("preset", PRESETS)
def test_results_give_back_their_config(tmp_path, preset):
    path = tmp_path / "results.json"
    config = PRESETS[preset]
    path.write_text(json.dumps({"study": "two-hop", "config": plain(config)}))
    assert parsed("--from", str(path)) == config
    assert parsed(f"--from={path}", "--resamples", "9").resamples == 9


def test_all_methods_have_a_short_name():
    assert parsed("--methods", "all", "--seeds", "2").methods == METHODS
    assert parsed("--methods", "sum", "mean").methods == ("sum", "mean")


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--coverages 0.5 1", "coverages", [0.5, 1.0]),
        ("--arrow-top-k 1", "arrow_top_k", 1),
        ("--facts people.jsonl", "facts", "people.jsonl"),
        ("--allow-ties", "allow_ties", True),
        ("--world.people 4", "world.people", 4),
        ("--model.positions rope", "model.positions", "rope"),
        ("--pretrain.min-copy 0.5", "pretrain.min_copy", 0.5),
        ("--lora.use-rslora", "lora.use_rslora", True),
        ("--lora.no-use-rslora", "lora.use_rslora", False),
        ("--lora.targets layers/.* head.*", "lora.targets", ["layers/.*", "head.*"]),
        ("--experts.steps=9", "experts.steps", 9),
        ("--thresholds.retention 0.8", "thresholds.retention", 0.8),
    ],
)
def test_fields_of_every_kind_are_flags(words, field, value):
    assert flat(plain(parsed(*words.split())))[field] == value


def test_every_field_is_a_flag_that_help_names(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    said = capsys.readouterr().out
    fields = set(flat(plain(TwoHopConfig())))
    # A group or none cannot be one flag; the study's bases have no use for it.
    for field in fields - {"model.rope_scaling"}:
        assert f"--{field.replace('_', '-')}" in said


def test_underscores_do_for_hyphens():
    assert parsed("--first_seed", "4").first_seed == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--preset", "quik"],
            "No preset 'quik'; there are quick, standard",
        ),
        (["--preset", "zzz"], "there are quick, standard, full."),
        (["--seedz", "3"], "Did you mean --seeds"),
        (["--lora.rnk", "3"], "Did you mean --lora.rank"),
        (["--rank", "3"], "No option --rank"),
        (["--methods", "men"], "No method 'men'; there are mean"),
        (["--methods"], "methods is empty; there are mean, sum"),
        (["--seeds"], "--seeds"),
        (["--seeds", "two"], "--seeds is 'two', expected a whole number, as in"),
        (["--seeds", "0"], "seeds is 0, expected at least 1"),
        (["--world.coverage", "1.5"], "--world.coverage is 1.5, expected a share in"),
        (["--coverages", "0.5", "-1"], "coverage is -1.0"),
        (["--coverages", "half"], "--coverages is 'half', expected a number"),
        (["--world.people", "11"], "11 people in each of 4 familiar cells need 44"),
        (["--world.people", "2"], "people is 2, expected at least 3"),
        (["--model.mlp", "big"], "--model.mlp is 'big', expected plain or gated"),
        (["--model.num-heads", "3"], "--model.num-heads is 3 and num_kv_heads 4"),
        (["--model.max-length", "4"], "max_length is 4, expected at least 9"),
        (["--pretrain.chunk", "7"], "chunk is 7 and extra_every 10"),
        (["--experts.steps", "0"], "steps is 0, expected at least 1"),
        (["--thresholds.level", "95"], "confidence is 95.0"),
        (["--lora.rank", "129"], "LoRA rank is 129, expected 1 to 128"),
        (["--lora.rank", "0"], "LoRA rank is 0, expected 1 to"),
        (["--lora.alpha", "nan"], "alpha is nan"),
        (["--lora.targets", "nonsense"], "Pattern 'nonsense' matches none"),
        (["--lora.targets", "layers/.*_prj/kernel"], "such as 'layers/"),
        (["--lora.dtype", "int3"], "lora.dtype is 'int3'"),
        (["--arrow-top-k", "3"], "arrow_top_k is 3"),
        (["--arrow-temperature", "0"], "arrow_temperature is 0.0"),
        (["--data-dir", "nowhere"], "nowhere has no world of coverage 1 and seed 0"),
        (["--predictions", "nowhere.json"], "nowhere.json"),
        (["--predictions", "."], "."),
        (["--from", "nowhere.json"], "No file nowhere.json"),
        (["--from", "."], "Cannot read .: Is a directory"),
        (["--from"], "Cannot read ."),
        (["surplus"], "Got 'surplus', which belongs to no option"),
        (["-x"], "No option -x; `jaxlora study two-hop --help` lists all"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_flags_are_refused_before_anything_happens(
    refused, tmp_path, words, expected
):
    folders = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "c")]
    assert expected in refused("study", "two-hop", *folders, *words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"study": "two-hop"', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "has no 'config'"),
        (b'{"study": "two-hop"}', "has no 'config'"),
        (
            b'{"study": "word-problems", "config": {}}',
            "of the study 'word-problems'",
        ),
        (
            b'{"study": "two-hop", "config": {"sedes": 3}}',
            "mean seeds?",
        ),
        (b'{"study": "two-hop", "config": {"lora": {"rnk": 3}}}', "mean lora.rank"),
        (b'{"study": "two-hop", "config": {"seeds": "3"}}', "seeds is '3', expected"),
        (b'{"study": "two-hop", "config": {"seeds": 0}}', "seeds is 0, expected at"),
    ],
)
def test_files_that_are_no_results_are_refused(refused, tmp_path, text, expected):
    path = tmp_path / "results.json"
    path.write_bytes(text)
    folders = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "c")]
    assert expected in refused("study", "two-hop", "--from", str(path), *folders)


def test_from_and_preset_exclude_each_other(refused, tmp_path):
    found = refused("study", "two-hop", "--from", "x.json", "--preset", "quick")
    assert "both --preset and --from" in found


def lines(*facts) -> bytes:
    return b"\n".join(
        json.dumps(dict(zip(("head", "relation", "tail"), fact, strict=True))).encode()
        for fact in facts
    )


WIFE = [("a", "wife", "b"), ("c", "wife", "d")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"head": "ann", "tail": "bob"}', "facts.jsonl:1: no field 'relation'"),
        (lines(*WIFE, ("a", "wife", "x")), "facts.jsonl:3: duplicate head 'a'"),
        (lines(*WIFE, ("e", "wife", "b")), "facts.jsonl:3: relation 'wife' gives 'e'"),
        (lines(WIFE[0]) + b"\n\xff\xfe", "facts.jsonl:2: byte 0xff at column 1"),
        (b"", "facts.jsonl is empty"),
        (lines(*WIFE), "no chain of two relations"),
    ],
)
def test_a_bad_facts_file_names_file_and_line(refused, tmp_path, text, expected):
    path = tmp_path / "facts.jsonl"
    path.write_bytes(text)
    folders = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "c")]
    said = refused("study", "two-hop", *folders, "--facts", str(path))
    assert expected in said.replace("│ ", "")
    assert expected in refused(
        "data", "two-hop", "--out", str(tmp_path / "data"), "--facts", str(path)
    )


def test_the_cache_is_where_the_system_keeps_caches():
    assert flags.cache_dir().name == "jaxlora"
    assert flags.cache_dir() != Path("jaxlora")
