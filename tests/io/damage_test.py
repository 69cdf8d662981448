"""A thousand damaged files of every kind we write: none is believed.

A reader must raise an error that names a file, say that it makes the entry again, fall
back to an older step, or give the very values that were written.
"""

import collections
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from damage import KINDS, damage, files
from jaxlora import route
from jaxlora.io import checkpoint, gate_file, library, peft, peft_out
from jaxlora.io.gate_file import About
from jaxlora.io.peft import PeftAdapter, PeftModule
from jaxlora.lora import LoraWeight
from jaxlora.studies.harness import Outcome, config, results, store

E, L, D, R = 2, 2, 4, 2
SITE = "layers/attn/q_proj/kernel"
COLUMNS = ("person", "correct")


def draw(seed):
    """A library of two experts."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((E, L, D, R)), rng.standard_normal((E, L, R, D))
    weight = LoraWeight(jnp.float32(a), jnp.float32(b), jnp.ones((E, L)))
    return {"layers": {"attn": {"q_proj": {"kernel": weight}}}}


def leaves(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@dataclasses.dataclass(frozen=True)
class Kind:
    """Files of one kind: how they are written below a folder, and read."""

    write: Callable[[Path, int], None]
    read: Callable[[Path], Any]
    allowed: Callable[[int], list]
    """What may be read of what was written with a seed; None is always allowed."""


def write_steps(folder, seed):
    for step in (3, 7):
        checkpoint.save(folder / f"entry{seed}", step, draw(step + seed), {"n": step})


def read_steps(folder):
    target = jax.eval_shape(lambda: draw(0))
    (entry,) = folder.iterdir()
    stored = checkpoint.restore(entry, target)
    return stored and (stored[0], leaves(stored[1]), stored[2])


def write_entry(folder, seed):
    checkpoint.save(folder / f"key{seed}", 0, draw(seed), {})


def read_entry(folder):
    (entry,) = folder.iterdir()
    stored = checkpoint.restore(entry, jax.eval_shape(lambda: draw(0)))
    return stored and leaves(stored[1])


def write_library(folder, seed):
    library.save(folder / "library", draw(seed), ["ann", "bo"], base=f"base{seed}")


def read_library(folder):
    stored, entries = library.load(folder / "library")
    return leaves(stored), entries.base, entries.names


def write_adapter(folder, seed):
    rng = np.random.default_rng(seed)
    a, b = np.float32(rng.standard_normal((R, D))), np.float32(rng.random((D, R)))
    modules = {"model.layers.0.self_attn.q_proj": PeftModule(a, b, 0.5)}
    adapter = PeftAdapter(modules=modules, base_name="base")
    peft_out.write(folder / "adapter", adapter)


def read_adapter(folder):
    stored = peft.read(folder / "adapter")
    (module,) = stored.modules.values()
    return leaves((module.a, module.b)), module.scale, stored.base_name


def adapter(seed):
    with tempfile.TemporaryDirectory() as folder:
        write_adapter(Path(folder), seed)
        return read_adapter(Path(folder))


def gate(seed):
    state = route.preset("linear").init(draw(seed), width=D)
    return jax.tree.map(lambda x: x + 0.5 if x.dtype == jnp.float32 else x, state)


def write_gate(folder, seed):
    about = About(route="linear", experts=("ann", "bo"), training={"seed": seed})
    folder.mkdir(parents=True)
    gate_file.save(folder / "gate", gate(seed), about)


def read_gate(folder):
    stored = gate_file.load(folder / "gate")
    return leaves(stored.state), stored.about.training["seed"]


def items(seed):
    correct = np.random.default_rng(seed).integers(2, size=9)
    return pd.DataFrame({"person": range(9), "correct": correct})


def write_block(folder, seed):
    outcome = Outcome(items(seed), {"own": 0.5})
    store.save(folder / "blocks" / "a.json", outcome, f"study{seed}/a")
    store.remembered(folder / "known.json", lambda: [seed, 0], f"study{seed}/known")


def read_block(folder):
    outcome = store.load(folder / "blocks" / "a.json", COLUMNS, "study0/a")
    known = store.remembered(folder / "known.json", lambda: None, "study0/known")
    block = outcome and (outcome.items["correct"].tolist(), outcome.notes)
    return None if block is None or known is None else (block, known)


def write_results(folder, seed):
    folder.mkdir(parents=True)
    results.write_rows(folder, items(seed))
    summary = {"study": "x", "config": {"n": seed}, "timings": {"total_s": 1.0}}
    results.write_summary(folder, summary)


@dataclasses.dataclass(frozen=True)
class Config:
    n: int = 5


def read_results(folder):
    rows = pd.read_csv(results.rows_file(folder))["correct"].tolist()
    if not (folder / "results.json").exists():
        return None
    return rows, config.read(Config, folder / "results.json", "x").n


EVERY = {
    "checkpoint of two steps": Kind(
        write_steps,
        read_steps,
        lambda seed: [(n, leaves(draw(n + seed)), {"n": n}) for n in (3, 7)],
    ),
    "cache entry": Kind(write_entry, read_entry, lambda seed: [leaves(draw(seed))]),
    "library": Kind(
        write_library,
        read_library,
        lambda seed: [(leaves(draw(seed)), f"base{seed}", ("ann", "bo"))],
    ),
    "adapter": Kind(write_adapter, read_adapter, lambda seed: [adapter(seed)]),
    "gate": Kind(write_gate, read_gate, lambda seed: [(leaves(gate(seed)), seed)]),
    "block": Kind(
        write_block,
        read_block,
        lambda seed: [((items(seed)["correct"].tolist(), {"own": 0.5}), [seed, 0])],
    ),
    "results": Kind(
        write_results,
        read_results,
        lambda seed: [(items(seed)["correct"].tolist(), seed)],
    ),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder by kind and seed."""
    root = tmp_path_factory.mktemp("originals")
    for name, kind in EVERY.items():
        for seed in (0, 1):
            kind.write(root / name / str(seed), seed)
    return root


def attempt(kind, folder):
    """What is read, and the error in its place."""
    try:
        return kind.read(folder), ""
    except (ValueError, OSError) as error:
        return None, str(error)


def trial(rng, name, how, originals, folder):
    """Damages one file of a copy and reads it; returns what came of it."""
    kind = EVERY[name]
    copy = shutil.copytree(originals / name / "0", folder)
    place = int(rng.integers(len(files(copy))))
    path = files(copy)[place]
    others = files(originals / name / "1")
    if (name, how) == ("gate", "swap"):
        how = "flip"  # the user names a gate's file: another one is another gate
    changed = damage(rng, how, path, others[place % len(others)])
    got, sentence = attempt(kind, copy)
    if sentence:
        assert changed, sentence
        assert str(folder) in sentence  # the bad file, or its folder
        assert "\n" not in sentence
        return "refused"
    if got is None:
        assert changed
        return "made again"
    allowed = kind.allowed(0)
    assert got in allowed, f"{name}: {how} of {path} is believed"
    if got == allowed[-1]:
        return "the same values"
    return "the step before"


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("name", EVERY)
def test_damage_is_seen(name, how, originals, tmp_path, capsys):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        ended = trial(rng, name, how, originals, tmp_path / str(seed))
        said = capsys.readouterr().err
        if ended in ("made again", "the step before"):
            assert all(x.startswith("jaxlora: ") for x in said.splitlines())


OTHER_HASH = "has another SHA-256 than manifest.json gives it"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("flip", OTHER_HASH),
        ("truncate", OTHER_HASH),
        ("delete", "is missing, or no file any more"),
    ],
)
@pytest.mark.parametrize("name", ["checkpoint of two steps", "cache entry"])
def test_a_damaged_value_costs_a_line(name, how, says, originals, tmp_path, capsys):
    copy = shutil.copytree(originals / name / "0", tmp_path / "copy")
    step = max(copy.glob("*/*"))
    values = max(files(step / "state"), key=lambda x: x.stat().st_size)
    assert damage(np.random.default_rng(0), how, values, None)
    got = EVERY[name].read(copy)
    said = capsys.readouterr().err
    assert not step.exists()
    assert said.count("\n") == 1
    assert f"{values} {says}" in said
    if name == "cache entry":
        assert got is None
        assert "and it is made again" in said
    else:
        assert got == EVERY[name].allowed(0)[0]
        assert "step 7 is dropped, and step 3 is used" in said


def test_two_damaged_steps_are_none(originals, tmp_path, capsys):
    copy = shutil.copytree(originals / "checkpoint of two steps" / "0", tmp_path / "x")
    for path in files(copy):
        path.write_bytes(path.read_bytes()[:-1])
    assert read_steps(copy) is None
    assert capsys.readouterr().err.count("\n") == 2


def test_swapped_entries_are_seen(originals, tmp_path, capsys):
    entry = shutil.copytree(originals / "cache entry" / "1" / "key1", tmp_path / "key0")
    assert checkpoint.restore(entry, jax.eval_shape(lambda: draw(0))) is None
    assert "of another entry" in capsys.readouterr().err


def test_what_another_run_made_is_named(tmp_path):
    facts = {"weights of the base": "a", "version": "1", "seed": 3}
    checkpoint.save(tmp_path, 1, draw(0), facts)
    target = jax.eval_shape(lambda: draw(0))
    assert checkpoint.restore(tmp_path, target, facts)[0] == 1
    other = facts | {"weights of the base": "b", "version": "2"}
    with pytest.raises(ValueError, match=r"is \"1\" there and \"2\" here, weights "):
        checkpoint.restore(tmp_path, target, other)


def test_a_file_edited_to_a_right_answer_is_not_believed(tmp_path, capsys):
    write_block(tmp_path, 0)
    path = tmp_path / "blocks" / "a.json"
    text = path.read_text()
    content = json.loads(text)
    content["content"]["items"]["data"][0][1] = 1
    path.write_text(json.dumps(content))
    assert store.load(path, COLUMNS, "study0/a") is None
    assert "a.json is not what was written" in capsys.readouterr().err
    path.write_text(text)
    assert store.load(path, COLUMNS, "study1/a") is None  # of another study
    assert store.load(path, COLUMNS, "study0/a") is not None


@pytest.mark.slow
def test_a_thousand_damaged_files(originals, tmp_path, capsys):
    counts = {name: collections.Counter() for name in EVERY}
    for seed in range(1000):
        rng = np.random.default_rng(1000 + seed)
        name = list(EVERY)[seed % len(EVERY)]
        how = KINDS[seed // len(EVERY) % len(KINDS)]
        folder = tmp_path / str(seed)
        counts[name][trial(rng, name, how, originals, folder)] += 1
        shutil.rmtree(folder)
    with capsys.disabled():
        for name, ended in counts.items():
            print(f"\n{name}: {dict(ended)}", end="")
    assert sum(sum(ended.values()) for ended in counts.values()) == 1000
    assert all(ended.total() > ended["the same values"] for ended in counts.values())
