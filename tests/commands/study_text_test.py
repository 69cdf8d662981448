"""``jaxlora study two-hop --model`` from its flags to its files, without a model."""

import json
import pathlib
import shutil
import zlib

import numpy as np
import pytest

from jaxlora.commands import study_text
from jaxlora.evaluate.schema import Arm, Split
from jaxlora.models import Decoder
from jaxlora.studies.harness import Outcome
from jaxlora.studies.two_hop import items
from jaxlora.studies.two_hop.text import answer, codec, experts, resources
from jaxlora.studies.two_hop.text.config import METHODS
from jaxlora.tasks.two_hop.experts import Expert
from lines import overridden

DATA = pathlib.Path(__file__).parents[1] / "data"
FLAGS = """
--cells F-OO --people 3 --pairs 1 --methods mean --resamples 50 --lora.rank 2
--gates.min-own 0 --gates.min-context 0
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    shutil.copy(DATA / "hf" / "qwen2" / "base" / "config.json", out)
    shutil.copytree(DATA / "tokenizer" / "plain", out, dirs_exist_ok=True)
    return out


def load(config, progress):
    progress("loading", 1, 1, "nothing")
    model = Decoder(resources.decoder(config))
    prompts = codec.load(config.model, config.chat)
    return resources.Loaded(model, {}, prompts, {name: {} for name in config.adapter})


def run(setting, library, method):
    """Scores at random, the same for the same people and block."""
    asked, group = setting.asked, setting.group
    rng = np.random.default_rng(zlib.crc32(f"{group} {library} {method}".encode()))
    splits = [Split.HOP1, Split.HOP2, Split.TWO_HOP]
    splits += [Split.CONTEXT] if library is Arm.BASE else []
    frames = [
        items.people(
            rng.standard_normal((group.size, len(asked.names))),
            group,
            split,
            asked.keys[split],
            None,
        )
        for split in splits
    ]
    table = frames[0].__class__(
        {name: np.concatenate([f[name] for f in frames]) for name in items.COLUMNS}
    )
    own = {} if library is Arm.BASE else {"own": {str(group.cell): 1.0}}
    return Outcome(table, own)


@pytest.fixture(autouse=True)
def _no_models(monkeypatch):
    trained = experts.Trained({name: {} for name in Expert}, {})
    monkeypatch.setattr(resources, "load", load)
    monkeypatch.setattr(answer, "answer", run)
    monkeypatch.setattr(answer, "own_facts", lambda *_: 1.0)
    monkeypatch.setattr(experts, "train", lambda *_: trained)


def test_a_run_leaves_tables_figures_and_a_page(folder, tmp_path, capsys):
    words = ["--model", str(folder), *FLAGS, "--out", str(tmp_path / "out")]
    assert study_text.run([*words, "--cache-dir", str(tmp_path / "cache")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"results.csv", "results.json", "report.html", "tables.md"}
    assert "figure-familiarity.png" in names
    said = capsys.readouterr().out
    assert "2-combination" in said
    assert "full fine-tuning: needs a copy of all parameters" in said
    written = (tmp_path / "out" / "tables.md").read_text()
    assert "## Left out" in written
    again = ["--config", str(tmp_path / "out" / "results.json"), *words[-2:]]
    assert study_text.run([*again, "--cache-dir", str(tmp_path / "cache")]) == 0


def test_a_base_that_fails_is_exit_code_1(folder, tmp_path):
    words = ["--model", str(folder), *FLAGS, "--gates.min-context", "1"]
    words += ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path)]
    assert study_text.run(overridden(words)) == 1


def test_own_adapters_are_told_with_their_roles(folder, tmp_path, capsys, monkeypatch):
    told = {"x": [0, 1, 0], "y": [1, 0, 0], "z": [0, 0, 0]}
    monkeypatch.setattr(resources, "skills", lambda *_: told)
    named = dict.fromkeys(told) | {"z": "org/another"}
    monkeypatch.setattr(study_text.adapter_folders, "bases", lambda _: named)
    lines = []
    for i in range(3):
        lines.append({"head": f"Ann {i}", "relation": "spouse", "tail": f"Bo {i}"})
        lines.append({"head": f"Bo {i}", "relation": "home", "tail": f"Rome {i}"})
    (tmp_path / "facts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["--model", str(folder), *FLAGS, "--adapter", "x", "y", "z"]
    words += ["--facts", str(tmp_path / "facts.jsonl"), "--familiarity", "F"]
    words += ["--gates.min-own", "0.9", "--out", str(tmp_path / "out")]
    cache = ["--cache-dir", str(tmp_path / "cache")]
    assert study_text.run(overridden([*words, *cache])) == 0
    said, warned = capsys.readouterr()
    assert "The adapter z is of org/another, by its config, and not of" in warned
    assert "Adapters (hop1 measured; hop2 measured)" in said
    assert "- hop1: y" in said
    assert "- no role: z" in said
    assert "shuffled answers: experts with shuffled answers: needs training" in said


def test_a_library_is_its_adapters(folder, tmp_path, capsys):
    for name in ("bo", "ann", "city"):
        (tmp_path / "lib" / name).mkdir(parents=True)
        (tmp_path / "lib" / name / "adapter_config.json").write_text("{}")
    library = tmp_path / "lib"
    wanted = tuple(str(library / name) for name in ("ann", "bo", "city"))
    for words in (["--adapter", str(library)], [f"--adapter={library}"]):
        found = study_text.parse([*words, "--facts", "f", "--model", str(folder)])
        assert found.adapter == wanted
        assert "3 adapters, in this order: ann, bo, city." in capsys.readouterr().err


def test_a_config_file_sets_the_defaults_and_flags_outdo_it(tmp_path):
    path = tmp_path / "options.json"
    path.write_text('{"people": 7, "seeds": 4, "lora": {"rank": 3}}')
    given = study_text.parse(["--model", "m", "--config", str(path), "--seeds", "2"])
    assert (given.people, given.seeds, given.lora.rank) == (7, 2, 3)
    assert given.lora.alpha == 16.0
    assert study_text.parse([f"--config={path}"]).people == 7


def test_methods_all_and_repeated_adapters(tmp_path):
    words = ["--methods", "all", "--facts", "f", "--adapter", "a", "--adapter", "b"]
    given = study_text.parse(words)
    assert given.methods == METHODS
    assert given.adapter == ("a", "b")


def test_memory_is_told_from_the_config_alone(folder, capsys, monkeypatch):
    monkeypatch.setattr(resources, "load", lambda *_: pytest.fail("it was loaded"))
    assert study_text.run(["--model", str(folder), *FLAGS, "--memory"]) == 0
    said = capsys.readouterr().out
    assert "| base |" in said
    assert "| training |" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--modle", "x"], "No option --modle.*Did you mean --model"),
        (["--config", "no.json"], "Cannot read no.json"),
        ([], "--model DIR names a checkpoint"),
    ],
)
def test_bad_words(words, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        study_text.run([*words, "--out", str(tmp_path / "out")][: len(words) + 2])
    assert not (tmp_path / "out").exists()
