"""``jaxlora forward`` gives the logits that transformers and PEFT gave."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import cli, models, reuse
from jaxlora.commands import forward
from jaxlora.io import gate_file
from jaxlora.tasks import token_ids

TOLERANCE = 1e-4  # of the reference, in float32; found: 2e-6
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")
SUM = ("plain", "pattern", "rslora", "--merge", "sum")
SUM += ("--weights", "0.6", "0.5", "-0.3")
ARROW = ("plain", "plain2", "rslora", "--route", "arrow", "--route-top-k", "2")
CASES = {
    "base": (),
    "plain": ("plain",),
    "plain2": ("plain2",),
    "rslora": ("rslora",),
    "pattern": ("pattern",),
    "cat": SUM,  # PEFT's name of the exact weighted sum
    "arrow": (*ARROW, "--route-temperature", "0.7"),
}


def adapters(folder, words):
    """Names of adapters become flags; what follows the first flag stays."""
    flags = next((i for i, w in enumerate(words) if w.startswith("-")), len(words))
    named = [x for w in words[:flags] for x in ("--adapter", str(folder / w))]
    rest = list(words[flags:])
    if "--general" in rest:
        at = rest.index("--general") + 1
        rest[at] = str(folder / rest[at])
    return [*named, *rest]


@pytest.fixture
def run(hf, tmp_path):
    """Runs the command on token ids, and returns the logits."""

    def call(ids, *words, family="llama"):
        (tmp_path / "ids.json").write_text(json.dumps(ids))
        files = ("--tokens", str(tmp_path / "ids.json"))
        out = ("--out", str(tmp_path / "deep" / "logits.npy"), "--force")
        folder = hf / family
        flags = adapters(folder, words)
        assert cli.main(["forward", str(folder / "base"), *flags, *files, *out]) == 0
        assert [p.name for p in (tmp_path / "deep").iterdir()] == ["logits.npy"]
        return np.load(tmp_path / "deep" / "logits.npy")

    return call


@pytest.fixture(scope="module")
def reference(hf):
    def read(family):
        told = json.loads((hf / family / "reference.json").read_text())
        return told["input_ids"], load_file(hf / family / "reference.safetensors")

    return read


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_reference(run, reference, family, name):
    ids, wanted = reference(family)
    found = run(ids, *CASES[name], family=family)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted[name], rtol=0, atol=TOLERANCE)
    if name != "base":
        assert abs(found - wanted["base"]).max() > 0.1


@pytest.mark.parametrize(
    "weights", [("--weights", "1.5", "-.5"), ("--weights=1.5", "-5e-1")]
)
def test_weights_may_be_negative(run, reference, weights):
    ids, wanted = reference("llama")
    found = run(ids, "plain", "plain", "--merge", "sum", *weights)
    np.testing.assert_allclose(found, wanted["plain"], rtol=0, atol=TOLERANCE)


def test_one_negative_weight(run, reference):
    ids, wanted = reference("llama")
    found = run(ids, "plain", "--merge", "sum", "--weights=-0.5")
    assert abs(found - wanted["plain"]).max() > 0.1
    twice = run(ids, "plain", "plain", "--merge", "sum", "--weights", "-1", "0.5")
    np.testing.assert_allclose(found, twice, rtol=0, atol=TOLERANCE)


def test_adapter_takes_several_folders(run, reference, hf):
    ids, wanted = reference("llama")
    names = [str(hf / "llama" / name) for name in SUM[:3]]
    found = run(ids, "--adapter", *names, *SUM[3:])
    np.testing.assert_allclose(found, wanted["cat"], rtol=0, atol=TOLERANCE)


def test_top_k_and_temperature_reach_the_route(run, reference):
    ids, wanted = reference("llama")
    for odd in ("--route-top-k", "--route-temperature"):
        value = {"--route-top-k": "1", "--route-temperature": "5"}[odd]
        words = list(CASES["arrow"])
        words[words.index(odd) + 1] = value
        assert abs(run(ids, *words) - wanted["arrow"]).max() > 1e-2


def test_a_gate_weighs_the_adapters(run, reference, gate, hf):
    """As its own parts say: a softmax of keys and inputs, mixed by the decoder."""
    ids, wanted = reference("llama")
    found = run(ids, "plain", "plain2", "--gate", str(gate))
    folders = [hf / "llama" / name for name in ("plain", "plain2")]
    state = gate_file.load(gate).state
    made = reuse.load(hf / "llama" / "base", folders, route="linear", gate=state)
    logits = models.apply(
        made.model, made.base, jnp.asarray(ids, jnp.int32), **made.arguments()
    )
    np.testing.assert_allclose(found, logits, rtol=0, atol=TOLERANCE)
    assert min(abs(found - wanted[name]).max() for name in ("plain", "plain2")) > 1e-2
    sharp = run(ids, "plain", "plain2", "--gate", str(gate), "--route-temperature", "9")
    assert abs(sharp - found).max() > 1e-3


@pytest.mark.parametrize(
    ("names", "base", "expected"),
    [
        (("plain2", "plain"), "llama", "plain, plain2, but got 2: "),
        (("plain", "rslora"), "llama", "expert 1 is not the one it knows"),
        (("plain", "plain2"), "other", "The gate was made on another base (llama)"),
    ],
)
def test_a_gate_of_other_adapters_or_another_base_is_refused(
    hf, gate, tmp_path, capsys, names, base, expected
):
    folder = tmp_path / "other"
    shutil.copytree(hf / "llama" / "base", folder)
    if base == "other":
        tensors = load_file(folder / "model.safetensors")
        changed = {name: x[..., ::-1].copy() for name, x in tensors.items()}
        save_file(changed, folder / "model.safetensors", {"format": "pt"})
    (tmp_path / "ids.json").write_text("[[1, 2]]")
    words = ["--tokens", str(tmp_path / "ids.json"), "--out", str(tmp_path / "x.npy")]
    flags = ["--adapter", *(str(hf / "llama" / name) for name in names)]
    call = ["forward", str(folder), *flags, "--gate", str(gate), *words]
    assert cli.main(call) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not (tmp_path / "x.npy").exists()


def test_adapters_of_different_sites_are_routed_and_said_so(run, capsys):
    run([[1, 2, 3]], "plain", "pattern", "--route", "arrow")
    said = capsys.readouterr().err
    assert said.startswith("jaxlora: Adapter 2 of 2 does not adapt layers/")
    assert said.count("\n") == 1


def test_general_adapters_are_taken_out(run):
    some = ("plain", "plain2", "--route", "genknowsub")
    found = [run([[1, 2, 3]], *some, *more) for more in ((), ("--general", "rslora"))]
    assert abs(found[0] - found[1]).max() > 1e-2


def test_rows_do_not_depend_on_the_batch(run):
    ids = np.random.default_rng(0).integers(3, 256, (5, 8)).tolist()
    whole = run(ids)
    assert whole.shape == (5, 8, 256)
    np.testing.assert_allclose(run(ids, "--batch", "2"), whole, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(run(ids[3:]), whole[3:], rtol=0, atol=TOLERANCE)


def test_dtype_is_that_of_weights_and_activations(run, reference):
    ids, wanted = reference("llama")
    rough = run(ids, "--dtype", "bfloat16")
    assert 1e-3 < abs(rough - wanted["base"]).max() < 0.5
    assert rough.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[1, 2], [3]]", "row 1 has 1 token ids and row 0 has 2, expected"),
        ("[[1, 256]]", "entry 1 of row 0 is 256, but the model has token ids 0 to 255"),
        ("[[1, -1]]", "entry 1 of row 0 is -1, expected a token id"),
        ("[[1, true]]", "entry 1 of row 0 is true, expected a token id"),
        ("[[1.0]]", "entry 0 of row 0 is 1.0"),
        ('[["1"]]', 'entry 0 of row 0 is "1"'),
        (f"[[{10**30}]]", "entry 0 of row 0 is 1000000000"),
        ("[1, 2]", "no rows of token ids, expected a list of lists"),
        ("[[]]", "row 0 has no token id"),
        ("[]", "no rows of token ids"),
        ("{}", "no rows of token ids"),
        ("[[1, 2", "is not JSON"),
        ("\xff", "is not JSON"),
    ],
)
def test_what_is_no_table_of_ids_is_refused(hf, tmp_path, capsys, text, expected):
    path = tmp_path / "ids.json"
    path.write_bytes(text.encode("latin-1"))
    words = ["--tokens", str(path), "--out", str(tmp_path / "x.npy")]
    assert cli.main(["forward", str(hf / "llama" / "base"), *words]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert str(path) in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["plain", "plain2"], "Got 2 adapters, but nothing that combines them"),
        (["plain", "--merge", "sum", "--route", "arrow"], "expected one of them"),
        (["plain", "--merge", "meen"], "did you mean 'mean'?"),
        (["plain", "--merge", "arrow"], "'arrow' is a route, not a merge"),
        (["plain", "--route", "arow"], "did you mean 'arrow'?"),
        (["plain", "--route", "oracle"], "The route 'oracle' is told which expert"),
        (["--merge", "sum"], "no adapter to merge"),
        (["--route", "arrow"], "no adapter to route to"),
        (["plain", "--weights", "1"], "no merge that uses them"),
        (["plain", "--merge", "sum", "--weights", "1", "-2"], "Got 2 weights for 1"),
        (["plain", "--merge", "sum", "--weights", "nan"], "expected finite numbers"),
        (["plain", "--route-top-k", "1"], "but no route"),
        (
            ["plain", "--route", "arrow", "--route-top-k", "0"],
            "--route-top-k is 0, expected 1 or",
        ),
        (["plain", "--route", "smear"], "`jaxlora gate MODEL --adapter DIR"),
        (["plain", "--gate", "gone"], "There is no file 'gone', expected a gate"),
        (["plain", "--route-temperature", "2"], "but no route"),
        (
            ["plain", "--route", "arrow", "--route-top-k", "2"],
            "Got top_k 2 for 1 adapters",
        ),
        (
            ["plain", "--route", "arrow", "--route-temperature", "0"],
            "a positive number",
        ),
        (["gone"], "gone"),
        (["base"], "adapter_config.json"),
        (["../qwen3/plain"], "another model"),
        (["--batch", "0"], "--batch is 0, expected 1 or more"),
        (["--adaptor", "x"], "Did you mean --adapter?"),
        (["--weigths=1"], "Did you mean --weights?"),
    ],
)
def test_a_bad_request_is_one_sentence(hf, tmp_path, capsys, words, expected):
    (tmp_path / "ids.json").write_text("[[1, 2]]")
    files = ["--tokens", str(tmp_path / "ids.json"), "--out", str(tmp_path / "x.npy")]
    flags = adapters(hf / "llama", words)
    assert cli.main(["forward", str(hf / "llama" / "base"), *flags, *files]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert [p.name for p in tmp_path.iterdir()] == ["ids.json"]


def test_where_it_cannot_write_is_said_before_reading(hf, tmp_path, capsys):
    ids = tmp_path / "ids.json"
    ids.write_text("[[1, 2]]")
    for out, expected in (
        (tmp_path, "is a folder, expected the name of a file"),
        (ids / "x" / "y.npy", f"{ids} is a file, expected a folder to write into"),
        ("/proc/none/x.npy", "/proc"),
    ):
        words = ["--tokens", str(ids), "--out", str(out)]
        assert cli.main(["forward", str(tmp_path / "no model"), *words]) == 2
        assert expected in capsys.readouterr().err
    assert cli.main(["forward", str(tmp_path / "no model"), *words[:-1], "x.npy"]) == 2
    assert "no model" in capsys.readouterr().err


def test_a_run_that_fails_leaves_the_older_file(hf, tmp_path, monkeypatch, capsys):
    ids, out = tmp_path / "ids.json", tmp_path / "x.npy"
    ids.write_text("[[1, 2], [3, 4]]")
    out.write_text("precious")
    calls = []

    def apply(*args, **kwargs):
        calls.append(args)
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 10 bytes.")

    monkeypatch.setattr(models, "apply", apply)
    words = ["--tokens", str(ids), "--out", str(out), "--batch", "1", "--force"]
    assert cli.main(["forward", str(hf / "llama" / "base"), *words]) == 2
    assert "lower --batch" in capsys.readouterr().err
    assert calls
    assert out.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ids.json", "x.npy"]


def test_the_examples_work(hf, tmp_path, monkeypatch, shown, gate):
    monkeypatch.chdir(tmp_path)
    shutil.copy(gate, "gate.safetensors")
    (tmp_path / "ids.json").write_text(token_ids.EXAMPLE)
    places = {"MODEL": "base", "A": "plain", "B": "plain2", "C": "rslora"}
    commands = shown(forward.DESCRIPTION)
    assert len(commands) == 6
    for words in commands:
        folders = [str(hf / "llama" / places[w]) if w in places else w for w in words]
        assert cli.main(folders) == 0
        assert np.load("logits.npy").shape == (2, 3, 256)
        (tmp_path / "logits.npy").unlink()
