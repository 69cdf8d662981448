"""Runs of many experts: resumed to the bit, the same with any neighbours."""

import contextlib
import dataclasses
import errno
import math
import os
import resource
import shutil
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from decoders import TEXT
from jaxlora import lora, parallel
from jaxlora.io import checkpoint
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, init
from jaxlora.tasks import packing
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed, session
from jaxlora.train.session import Checkpoints
from jaxlora.train.step import cross_entropy
from jaxlora.train.training import Training

T, V = 8, 13
MODEL = Decoder(TEXT)
LORA = LoraConfig(rank=2, alpha=4.0)
TRAINING = Training(epochs=2, learning_rate=1e-2, batch=2)
ALONE, FOUR = (dataclasses.replace(TRAINING, together=n) for n in (1, 4))
SIZES = {"ann": 5, "bo": 8, "cy": 3, "di": 4}
TOTALS = [5, 8, 3, 4]  # ceil(2 * rows / 2) updates
ATOL = 1e-4


def draw(seed, count):
    """Rows [count, T] of one example each, its second half an answer."""
    tokens = np.random.default_rng(seed).integers(1, V, (count, T)).astype(np.int32)
    places = np.broadcast_to(np.arange(T, dtype=np.int32), (count, T))
    weights = ((places >= T // 2) & (places < T - 1)).astype(np.float32)
    targets = np.roll(tokens, -1, axis=1)
    return Rows(tokens, targets, weights, np.ones_like(tokens), places.copy())


DATA = {name: draw(i, count) for i, (name, count) in enumerate(SIZES.items())}


class StopError(Exception):
    """Ends a run from within."""


@pytest.fixture(scope="module")
def net():
    return jax.jit(init, static_argnums=1)(jax.random.key(0), MODEL)


def run(base, data=DATA, config=LORA, training=TRAINING, **options):
    where = {"folder", "made_by", "chunk"} & options.keys()
    saved = Checkpoints(**{"chunk": 2} | {name: options.pop(name) for name in where})
    return session.train_experts(
        MODEL, base, data, config, training, checkpoints=saved, **options
    )


@pytest.fixture(scope="module")
def done(net):
    return run(net)


@pytest.fixture(scope="module")
def finished(net, done, tmp_path_factory):
    """A run that has ended, and its folder."""
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    return run(net, folder=folder, made_by={"model": "A"}), folder


def stop_at(count, error=KeyboardInterrupt):
    """Interrupts a run as its user would, when it has told ``count`` times."""
    told = []

    def tell(*words):
        told.append(words)
        if len(told) == count:
            raise error

    return tell


def same(one, two):
    """Bit-equal, histories included; NaN equals NaN."""
    chex.assert_trees_all_equal(jax.device_get(one[:3]), jax.device_get(two[:3]))


def close(one, two, names=SIZES):
    """The experts ``names`` of two runs, each (run, its names)."""
    for name in names:
        e, f = (list(order).index(name) for _, order in (one, two))
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, e=e: np.asarray(x[e]), one[0].learned),
            jax.tree.map(lambda x, f=f: np.asarray(x[f]), two[0].learned),
            atol=ATOL,
        )
        n = TOTALS[list(SIZES).index(name)]
        for x, y in zip(one[0][1:3], two[0][1:3], strict=True):
            np.testing.assert_allclose(x[e, :n], y[f, :n], atol=ATOL)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_interrupted_run_ends_bit_equal(net, done, tmp_path, count):
    folder = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(net, folder=folder, progress=stop_at(count))
    assert stopped.value.__notes__ == [f"update {2 * count} of 8 is saved"]
    kept = 2 * count  # it is saved when its report is answered by an interruption
    told = []
    got = run(net, folder=folder, progress=lambda *words: told.append(words[:2]))
    assert got.resumed == kept
    assert told == [(k, 8) for k in range(kept + 2, 10, 2)]
    same(got, done)


def test_interrupted_again_and_again(net, done, tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(net, folder=tmp_path, progress=stop_at(2))
    got = run(net, folder=tmp_path)
    assert got.resumed == 8
    same(got, done)


def test_checkpoints_are_written_early_and_now_and_then_and_at_the_end(
    net, tmp_path, monkeypatch
):
    steps, real = [], checkpoint._write

    def save(folder, step, *args):
        steps.append(step)
        real(folder, step, *args)

    monkeypatch.setattr(checkpoint, "_write", save)
    monkeypatch.setattr(session, "SAVE_SHARE", 1e9)  # however slow this disk is
    for first, every, expected in (
        (3600.0, 3600.0, [8]),
        (-1.0, 3600.0, [2, 8]),
        (-1.0, -1.0, [2, 4, 6, 8]),
    ):
        monkeypatch.setattr(session, "SAVE_FIRST", first)
        monkeypatch.setattr(session, "SAVE_EVERY", every)
        run(net, folder=tmp_path / str(len(expected)))
        assert steps == expected
        assert [path.name for path in (tmp_path / str(len(expected))).iterdir()][-1:]
        steps.clear()


def test_without_a_folder_nothing_is_said_to_be_saved(net):
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(net, progress=stop_at(1))
    assert not hasattr(stopped.value, "__notes__")


def test_an_ended_run_is_read_and_not_trained_again(net, done, finished):
    folder = finished[1]
    got = run(
        net, folder=folder, made_by={"model": "A"}, progress=stop_at(1, StopError)
    )
    assert got.resumed == 8
    same(got, done)
    same(finished[0], done)


def changed(field, name="bo"):
    """The data, with one value of one column of one expert changed."""
    column = getattr(DATA[name], field).copy()
    column[2, 5] = 1 - column[2, 5] if field == "weights" else column[2, 5] % 12 + 1
    return DATA | {name: DATA[name]._replace(**{field: column})}


OTHERS = {
    "tokens": {"data": changed("tokens"), "says": r"run: data\.bo\.content changed"},
    "answers": {"data": changed("weights")},
    "order": {"data": dict(reversed(DATA.items())), "says": r"run: order is \["},
    "name": {"data": {n.replace("ann", "al"): rows for n, rows in DATA.items()}},
    "number": {
        "data": DATA | {"ed": draw(9, 4)},
        "says": r"order is .*data\.ed\.content is here only;",
    },
    "rate": {
        "training": dataclasses.replace(TRAINING, learning_rate=2e-2),
        "says": r"run: training\.learning_rate is 0\.01 there and 0\.02 here; give",
    },
    "epochs": {"training": dataclasses.replace(TRAINING, epochs=3)},
    "alpha": {"config": dataclasses.replace(LORA, alpha=8.0)},
    "rank": {
        "config": dataclasses.replace(LORA, rank=3),
        "says": r"lora\.rank is 2 there and 3 here",
    },
    "seed": {"training": dataclasses.replace(TRAINING, seed=1)},
    "weight decay": {"training": dataclasses.replace(TRAINING, weight_decay=0.1)},
    "clip": {"training": dataclasses.replace(TRAINING, clip=0.5)},
    "warm-up": {"training": dataclasses.replace(TRAINING, warmup=2)},
    "base": {"made_by": {"model": "B"}, "says": r'model is "A" there and "B" here'},
    "unknown base": {"made_by": {}, "says": r'model is "A" there and nothing here'},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_run_is_not_resumed(net, finished, other):
    folder, options = finished[1], {"made_by": {"model": "A"}} | other
    says = options.pop("says", "holds the checkpoint of another run")
    with pytest.raises(ValueError, match=says):
        run(net, folder=folder, **options)
    assert [path.name for path in folder.iterdir()] == ["8"]


def test_an_expert_is_the_same_alone_and_in_any_order(net, done):
    names = [*SIZES]
    close((run(net, {"bo": DATA["bo"]}), ["bo"]), (done, names), ["bo"])
    turned = dict(reversed(DATA.items()))
    close((run(net, turned), turned), (done, names))
    moved = lora.sites(done.learned)["layers/attn/q_proj/kernel"].b
    assert np.abs(moved).max(axis=(1, 2, 3)).min() > 50 * ATOL


def test_the_name_and_the_seed_make_the_start_and_the_order(net, done):
    same_rows = dict.fromkeys(SIZES, DATA["bo"])
    loss = run(net, same_rows).loss
    np.testing.assert_allclose(loss[1], done.loss[1], atol=ATOL)
    first = [tuple(np.round(x, 4)) for x in loss[:, :3]]
    assert len(set(first)) == len(first)
    other = run(net, training=dataclasses.replace(TRAINING, seed=1))
    assert (other.loss[:, 0] != done.loss[:, 0]).any()
    keys = {
        tuple(jax.random.key_data(packed.key_of(seed, name)).tolist())
        for seed in (0, 1)
        for name in SIZES
    }
    assert len(keys) == 2 * len(SIZES)


def test_losses_are_those_of_each_batch_before_its_update(net, done):
    count = jax.jit(cross_entropy, static_argnums=0)
    for e, (name, rows) in enumerate(DATA.items()):
        # b = 0 at the start: the base alone.
        first = packing.batches(rows, 2, zlib.crc32(name.encode()))[0]
        total, weight = count(MODEL, net, Rows(*map(jnp.asarray, first)))
        assert done.loss[e, 0] == pytest.approx(float(total / weight), abs=1e-5)
    assert np.nanmean(done.loss[:, -3:]) < np.nanmean(done.loss[:, :2])


def test_each_expert_ends_after_its_own_updates(net, done):
    assert done.loss.shape == done.norm.shape == (4, max(TOTALS))
    for history in (done.loss, done.norm):
        going = np.arange(8) < np.array(TOTALS)[:, None]
        np.testing.assert_array_equal(np.isfinite(history), going)
    # cy ended after 3 updates; going on for 4 would have changed it.
    longer = run(net, training=dataclasses.replace(TRAINING, steps=4))
    for e, end in enumerate(TOTALS):
        pair = [
            np.asarray(lora.sites(x.learned)["layers/mlp/up_proj/kernel"].b[e])
            for x in (done, longer)
        ]
        assert (np.abs(pair[0] - pair[1]).max() < ATOL) == (end == 4)


def test_a_chunk_is_no_longer_than_the_run(net, monkeypatch):
    seen = []

    def updates(*args):
        seen.append(args[4].tokens.shape)
        raise StopError

    monkeypatch.setattr(packed, "updates", updates)
    for steps, chunk, expected in ((3, 8, 3), (9, 8, 8)):
        with pytest.raises(StopError):
            run(net, training=Training(steps=steps, batch=2), chunk=chunk)
        assert seen.pop() == (4, expected, 1, 2, T)


def test_the_schedule_is_the_plan_of_every_expert(net, monkeypatch):
    def updates(*args):
        plan = args[3]
        np.testing.assert_allclose(plan.peak, [0.3] * 4)
        np.testing.assert_array_equal(plan.total, [20, 32, 12, 16])
        np.testing.assert_array_equal(plan.warmup, [5, 8, 3, 4])  # a quarter
        np.testing.assert_allclose(plan.decay, [0.6] * 4)
        raise StopError

    monkeypatch.setattr(packed, "updates", updates)
    rates = {"learning_rate": 0.3, "warmup": 0.25, "decay": 0.6}
    with pytest.raises(StopError):
        run(net, training=Training(epochs=8, batch=2, **rates))


def test_microbatches_are_one_large_batch(net):
    data = {"bo": DATA["bo"]}
    wanted = run(net, data)
    got = run(net, data, training=dataclasses.replace(TRAINING, batch=1, accumulate=2))
    close((got, data), (wanted, data), data)


@pytest.mark.parametrize(
    ("options", "rows", "expected"),
    [
        ({"epochs": 3}, 16, 6),
        ({"epochs": 3}, 17, 7),
        ({"epochs": 0.5}, 16, 1),
        ({"epochs": 0.1}, 1, 1),
        ({"epochs": 2, "accumulate": 4}, 64, 4),
        ({"epochs": 2, "steps": 9}, 64, 9),
    ],
)
def test_updates_of_an_expert(options, rows, expected):
    assert Training(batch=8, **options).total(rows) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", math.inf),
        ("epochs", math.nan),
        ("steps", -1),
        ("learning_rate", -1e-3),
        ("learning_rate", math.nan),
        ("warmup", math.inf),
        ("weight_decay", -0.1),
        ("clip", math.nan),
        ("length", 0),
        ("together", -1),
        ("seed", -1),
        ("warmup", -0.1),
        ("decay", 1.1),
        ("batch", 0),
        ("accumulate", 0),
    ],
)
def test_a_training_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}.*expected"):
        Training(**{name: value})


def test_equal_numbers_share_one_optimizer_and_so_one_program():
    opt = Training(weight_decay=0.1, seed=1).optimizer()
    assert opt is Training(weight_decay=0.1, seed=2).optimizer()
    assert opt is not Training(weight_decay=0.2).optimizer()


def test_how_many_run_at_once(net, monkeypatch):
    assert session.default_together(8, session.ONE_BY_ONE - 1, "cpu") == 8
    assert session.default_together(8, session.ONE_BY_ONE, "cpu") == 1
    assert session.default_together(8, 10**6, "gpu") == 8

    seen = []

    def updates(program, *_):
        seen.append(program.together)
        raise StopError

    def chosen(experts, tokens, platform):
        assert (experts, tokens, platform) == (4, 2 * T, "cpu")
        return 3

    monkeypatch.setattr(packed, "updates", updates)
    monkeypatch.setattr(session, "default_together", chosen)
    for together in (0, 2):
        with pytest.raises(StopError):
            run(net, training=dataclasses.replace(TRAINING, together=together))
    assert seen == [3, 2]


def test_one_after_another_is_all_at_once(net, done):
    close((run(net, training=ALONE), SIZES), (done, SIZES))


def test_a_run_that_diverges_is_stopped_and_not_saved(net, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    monkeypatch.setattr(session, "SAVE_EVERY", -1.0)
    wild = dataclasses.replace(TRAINING, learning_rate=1e30)
    with pytest.raises(ValueError, match=r"'ann' diverged: update 1 has the loss"):
        run(net, training=wild, folder=folder)
    assert not folder.exists()


@pytest.mark.parametrize(("e", "k", "stops"), [(2, 2, True), (2, 3, False)])
@pytest.mark.parametrize("what", ["loss", "norm"])
def test_only_updates_that_count_can_diverge(net, monkeypatch, e, k, stops, what):
    def updates(program, base, run, plan, rows, libraries):
        report = {name: np.ones((4, 2), np.float32) for name in ("loss", "norm")}
        if int(run.step) <= k < int(run.step) + 2:
            report[what][e, k - int(run.step)] = np.inf
        return run.replace(step=run.step + 2), packed.Report(**report)

    monkeypatch.setattr(packed, "updates", updates)
    if stops:
        with pytest.raises(ValueError, match=f"'cy' diverged: update {k}"):
            run(net)
    else:
        assert np.isnan(run(net).loss[e, k])


@contextlib.contextmanager
def no_large_files():
    """The system refuses to write more than so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fails_and_goes_on(net, done, folder, fill, free, code):
    """A disk that is full after some saves is said, and the last save counts."""

    def progress(step, *_):
        if step == 6:  # the save of step 2 has ended, that of step 4 perhaps
            fill()

    with pytest.raises(OSError, match=os.strerror(code)) as failed:
        run(net, folder=folder, progress=progress)
    assert failed.value.filename == str(folder)
    free()
    # Threads of orbax may write into a temporary folder after it was removed; the next
    # save sweeps it.
    names = [path.name for path in folder.iterdir()]
    kept = sorted(int(name) for name in names if not name.endswith(".tmp"))
    assert kept in ([2], [2, 4])  # nothing of the one that failed
    got = run(net, folder=folder)
    assert got.resumed == kept[-1]
    assert all(path.name.isdecimal() for path in folder.iterdir())
    same(got, done)


# Threads of orbax that were still writing meet a loop that has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_said_and_loses_nothing(
    net, done, tmp_path, monkeypatch
):
    monkeypatch.setattr(session, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(session, "SAVE_FIRST", -1.0)
    with contextlib.ExitStack() as stack:

        def fill():
            stack.enter_context(no_large_files())

        fails_and_goes_on(net, done, tmp_path / "run", fill, stack.close, errno.EFBIG)


# Threads of orbax that were still writing meet a loop that has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_full_disk_is_said_and_loses_nothing(net, done, tiny_disk, monkeypatch):
    monkeypatch.setattr(session, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(session, "SAVE_FIRST", -1.0)
    filler = tiny_disk / "filler"

    def fill():
        filler.write_bytes(b"x" * (shutil.disk_usage(tiny_disk).free - 4096))

    folder = tiny_disk / "run"
    fails_and_goes_on(net, done, folder, fill, filler.unlink, errno.ENOSPC)


def test_experts_and_batches_over_eight_devices(net, done, tmp_path, monkeypatch):
    mesh = parallel.mesh(expert=4, data=2)
    base = jax.device_put(net, NamedSharding(mesh, PartitionSpec()))
    rows, real = [], packed.updates

    def updates(*args):
        rows.append(args[4])
        return real(*args)

    monkeypatch.setattr(packed, "updates", updates)
    monkeypatch.setattr(session, "SAVE_EVERY", -1.0)
    got = run(base, mesh=mesh, training=FOUR, folder=tmp_path / "whole")
    close((got, SIZES), (done, SIZES))
    assert rows[0].tokens.shape == (4, 2, 1, 2, T)
    for leaf in rows[0]:
        assert {x.data.shape for x in leaf.addressable_shards} == {(1, 2, 1, 1, T)}
    with pytest.raises(KeyboardInterrupt):
        run(
            base, mesh=mesh, training=FOUR, folder=tmp_path / "cut", progress=stop_at(3)
        )
    again = run(base, mesh=mesh, training=FOUR, folder=tmp_path / "cut")
    assert again.resumed == 6
    same(again, got)
    for library in (got.learned, again.learned):
        for leaf in jax.tree.leaves(library):
            assert len(leaf.sharding.device_set) == 8
            shapes = {x.data.shape for x in leaf.addressable_shards}
            assert shapes == {(1, *leaf.shape[1:])}


def test_nothing_to_train_on(net):
    with pytest.raises(ValueError, match="expected one set at least"):
        run(net, {})
    short = Rows(*(column[:, :4] for column in DATA["bo"]))
    with pytest.raises(ValueError, match=r"rows of \[4, 8\] tokens"):
        run(net, {"ann": DATA["ann"], "bo": short})
