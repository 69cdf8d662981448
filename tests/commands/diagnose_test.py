"""``jaxlora diagnose`` on a tiny Llama: what it shows, and what it refuses."""

import json
import re

import pytest

from jaxlora import cli
from jaxlora.commands import diagnose, diagnose_tables
from jaxlora.diagnose.outlook import Outlook

PEOPLE = (("Ann", "Bo", "Rome"), ("Eve", "Flo", "Oslo"), ("Gus", "Hal", "Lima"))
PROBES = [
    {
        "question": f"Where does the wife of {a} live?",
        "answer": c,
        "bridge": b,
        "first": f"Who is the wife of {a}?",
        "second": f"Where does {b} live?",
    }
    for a, b, c in PEOPLE
]
FIRST = [{"prompt": p["first"], "answer": p["bridge"]} for p in PROBES]
SECOND = [{"prompt": p["second"], "answer": p["answer"]} for p in PROBES]
# Rows of the combined solution: other questions, the bridge written, then the answer.
PRACTISED = [
    {"prompt": "Where does the wife of Tom live?", "answer": f"{b} {c}"}
    for _, b, c in PEOPLE
]


@pytest.fixture
def files(tmp_path):
    """Writes rows and probes; returns the flags that name them."""

    def write(first=FIRST, second=SECOND, probes=PROBES):
        paths = []
        for name, records in (("first", first), ("second", second), ("p", probes)):
            paths.append(tmp_path / f"{name}.jsonl")
            paths[-1].write_text("\n".join(map(json.dumps, records)))
        return ["--data", *map(str, paths[:2]), "--probe", str(paths[2])]

    return write


@pytest.fixture
def run(speaking, files, capsys, monkeypatch):
    """Runs the command; returns what it printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words, name="plain", **records):
        model = str(speaking(name))
        assert cli.main(["diagnose", model, *files(**records), *words]) == 0
        return capsys.readouterr().out

    return call


def row(out, name):
    """The cells of the row of a table of rows."""
    return re.search(rf"{name} expert +(\d of \d +.*)", out)[1].split("  ")


def test_it_shows_hops_kernels_and_a_verdict(run):
    out = run()
    assert re.search(r"base +\d of 3 +\d of 3 +\d of 3", out)
    assert "two-hop skill on facts that the base knows" in out
    assert re.search(
        r"first expert +3 of 3 +\d\.\d{3} +0\.333 .* one-hop question", out
    )
    assert re.search(r"second expert +3 of 3 +\d\.\d{3} +0\.333", out)
    assert "headroom: not measured" in out
    probability = float(re.search(r"predicted: .*probability (\d\.\d\d)", out)[1])
    assert 0 <= probability <= 1
    assert "warning: " in out


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"source": "s", "groups": 2, "people": 9}, "small bases of symbols (s; 2 g"),
        ({"source": "s", "placeholder": True}, "no study has fitted yet (s)"),
    ],
)
def test_it_says_how_far_to_trust_it(capsys, about, words):
    seen = Outlook(0.4, "composes in part", (), ("skill",))
    diagnose_tables.verdict(seen, about, "direct")
    out = " ".join(capsys.readouterr().out.split())
    assert words in out
    assert "composes in part, asked directly; probability 0.40" in out
    assert "read as its nearest end: skill" in out


def test_a_row_raises_the_answer_to_its_own_question(run):
    effect = re.search(r"first expert +3 of 3 +\S+ +0\.333 +(\S+)", run())[1]
    assert float(effect) > 0


def test_the_way_to_ask_and_the_rows_count(run):
    direct = run()
    written = run("--ask", "written")
    practised = run("--ask", "written", second=[*SECOND, *PRACTISED])
    assert "where the bridge is written" in written
    assert "with the bridge written; probability" in written
    effects = [row(out, "second") for out in (direct, written, practised)]
    assert len({tuple(cells) for cells in effects}) == 3


def test_rows_of_other_facts_are_counted(run):
    other = {"prompt": "Where does Zoe live?", "answer": "Bern"}
    out = run(second=[*SECOND[:2], other])
    assert re.search(r"second expert +2 of 3 ", out)
    assert "1 rows of the second expert teach none of these." in out


def test_adapters_are_asked_and_placed(run, hf):
    adapters = [str(hf / "llama" / name) for name in ("plain", "plain2")]
    out = run("--adapter", *adapters)
    assert (
        len(re.findall(r"(?:first|second) expert +\d of 3 +\d of 3 +\d of 3", out)) == 2
    )
    assert "norm of each layer" in out
    assert "placement: " in out


def test_a_chat_template_is_used(run):
    assert "predicted:" in run(name="chatml")


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"probes": [*PROBES, {**PROBES[0], "answer": "Bern"}]}, "but by 'Rome' in"),
        ({"probes": PROBES[:1]}, "have the answer 'Rome' alone"),
        ({"probes": [{**PROBES[0], "bridge": "Rome"}]}, "both 'Rome'"),
        ({"probes": [{"question": "x"}]}, "no field 'answer'"),
        ({"second": [{"prompt": "Where does Bo live?"}]}, "expected"),
        ({"second": [{"text": "Bo lives in Rome"}]}, "the row has no answer"),
        ({"first": SECOND}, "None of the 3 rows ends in one of the answers"),
        ({"second": [{**SECOND[0], "prompt": "long " * 99}]}, "model's context of"),
        (
            {"probes": [{**x, "second": "long " * 99 + x["second"]} for x in PROBES]},
            "model's context of",
        ),
    ],
)
def test_bad_input_is_one_sentence(refused, speaking, files, records, words):
    model = str(speaking("plain"))
    assert words in refused("diagnose", model, *files(**records))


def test_words_that_the_vocabulary_lacks_are_named(refused, hf, files, tmp_path):
    model = small_vocabulary(hf, tmp_path / "model")
    said = refused("diagnose", str(model), *files())
    assert "the vocabulary has no token for 'Oslo'" in said
    assert "p.jsonl:2" in said or "second.jsonl:2" in said


def small_vocabulary(hf, folder):
    """A Llama that reads whole words, and has never heard of Oslo."""
    import shutil

    import tokenizers
    from tokenizers import models, pre_tokenizers

    shutil.copytree(hf / "llama" / "base", folder)
    texts = [x for p in PROBES for x in p.values()]
    words = sorted({w for x in texts for w in x.replace("?", " ?").split()} - {"Oslo"})
    vocab = {w: i for i, w in enumerate(["[UNK]", "</s>", *words])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "</s>", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "a.jsonl"], "Got 1 files of rows, expected two"),
        (["--data", "a", "b", "--adapter", "c"], "Got 1 adapters, expected none"),
    ],
)
def test_counts_of_files_are_checked(refused, words, expected):
    assert expected in refused("diagnose", "MODEL", *words, "--probe", "p.jsonl")


def test_the_examples_in_the_help_are_commands(shown):
    for words in shown(diagnose.DESCRIPTION):
        assert words[0] == "diagnose"
        diagnose.flags.parse(diagnose.Arguments, diagnose.PROG, words[1:])
