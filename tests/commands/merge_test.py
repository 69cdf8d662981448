"""``jaxlora merge`` writes the adapter that PEFT made, and nothing where it cannot."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlora import cli, lora, merge, models
from jaxlora.commands import merge_mesh, merge_sentence
from jaxlora.io import peft, peft_out
from jaxlora.io.peft import PeftAdapter, PeftModule
from jaxlora.merge import groups
from jaxlora.models import adapters, pretrained
from merge_runs import run

TOLERANCE = 1e-4  # of logits, absolute, in float32; found: 5e-6
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")
MERGES = (
    *("linear", "cat", "svd", "svd_rank3", "ties", "ties_frequency", "ties_svd"),
    *("magnitude_prune", "linear_rslora_first"),
)
QUICK = {"cat", "linear"}
ALSO = [("llama", name) for name in ("svd", "ties", "linear_rslora_first")]
RUN = jax.jit(models.apply, static_argnums=0)


@pytest.fixture(scope="module")
def reference(hf):
    """What PEFT said of a family, its logits, and a function adapter folder -> ours."""

    @functools.cache
    def read(family):
        told = json.loads((hf / family / "reference.json").read_text())
        model, base = pretrained.load(hf / family / "base")
        ids = jnp.asarray(told["input_ids"], jnp.int32)

        def logits(folder, scale=1.0):
            adapter = adapters.load(folder, base)
            scaled = lora.lora_map(lambda w: w.replace(scale=w.scale * scale), adapter)
            return np.asarray(RUN(model, base, ids, adapter=scaled))

        return told["merges"], load_file(hf / family / "reference.safetensors"), logits

    return read


def words(told, folder):
    """A stored merge as the words of the command."""
    out = [str(folder / name) for name in told["adapters"]]
    out += ["--method", f"{told['combination_type']}[peft]"]
    out += ["--weights", *map(str, told["weights"])]
    out += ["--density", str(told["density"])] if "density" in told else []
    out += ["--rank", str(told["svd_rank"])] if "svd_rank" in told else []
    by = told.get("majority_sign_method")
    return [*out, "--by", "frequency"] if by == "frequency" else out


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param(
            family,
            name,
            marks=() if name in QUICK or (family, name) in ALSO else pytest.mark.slow,
        )
        for family in FAMILIES
        for name in MERGES
    ],
)
def test_logits_are_those_of_peft(hf, reference, tmp_path, family, name):
    merges, wanted, logits = reference(family)
    assert set(merges) == set(MERGES)
    out = tmp_path / "deep" / "merged"
    given = words(merges[name], hf / family)
    assert cli.main(["merge", *given, "--out", str(out)]) == 0
    # PEFT's merge inherits use_rslora, and so a scale of sqrt(8) on top; ours has 1.
    extra = np.sqrt(8) if name == "linear_rslora_first" else 1.0
    found = logits(out, extra)
    np.testing.assert_allclose(found, wanted[name], rtol=0, atol=TOLERANCE)
    assert abs(found - wanted["base"]).max() > 0.1
    assert [path.name for path in out.parent.iterdir()] == ["merged"]


def test_the_scale_is_1_where_peft_multiplies_once_more(llama, reference, tmp_path):
    merges, wanted, logits = reference("llama")
    name = "linear_rslora_first"
    assert merges[name]["merged_scaling"] == [pytest.approx(np.sqrt(8))]
    given = words(merges[name], llama)
    assert cli.main(["merge", *given, "--out", str(tmp_path / "m")]) == 0
    config = json.loads((tmp_path / "m" / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["r"]) == (False, config["lora_alpha"])
    assert not np.allclose(logits(tmp_path / "m"), wanted[name], atol=1e-2)


@pytest.mark.parametrize(
    "method", ["dare", pytest.param("ties[original]", marks=pytest.mark.slow)]
)
def test_over_a_mesh_the_result_is_that_of_one_device(tmp_path, capsys, method):
    """Four adapters of three layers, which eight devices do not divide."""
    rng, words = np.random.default_rng(0), []
    for name in "abcd":
        draws = (rng.standard_normal(x, np.float32) for x in ((3, 2, 16), (3, 16, 2)))
        modules = {
            f"model.layers.{i}.self_attn.q_proj": PeftModule(a, b, 1.0, False)
            for i, (a, b) in enumerate(zip(*draws, strict=True))
        }
        peft_out.write(tmp_path / name, PeftAdapter(modules=modules))
        words.append(str(tmp_path / name))
    words += ["--method", method]
    outs = [str(tmp_path / name) for name in ("one", "cut")]
    assert cli.main(["merge", *words, "--out", outs[0]]) == 0
    mesh = ["--mesh", "expert=4,fsdp=2"]
    assert cli.main(["merge", *words, "--out", outs[1], *mesh]) == 0
    one, cut = (load_file(f"{out}/adapter_model.safetensors") for out in outs)
    assert one.keys() == cut.keys()
    for name, values in one.items():
        np.testing.assert_allclose(values, cut[name], rtol=0, atol=1e-6)
    assert "memory is saved in part" not in capsys.readouterr().err


def test_a_merge_that_gathers_adapters_is_said_to(tmp_path, capsys):
    """A merge of one's own may do what no mesh can cut."""

    def ranked(key, library):
        del key
        order = jnp.argsort(library["q"].a.ravel())
        a = library["q"].a.ravel()[order].reshape(library["q"].a.shape)
        return library | {"q": library["q"].replace(a=a)}

    rng = np.random.default_rng(0)
    shapes = (4, 5, 8, 2), (4, 5, 2, 8), (4, 5)
    draws = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    library = {"q": lora.LoraWeight(*draws)}
    for prepare, gathers in (([ranked], True), ([], False)):
        how = merge.chain(merge.weighted_mean(), space="delta", prepare=prepare)
        run = merge_mesh.run_on("expert=4,fsdp=2", "mine", 4)
        assert run(how, library, jnp.ones(4))["q"].a.shape == (5, 8, 8)
        said = capsys.readouterr().err
        assert ("The merge 'mine' brings more than a share" in said) == gathers


def read(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_summary_says_what_came_out(llama, tmp_path, capsys):
    flags = ("--method", "sum", "--weights", "1", "-0.5", "0")
    three = ("plain", "pattern", "rslora")
    assert run(llama, three, *flags, out=tmp_path / "m") == 0
    said = capsys.readouterr()
    shown = " ".join(said.out.split())
    assert f"{tmp_path / 'm'}: sum of 3 adapters, rank 8-16 in 14 modules" in shown
    assert "relative error 0.000, norm ratio 1.000, cosine 1.000" in shown
    assert "exact sum: plain acts in full, pattern acts at -0.50 of its" in shown
    assert "nothing else is lost" in shown
    assert "pattern -0.5 2-8 7.071 -0.5" in shown
    assert "rslora 0 8 left out -" in shown
    assert said.err == ""


def changed(source, folder, **fields):
    """Writes an adapter whose first module has other fields."""
    modules = dict(peft.read(source).modules)
    first = min(modules)
    modules[first] = dataclasses.replace(modules[first], **fields)
    peft_out.write(folder, PeftAdapter(modules=modules))
    return str(folder)


def test_zeros_and_excess_are_said(small, tmp_path, capsys):
    nought = np.zeros((20, 6), np.float32)
    zero = changed(small / "plain", tmp_path / "zero", b=nought)
    words = ["merge", zero, "--method", "mean", "--out", str(tmp_path / "m")]
    assert cli.main(words) == 0
    said = capsys.readouterr().err
    path = "model.layers.0.self_attn.q_proj"
    assert f"Adapter zero has a delta of zero in 1 of 2 modules: {path}." in said
    assert f"The merge is zero in 1 of 2 modules: {path}." in said


def test_what_float32_does_not_hold_is_refused(small, tmp_path, capsys):
    b = np.full((20, 6), 1e8, np.float32)
    huge = changed(small / "plain", tmp_path / "huge", scale=3e37, b=b)
    before = sorted(tmp_path.iterdir())
    words = ["merge", huge, "--method", "sum", "--out", str(tmp_path / "m")]
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert "An adapter has deltas of about 2**15" in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert sorted(tmp_path.iterdir()) == before


def test_an_excess_over_all_adapters_is_said():
    totals = groups.Totals(5, 1, 0, 1, np.ones(2), np.ones(2), 0.0)
    (text,) = merge_sentence.too_large([1.0, -0.25], totals)
    assert "4.0 times as large as all adapters added up" in text
    assert not list(merge_sentence.too_large([2.0, -2.0], totals))


def test_a_report_is_a_table_and_files(small, tmp_path, capsys):
    flags = ("--method", "mean", "--report", str(tmp_path / "report"))
    assert run(small, ("plain", "plain2"), *flags, out=tmp_path / "m") == 0
    shown = capsys.readouterr().out
    assert "model.layers.*.self_attn.q_proj" in shown
    table = (tmp_path / "report" / "fidelity.csv").read_text().splitlines()
    assert table[0].endswith("coefficient: plain,coefficient: plain2")
    assert [float(x) for x in table[-1].split(",")[1:3]] == pytest.approx([0.5, 0.5])
    png = (tmp_path / "report" / "fidelity.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(list((tmp_path / "report").iterdir())) == 2


def test_a_seed_gives_the_same_bytes_and_another_does_not(small, tmp_path):
    flags = ("--method", "dare_linear[peft]", "--density", "0.5", "--seed")
    for out, seed in {"a": "1", "b": "1", "c": "2"}.items():
        assert run(small, ("plain", "plain2"), *flags, seed, out=tmp_path / out) == 0
    one, same, other = (read(tmp_path / name) for name in "abc")
    assert one == same
    assert one["adapter_model.safetensors"] != other["adapter_model.safetensors"]
