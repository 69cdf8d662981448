"""``jaxlora merge`` writes nothing where it cannot, and says why."""

import json

import pytest

from jaxlora import cli
from merge_runs import other_adapter, run

BAD = [
    ([], "--method mean", "Got no adapter to merge; the command is"),
    (["plain"], "", "Got no --method, expected one, as in"),
    (["plain", "plain2"], "--method ties_svd[pefd]", "did you mean 'ties_svd[peft]'"),
    (["plain", "plain2"], "--method sum --weights 1", "Got 1 weights for 2 adapters"),
    (["plain", "plain2"], "--method sum --weights 1 nan", "expected finite numbers"),
    (["plain", "plain2"], "--method sum --weights 0 0", "All 2 weights are 0"),
    (["plain", "plain2"], "--method mean --weights 1 -1", "sum to 0"),
    (["plain", "plain2"], "--method sum --rank 0", "--rank is 0, expected 1 or more"),
    (["plain", "plain2"], "--method sum --rank 17", "at most 16, the sum of 2 experts"),
    (["plain", "plain2"], "--method sum --seed -1", "--seed is -1, expected 0"),
    (["plain", "plain"], "--method sum", "is given twice; to count it double"),
    (["plain", "dora"], "--method sum", "dora"),
    (["plain", "nothing"], "--method sum", "nothing"),
    (["plain", "plain2"], "--method mean --density 0.5", "has no field 'density'; its"),
    (["plain", "plain2"], "--method ties --density 2", "ensity"),
    (["plain", "plain2"], "--method ties --density nan", "ensity"),
    (["plain", "plain2"], "--method ties --density x", "'x', expected a number, as in"),
    (["plain", "plain2"], "--method ties --density", "Got --density without a value"),
    (["plain", "plain2"], "--method ties --density --rank 2", "without a value"),
    (["plain", "plain2"], "--method ties --by force", "expected mass or frequency"),
    (["plain", "plain2"], "--method ties --space cora", "did you mean 'core'"),
    (
        ["plain", "plain2"],
        "--method wudi-adam --steps 1.5",
        "a whole number, as in",
    ),
    (
        ["plain", "plain2"],
        "--method placed-sum --layers 0 9",
        "keeps layers 9 of",
    ),
    (
        ["plain", "plain2"],
        "--method placed-sum --layers low",
        "Got layers of 1 exp",
    ),
    (["plain", "plain2"], "--method placed-sum --layers 0 lwo", "did you mean 'low'?"),
    (
        ["plain", "plain2"],
        "--method placed-sum --layers",
        "Got --layers without",
    ),
    (
        ["plain", "plain2"],
        "--method placed-both --ends 1",
        "expected a share in",
    ),
    (["plain", "plain2"], "--method scale-only --expert 2", "expected 0 to 1"),
    (["plain", "plain2"], "--method ties --densty 1", "Did you mean --density?"),
    (["plain", "plain2"], "--method regmean", "'regmean' needs data, and got none"),
    (
        ["plain", "plain2"],
        "--method mean --statistics x",
        "'mean' sees no data, but got",
    ),
    (["plain", "plain2"], "--method nowhere:mine", "Cannot import the merge"),
    (["plain", "plain2"], "--method mean --all", "--all belongs to a list"),
]


@pytest.mark.parametrize(("given", "flags", "expected"), BAD)
def test_a_bad_request_writes_nothing(llama, tmp_path, capsys, given, flags, expected):
    assert run(llama, given, *flags.split(), out=tmp_path / "m") == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("jaxlora: ")
    assert not list(tmp_path.iterdir())


def test_adapters_that_cannot_be_read_are_named(llama, hf, tmp_path, capsys):
    pickled = other_adapter(llama, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    cut = other_adapter(llama, tmp_path / "cut")
    data = (cut / "adapter_model.safetensors").read_bytes()
    (cut / "adapter_model.safetensors").write_bytes(data[:-9])
    before = sorted(tmp_path.iterdir())
    for bad in (pickled, cut, hf / "qwen3" / "plain"):
        flags = (str(bad), "--method", "mean")
        assert run(llama, ("plain",), *flags, out=tmp_path / "m") == 2
        said = capsys.readouterr().err
        assert str(bad) in said
        assert said.count("\n") == 1
    assert "different bases" in said
    assert sorted(tmp_path.iterdir()) == before


def test_bases_of_other_names_are_told(small, tmp_path, capsys):
    folders = [
        other_adapter(small, tmp_path / name / "final", base_model_name_or_path=name)
        for name in ("x", "y")
    ]
    called = list(map(str, folders))
    out = ["--method", "mean", "--out", str(tmp_path / "m")]
    assert cli.main(["merge", *called, *out]) == 0
    said = capsys.readouterr()
    assert "name different bases (x/final: x, y/final: y)" in said.err
    assert said.err.count("\n") == 1
    config = json.loads((tmp_path / "m" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "x"


def test_what_exists_is_kept(llama, tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")
    assert run(llama, ("plain",), "--method", "mean", out=tmp_path) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
