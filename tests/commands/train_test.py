"""``jaxlora train`` trains an adapter a file, resumes, and writes all or nothing."""

import contextlib
import csv
import functools
import json
import math
import os
import re
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import cli, locks, lora, models
from jaxlora.commands import scalars, train_output
from jaxlora.commands.flags import training
from jaxlora.io import checkpoint
from jaxlora.models import adapters, pretrained, tokenizer
from jaxlora.tasks import data_sets
from jaxlora.tasks import text as records
from jaxlora.train import packed, session
from trainings import BATCH, LENGTH, RECORDS, call

EPOCHS = ["--epochs", "6"]
SITES = {
    f"layers/{part}_proj/kernel"
    for part in ("attn/q", "attn/k", "attn/v", "attn/o", "mlp/gate", "mlp/up")
} | {"layers/mlp/down_proj/kernel"}
RUN = jax.jit(models.apply, static_argnums=0)


@pytest.fixture(autouse=True, scope="module")
def _setting(optax_promotes):
    """Every test of this module; see tests/conftest.py."""


NAMES = ["sums", "products.train"]


def test_every_name_of_a_record_is_kept_for_it():
    assert {*RECORDS, scalars.STAGES, scalars.BOARD} <= {*training.RESERVED}


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def library(speaking, files, tmp_path_factory):
    """A folder that the command wrote, what was trained, and what was said."""
    out = tmp_path_factory.mktemp("out") / "deep" / "library"
    (out / NAMES[0]).mkdir(parents=True)  # empty, which counts as new
    kept = []
    with pytest.MonkeyPatch.context() as patched:
        real = session.train_experts

        def spy(*args, **options):
            kept.append(jax.device_get(real(*args, **options)))
            return kept[-1]

        patched.setattr(session, "train_experts", spy)
        code, said = call(speaking("plain"), files, out, *EPOCHS)
    assert code == 0
    return out, kept[0], said


def losses(folder):
    """``{adapter: [(update, loss, norm)]}`` of losses.csv."""
    found = {}
    with (folder / "losses.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert list(row) == ["adapter", "update", "loss", "gradient_norm"]
            numbers = (row["update"], row["loss"], row["gradient_norm"])
            found.setdefault(row["adapter"], []).append(tuple(map(float, numbers)))
    return found


def test_the_loss_falls_and_every_update_is_written(library):
    out, trained, _ = library
    rows = losses(out)
    assert list(rows) == NAMES
    facts = json.loads((out / "training.json").read_text())
    for name, loss, norm in zip(NAMES, trained.loss, trained.norm, strict=True):
        table = np.array(rows[name])
        count = math.ceil(facts["data"][name]["rows"] * 6 / BATCH)
        np.testing.assert_array_equal(table[:, 0], np.arange(count))
        np.testing.assert_allclose(table[:, 1], loss[:count], rtol=1e-5)
        np.testing.assert_allclose(table[:, 2], norm[:count], rtol=1e-5)
        assert table[0, 1] > 5  # of 256 tokens, one in e^5 at most
        assert table[-5:, 1].mean() < 0.6 * table[0, 1]
    assert len(rows[NAMES[0]]) < len(rows[NAMES[1]])  # each ends after its own


def test_it_records_what_was_trained_and_says_it(library, speaking, files):
    out, trained, said = library
    facts = json.loads((out / "training.json").read_text())
    words = tokenizer.load(speaking("plain"))
    for name, path in zip(NAMES, files, strict=True):
        count = facts["data"][name]
        with open(path) as file:
            records = [json.loads(line) for line in file]
        answers = sum(len(words.encode(r["answer"], special=False)) for r in records)
        assert count["examples"] == len(records)
        assert count["answer_tokens"] == answers + len(records)  # each with its eos
        assert count["efficiency"] == round(count["tokens"] / count["rows"] / LENGTH, 4)
        left = ("bad_lines", "refused", "too_long", "truncated", "no_answer")
        assert [count[key] for key in left] == [0] * 5
        updates = math.ceil(count["rows"] * 6 / BATCH)
        line = f"{name}: {count['examples']} examples in {count['rows']} rows of 96"
        assert line in said
        assert f"full; {updates} updates\n" in said
    assert facts["command"] == "train"
    assert facts["arguments"]["data"] == list(files)
    assert facts["arguments"]["model"] == str(speaking("plain"))
    assert facts["schedule"]["learning_rate"] == 0.01
    assert facts["schedule"]["batch"] == BATCH
    assert facts["resumed_at"] == trained.resumed == 0
    assert facts["seconds"] > 0
    assert {"versions", "device", "git_revision"} < set(facts)


def test_the_checkpoint_is_gone_and_nothing_else_is_there(library):
    out = library[0]
    assert sorted(os.listdir(out)) == sorted([*NAMES, *RECORDS])
    for name in NAMES:
        wanted = ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
        assert sorted(os.listdir(out / name)) == wanted
    assert os.listdir(out.parent) == ["library"]


def test_the_adapters_are_those_that_were_trained(library, speaking):
    out, trained, _ = library
    _, base = pretrained.load(speaking("plain"))
    for name, wanted in zip(NAMES, lora.unstack(trained.learned), strict=True):
        wanted = lora.sites(wanted)
        got = lora.sites(adapters.load(out / name, base))
        assert set(got) == set(wanted) == SITES
        for site, weight in got.items():
            assert weight.a.dtype == weight.b.dtype == jnp.float32
            assert weight.rank == 4
            np.testing.assert_array_equal(weight.a, wanted[site].a)
            np.testing.assert_array_equal(weight.b, wanted[site].b)
            np.testing.assert_array_equal(weight.scale, 4.0)  # alpha / rank
        config = json.loads((out / name / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(speaking("plain"))


def likelihood(model, base, words, path, **adapter):
    """Mean nats of a token of the answers of a file, one example at a time."""
    total, count = 0.0, 0
    with open(path) as file:
        for line in list(file)[:8]:
            record = json.loads(line)
            ids = words.encode(record["question"] + "\n" + record["answer"])
            asked = len(words.encode(record["question"] + "\n"))
            row = jnp.asarray([ids + [0] * (LENGTH - len(ids))], jnp.int32)
            scores = jax.nn.log_softmax(RUN(model, base, row, **adapter)[0])
            for at in range(asked, len(ids)):
                total -= float(scores[at - 1, ids[at]])
                count += 1
    return total / count


def test_each_adapter_knows_its_own_file_best(library, speaking, files):
    model, base = pretrained.load(speaking("plain"))
    words = tokenizer.load(speaking("plain"))
    ask = functools.partial(likelihood, model, base, words)
    for name, own, other in zip(NAMES, files, files[::-1], strict=True):
        adapter = adapters.load(library[0] / name, base)
        assert ask(own, adapter=adapter) < ask(other, adapter=adapter) - 0.1
        assert ask(own, adapter=adapter) < 0.7 * ask(own)


def test_forward_takes_them(library, speaking, tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps([[5, 6, 7, 8]]))
    found = []
    for i, flags in enumerate([[], ["--adapter", str(library[0] / NAMES[0])]]):
        out = tmp_path / f"{i}.npy"
        words = [str(speaking("plain")), "--tokens", str(tokens), "--out", str(out)]
        assert cli.main(["forward", *words, *flags]) == 0
        found.append(np.load(out))
    assert np.abs(found[0] - found[1]).max() > 0.5


@pytest.mark.filterwarnings("ignore")  # theirs, of each other
def test_peft_computes_the_same(library, speaking):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    ids = np.random.default_rng(0).integers(3, 256, (2, 12))
    model, base = pretrained.load(speaking("plain"))
    plain = RUN(model, base, jnp.asarray(ids, jnp.int32))
    for name in NAMES:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            speaking("plain"), attn_implementation="eager"
        )
        theirs = peft.PeftModel.from_pretrained(theirs, library[0] / name).eval()
        with torch.no_grad():
            wanted = theirs(torch.tensor(ids)).logits.numpy()
        adapter = adapters.load(library[0] / name, base)
        got = RUN(model, base, jnp.asarray(ids, jnp.int32), adapter=adapter)
        np.testing.assert_allclose(got, wanted, atol=2e-4)
        assert np.abs(wanted - plain).max() > 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PEFT, where it is there
def test_head_and_table_are_trained_and_written(speaking, files, tmp_path):
    out, model = tmp_path / "library", speaking("plain")
    words = ["--targets", "q_proj", "lm_head", "embed_tokens", "--steps", "30"]
    assert call(model, files[:1], out, *words)[0] == 0
    decoder, base = pretrained.load(model)
    adapter = adapters.load(out / NAMES[0], base)
    moved = {x: jnp.abs(lora.delta(w)).max() for x, w in lora.sites(adapter).items()}
    assert set(moved) == {"embed/embedding", "head", "layers/attn/q_proj/kernel"}
    assert min(moved.values()) > 1e-3
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    theirs = pytest.importorskip("transformers").AutoModelForCausalLM
    theirs = theirs.from_pretrained(model, attn_implementation="eager")
    theirs = peft.PeftModel.from_pretrained(theirs, out / NAMES[0]).eval()
    ids = np.random.default_rng(0).integers(3, 256, (2, 12))
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids)).logits.numpy()
    got = RUN(decoder, base, jnp.asarray(ids, jnp.int32), adapter=adapter)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_a_library_is_not_overwritten(library, speaking, files):
    out = library[0]
    before = content(out)
    for data in (files, files[:1]):
        code, said = call(speaking("plain"), data, out, *EPOCHS)
        assert code == 2
        assert "training.json exists already and is not overwritten" in said
        assert said.count("\n") == 1
    assert content(out) == before


def test_force_replaces_the_adapters_of_a_library(library, speaking, files, tmp_path):
    out = tmp_path / "library"
    shutil.copytree(library[0], out)
    for name in NAMES:
        (out / name / "adapter_model.safetensors").write_bytes(b"old")
    before = content(library[0])
    assert call(speaking("plain"), files, out, *EPOCHS, "--force")[0] == 0
    assert weights(out) == weights(library[0])
    assert sorted(content(out)) == sorted(before)
    (out / NAMES[0] / "thesis.tex").write_text("precious")
    code, said = call(speaking("plain"), files, out, *EPOCHS, "--force")
    assert code == 2
    assert "'thesis.tex', which no adapter has" in said


def test_a_folder_of_another_is_not_taken_for_an_adapter(speaking, files, tmp_path):
    (tmp_path / "sums").mkdir()
    (tmp_path / "sums" / "mine").write_text("mine")
    code, said = call(speaking("plain"), files, tmp_path)
    assert code == 2
    assert "sums exists already and is not overwritten" in said
    assert content(tmp_path) == {"sums/mine": b"mine"}


@pytest.mark.parametrize(
    "name",
    [
        *(".checkpoint", ".", "..x", ".lock", "losses.csv", "Losses.CSV", "log.txt"),
        *("progress.csv", "tensorboard"),
    ],
)
def test_a_name_that_is_kept_for_the_run_is_refused(
    speaking, files, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(packed, "updates", lambda *_: pytest.fail("it trained"))
    data = shutil.copy(files[0], tmp_path / f"{name}.jsonl")
    code, said = call(speaking("plain"), [files[1], str(data)], tmp_path / "out")
    assert code == 2
    assert f"an adapter the name {name!r}, which is kept for files of the run" in said
    assert not (tmp_path / "out").exists()


def test_what_is_in_the_place_of_an_adapter_is_not_passed_over(
    library, speaking, files, tmp_path
):
    out = tmp_path / "library"
    (out / ".checkpoint").mkdir(parents=True)
    shutil.copytree(library[0] / NAMES[1], out / NAMES[0])  # of another adapter
    code, said = call(speaking("plain"), files, out, *EPOCHS)
    assert code == 2
    assert f"{out / NAMES[0]} holds another adapter than the one that was" in said
    assert not (out / "training.json").exists()
    assert (out / ".checkpoint").is_dir()  # the training is not lost
    shutil.rmtree(out / NAMES[0])
    assert call(speaking("plain"), files, out, *EPOCHS)[0] == 0
    assert weights(out) == weights(library[0])


def test_two_runs_do_not_write_to_one_folder(speaking, files, tmp_path):
    with locks.folder(tmp_path / "out"):
        code, said = call(speaking("plain"), files, tmp_path / "out")
    assert code == 2
    assert f"is being written by another run (process {os.getpid()} on" in said
    assert said.count("\n") == 1


def test_a_base_may_move_but_not_change(speaking, files, tmp_path, monkeypatch):
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(speaking("plain"), model)
    monkeypatch.setattr(session, "SAVE_EVERY", -1.0)
    with monkeypatch.context() as patched:
        patched.setattr(adapters, "save", lambda *_, **__: pytest.fail("written"))
        with pytest.raises(pytest.fail.Exception, match="written"):
            call(model, files, out, *EPOCHS)
    model.rename(tmp_path / "moved")
    weights_file = tmp_path / "moved" / "model.safetensors"
    before = weights_file.read_bytes()
    weights_file.write_bytes(before[:-2] + bytes([before[-2] ^ 1]) + before[-1:])
    code, said = call(tmp_path / "moved", files, out, *EPOCHS)
    assert code == 2
    assert "another run: weights of the base changed since" in said
    weights_file.write_bytes(before)
    monkeypatch.setattr(packed, "updates", lambda *_: pytest.fail("it trained again"))
    assert call(tmp_path / "moved", files, out, *EPOCHS)[0] == 0


def weights(folder):
    return [
        (folder / name / "adapter_model.safetensors").read_bytes() for name in NAMES
    ]


def test_an_interrupted_run_goes_on(library, speaking, files, tmp_path, monkeypatch):
    out = tmp_path / "library"
    monkeypatch.setattr(session, "SAVE_EVERY", -1.0)
    with monkeypatch.context() as patched:
        real = session.train_experts

        def interrupted(*args, progress, **options):
            def stop(done, total, recent):
                progress(done, total, recent)
                if done > 8:
                    raise KeyboardInterrupt

            return real(*args, progress=stop, **options)

        patched.setattr(session, "train_experts", interrupted)
        code, said = call(speaking("plain"), files, out, *EPOCHS)
        assert code == 130
        assert "is saved; the same command goes on from there" in said
        assert sorted(os.listdir(out)) == [".checkpoint", "log.txt", "losses.csv"]
    code, said = call(speaking("plain"), files, out, *EPOCHS, "--seed", "1")
    assert code == 2
    assert ".checkpoint holds the checkpoint of another run" in said
    assert "training.seed is 0 there and 1 here" in said
    code, said = call(speaking("plain"), files[::-1], out, *EPOCHS)
    assert code == 2

    code, _ = call(speaking("plain"), files, out, *EPOCHS)
    assert code == 0
    assert json.loads((out / "training.json").read_text())["resumed_at"] == 16
    assert (out / "losses.csv").read_bytes() == (library[0] / "losses.csv").read_bytes()
    assert weights(out) == weights(library[0])
    assert not (out / ".checkpoint").exists()


def test_interrupted_while_writing(library, speaking, files, tmp_path, monkeypatch):
    out, real = tmp_path / "library", adapters.save

    def save(folder, *args, **options):
        if folder.name == NAMES[1]:
            raise KeyboardInterrupt
        real(folder, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(adapters, "save", save)
        assert call(speaking("plain"), files, out, *EPOCHS)[0] == 130
    wanted = [".checkpoint", "log.txt", "losses.csv", NAMES[0]]
    assert sorted(os.listdir(out)) == sorted(wanted)
    first = (out / NAMES[0]).stat().st_ino
    monkeypatch.setattr(packed, "updates", lambda *_: pytest.fail("it trained again"))
    assert call(speaking("plain"), files, out, *EPOCHS)[0] == 0
    assert (out / NAMES[0]).stat().st_ino == first
    assert weights(out) == weights(library[0])
    assert sorted(os.listdir(out)) == sorted(os.listdir(library[0]))


def test_a_signal_while_results_are_written_stops_it_unless_all_are(
    library, speaking, files, tmp_path, monkeypatch
):
    out = tmp_path / "library"

    def signalled(patched, module, name):
        real = getattr(module, name)

        def after(*args, **options):
            real(*args, **options)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)  # it is read by a thread

        patched.setattr(module, name, after)

    with monkeypatch.context() as patched:
        signalled(patched, adapters, "save")
        code, said = call(speaking("plain"), files, out, *EPOCHS)
    assert code == 75
    saved = "all updates and 1 of 2 adapters are saved; the same command goes on"
    assert f"Stopped: {saved}" in said
    assert sorted(os.listdir(out)) == sorted(
        [".checkpoint", "log.txt", "losses.csv", NAMES[0]]
    )
    signalled(monkeypatch, train_output, "write")
    code, said = call(speaking("plain"), files, out, *EPOCHS)
    assert code == 0
    assert said.endswith(f"jaxlora: {cli.ENDED}\n")
    assert weights(out) == weights(library[0])
    assert sorted(os.listdir(out)) == sorted(os.listdir(library[0]))


def steps(out):
    """The last whole step on the disk, or -1."""
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir(out / ".checkpoint")
        return max((int(name) for name in names if name.isdigit()), default=-1)
    return -1


MOMENTS = {
    "loading": (pretrained, "load"),
    "packing": (data_sets, "pack"),
    "training": (packed, "updates"),
    "saving": (checkpoint, "_write"),
}
"""What a signal comes in the midst of: module and function."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_stops_it_and_what_is_said_is_true(
    library, speaking, files, tmp_path, monkeypatch, moment
):
    out, (module, name) = tmp_path / "library", MOMENTS[moment]
    number = signal.SIGTERM if moment == "saving" else signal.SIGINT
    real, calls = getattr(module, name), []
    monkeypatch.setattr(session, "SAVE_FIRST", -1.0)

    def signalled(*args, **options):
        calls.append(name)
        if len(calls) == 1:
            os.kill(os.getpid(), number)
            time.sleep(0.1)  # it is read by a thread
        return real(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, signalled)
        code, said = call(speaking("plain"), files, out, *EPOCHS)
    assert code == (75 if number == signal.SIGTERM else 130)
    saved = re.search(r"Stopped: update (\d+) of \d+ is saved; the same command", said)
    assert bool(saved) == (steps(out) > 0) == (moment in ("training", "saving"))
    assert ("nothing was saved yet" in said) == (not saved)
    assert int(saved[1] if saved else -1) == steps(out)
    if saved:
        assert call(speaking("plain"), files, out, *EPOCHS)[0] == 0
        assert weights(out) == weights(library[0])
        losses = [(x / "losses.csv").read_bytes() for x in (out, library[0])]
        assert losses[0] == losses[1]
        assert json.loads((out / "training.json").read_text())["resumed_at"] > 0


def test_a_start_that_is_stopped_early_says_what_is_there_already(
    speaking, files, tmp_path, monkeypatch
):
    out = tmp_path / "library"

    def stop(*_, **__):
        raise KeyboardInterrupt

    (out / ".checkpoint" / "8").mkdir(parents=True)
    monkeypatch.setattr(data_sets, "pack", stop)
    code, said = call(speaking("plain"), files, out, *EPOCHS)
    assert code == 130
    assert "what an earlier start had saved is kept; the same command" in said


def test_a_run_that_diverges_leaves_nothing(speaking, files, tmp_path):
    out = tmp_path / "library"
    flags = (*EPOCHS, "--learning-rate", "1e30")
    code, said = call(speaking("plain"), files, out, *flags)
    assert code == 2
    assert "'sums' diverged: update 1 has the loss" in said
    assert not list(tmp_path.iterdir())


@pytest.fixture
def bad(files, tmp_path):
    """A file with two lines that cannot be read, and one too long."""
    with open(files[0]) as file:
        lines = file.read().splitlines()
    lines[2] = '{"question": "cut'
    lines[7] = '{"question": "a", "reply": "b"}'
    lines[9] = json.dumps({"question": "long " * 60, "answer": "1"})
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


def test_bad_lines_are_left_out_counted_and_said(speaking, files, bad, tmp_path):
    data = (bad, files[1])
    out = tmp_path / "library"
    code, said = call(speaking("plain"), data, out)
    assert code == 2
    assert said.startswith(f"jaxlora: {bad}:3: not JSON")
    assert said.count("\n") == 1
    assert not out.exists()

    flags = ("--skip-bad", "--steps", "8")
    code, said = call(speaking("plain"), data, out, *flags)
    assert code == 0
    count = json.loads((out / "training.json").read_text())["data"]["bad"]
    assert (count["bad_lines"], count["too_long"], count["examples"]) == (2, 1, 29)
    assert count["first_error"].startswith(f"{bad}:3: not JSON")
    assert "8 updates; left out or cut: 2 bad lines, 1 too long\n" in said
    assert f"  first of them: {bad}:3: not JSON" in said
    assert [len(rows) for rows in losses(out).values()] == [8, 8]


def test_long_examples_are_cut_on_request(speaking, files, bad, tmp_path):
    found = {"bad": records.read(bad, skip_bad=True)}
    words = tokenizer.load(speaking("plain"))
    _, counts = data_sets.pack(found, words, 400, truncate=True)
    assert counts["bad"]["truncated"] == 0
    _, counts = data_sets.pack(found, words, 48, truncate=True)
    assert counts["bad"]["truncated"] > 0 == counts["bad"]["too_long"]


@pytest.fixture
def seen(monkeypatch):
    """Arguments of each call of ``packed.updates``."""
    calls, real = [], packed.updates

    def updates(*args):
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(packed, "updates", updates)
    return calls


def test_float32_adapters_of_a_bfloat16_base(speaking, files, tmp_path, seen):
    out = tmp_path / "library"
    sites = [f"layers/attn/{part}_proj/kernel" for part in "qv"]
    flags = ("--dtype", "bfloat16", "--rslora", "--targets", *sites, "--steps", "8")
    assert call(speaking("plain"), files, out, *flags)[0] == 0
    program, base, *_ = seen[0]
    assert program.model.config.dtype == "bfloat16"
    assert {x.dtype.name for x in jax.tree.leaves(base)} == {"bfloat16"}
    got = lora.sites(adapters.load(out / "sums", base))
    assert set(got) == set(sites)
    for weight in got.values():
        assert weight.a.dtype == weight.b.dtype == jnp.float32
        np.testing.assert_array_equal(weight.scale, 8.0)  # 16 / sqrt(4)
        small = np.asarray(weight.b).astype(jnp.bfloat16).astype(np.float32)
        assert (small != weight.b).any()  # not rounded on the way
    rows = losses(out)["sums"]
    assert rows[-1][1] < rows[0][1]
    config = json.loads((out / "sums" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.slow  # the session is tested on eight devices as well
def test_over_eight_devices(library, speaking, files, tmp_path, seen, monkeypatch):
    monkeypatch.setattr(session, "ONE_BY_ONE", 1)  # not over devices
    out = tmp_path / "library"
    devices = ["--mesh", "expert=2,data=2,fsdp=2"]
    assert call(speaking("plain"), files, out, "--steps", "2", *devices)[0] == 0
    program, base, _, _, rows, _ = seen[0]
    assert program.together == 2
    kernel = base["layers"]["mlp"]["up_proj"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 32, 128)
    shape = rows.tokens.addressable_shards[0].data.shape
    assert shape == (1, 2, 1, BATCH // 4, LENGTH)  # cut by data and by fsdp
    for name, wanted in losses(library[0]).items():
        # The rate of the first update is that of the longer run.
        np.testing.assert_allclose(losses(out)[name], wanted[:2], rtol=1e-3)
        assert abs(wanted[1][1] - wanted[0][1]) > 0.01 * wanted[0][1]
