"""``jaxlora study two-hop`` from its flags to its files."""

import errno
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from jaxlora import cli
from jaxlora.evaluate import schema
from jaxlora.report import figures, page
from jaxlora.studies.harness.config import flat
from jaxlora.studies.two_hop.symbols import answer
from lines import overridden


def study(*words) -> int:
    return cli.main(["study", "two-hop", *overridden([*map(str, words)])])


@pytest.fixture(scope="module")
def made(tmp_path_factory, flags):
    """The folder of a finished study beside its cache."""
    root = tmp_path_factory.mktemp("cli")
    folders = ["--out", root / "out", "--cache-dir", root / "cache"]
    assert study(*flags, *folders) == 0
    return root


@pytest.fixture
def undrawn(monkeypatch):
    """No figures and no page, which take a third of a study whose rows are the subject.

    What they hold is asked of the folder that is made above, and in tests/report.
    """
    monkeypatch.setattr(figures, "save_all", lambda *_: [])
    monkeypatch.setattr(page, "write", lambda _, __, out: Path(out) / page.NAME)


def same_rows(one: Path, two: Path) -> bool:
    return (one / "results.csv").read_bytes() == (two / "results.csv").read_bytes()


def test_the_product_of_a_run_is_in_its_folder(made):
    out = made / "out"
    names = {path.name for path in out.iterdir()}
    assert names >= {"results.csv", "results.json", "report.html", "study.json"}
    drawn = [path for path in out.iterdir() if path.name.startswith("figure-")]
    assert len(drawn) >= 3
    for path in drawn:
        assert path.read_bytes()[:4] == b"\x89PNG"
        assert path.stat().st_size > 5000
    page = (out / "report.html").read_text()
    assert "2-combination" in page
    rows = pd.read_csv(out / "results.csv")
    assert tuple(rows.columns) == schema.COLUMNS
    assert not [path for path in out.rglob("*") if path.suffix == ".tmp"]


def test_the_same_command_is_done_at_once_and_says_the_same(
    made, flags, capsys, monkeypatch
):
    monkeypatch.setattr(answer, "answer", lambda *_: pytest.fail("computed again"))
    before = (made / "out" / "results.csv").read_bytes()
    assert study(*flags, "--out", made / "out", "--cache-dir", made / "cache") == 0
    assert (made / "out" / "results.csv").read_bytes() == before
    said = capsys.readouterr()
    assert "R-OO" in said.out
    assert "2-combination" in said.out
    assert "report.html" in said.out
    assert "Took " in said.out
    # One seed says little; the last lines say how to get more.
    assert "--preset standard" in said.out.splitlines()[-2] + said.out.splitlines()[-1]


@pytest.mark.slow
def test_shares_joined_are_the_study_that_was_not_divided(
    flags, tmp_path, capsys, monkeypatch
):
    two = [*flags, "--seeds", "2"]
    shares = [tmp_path / f"part-{i}" for i in range(2)]
    for i, out in enumerate(shares):
        assert study(*two, "--share", f"{i}/2", "--out", out) == 0
        assert "jaxlora report" in capsys.readouterr().out
        assert not (out / "results.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(answer, "answer", lambda *_: pytest.fail("computed again"))
        words = [*map(str, shares), "--out", str(tmp_path / "joined")]
        assert cli.main(["report", *words]) == 0
    whole = ["--out", tmp_path / "whole", "--cache-dir", tmp_path / "cache"]
    assert study(*two, *whole) == 0
    assert same_rows(tmp_path / "joined", tmp_path / "whole")
    seeds = pd.read_csv(tmp_path / "joined" / "results.csv")["seed"].dropna().unique()
    assert len(seeds) > 2  # both, and what is pooled


def test_from_results_repeats_the_run(made, tmp_path, undrawn):
    results = made / "out" / "results.json"
    words = ["--from", results, "--out", tmp_path, "--cache-dir", made / "cache"]
    assert study(*words) == 0
    assert same_rows(tmp_path, made / "out")
    one, two = (
        json.loads((x / "results.json").read_text()) for x in (tmp_path, made / "out")
    )
    assert one["config"] == two["config"]
    assert one["verdicts"] == two["verdicts"]


@pytest.mark.slow
def test_worlds_from_a_dataset_give_the_same_rows(
    made, flags, world_flags, tmp_path, capsys
):
    data = tmp_path / "data"
    assert cli.main(["data", "two-hop", *world_flags, "--out", str(data)]) == 0
    capsys.readouterr()
    folders = ["--out", tmp_path / "out", "--cache-dir", made / "cache"]
    assert study(*flags, *folders, "--data-dir", data) == 0
    assert same_rows(tmp_path / "out", made / "out")


def test_failed_gates_are_exit_code_1_with_every_file(flags, tmp_path, capsys):
    words = [*flags, "--pretrain.min-copy", "1", "--out", tmp_path / "out"]
    assert study(*words, "--cache-dir", tmp_path / "cache") == 1
    said = capsys.readouterr().out
    assert "invalid" in said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"results.csv", "results.json", "report.html", "study.json"}
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {v["label"] for v in found["verdicts"]} == {"invalid"}
    assert len(found["failed_seeds"]) == 1


def test_a_full_disk_keeps_finished_blocks(
    made, flags, tmp_path, capsys, monkeypatch, undrawn
):
    out = tmp_path / "out"
    words = [*flags, "--out", out, "--cache-dir", made / "cache"]
    replace, written = Path.replace, []

    def full(path, target):
        if len(written) == 3 and Path(target).parent.name == "blocks":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        if Path(target).parent.name == "blocks":
            written.append(Path(target).name)
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        assert study(*words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("jaxlora: No room left on the disk")
    assert sorted(path.name for path in (out / "blocks").iterdir()) == sorted(written)
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]
    assert study(*words) == 0
    assert same_rows(out, made / "out")
    resumed = json.loads((out / "results.json").read_text())["timings"]
    assert resumed["blocks_resumed"] == 3


def test_another_configuration_is_refused_and_nothing_is_touched(made, flags, refused):
    folders = ["--out", str(made / "out"), "--cache-dir", str(made / "cache")]
    before = {p: p.stat().st_mtime_ns for p in made.rglob("*")}
    said = refused(
        "study", "two-hop", *overridden([*flags, *folders, "--lora.rank", "3"])
    )
    assert "lora.rank is 2 there and 3 here" in said
    assert {p: p.stat().st_mtime_ns for p in made.rglob("*")} == before


def test_a_folder_with_other_files_is_refused(flags, refused, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    folders = ["--out", str(tmp_path), "--cache-dir", str(tmp_path / "cache")]
    said = refused("study", "two-hop", *flags, *folders)
    assert "holds no two-hop study" in said
    assert "--force" not in said  # which would be refused, too


@pytest.mark.slow
def test_force_replaces_another_run_and_goes_on_with_the_same(
    made, flags, world_flags, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    shutil.copytree(made / "out", out)
    words = [*flags, "--out", out, "--cache-dir", made / "cache"]
    other = [*words, "--first-seed", "7"]
    assert study(*other) == 2
    said = capsys.readouterr().err
    assert "first_seed is 0 there and 7 here" in said
    assert said.endswith("or --force to replace what is there.\n")
    assert same_rows(out, made / "out")
    assert study(*other, "--force") == 0
    assert not same_rows(out, made / "out")
    monkeypatch.setattr(answer, "answer", lambda *_: pytest.fail("computed again"))
    assert study(*other, "--force") == 0


def test_no_force_empties_a_folder_with_other_files(flags, refused, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    words = ["--out", str(tmp_path), "--cache-dir", str(tmp_path / "cache"), "--force"]
    said = refused("study", "two-hop", *flags, *words)
    assert "by --force neither: it holds no study" in said


def test_a_cache_that_is_a_file_is_refused(flags, tmp_path, capsys):
    (tmp_path / "cache").write_text("precious")
    folders = ["--out", tmp_path / "out", "--cache-dir", tmp_path / "cache"]
    assert study(*flags, *folders) == 2
    assert str(tmp_path / "cache") in capsys.readouterr().err
    assert (tmp_path / "cache").read_text() == "precious"


def test_the_config_of_the_flags_is_the_config_of_the_folder(made):
    found = json.loads((made / "out" / "study.json").read_text())
    fields = flat(found["config"])
    assert fields["world.people"] == 3
    assert fields["methods"] == ["mean"]
    assert fields["lora.rank"] == 2


def test_people_of_a_facts_file_are_asked_in_the_place_of_f_oo(
    flags, tmp_path, undrawn
):
    """Five people, two of whom live in one city, beside three in every other cell."""
    facts = [(f"ann {i}", "wife", f"bo {i}") for i in range(5)]
    facts += [(f"bo {i}", "city", f"city {max(i, 1)}") for i in range(5)]
    fields = ("head", "relation", "tail")
    path = tmp_path / "facts.jsonl"
    path.write_text(
        "\n".join(json.dumps(dict(zip(fields, x, strict=True))) for x in facts)
    )
    folders = ["--out", tmp_path / "out", "--cache-dir", tmp_path / "cache"]
    words = [*flags, *folders, "--facts", path]
    assert study(*words) == 2
    assert study(*words, "--allow-ties") == 0
    rows = pd.read_csv(tmp_path / "out" / "results.csv", keep_default_na=False)
    asked = rows[
        (rows["library"] == "2-combination")
        & (rows["split"] == "two-hop")
        & (rows["metric"] == "accuracy")
        & (rows["seed"] == "all")
    ]
    assert dict(zip(asked["familiarity"], asked["n"], strict=False))["F"] == 5
    assert set(asked[asked["familiarity"] != "F"]["n"]) == {3}
    most = rows[(rows["metric"] == "majority answer") & (rows["familiarity"] == "F")]
    assert set(most["value"].astype(float)) == {0.4}
