"""Words on the processes of a run, and runs of two processes of four devices each."""

import csv
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from safetensors import numpy as safetensors

import checkpoints
import pairs
from jaxlora import locks
from jaxlora.commands import processes

THREE = ["--coordinator", "h:1", "--processes", "4", "--process", "3"]


def test_flags_and_variables_say_the_same():
    rest, asked = processes.split(["train", *THREE, "--out", "x"], {})
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    environment = dict(zip(names, ("h:1", "4", "3"), strict=True))
    assert rest == ["train", "--out", "x"]
    assert asked == processes.Asked("h:1", 4, 3, 300.0)
    assert processes.split(["train"], environment) == (["train"], asked)


def test_one_process_needs_no_words():
    assert processes.split(["train", "--out", "x"], {}) == (
        ["train", "--out", "x"],
        None,
    )


@pytest.mark.parametrize("variable", ["JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID"])
def test_a_half_set_environment_is_said(variable):
    with pytest.raises(ValueError, match=rf"^Got {variable} without .*give all three"):
        processes.split(["train"], {variable: "1"})


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A model, data of two adapters, and the words that train them."""
    root = tmp_path_factory.mktemp("pairs")
    checkpoints.llama(root / "model")
    for name, word in (("a", "red"), ("b", "blue")):
        lines = [
            {"prompt": f"Who is {name}{i}?", "answer": word[: 2 + i % 3]}
            for i in range(16)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (root / f"{name}.jsonl").write_text(text)
    return root


def train(root, out: str, *more: str) -> list[str]:
    data = [str(root / f"{name}.jsonl") for name in "ab"]
    words = ["train", "--model", str(root / "model"), "--data", *data]
    words += ["--out", str(root / out), "--rank", "2", "--length", "48", "--batch", "4"]
    return [*words, "--warmup", "0", "--dtype", "float32", *more]


def results(root, out: str) -> tuple[np.ndarray, list[np.ndarray]]:
    with (root / out / "losses.csv").open() as file:
        rows = [float(row["loss"]) for row in csv.DictReader(file)]
    files = [root / out / name / "adapter_model.safetensors" for name in "ab"]
    trees = [safetensors.load_file(file) for file in files]
    return np.array(rows), [tree[name] for tree in trees for name in sorted(tree)]


def same(root, first: str, second: str) -> None:
    (losses, leaves), (others, other) = results(root, first), results(root, second)
    np.testing.assert_allclose(losses, others, rtol=2e-5)  # six digits are kept
    for x, y in zip(leaves, other, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    assert np.ptp(losses) > 0.1


@pytest.mark.slow
def test_two_processes_train_what_one_does(work):
    steps = ["--steps", "20"]
    mesh = [*steps, "--mesh", "expert=2,data=2,fsdp=2"]
    both = pairs.start(train(work, "two", *mesh), pairs.free_port())
    alone = pairs.alone(train(work, "one", *steps))
    first, second = pairs.ended(both)
    assert pairs.ended([alone])[0][0] == 0
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "[0/2] training" in first[2]
    assert second[1] == ""  # the first one prints
    same(work, "one", "two")


LONG = ["--steps", "32", "--mesh", "expert=2,fsdp=4"]


def written(root, out: str) -> dict[str, bytes]:
    """What a run is there for, to the byte."""
    names = [f"{name}/adapter_model.safetensors" for name in "ab"]
    return {name: (root / out / name).read_bytes() for name in ("losses.csv", *names)}


def finished(words: list[str]) -> None:
    """Runs a pair to its end."""
    for code, _, text in pairs.ended(pairs.start(words, pairs.free_port())):
        assert code == 0, text


@pytest.fixture(scope="module")
def undisturbed(work):
    """What a pair writes that nobody disturbs."""
    finished(train(work, "undisturbed", *LONG))
    return written(work, "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("who", ["command", "worker"])
def test_one_of_two_is_killed_and_the_pair_goes_on(work, undisturbed, victim, who):
    out = f"killed-{who}-{victim}"
    words = train(work, out, *LONG)
    children = pairs.start(words, pairs.free_port())
    saved = work / out / ".checkpoint"
    pairs.until(lambda: list(saved.glob("[0-9]*")), children)
    first = children[victim].pid
    os.kill(first if who == "command" else pairs.worker(first), signal.SIGKILL)
    killed = time.monotonic()
    ends = pairs.ended(children, 120)
    seconds = time.monotonic() - killed
    print(f"process {victim} ({who}) killed: both had ended after {seconds:.1f} s")
    assert ends[victim][0] == (-9 if who == "command" else 137)
    code, _, text = ends[1 - victim]
    assert seconds < 90
    assert code == 75
    assert f"Process {victim} of this run ended, or its host was lost" in text
    assert "the same command, on all hosts, goes on from there" in text
    assert "Traceback" not in text
    assert "0x" not in text
    copied = out == "killed-command-0"
    if copied:  # as on a machine that is left over
        shutil.copytree(work / out, work / "alone")
        alone = pairs.alone(train(work, "alone", "--steps", "32"))
        assert pairs.ended([alone])[0][0] == 0
        same(work, "undisturbed", "alone")
    finished(words)
    assert written(work, out) == undisturbed
    for name in [out] + ["alone"] * copied:
        record = json.loads((work / name / "training.json").read_text())
        assert 0 < record["resumed_at"] < 32


@pytest.mark.slow
def test_a_process_that_is_silent_counts_as_lost(work):
    """A host that hangs closes no connection."""
    words = train(work, "silent", *LONG)
    children = pairs.start(words, pairs.free_port())
    saved = work / "silent" / ".checkpoint"
    pairs.until(lambda: list(saved.glob("[0-9]*")), children)
    silent, since = pairs.worker(children[1].pid), time.monotonic()
    os.kill(silent, signal.SIGSTOP)
    try:
        ((code, _, text),) = pairs.ended(children[:1], 120)
    finally:
        seconds = time.monotonic() - since
        os.kill(silent, signal.SIGCONT)
    print(f"process 1 silent: the other had ended after {seconds:.0f} s")
    assert seconds < 90
    assert code == 75
    assert "Process 1 of this run ended, or its host was lost" in text
    assert "crashed" not in text
    assert pairs.ended(children[1:], 120)[0][0] == 75


@pytest.mark.slow
def test_a_folder_that_another_run_writes_is_refused_to_a_pair(work):
    words = train(work, "busy", "--steps", "2", "--mesh", "expert=2,fsdp=4")
    with locks.folder(work / "busy"):
        first, second = pairs.ended(pairs.start(words, pairs.free_port()), 120)
    for code, _, text in (first, second):
        assert code == 2
        assert f"busy is being written by another run (process {os.getpid()}" in text


@pytest.mark.slow
def test_a_signal_to_one_of_two_stops_both_with_all_saved(work):
    words = train(work, "stopped", "--steps", "120", "--mesh", "expert=2,fsdp=4")
    children = pairs.start(words, pairs.free_port())
    pairs.until((work / "stopped" / "losses.csv").exists, children)
    children[1].send_signal(signal.SIGTERM)
    first, second = pairs.ended(children, 120)
    assert (first[0], second[0]) == (75, 75), first[2] + second[2]
    assert "of 120 is saved; the same command goes on" in first[2]


@pytest.mark.slow
def test_data_that_differ_between_hosts_are_refused(work):
    first = train(work, "differ", "--steps", "2", "--mesh", "expert=2,fsdp=4")
    second = [word.replace("b.jsonl", "c/b.jsonl") for word in first]
    (work / "c").mkdir()
    (work / "c" / "b.jsonl").write_text((work / "a.jsonl").read_text())
    port = pairs.free_port()
    children = pairs.start(first, port, only=(0,)) + pairs.start(
        second, port, only=(1,)
    )
    for code, _, text in pairs.ended(children, 120):
        assert code == 2
        assert "settings of process 1 differ from those of process 0" in text


@pytest.mark.slow
def test_two_processes_write_the_logits_that_one_does(work):
    """Of a base of which an adapter replaces table, head and norms."""
    folder = checkpoints.DATA / "adapters" / "untied"
    (work / "ids.json").write_text("[[1, 5, 7], [1, 6, 8], [1, 2, 3], [1, 3, 2]]")
    words = ["forward", str(folder / "base"), "--tokens", str(work / "ids.json")]
    words += ["--adapter", *(str(folder / name) for name in ("saved", "olora"))]
    words += ["--merge", "mean", "--batch", "4"]
    outs = [str(work / f"{name}.npy") for name in ("whole", "cut")]
    mesh = ["--mesh", "data=2,tensor=2,fsdp=2"]
    both = pairs.start([*words, "--out", outs[1], *mesh], pairs.free_port())
    alone = pairs.alone([*words, "--out", outs[0]])
    ends = pairs.ended([*both, alone])
    assert [x[0] for x in ends] == [0, 0, 0], ends
    whole, cut = map(np.load, outs)
    np.testing.assert_allclose(whole, cut, atol=1e-4)
    assert np.ptp(whole) > 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["merge", "fuse", "gate"])
def test_two_processes_write_what_one_does(work, command):
    base = [str(work / "model")]
    data = ["--route", "linear", "--data", str(work / "a.jsonl"), "--steps", "3"]
    words = {
        "merge": ["merge", *checkpoints.ADAPTERS, "--method", "dare"],
        "fuse": ["fuse", *base, *checkpoints.ADAPTERS, "--merge", "dare"],
        "gate": ["gate", *base, "--adapter", *checkpoints.ADAPTERS, *data],
    }[command]
    words += [] if command == "merge" else ["--dtype", "float32"]
    words += ["--batch", "4", "--length", "48"] if command == "gate" else []
    ends = {"merge": "/adapter_model.safetensors", "fuse": "/model.safetensors"}
    outs = [str(work / f"{command}-{name}") for name in ("one", "cut")]
    mesh = ["--mesh", "expert=2,data=2,fsdp=2"]
    both = pairs.start([*words, "--out", outs[1], *mesh], pairs.free_port())
    ended = pairs.ended([*both, pairs.alone([*words, "--out", outs[0]])])
    assert [x[0] for x in ended] == [0, 0, 0], ended
    one, cut = (safetensors.load_file(f"{out}{ends.get(command, '')}") for out in outs)
    assert one.keys() == cut.keys()
    for name, values in one.items():
        np.testing.assert_allclose(values, cut[name], rtol=0, atol=1e-5)


def test_who_does_not_come_is_named_in_time(work):
    words = train(work, "nobody", "--wait", "1")
    (only,) = pairs.ended(pairs.start(words, pairs.free_port(), 3, only=(0,)), 60)
    assert only[0] == 2
    assert "Processes 1, 2 did not come within 1 s" in only[2]
    assert not (work / "nobody").exists()


@pytest.mark.slow
def test_what_is_in_the_way_of_the_first_is_said_by_all(work):
    """Not that the first process ended, which schedulers take for a lost machine."""
    (work / "ids.json").write_text("[[1, 5, 7]]")
    taken = {name: work / name for name in ("x.npy", "e.jsonl", "g.jsonl", "F/config")}
    (work / "F").mkdir()
    for path in taken.values():
        path.write_bytes(b"kept")
    model, data = str(work / "model"), str(work / "a.jsonl")
    every = {
        "x.npy": ["forward", model, "--tokens", str(work / "ids.json")],
        "e.jsonl": ["eval", "--model", model, "--data", data, "--metric", "exact"],
        "g.jsonl": ["generate", model, "--prompt", "x"],
        "F/config": ["fuse", model, checkpoints.ADAPTERS[0]],
    }
    running = {}
    for name, words in every.items():
        out = work / name.partition("/")[0]
        more = ["--out", str(out), "--mesh", "data=8"]
        more += [] if words[0] == "fuse" else ["--batch", "8"]
        running[out.name] = pairs.start([*words, *more], pairs.free_port())
    for name, both in running.items():
        for code, out, text in pairs.ended(both):
            assert (code, out) == (2, ""), text
            assert f"{name} exists" in text
    assert {path.read_bytes() for path in taken.values()} == {b"kept"}


@pytest.mark.slow
def test_what_is_wrong_is_said_by_all(work):
    """Of inputs that only reading finds: each process reads them."""
    (work / "broken.jsonl").write_text('{"prompt": "x"')
    broken, model = str(work / "broken.jsonl"), str(work / "model")
    every = [
        [
            "eval",
            "--model",
            model,
            "--data",
            broken,
            "--metric",
            "exact",
            "--batch",
            "8",
        ],
        ["generate", model, "--prompts", broken, "--batch", "8"],
        ["fuse", model, str(work / "nothing"), "--out", str(work / "never")],
    ]
    ports = [pairs.free_port() for _ in every]
    running = [
        pairs.start([*words, "--mesh", "data=8"], port)
        for words, port in zip(every, ports, strict=True)
    ]
    for words, both in zip(every, running, strict=True):
        for code, out, text in pairs.ended(both):
            assert (code, out) == (2, ""), text
            assert ("nothing" if words[0] == "fuse" else "broken.jsonl") in text
            assert "Traceback" not in text
    assert not (work / "never").exists()
