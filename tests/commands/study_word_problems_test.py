"""``jaxlora study word-problems`` from its flags to its files, without models.

Bases that know everything and answers that are drawn from the name of the block; the
study around them is the real one. Real models are in tests/studies.
"""

import contextlib
import io
import json
import types
import zlib

import numpy as np
import pandas as pd
import pytest

import boundary_rows
from jaxlora import cli
from jaxlora.commands import study_word_problems
from jaxlora.commands.flags import study as flag_parts
from jaxlora.evaluate.schema import Arm
from jaxlora.studies.boundary.config import BoundaryConfig
from jaxlora.studies.harness import Outcome
from jaxlora.studies.harness.config import flat, plain
from jaxlora.studies.word_problems import answer, bases, experts, questions, worlds
from jaxlora.studies.word_problems.bases import Base
from jaxlora.studies.word_problems.config import PRESETS
from lines import overridden

FLAGS = """
--resamples 2 --seeds 1 --map-seeds 0 --methods mean --overlaps 0 1
--world.new 3 --world.known-unary 3 --world.levels 3
--model.hidden-size 16 --model.num-layers 2 --model.num-heads 2 --model.num-kv-heads 2
--model.head-dim 8 --model.mlp-size 32 --lora.rank 2
--pretrain.rows 400 --pretrain.max-steps 12 --pretrain.chunk 12 --experts.rows 32
"""
SHARES = {Arm.PAIR: 0.6, Arm.JOINT: 1.0}


def train(config, shape, recipe, seed, cache, progress):
    """Bases that meet every criterion, but answer without steps half the time."""
    world = worlds.generate(config, seed)
    names = [
        bases.known_name(level, number)
        for level in range(1, world.levels + 1)
        for number in range(len(worlds.TEMPLATES))
    ]
    measured = dict.fromkeys(names, (1.0, 50))
    measured |= {bases.answer_name(x): (0.5, 50) for x in worlds.ANSWER_LEVELS}
    progress(recipe.max_steps, measured)
    return Base(world, bases.decoder(shape, world), {}, recipe.max_steps, measured)


def ignorant(*given):
    """Bases that know nothing."""
    base = train(*given)
    return base._replace(measured=dict.fromkeys(base.measured, (0.1, 50)))


def write(setting, arm, method):
    """Right answers by arm, the same for the same block."""
    frame = setting.asked.frame
    name = f"{setting.regime} {arm} {method}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    two = frame["split"].isin([str(x) for x in questions.NEEDED])
    share = SHARES.get(arm, 0.1) if setting.regime.second.share else 0.1
    right = rng.random(len(frame)) < np.where(two, share, 1.0)
    items = frame.assign(
        correct=right.astype(int),
        steps=right.astype(int),
        predicted=0,
        chance=1 / 13,
        counterfactual=0,
        error=np.where(right, -1, 2),
    )
    return Outcome(items[list(answer.COLUMNS)], {"own": 1.0})


@pytest.fixture(autouse=True, scope="module")
def _no_word_models():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bases, "train", train)
        patched.setattr(answer, "answer", write)
        patched.setattr(experts, "train", lambda base, every, *_: {})
        yield


@pytest.fixture(scope="module")
def two_hop(tmp_path_factory):
    """Results of a boundary study."""
    folder = tmp_path_factory.mktemp("boundary")
    config = BoundaryConfig(seeds=1, map_seeds=0, methods=("mean", "sum"), ranked=())
    boundary_rows.rows(config).to_csv(folder / "results.csv.gz", index=False)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, two_hop):
    """A finished study, and what it printed."""
    root = tmp_path_factory.mktemp("word-problems")
    words = [*FLAGS.split(), "--out", str(root / "out")]
    words += ["--cache-dir", str(root / "cache"), "--two-hop", str(two_hop)]
    (root / "none.json").write_text("[]")
    words += ["--predictions", str(root / "none.json")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cli.main(["study", "word-problems", *words]) == 0
    (root / "printed.txt").write_text(printed.getvalue())
    return root


def test_a_run_leaves_rows_figures_tables_and_a_page(made):
    names = {x.name for x in (made / "out").iterdir()}
    assert names >= {"results.csv", "results.json", "report.html", "tables.md"}
    assert {"overlap.png", "law.png"} <= names
    # No expert was confined to a level, and no base answers without steps.
    assert not names & {"levels.png", "answers.png"}
    rows = pd.read_csv(made / "out" / "results.csv", keep_default_na=False)
    assert set(rows["study"]) == {"word problems"}
    assert "Facts of two hops" in (made / "out" / "tables.md").read_text()


def test_it_begins_with_the_finding_and_ends_with_paths_and_time(made):
    text = " ".join((made / "printed.txt").read_text().split())
    first = "The mean of two experts solves 0."
    assert first in text
    assert text.index(first) < text.index("The dial: shared solution templates")
    for part in ("one LoRA on both: 1.00", "Took ", "report.html"):
        assert part in text, part
    assert "base 0/12" in (made / "out" / "log.txt").read_text()
    assert "No prediction was written down before this run" in text


def test_a_base_that_fails_its_criteria_is_exit_code_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bases, "train", ignorant)
    folders = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "c")]
    assert cli.main(["study", "word-problems", *FLAGS.split(), *folders]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "no base met its criteria" in text
    assert "Bases that failed: 70 (headline, 3 unary operations)." in text
    assert (tmp_path / "out" / "report.html").is_file()


def test_from_repeats_the_configuration(made):
    path = str(made / "out" / "results.json")
    given = flag_parts.parse_config(
        study_word_problems.Arguments,
        "x",
        ["--from", path],
        study_word_problems.SOURCE,
    ).config
    stored = json.loads((made / "out" / "study.json").read_text())["config"]
    assert json.loads(json.dumps(plain(given))) == stored


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_defaults_of_all_other_flags(preset):
    given = flag_parts.parse_config(
        study_word_problems.Arguments,
        "x",
        ["--preset", preset],
        study_word_problems.SOURCE,
    )
    assert given.config == PRESETS[preset]


def test_all_is_every_method_that_may_write():
    given = flag_parts.parse_config(
        study_word_problems.Arguments,
        "x",
        ["--methods", "all", "--ranked", "all"],
        study_word_problems.SOURCE,
    ).config
    assert given.methods == given.ranked == study_word_problems.WRITING
    assert "oracle" not in given.methods


def test_every_field_is_a_flag(capsys):
    assert cli.main(["study", "word-problems", "--help"]) == 0
    text = capsys.readouterr().out
    for field in set(flat(plain(PRESETS["quick"]))) - {"model.rope_scaling"}:
        assert f"--{field.replace('_', '-')}" in text, field


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("--overlaps 0 1.5", "overlaps has 1.5, expected shares in [0, 1]"),
        ("--methods nonsense", "nonsense"),
        ("--methods oracle", "The oracle routes by labels"),
        ("--axes tmplates", "tmplates"),
        ("--world.modulus 12 --world.known-binary 4", "12, which is no prime"),
        ("--world.known-binary 0 --world.known-unary 0", "known"),
        ("--map-seeds 1 --world.known-binary 0 --coverages 0", "known"),
        ("--world.levels 2", "levels is 2, expected at least 3"),
        ("--lora.rank 99", "LoRA rank is 99"),
        ("--lora.targets nowhere", "nowhere"),
        ("--seeds 0", "there is nothing to ask"),
        ("--predictions nowhere.json", "nowhere.json"),
        ("--two-hop nowhere", "nowhere has neither results.csv nor"),
        ("--overlap 0.5", "--overlaps"),
        ("--preset quik", "No preset 'quik'"),
        ("--from nowhere.json", "No file nowhere.json"),
    ],
)
def test_bad_input_is_refused_before_anything_happens(
    refused, monkeypatch, tmp_path, more, expected
):
    monkeypatch.setattr(bases, "train", lambda *_: pytest.fail("it trained"))
    folders = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "c")]
    given = more.split()
    if given[0] not in ("--preset", "--from"):
        given = overridden([*FLAGS.split(), *given])
    assert expected in refused("study", "word-problems", *folders, *given)


def test_results_of_another_study_are_refused(refused, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"study": "boundary", "config": {}}))
    text = refused("study", "word-problems", "--from", str(path))
    assert "expected 'word problems'" in text
    pd.DataFrame({"study": ["two-hop"]}).to_csv(tmp_path / "results.csv")
    text = refused("study", "word-problems", *FLAGS.split(), "--two-hop", str(tmp_path))
    assert "holds no direct and written answers" in text


def test_with_a_model_the_text_study_is_asked(monkeypatch):
    given = []

    def run(words):
        given.extend(words)
        return 0

    names = []

    def load(name):
        names.append(name)
        return types.SimpleNamespace(run=run)

    monkeypatch.setattr(cli.importlib, "import_module", load)
    assert cli.main(["study", "word-problems", "--model", "there"]) == 0
    assert names == ["jaxlora.commands.study_word_problems_text"]
    assert given == ["--model", "there"]
