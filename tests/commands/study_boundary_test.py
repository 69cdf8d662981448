"""``jaxlora study boundary`` from its flags to its files, without models."""

import contextlib
import dataclasses
import io
import json

import pandas as pd
import pytest

from jaxlora import cli
from jaxlora.commands import study_boundary
from jaxlora.commands.flags import study as flags
from jaxlora.studies.boundary import design
from jaxlora.studies.boundary.config import PRESETS
from jaxlora.studies.boundary.design import NEW
from jaxlora.studies.harness.config import flat, plain
from lines import overridden


@pytest.fixture(scope="module")
def words(flags):
    """The tiny study: one base, one method, hardly any resamples."""
    more = ["--resamples", "2", "--seeds", "1", "--map-seeds", "0"]
    return overridden([*flags, *more])


def few(config, every=design.points):
    """The points of a configuration, with new facts alone, where B→C practises."""
    return tuple(
        dataclasses.replace(x, cells=NEW, regimes=x.regimes[1:2], full=False)
        for x in every(config)
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory, words):
    """A finished study, and what it printed."""
    root = tmp_path_factory.mktemp("boundary")
    folders = ["--out", str(root / "out"), "--cache-dir", str(root / "cache")]
    (root / "none.json").write_text("[]")
    folders += ["--predictions", str(root / "none.json")]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(printed):
        patched.setattr(design, "points", few)
        assert cli.main(["study", "boundary", *words, *folders]) == 0
    (root / "printed.txt").write_text(printed.getvalue())
    return root


def test_a_run_leaves_rows_figures_tables_and_a_page(made):
    names = {x.name for x in (made / "out").iterdir()}
    assert names >= {"results.csv", "results.json", "report.html", "tables.md"}
    assert "figure-regimes.png" in names
    # No map was asked: there is nothing to draw of it.
    assert "figure-phase.png" not in names
    rows = pd.read_csv(made / "out" / "results.csv", keep_default_na=False)
    assert set(rows["study"]) == {"boundary"}


def test_it_ends_with_the_finding_regimes_predictions_paths_and_time(made):
    text = " ".join((made / "printed.txt").read_text().split())
    for part in (
        "B→C practises",
        "ways of training and asking",
        "Took ",
    ):
        assert part in text, part
    assert "base 0/10" not in text  # progress is no part of what can be piped
    assert "base 0/10" in (made / "out" / "log.txt").read_text()
    assert "No prediction was written down before this run" in text
    assert "report.html" in text


def test_from_repeats_the_configuration(made):
    path = str(made / "out" / "results.json")
    source = study_boundary.SOURCE
    given = flags.parse_config(
        study_boundary.Arguments, "x", ["--from", path], source
    ).config
    stored = json.loads((made / "out" / "study.json").read_text())["config"]
    assert json.loads(json.dumps(plain(given))) == stored


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_defaults_of_all_other_flags(preset):
    given = flags.parse_config(
        study_boundary.Arguments, "x", ["--preset", preset], study_boundary.SOURCE
    )
    assert given.config == PRESETS[preset]


def test_every_field_is_a_flag(capsys):
    assert cli.main(["study", "boundary", "--help"]) == 0
    text = capsys.readouterr().out
    for field in set(flat(plain(PRESETS["quick"]))) - {"model.rope_scaling"}:
        assert f"--{field.replace('_', '-')}" in text, field


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--experts.first-layers", "9"], "rows and layers of experts are those of"),
        (["--experts.second.rho", "1.5"], "1.5"),
        (["--rhos", "0", "1.5"], "rhos has 1.5, expected shares in [0, 1]"),
        (["--map-seeds", "1", "--coverages", "0.001"], "leaves no covered fact"),
        (["--pretrain.formats", "context"], "they are trained on context"),
        (["--axes", "3 layers"], "3 layers"),
        (["--methods", "meen"], "meen"),
        (["--lora.rank", "99"], "LoRA rank is 99"),
        (["--preset", "quik"], "No preset 'quik'"),
        (["--from", "nowhere.json"], "No file nowhere.json"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_input_is_refused_before_anything_happens(
    words, refused, tmp_path, more, expected
):
    folders = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "c")]
    given = more if more[0] in ("--preset", "--from") else overridden([*words, *more])
    text = refused("study", "boundary", *folders, *given)
    assert expected in text
    assert "Traceback" not in text


def test_results_of_another_study_are_refused(refused, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"study": "two-hop", "config": {}}))
    assert "expected 'boundary'" in refused("study", "boundary", "--from", str(path))
