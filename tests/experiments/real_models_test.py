"""The scripts for real models: tasks, configurations and tables, without a model."""

import importlib
import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import decoders
from jaxlora import lora
from jaxlora.evaluate import predictions
from jaxlora.models import Decoder, apply, architectures, init
from jaxlora.studies.harness import config as harness
from jaxlora.studies.two_hop.text.config import STUDY, TextConfig
from jaxlora.tasks.packing import Rows

HERE = pathlib.Path(__file__).parents[2] / "experiments" / "real_models"
NAMES = ("adapter_tasks", "knows", "hops", "retention", "figure")


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    yield {name: importlib.import_module(name) for name in NAMES}
    for name in NAMES:
        sys.modules.pop(name, None)


def test_tasks_are_tested_on_what_was_not_trained(scripts):
    tasks = scripts["adapter_tasks"]
    assert len(tasks.TASKS) == 8
    for name in tasks.TASKS:
        train, test = tasks.rows(name, 0)
        assert (train, test) == tasks.rows(name, 0) != tasks.rows(name, 1)
        assert len(train) == 48
        assert not {x["prompt"] for x in train} & {x["prompt"] for x in test}
        words = name.startswith("words")
        assert len(test) == (16 if words else tasks.TEST)
        if words:  # by heart: the same words in another phrasing
            assert {x["answer"] for x in test} == {x["answer"] for x in train}


def test_sums_are_right(scripts):
    for rows in scripts["adapter_tasks"].rows("coins", 3):
        for row in rows:
            a, b, total, last = map(int, re.findall(r"\d+", row["answer"]))
            assert a + b == total == last
            assert f"has {a} coins and gets {b} more" in row["prompt"]


@pytest.mark.parametrize("name", ["quick", "standard", "larger"])
def test_configurations_are_read(name):
    config = harness.read(TextConfig, HERE / f"{name}.json", STUDY)
    assert config.real
    assert not config.extra


def test_predictions_speak_of_what_quick_asks():
    config = harness.read(TextConfig, HERE / "quick.json", STUDY)
    for claim in predictions.load(HERE / "predictions.json"):
        assert claim.cell is not None
        assert claim.cell.familiarity == "R"
        assert str(claim.method) in (*config.methods, "none")


def test_shapes_are_of_architectures_that_are_read():
    folders = sorted((HERE / "shapes").iterdir())
    assert len(folders) == 4
    for folder in folders:
        raw = json.loads((folder / "config.json").read_text())
        assert architectures.from_json(raw).num_layers == raw["num_hidden_layers"]


def test_one_gpu_has_eight_minutes():
    bash = ["bash", str(HERE / "gpu.sh")]
    dry = subprocess.run([*bash, "out", "--dry-run"], capture_output=True, text=True)
    assert dry.returncode == 0
    limits = [int(x) for x in re.findall(r"at most (\d+) s", dry.stdout)]
    assert len(limits) == 5
    assert sum(limits) <= 480
    for script in re.findall(r"(\S+\.(?:py|json))", dry.stdout):
        assert pathlib.Path(script).exists()
    told = subprocess.run(bash, capture_output=True, text=True)
    assert told.returncode == 2
    assert "--dry-run" in told.stdout


def test_what_is_kept_is_a_share_of_the_own_adapters(scripts):
    retention = scripts["retention"]
    right = {("a", "own adapter"): [1, 1], ("b", "own adapter"): [1, 0]}
    right |= {("a", "mean"): [1, 0], ("b", "mean"): [0, 0]}
    frame = pd.DataFrame(
        [
            {"task": task, "arm": arm, "right": hit}
            for (task, arm), hits in right.items()
            for hit in hits
        ]
    )
    share, low, high = retention.kept(frame, "mean")
    assert share == pytest.approx(0.25 / 0.75)
    assert low <= share <= high
    assert retention.kept(frame, retention.OWN)[0] == 1
    table = retention.table(frame)
    assert "| a | 1.00 [0.34, 1.00] | 0.50 [0.09, 0.91] |" in table
    assert "0.33 [" in table.splitlines()[-1]


def test_a_false_first_fact_has_another_answer(scripts):
    hops = scripts["hops"]
    (some,) = hops.people.real(["located in/capital"]).people
    records = tuple(person[2] for person in some[:3])
    false = hops.misled(records)
    assert [x.bridge for x in false] == [records[i].bridge for i in (1, 2, 0)]
    assert [x.prompt for x in false] == [x.prompt for x in records]
    assert [x.answer for x in false] == [records[i].answer for i in (1, 2, 0)]


def test_seeds_are_pooled_by_people(scripts, tmp_path):
    figure = scripts["figure"]
    for seed, value, n in ((1, 0.25, 8), (2, 0.75, 4)):
        line = ("R", "OO", "base", "none", "two-hop", "accuracy", value, n, "{}")
        names = "familiarity knows library method split metric value n condition"
        row = dict(zip(names.split(), line, strict=True))
        rows = pd.DataFrame([row | {"seed": seed}, row | {"seed": "all"}])
        (tmp_path / f"seed{seed}").mkdir()
        rows.to_csv(tmp_path / f"seed{seed}" / "results.csv.gz", index=False)
    rows = figure.runs(tmp_path)
    assert len(rows) == 2
    both = figure.pooled(rows, figure.NEW, figure.BARS[0])
    assert (both.value, both.n) == (5 / 12, 12)
    assert figure.pooled(rows, ["R-II"], figure.BARS[0]) is None
    assert "| base | 0.42 [0.19, 0.68] | 0.42 [0.19, 0.68] |" in figure.table(rows)


@pytest.mark.slow
def test_an_answer_is_right_if_each_of_its_tokens_is_the_first_choice(scripts):
    model = Decoder(decoders.TEXT)
    base = jax.jit(init, static_argnums=1)(jax.random.key(0), model)
    tokens = np.array([[3, 1, 4, 1, 5, 9]], np.int32)
    best = np.asarray(apply(model, base, jnp.asarray(tokens))[0].argmax(-1))
    targets = np.where(np.arange(6) == 5, (best + 1) % 13, best)[None].astype(np.int32)
    weights = np.array([[0, 1, 1, 0, 0, 1]], np.float32)  # the last is wrong
    one = np.ones((1, 6), np.int32)
    rows = Rows(tokens, targets, weights, one, np.arange(6, dtype=np.int32)[None])
    adapter = lora.init(jax.random.key(1), base, lora.LoraConfig(rank=2))
    right = scripts["retention"].right
    assert right(model, base, adapter, rows) == [False]
    weights[0, 5] = 0
    assert right(model, base, adapter, rows) == [True]
