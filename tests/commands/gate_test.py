"""``jaxlora gate`` makes the gate of each route that needs data, or writes nothing."""

import contextlib
import functools
import io
import json
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import cli, lora, models, reuse, route
from jaxlora.commands import gate, gate_plan
from jaxlora.io import gate_file
from jaxlora.models import statistics, tokenizer
from jaxlora.tasks import text as records
from jaxlora.train import packed, session
from lines import overridden

FLAGS = ["--length", "48", "--batch", "4", "--learning-rate", "0.05", "--warmup", "0"]
ADAPTERS = ("plain", "plain2")
APPLY = jax.jit(models.apply, static_argnums=0)


@pytest.fixture(autouse=True, scope="module")
def _once():
    """Short chunks, to stop within a run; optax mixes floats and counts."""
    with (
        jax.numpy_dtype_promotion("standard"),
        pytest.MonkeyPatch.context() as patched,
    ):
        real = session.train_gates

        def short(*args, checkpoints, **options):
            return real(*args, checkpoints=checkpoints._replace(chunk=2), **options)

        patched.setattr(session, "train_gates", short)
        yield


@pytest.fixture(scope="module")
def files(colours):
    """Data of two adapters; those of the first are the target task, too."""
    return colours(12, 5)


@pytest.fixture(scope="module")
def call(speaking, hf):
    """Runs the command; returns its exit code, and what it said."""

    def run(name, data, out, *words, adapters=ADAPTERS):
        folders = [str(hf / "llama" / x) for x in adapters]
        argv = ["gate", str(speaking("plain")), "--adapter", *folders]
        argv += ["--route", name, "--data", *data, "--out", str(out), *FLAGS, *words]
        said, printed = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
            code = cli.main(overridden(argv))
        return code, said.getvalue(), printed.getvalue()

    return run


@pytest.fixture(scope="module")
def made(call, files, tmp_path_factory):
    """A function that makes a gate once: the file, and what was printed."""

    def make(name):
        out = tmp_path_factory.mktemp("out") / "deep" / "gate.safetensors"
        own = route.describe(name).data == "own"
        code, said, printed = call(
            name, files if own else files[:1], out, "--steps", "8"
        )
        assert code == 0, said
        assert os.listdir(out.parent) == [out.name]  # no checkpoint is left
        return out, said, printed

    return functools.cache(make)


def loaded(hf, speaking, out, **options):
    """What other commands run with, of a gate in a file."""
    found = gate_file.load(out)
    folders = [hf / "llama" / x for x in ADAPTERS]
    about = found.about
    return reuse.load(
        speaking("plain"), folders, route=about.route, gate=found.state, **options
    )


SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("phatgoose", "smear", "lora-flow")
]


@pytest.mark.parametrize("name", ["linear", *SLOW])
def test_a_gate_is_trained_and_used(made, hf, speaking, files, tmp_path, name):
    out, said, printed = made(name)
    found = gate_file.load(out)
    about = found.about
    assert (about.route, about.experts, about.fields) == (name, ADAPTERS, {})
    own = name == "phatgoose"
    assert about.training["data"] == ", ".join(files if own else files[:1])
    assert about.training["updates"] == 8
    assert about.training["loss_after"] < about.training["loss_before"]
    # The closing table says the same, gate by gate.
    gates = re.findall(r"(\w+) +8 +(\d+\.\d+) +(\d+\.\d+)", printed)
    assert [row[0] for row in gates] == (list(ADAPTERS) if own else ["target"])
    means = np.mean([[float(x) for x in row[1:]] for row in gates], axis=0)
    told = (about.training["loss_before"], about.training["loss_after"])
    np.testing.assert_allclose(means, told, atol=1e-3)
    assert "12 examples" in said
    using = loaded(hf, speaking, out)
    if name == "linear":  # and tests/commands/forward_test.py uses one
        return
    ids = tmp_path / "ids.json"
    ids.write_text("[[5, 6, 7]]")
    words = ["--tokens", str(ids), "--out", str(tmp_path / "x.npy"), "--force"]
    folders = [str(hf / "llama" / x) for x in ADAPTERS]
    model = str(speaking("plain"))
    argv = ["forward", model, "--adapter", *folders, "--gate", str(out), *words]
    assert cli.main(argv) == 0
    row = jnp.asarray([[5, 6, 7]])
    wanted = APPLY(using.model, using.base, row, **using.arguments())
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), wanted, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "phatgoose", "average-activation"])
def test_over_a_mesh_the_gate_is_the_same(call, colours, tmp_path, name):
    """Experts lie on two devices, whether they share a gate or have one each."""
    files = colours(40, 40)
    given = files if route.describe(name).data == "own" else files[:1]
    outs = [tmp_path / f"{x}.safetensors" for x in ("one", "cut")]
    mesh = [[], ["--mesh", "expert=2,data=2,fsdp=2"]]
    for out, words in zip(outs, mesh, strict=True):
        code, said, _ = call(
            name, given, out, "--steps", "4", "--dtype", "float32", *words
        )
        assert code == 0, said
    one, cut = (
        {
            f"{n}/{i}": leaf
            for n, s in route.states(gate_file.load(out).state).items()
            for i, leaf in enumerate(jax.tree.leaves(s))
        }
        for out in outs
    )
    assert one.keys() == cut.keys()
    for key, leaf in one.items():
        np.testing.assert_allclose(leaf, cut[key], atol=1e-4)


def test_the_loss_before_is_that_of_the_plain_mean(made, hf, speaking, files):
    """A linear gate starts with equal weights."""
    out = made("linear")[0]
    words = tokenizer.load(speaking("plain"))
    with open(files[0]) as lines:
        found = [records.record(json.loads(x), "x") for x in lines]
    folders = [hf / "llama" / x for x in ADAPTERS]
    using = reuse.load(speaking("plain"), folders, route="uniform")
    total = count = 0.0
    for item in found:
        one = records.encode_one(item, words)
        ids = np.zeros((1, 48), np.int32)
        ids[0, : len(one.tokens)] = one.tokens
        scores = APPLY(using.model, using.base, jnp.asarray(ids), **using.arguments())
        scores = np.asarray(jax.nn.log_softmax(scores))[0]
        learnt = np.flatnonzero(one.answer)
        total -= scores[learnt - 1, one.tokens[learnt]].sum()
        count += len(learnt)
    before = gate_file.load(out).about.training["loss_before"]
    assert before == pytest.approx(total / count, abs=1e-3)


@pytest.mark.slow
def test_interrupted_it_ends_with_the_same_bytes(
    made, call, files, tmp_path, monkeypatch
):
    whole = made("linear")[0]
    monkeypatch.setattr(session, "SAVE_EVERY", -1.0)
    real = session.train_gates

    def interrupted(*args, progress, **options):
        def stop(done, total, recent):
            progress(done, total, recent)
            if done == 4:
                raise KeyboardInterrupt

        return real(*args, progress=stop, **options)

    out = tmp_path / "gate.safetensors"
    monkeypatch.setattr(session, "train_gates", interrupted)
    code, said, _ = call("linear", files[:1], out, "--steps", "8")
    assert code == 130
    assert "update 4 of 8 is saved; the same command goes on from there" in said
    assert os.listdir(tmp_path) == [".gate.safetensors.checkpoint"]
    resumed = []

    def spy(*args, **options):
        resumed.append(real(*args, **options))
        return resumed[-1]

    monkeypatch.setattr(session, "train_gates", spy)
    assert call("linear", files[:1], out, "--steps", "8")[0] == 0
    assert resumed[0].resumed == 4
    assert out.read_bytes() == whole.read_bytes()
    assert os.listdir(tmp_path) == ["gate.safetensors"]


def prompts(files, words):
    out = []
    for path in files:
        with open(path) as lines:
            found = [records.record(json.loads(line), "x") for line in lines]
        out.append([records.prompt(item, words) for item in found])
    return out


def test_average_activation_is_of_last_prompt_tokens(made, hf, speaking, files):
    out, _, printed = made("average-activation")
    assert [x.split() for x in printed.splitlines()[4:6]] == [
        ["plain", "12"],
        ["plain2", "5"],
    ]
    state = route.states(gate_file.load(out).state)
    using = loaded(hf, speaking, out)
    model = models.Decoder(using.model.config)
    mean = jax.jit(
        lambda tokens, last, adapter: statistics.mean_inputs(
            model, using.base, models.Inputs(tokens, tokens > 0), last, adapter=adapter
        )
    )
    asked = prompts(files, tokenizer.load(speaking("plain")))
    for e, adapter in enumerate(lora.unstack(using.library)):
        tokens = np.zeros((12, 48), np.int32)
        last = np.zeros((12, 48), np.float32)
        for i, ids in enumerate(asked[e]):
            tokens[i, : len(ids)], last[i, len(ids) - 1] = ids, 1
        for name, value in mean(tokens, last, adapter).items():
            unit = value / jnp.linalg.norm(value, axis=-1, keepdims=True)
            np.testing.assert_allclose(state[name].keys[e], unit, atol=1e-5)


def test_retrieval_keeps_the_prompts(made, hf, speaking, files):
    state = route.states(gate_file.load(made("retrieval")[0]).state)["router"]
    asked = prompts(files, tokenizer.load(speaking("plain")))
    base = loaded(hf, speaking, made("retrieval")[0]).base
    table = np.asarray(base["embed"]["embedding"])
    for e, some in enumerate(asked):
        rows = np.array([table[ids].mean(0) for ids in some])
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        near = np.asarray(state.keys[e]) @ rows.T  # in any order, and again
        assert state.keys.shape[1] == 12
        np.testing.assert_allclose(near.max(axis=0), 1, atol=1e-5)
        np.testing.assert_allclose(near.max(axis=1), 1, atol=1e-5)


def test_fewer_examples_on_request(call, files, tmp_path):
    out = tmp_path / "gate.safetensors"
    assert call("retrieval", files, out, "--examples", "3")[0] == 0
    (state,) = route.states(gate_file.load(out).state).values()
    assert state.keys.shape[1] == 3


def untrained(program, base, run, plan, rows, libraries):
    """In place of ``packed.updates``, for tests of what is around it."""
    shape = rows.tokens.shape[:2]
    report = packed.Report(np.ones(shape), np.ones(shape))
    return run.replace(step=run.step + shape[1]), report


def test_how_it_chooses_is_kept_in_the_file(call, files, tmp_path, monkeypatch):
    seen = []

    def updates(program, *args):
        seen.append(program.model.route)
        return untrained(program, *args)

    monkeypatch.setattr(packed, "updates", updates)
    out = tmp_path / "gate.safetensors"
    flags = ("--route-top-k", "2", "--route-temperature", "0.5", "--steps", "1")
    assert call("linear", files, out, *flags)[0] == 0  # of two files together
    assert (seen[0].top_k, seen[0].temperature) == (None, 0.5)  # 2 of 2 are all
    assert gate_file.load(out).about.fields == {"top_k": 2, "temperature": 0.5}


@pytest.mark.slow
def test_the_examples_work(hf, speaking, files, tmp_path, monkeypatch, shown, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packed, "updates", untrained)
    for path in ("task.jsonl", "a.jsonl", "b.jsonl"):
        shutil.copy(files[0], tmp_path / path)
    places = {"MODEL": speaking("plain"), "A": hf / "llama" / "plain"}
    places["B"] = hf / "llama" / "plain2"
    commands = shown(gate_plan.DESCRIPTION)
    assert len(commands) == 5
    for i, words in enumerate(commands):
        argv = [str(places.get(word, word)) for word in words]
        if words[0] == "generate":
            argv += ["--max-new-tokens", "4"]
        assert cli.main(argv) == 0
        if i < 2:
            (tmp_path / "gate.safetensors").unlink()
    assert "arXiv 2402.05859" in capsys.readouterr().out


def test_the_list_names_every_route_and_what_it_needs(capsys):
    assert cli.main(["gate", "--list"]) == 0
    said = capsys.readouterr().out
    for name in route.names():
        entry = route.describe(name)
        (line,) = [x for x in said.splitlines() if x.split()[:1] == [name]]
        assert gate.SEES[entry.data] in line
        assert entry.summary in line
    assert cli.main(["gate", "--list", "linear"]) == 2
    assert "takes nothing else, got linear" in capsys.readouterr().err


def test_every_route_with_a_gate_can_be_planned(speaking):
    words = [str(speaking("plain")), "--adapter", "a", "--out", "x"]
    for name in reuse.gate_names():
        given = gate_plan.parse([*words, "--route", name])
        plan = gate_plan.planned(given)
        assert plan.per_expert == (route.describe(name).data == "own")
        measured = name in ("average-activation", "retrieval")
        assert (plan.training is None) == measured


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--adapter A B --data a", "Got no --route, expected the one to make; there"),
        ("--adapter A B --route arrow --data a", "is made from the adapters alone"),
        ("--adapter A B --route oracle --data a", "is made from labels with each call"),
        ("--adapter A B --route lineer --data a", "did you mean 'linear'?"),
        ("--route linear --data a", "Got no --adapter, expected one for each expert"),
        ("--adapter A B --route linear", "No --data was given, expected a file of"),
        ("--adapter A B --route phatgoose --data a", "got 1 --data for 2 adapters"),
        ("--adapter A B --route linear --data gone.jsonl", "gone.jsonl is not there"),
        ("--adapter A A --route linear --data a", "is given twice"),
        (
            "--adapter A B --route linear --data a --route-top-k 0",
            "--route-top-k is 0, expected",
        ),
        ("--adapter A B --route linear --data a --route-top-k 1", "nothing to learn"),
        (
            "--adapter A B --route linear --data a --route-top-k 3",
            "--route-top-k is 3 for 2 ada",
        ),
        (
            "--adapter A B --route linear --data a --route-temperature 0",
            "a positive number",
        ),
        ("--adapter A B --route linear --data a --batch 0", "--batch is 0, expected"),
        ("--adapter A B --route linear --data a --clip -1", "--clip is -1.0, expected"),
        ("--adapter A B --route linear --data a --epochs 0", "--epochs is 0.0"),
        ("--adapter A B --route linear --data a --learn-rate 1", "--learning-rate?"),
        ("--adapter A B --route linear --data a --out a", "a.jsonl exists already"),
        ("--adapter A B --route linear --data a --out .", "is a folder"),
        ("--adapter A B --route linear --data long.jsonl", "No example is left"),
        (
            "--adapter A B --route retrieval --data a long.jsonl",
            "plain2: no example is",
        ),
        ("--adapter A gone --route linear --data a", "gone"),
    ],
)
def test_a_bad_request_is_one_sentence_and_writes_nothing(
    hf, speaking, files, tmp_path, monkeypatch, capsys, words, expected
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packed, "updates", lambda *_, **__: pytest.fail("it trained"))
    line = json.dumps({"prompt": "x" * 999, "answer": "y"})
    (tmp_path / "long.jsonl").write_text(line)
    places = {"A": hf / "llama" / "plain", "B": hf / "llama" / "plain2", "a": files[0]}
    flags = [str(places.get(word, word)) for word in words.split()]
    before = sorted(tmp_path.rglob("*"))
    out = [] if "--out" in flags else ["--out", "gate.safetensors"]
    assert (
        cli.main(overridden(["gate", str(speaking("plain")), *FLAGS, *out, *flags]))
        == 2
    )
    said = capsys.readouterr()
    assert expected in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert sorted(tmp_path.rglob("*")) == before
