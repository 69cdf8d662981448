"""Words on the processes of a run, and runs of two processes of four devices each."""

import csv
import json
import os
import signal
import time

import numpy as np
import pytest
from safetensors import numpy as safetensors

import checkpoints
import pairs
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


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_of_two_is_killed_and_the_pair_goes_on(work, victim):
    out = f"killed{victim}"
    words = train(work, out, "--steps", "120", "--mesh", "expert=2,fsdp=4")
    children = pairs.start(words, pairs.free_port())
    while not list((work / out / ".checkpoint").glob("[0-9]*")):
        time.sleep(0.1)
        assert children[0].poll() is None
    os.kill(children[victim].pid, signal.SIGKILL)
    killed = time.monotonic()
    code, _, text = pairs.ended(children, 120)[1 - victim]
    assert time.monotonic() - killed < 90
    assert code == 75
    assert "another process of this run ended" in text.lower()
    assert "Traceback" not in text
    assert "0x" not in text
    again = train(work, out, "--steps", "120", "--mesh", "expert=2,data=4")
    both = pairs.ended(pairs.start(again, pairs.free_port()))
    assert [x[0] for x in both] == [0, 0], both
    record = json.loads((work / out / "training.json").read_text())
    assert 0 < record["resumed_at"] < 120


@pytest.mark.slow
def test_a_signal_to_one_of_two_stops_both_with_all_saved(work):
    words = train(work, "stopped", "--steps", "120", "--mesh", "expert=2,fsdp=4")
    children = pairs.start(words, pairs.free_port())
    while not (work / "stopped" / "losses.csv").exists():
        time.sleep(0.1)
        assert children[0].poll() is None
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
    (work / "ids.json").write_text("[[1, 5, 7], [1, 6, 8], [1, 2, 3], [1, 3, 2]]")
    words = ["forward", str(work / "model"), "--tokens", str(work / "ids.json")]
    words += ["--adapter", *checkpoints.ADAPTERS, "--merge", "mean", "--batch", "4"]
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
