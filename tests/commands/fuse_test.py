"""``jaxlora fuse`` writes a checkpoint with the logits of base and adapter."""

import dataclasses
import json
import os
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlora import cli, lora, models
from jaxlora.commands import fuse
from jaxlora.io import peft, peft_out
from jaxlora.io.peft import PeftAdapter
from jaxlora.models import adapters, pretrained, tokenizer

TOLERANCE = 2e-4  # of the reference, in float32; found: 3e-6
SUM = ("--merge", "sum", "--weights", "0.6", "0.5", "-0.3")
RUN = jax.jit(models.apply, static_argnums=0)


@pytest.fixture(scope="module")
def reference(hf):
    told = json.loads((hf / "llama" / "reference.json").read_text())
    wanted = load_file(hf / "llama" / "reference.safetensors")
    return jnp.asarray(told["input_ids"], jnp.int32), wanted


def logits(folder, ids):
    model, base = pretrained.load(folder)
    return np.asarray(RUN(model, base, ids))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["plain"], "plain"),
        (["--adapter", "pattern"], "pattern"),
        (["plain", "pattern", "rslora", *SUM], "cat"),
        (["plain", "--adapter", "plain", "--merge", "mean"], "plain"),
    ],
)
def test_the_sum_has_the_logits_of_the_adapter(
    hf, speaking, reference, tmp_path, words, name, capsys
):
    ids, wanted = reference
    known = ("plain", "pattern", "rslora")
    folders = [str(hf / "llama" / w) if w in known else w for w in words]
    model, out = speaking("chatml"), tmp_path / "deep" / "fused"
    assert cli.main(["fuse", str(model), *folders, "--out", str(out)]) == 0
    np.testing.assert_allclose(logits(out, ids), wanted[name], rtol=0, atol=TOLERANCE)
    assert str(out) in capsys.readouterr().out
    assert sorted(os.listdir(out)) == sorted(os.listdir(model))
    text = [tokenizer.load(folder) for folder in (model, out)]
    assert text[0].encode("Ann's wife?") == text[1].encode("Ann's wife?")
    assert text[0].chat_template == text[1].chat_template
    assert os.listdir(tmp_path / "deep") == ["fused"]


def test_the_tensors_are_those_of_the_sum_in_memory(hf, tmp_path):
    folder, out = hf / "llama", tmp_path / "fused"
    words = [str(folder / name) for name in ("base", "plain")]
    assert cli.main(["fuse", *words, "--out", str(out)]) == 0
    model, base = pretrained.load(folder / "base")
    want = lora.fuse(base, adapters.load(folder / "plain", base))
    pretrained.save(tmp_path / "want", model, want, like=folder / "base")
    got, want = (load_file(x / "model.safetensors") for x in (out, tmp_path / "want"))
    chex.assert_trees_all_equal(got, want)


def test_an_adapter_of_zeros_is_said(hf, tmp_path, capsys):
    plain = peft.read(hf / "llama" / "plain")
    zero = {x: dataclasses.replace(m, b=0 * m.b) for x, m in plain.modules.items()}
    peft_out.write(tmp_path / "zero", PeftAdapter(modules=zero))
    words = [str(hf / "llama" / "base"), str(tmp_path / "zero")]
    assert cli.main(["fuse", *words, "--out", str(tmp_path / "x")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"Adapter {tmp_path / 'zero'} changes nothing: its delta is zero" in said


def test_a_sum_beyond_the_type_is_not_written(hf, tmp_path, capsys):
    folder = hf / "llama"
    plain = peft.read(folder / "plain")
    huge = {x: dataclasses.replace(m, scale=3e37) for x, m in plain.modules.items()}
    huge = {x: dataclasses.replace(m, b=1e6 * m.b) for x, m in huge.items()}
    peft_out.write(tmp_path / "huge", PeftAdapter(modules=huge))
    words = [str(folder / "base"), str(tmp_path / "huge"), "--out", str(tmp_path / "x")]
    assert cli.main(["fuse", *words]) == 2
    said = capsys.readouterr()
    assert "is beyond float32 and is not written" in said.err
    assert [x.name for x in tmp_path.iterdir()] == ["huge"]


def test_dtype_is_that_of_the_checkpoint(hf, tmp_path, reference):
    ids, wanted = reference
    words = [str(hf / "llama" / "base"), str(hf / "llama" / "plain")]
    out = tmp_path / "fused"
    assert cli.main(["fuse", *words, "--dtype", "bfloat16", "--out", str(out)]) == 0
    model, base = pretrained.load(out)
    assert model.config.param_dtype == "bfloat16"
    assert {x.dtype.name for x in jax.tree.leaves(base)} == {"bfloat16"}
    assert abs(logits(out, ids) - wanted["plain"]).max() < 0.5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no adapter to add"),
        (["plain", "plain2"], "Got 2 adapters, but nothing that combines them"),
        (["plain", "plain2", "--merge", "arrow"], "'arrow' is a route"),
        (["plain", "--route", "arrow"], "No option --route"),
        (["plain", "--weights", "2"], "no merge that uses them"),
    ],
)
def test_a_bad_request_writes_nothing(hf, tmp_path, capsys, words, expected):
    names = ("plain", "plain2")
    flags = [str(hf / "llama" / w) if w in names else w for w in words]
    out = ["--out", str(tmp_path / "fused")]
    assert cli.main(["fuse", str(hf / "llama" / "base"), *flags, *out]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_kept(tmp_path, capsys):
    (tmp_path / "precious").write_text("mine")
    words = ["no model", "no adapter", "--out", str(tmp_path)]
    assert cli.main(["fuse", *words]) == 2
    assert "exists already and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "mine"


def test_the_examples_work(hf, tmp_path, monkeypatch, shown):
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": "base", "ADAPTER": "plain", "A": "plain", "B": "plain2"}
    places = {word: hf / "llama" / name for word, name in names.items()}
    places["LIBRARY"] = tmp_path / "four"
    for i in range(4):
        shutil.copytree(places["A"], places["LIBRARY"] / str(i))
    commands = shown(fuse.DESCRIPTION)
    assert len(commands) == 4
    for i, words in enumerate(commands):
        folders = [str(places.get(w, w)) for w in words]
        assert cli.main([f"FUSED{i}" if w == "FUSED" else w for w in folders]) == 0
        assert (tmp_path / f"FUSED{i}" / "config.json").is_file()
