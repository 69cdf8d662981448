"""``jaxlora merge`` writes the adapter that PEFT made, and nothing where it cannot."""

import dataclasses
import functools
import json
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import cli, lora, merge, models
from jaxlora.commands import merge as command
from jaxlora.commands import merge_mesh, merge_sentence, merge_tables, printing
from jaxlora.commands.flags import merge_fields, parsing
from jaxlora.io import collection, peft, peft_out
from jaxlora.io.peft import PeftAdapter, PeftModule
from jaxlora.merge import groups
from jaxlora.models import adapters, pretrained

TOLERANCE = 1e-4  # of logits, absolute, in float32; found: 5e-6
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")
MERGES = (
    *("linear", "cat", "svd", "svd_rank3", "ties", "ties_frequency", "ties_svd"),
    *("magnitude_prune", "linear_rslora_first"),
)
QUICK = {"cat", "linear"}
ALSO = [("llama", name) for name in ("svd", "ties", "linear_rslora_first")]
RUN = jax.jit(models.apply, static_argnums=0)


@pytest.fixture
def llama(hf):
    return hf / "llama"


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


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder of adapters with one group of two modules: few programs to compile."""
    folder, rng = tmp_path_factory.mktemp("small"), np.random.default_rng(0)
    for name, rank in {"plain": 6, "plain2": 8, "rslora": 6}.items():
        modules = {
            f"model.layers.{i}.self_attn.q_proj": PeftModule(
                rng.standard_normal((rank, 24), dtype=np.float32),
                rng.standard_normal((20, rank), dtype=np.float32),
                scale,
            )
            for i, scale in enumerate((0.5, 2.0))
        }
        peft_out.write(folder / name, PeftAdapter(modules=modules))
    return folder


def run(folder, adapters, *flags, out):
    called = [str(folder / name) for name in adapters]
    return cli.main(["merge", *called, *flags, "--out", str(out)])


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


def adapter_of(folder, layers):
    """An adapter of rank 2 of one module in some layers."""
    rng = np.random.default_rng(sum(map(ord, folder.name)))
    modules = {
        f"model.layers.{i}.q_proj": PeftModule(
            rng.standard_normal((2, 6), dtype=np.float32),
            rng.standard_normal((5, 2), dtype=np.float32),
            1.0,
        )
        for i in layers
    }
    peft_out.write(folder, PeftAdapter(modules=modules))
    return str(folder)


@pytest.mark.parametrize("flags", [["--layers=0,2 1"], ["--layers", "0,2", "1"], []])
def test_each_layer_has_the_adapter_that_is_placed_there(tmp_path, flags):
    paths = [adapter_of(tmp_path / n, range(k)) for n, k in (("x", 4), ("y", 3))]
    out = ["--out", str(tmp_path / "m"), "--method", "placed-sum", *flags]
    assert cli.main(["merge", *paths, *out]) == 0
    found = collection.read([*paths, tmp_path / "m"]).library
    ((x, y, merged),) = deltas(found).values()
    zero = np.zeros_like(x[0])
    wanted = [x[0], y[1], x[2], zero] if flags else [x[0], x[1], y[2], zero]
    np.testing.assert_allclose(merged, np.stack(wanted), atol=1e-5)
    assert abs(x[1] - y[1]).max() > 0.1


@pytest.mark.parametrize(
    ("layers", "method", "missing"),
    [
        ([2, 3], "placed-sum", "layer 0, and some in layer 3"),
        ([0, 2], "placed-both", "layer 1, and some in layer 2"),
        ([0, 999999999], "placed-sum", "layer 1, and some in layer 999999999"),
    ],
)
def test_layers_that_are_not_numbered_from_0_are_refused(
    tmp_path, capsys, layers, method, missing
):
    paths = [adapter_of(tmp_path / name, layers) for name in "xy"]
    out = ["--out", str(tmp_path / "m"), "--method"]
    assert cli.main(["merge", *paths, *out, method]) == 2
    said = capsys.readouterr().err
    assert f"no adapter has a module in {missing}; expected" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "m").exists()
    assert cli.main(["merge", *paths, *out, "sum"]) == 0


def deltas(adapter):
    return {name: np.asarray(lora.delta(w)) for name, w in lora.sites(adapter).items()}


def data_file(small, path, by_module):
    """Grams for RegMean: adapter 0's inputs everywhere, and none of adapter 1."""
    found = collection.read([small / "plain", small / "plain2"])
    arrays = {}
    for group, modules in found.modules.items():
        size = found.library[group].a.shape[-2]
        gram = np.stack([np.eye(size), np.zeros((size, size))]).astype(np.float32)
        if by_module:
            arrays |= dict.fromkeys(modules, gram)
        else:
            arrays[group] = np.stack([gram] * len(modules), 1)
    save_file(arrays, path)
    return found


@pytest.mark.parametrize("by_module", [True, False])
def test_data_is_named_by_module_or_by_group(small, tmp_path, by_module):
    data = tmp_path / "grams.safetensors"
    found = data_file(small, data, by_module)
    flags = ("--method", "regmean", "--statistics", str(data))
    assert run(small, ("plain", "plain2"), *flags, out=tmp_path / "m") == 0
    made = collection.read([tmp_path / "m"]).adapter(0)
    for group, delta in deltas(found.adapter(0)).items():
        np.testing.assert_allclose(deltas(made)[group], delta, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.update(x=d.popitem()[1]), "has no data for 'model.layers.0.self"),
        (lambda d: d.update(x=np.zeros(2, np.float32)), "has data for 'x', which none"),
        (
            lambda d: d.update({min(d): d[min(d)][:1]}),
            "has shape (1, 2, 24, 24), expected 2 first",
        ),
        (
            lambda d: d.update({min(d): d[min(d)][:, :1]}),
            "has shape (2, 1, 24, 24), expected 2 in second place",
        ),
        (
            lambda d: d.update({min(d): d[min(d)][..., :1]}),
            "regmean got data of shape (2, 2, 24, 1)",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused(small, tmp_path, capsys, change, expected):
    data = tmp_path / "grams.safetensors"
    data_file(small, data, by_module=False)
    arrays = dict(sorted(load_file(data).items()))
    change(arrays)
    save_file(arrays, data)
    flags = ("--method", "regmean", "--statistics", str(data))
    assert run(small, ("plain", "plain2"), *flags, out=tmp_path / "m") == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [data]


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


def other_adapter(small, folder, **config):
    shutil.copytree(small / "plain2", folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    (folder / "manifest.json").unlink(missing_ok=True)  # it is another adapter now
    return folder


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


MINE = """
from jaxlora import merge

def thrice(share=1.0, loud=False):
    assert not loud
    return merge.chain(merge.weighted_sum(), space="factor")

plain = merge.preset("sum")
number = 3
"""


def test_a_method_of_your_own(small, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_own_merges.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [x for x in sys.path if x])
    before = list(sys.path)
    for i, flags in enumerate(("thrice --share 0.5 --loud false", "plain")):
        method = f"--method my_own_merges:{flags}".split()
        assert run(small, ("plain", "plain2"), *method, out=tmp_path / f"m{i}") == 0
    capsys.readouterr()
    bad = {
        "thrice --density 1": "no field 'density'; its fields: share, loud",
        "thrice --loud 1": "--loud is '1', expected true or false",
        "plain --share 1": "No option --share",
        "number": "expected a Merge",
        "none": "Cannot import",
    }
    for flags, expected in bad.items():
        method = f"--method my_own_merges:{flags}".split()
        assert run(small, ("plain", "plain2"), *method, out=tmp_path / "bad") == 2
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()
    assert sys.path == before


def test_the_long_list_has_every_method(capsys):
    assert cli.main(["merge", "--list", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0]: line for line in lines if line.strip()}
    for name in merge.names():
        assert name in shown
    assert "own data" in shown["regmean"]
    assert "all but gauge, linearity" in shown["factor-mean"]
    assert " yes " in shown["dare"]
    assert " yes " not in shown["ties"]


def test_the_list_says_which_to_try_first(capsys):
    assert cli.main(["merge", "--list"]) == 0
    short = capsys.readouterr().out
    assert command.run(["--list"]) == 0
    assert capsys.readouterr().out == short
    assert "merge --list --all" in short
    assert "dare" not in short


def test_the_list_of_one_has_its_fields_and_laws(capsys):
    assert cli.main(["merge", "--list", "ties", "regmean"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "--density, by default 0.2",
        "--by, by default mass",
        f"gauge: {merge.LAWS['gauge']}",
        "[in, in]",
    ):
        assert words in shown
    for name, expected in {"teis": "did you mean 'ties'", "--rank": "names of"}.items():
        assert cli.main(["merge", "--list", name]) == 2
        assert expected in capsys.readouterr().err


def test_a_narrow_terminal_has_fewer_columns(capsys, monkeypatch):
    narrow = functools.partial(printing.Console, width=80)
    monkeypatch.setattr(printing, "console", narrow)
    assert cli.main(["merge", "--list", "--all"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:90])) <= 80
    assert "…" not in shown
    assert "needs own data" in " ".join(shown.split())


def test_what_is_said_of_methods_is_so():
    for name in merge.names():
        made = merge.describe(name).make()
        assert (name in merge_tables.NEEDS) == (made.data != "free")


def test_help_has_every_field(capsys):
    assert cli.main(["merge", "--help"]) == 0
    shown = capsys.readouterr().out
    for field in merge_fields.every():
        assert f"  --{field.replace('_', '-')} " in command.DESCRIPTION
    flags = set(parsing.names(command.Arguments))
    assert not {f"--{field}" for field in merge_fields.every()} & flags
    assert "--weights W..." in shown


def test_the_examples_work(small, tmp_path, monkeypatch, shown):
    monkeypatch.chdir(tmp_path)
    places = {"A": small / "plain", "B": small / "plain2", "C": small / "rslora"}
    tied = pathlib.Path(__file__).parents[1] / "data/adapters/tied"
    places |= {
        "DORA": tied / "dora",
        "LORA": tied / "head",
        "MODEL": tied / "base",
    }
    places["LIBRARY"] = tmp_path / "eight"
    for i in range(8):
        shutil.copytree(small / "plain", places["LIBRARY"] / str(i))
    commands = shown(command.DESCRIPTION)
    assert len(commands) == 11
    for i, flags in enumerate(commands):
        flags = [str(places.get(w, w)) for w in flags]
        assert cli.main([f"MERGED{i}" if w == "MERGED" else w for w in flags]) == 0
        assert (tmp_path / f"MERGED{i}").is_dir() == ("--out" in flags)
