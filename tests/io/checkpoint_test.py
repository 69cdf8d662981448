import errno
import os
import shutil
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from jaxlora import cli, lora, parallel, tree
from jaxlora.commands import info
from jaxlora.io import checkpoint
from jaxlora.lora import LoraWeight


def make(seed=0):
    """A library with scales, low precision, integers and key data beside it."""
    rng = np.random.default_rng(seed)
    weight = LoraWeight(
        a=jnp.asarray(rng.standard_normal((8, 4, 2)), jnp.float32),
        b=jnp.asarray(rng.standard_normal((8, 2, 3)), jnp.bfloat16),
        scale=jnp.asarray(rng.uniform(1, 2, 8), jnp.float32),
    )
    key = jax.random.key_data(jax.random.key(seed))
    return {"layers": {"q_proj": {"kernel": weight}}, "step": jnp.int32(7), "key": key}


def abstract(value):
    return jax.eval_shape(lambda: value)


def assert_same(one, two):
    one, two = tree.flatten(one), tree.flatten(two)
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].dtype == two[name].dtype
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder in which step 9 came after step 4."""
    folder = tmp_path_factory.mktemp("cache") / "entry"
    checkpoint.save(folder, 4, make(1), {"seed": 1})
    checkpoint.save(folder, 9, make(0), {"seed": 0, "gates": {"copy": [0.5, 3]}})
    return folder


def test_the_newest_step_comes_back_bit_equal(saved):
    step, found, meta = checkpoint.restore(saved, abstract(make()))
    assert (step, meta) == (9, {"seed": 0, "gates": {"copy": [0.5, 3]}})
    assert_same(found, make(0))
    assert lora.is_lora(found["layers"]["q_proj"]["kernel"])


def test_two_steps_are_kept_and_nothing_else_is_left(tmp_path):
    for step in (4, 9, 10, 11):
        checkpoint.save(tmp_path, step, {"x": jnp.zeros(2)}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "11"]


@pytest.mark.parametrize("made", [False, True], ids=["missing", "empty"])
def test_nothing_there_is_none(tmp_path, made):
    folder = tmp_path / "entry"
    if made:
        folder.mkdir()
    assert checkpoint.restore(folder, abstract(make())) is None
    assert folder.exists() == made


def other(**changes):
    target = abstract(make())
    weight = target["layers"]["q_proj"]["kernel"]
    target["layers"]["q_proj"]["kernel"] = weight.replace(**changes)
    return target


def test_nothing_damaged_is_given_to_orbax(tmp_path, monkeypatch, capfd):
    # Which may read one part of it while another one fails, and print a traceback.
    for step in (3, 7):
        checkpoint.save(tmp_path / "x", step, {"x": np.arange(30_000.0)}, {})
    large = max((tmp_path / "x/7").rglob("*"), key=lambda x: x.stat().st_size)
    large.write_bytes(b"x" + large.read_bytes())
    asked, read = [], checkpoint.arrays.read

    def noted(folder, target):
        asked.append(folder.parent.name)
        return read(folder, target)

    monkeypatch.setattr(checkpoint.arrays, "read", noted)
    target = {"x": jax.ShapeDtypeStruct((30_000,), np.float64)}
    assert checkpoint.restore(tmp_path / "x", target)[0] == 3
    assert asked == ["3"]
    assert capfd.readouterr().err.count("\n") == 1


def missing(name):
    return {k: v for k, v in abstract(make()).items() if k != name}


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (
            other(a=jax.ShapeDtypeStruct((8, 5, 2), jnp.float32)),
            r"q_proj/kernel/a' as float32\[8, 4, 2\], expected float32\[8, 5, 2\]",
        ),
        (
            other(b=jax.ShapeDtypeStruct((8, 2, 3), jnp.float32)),
            r"kernel/b' as bfloat16\[8, 2, 3\], expected float32\[8, 2, 3\]",
        ),
        (missing("key"), r"'key' as uint32\[2\], expected nothing"),
        (
            abstract({**make(), "extra": jnp.zeros(2)}),
            r"'extra' as nothing, expected float32\[2\]; it was written by another",
        ),
    ],
    ids=["shape", "type", "unwanted", "missing"],
)
def test_another_tree_is_refused(saved, target, sentence):
    with pytest.raises(ValueError, match=sentence):
        checkpoint.restore(saved, target)


def test_a_killed_save_leaves_the_last_whole_step(tmp_path):
    checkpoint.save(tmp_path, 3, make(0), {"seed": 0})
    # What orbax has on disk before it renames: a part, under its temporary name.
    half = tmp_path / "8.orbax-checkpoint-tmp-1" / "state"
    half.mkdir(parents=True)
    (half / "_METADATA").write_text("{")
    step, found, _ = checkpoint.restore(tmp_path, abstract(make()))
    assert step == 3
    assert_same(found, make(0))
    checkpoint.save(tmp_path, 8, make(1), {"seed": 1})
    assert checkpoint.restore(tmp_path, abstract(make()))[0] == 8


def test_a_save_that_fails_leaves_the_last_whole_step(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 3, make(0), {"seed": 0})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.StandardCheckpointHandler, "save", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(tmp_path, 8, make(1), {"seed": 1})
    step, found, _ = checkpoint.restore(tmp_path, abstract(make()))
    assert step == 3
    assert_same(found, make(0))


def assert_step_3_is_left(folder):
    step, found, _ = checkpoint.restore(folder, abstract(make()))
    assert step == 3
    assert_same(found, make(0))


def tensorstore_says(monkeypatch, words):
    """Every write of an array fails as tensorstore fails."""

    async def fail(*args, **kwargs):
        raise ValueError(words)

    monkeypatch.setattr(ocp.type_handlers.ArrayHandler, "serialize", fail)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("RESOURCE_EXHAUSTED: Error writing", errno.ENOSPC),
        ("Failed writing x: No space left on device", errno.ENOSPC),
        ("RESOURCE_EXHAUSTED: x [os_error_code='28']", errno.ENOSPC),
        (f"RESOURCE_EXHAUSTED: x [os_error_code='{errno.EDQUOT}']", errno.EDQUOT),
        (f"RESOURCE_EXHAUSTED: x [os_error_code='{errno.EMFILE}']", errno.EMFILE),
        (f"PERMISSION_DENIED: x [os_error_code='{errno.EACCES}']", errno.EACCES),
    ],
)
def test_what_the_system_refuses_is_an_os_error(tmp_path, monkeypatch, words, code):
    checkpoint.save(tmp_path, 3, make(0), {})
    with monkeypatch.context() as patch:
        tensorstore_says(patch, words)
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            checkpoint.save(tmp_path, 8, make(1), {})
    assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path))
    assert_step_3_is_left(tmp_path)


def test_any_other_error_of_an_array_stays_what_it_is(tmp_path, monkeypatch):
    tensorstore_says(monkeypatch, "INVALID_ARGUMENT: bad shape")
    with pytest.raises(ValueError, match="bad shape"):
        checkpoint.save(tmp_path, 8, make(1), {})


@pytest.mark.slow
@pytest.mark.parametrize("pages", [1, 6, 16])
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    tiny_disk, monkeypatch, capfd, caplog, pages
):
    folder, filler = tiny_disk / "entry", tiny_disk / "filler"
    checkpoint.save(folder, 3, make(0), {})
    large = {"x": jnp.asarray(np.random.default_rng(0).random(100_000), jnp.float32)}
    filler.write_bytes(b"x" * (shutil.disk_usage(tiny_disk).free - pages * 4096))
    monkeypatch.setattr(info, "run", lambda _: checkpoint.save(folder, 8, large, {}))
    capfd.readouterr()
    assert cli.main(["info"]) == 2
    said = capfd.readouterr().err
    assert f"No room left on the disk ({folder})" in said
    assert "Traceback" not in said
    assert "raised an exception" not in caplog.text  # what orbax logs of its threads
    assert_step_3_is_left(folder)
    filler.unlink()
    checkpoint.save(folder, 8, large, {})
    assert checkpoint.restore(folder, abstract(large))[0] == 8


def test_a_target_says_where_leaves_go(saved):
    mesh = parallel.mesh(expert=8)
    cut = NamedSharding(mesh, PartitionSpec("expert"))
    target = abstract(make())
    target["layers"] = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cut), target["layers"]
    )
    _, found, _ = checkpoint.restore(saved, target)
    assert_same(found, make(0))
    for leaf in jax.tree.leaves(found["layers"]):
        assert leaf.sharding.is_equivalent_to(cut, leaf.ndim)
        assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {1}
    assert found["key"].devices() == {jax.devices()[0]}


def test_a_library_saved_from_eight_devices_comes_back(tmp_path):
    library = make()["layers"]
    cut = parallel.shard_experts(library, parallel.mesh(expert=8))
    checkpoint.save(tmp_path, 0, cut, {})
    _, found, _ = checkpoint.restore(tmp_path, abstract(library))
    assert_same(found, library)


# Fingerprints.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_the_order_of_parts_does_not_matter(parts):
    turned = dict(reversed(parts.items()))
    assert checkpoint.fingerprint(turned) == checkpoint.fingerprint(parts)


def test_every_part_matters_and_the_hash_is_stable():
    parts = {"seed": 0, "model": {"layers": 4, "rate": 1e-3}}
    # Pinned: a change here throws away every cached base.
    assert checkpoint.fingerprint(parts) == "c8c776908051edfee405ad17"
    others = [
        {**parts, "seed": 1},
        {**parts, "seed": "0"},
        {**parts, "model": {"layers": 4, "rate": 2e-3}},
        {"seed": 0},
    ]
    hashes = {checkpoint.fingerprint(p) for p in (parts, *others)}
    assert len(hashes) == 5


WRITER = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from jaxlora.io import checkpoint
folder = Path(sys.argv[1])
target = jax.eval_shape(lambda: {"x": jnp.zeros(1000)})
for step in range(12):
    checkpoint.save(folder, step, {"x": jnp.full(1000, step, jnp.float32)}, {})
    found = checkpoint.restore(folder, target)
    assert found[0] == float(found[1]["x"][0]), found[0]
"""


@pytest.mark.slow
def test_two_processes_share_an_entry_and_both_finish(tmp_path):
    words = [sys.executable, "-c", WRITER, str(tmp_path / "entry")]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    for process in both:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert "jaxlora:" not in said  # nothing seemed damaged
    assert sorted(os.listdir(tmp_path / "entry")) == ["10", "11"]


def test_a_save_beside_a_run_is_of_the_moment_it_was_asked_for(tmp_path, monkeypatch):
    go, write = threading.Event(), checkpoint._write

    def slow(*given):
        go.wait(10)
        write(*given)

    monkeypatch.setattr(checkpoint, "_write", slow)
    run, loss = {"a": jnp.arange(4.0)}, np.zeros(3, np.float32)
    advance = jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0)
    with checkpoint.Saver(tmp_path / "run") as saver:
        saver.save(1, {"run": run, "loss": loss}, {"seed": 0})
        assert not (tmp_path / "run").exists()  # it has returned already
        run = advance(run)
        loss[:] = 7
        go.set()
        saver.wait()
        saver.save(2, {"run": run, "loss": loss}, {"seed": 0})
    target = abstract({"run": run, "loss": jnp.zeros(3)})
    both = {path.name for path in (tmp_path / "run").iterdir()}
    assert both == {"1", "2"}
    step, last, _ = checkpoint.restore(tmp_path / "run", target)
    assert (step, last["loss"].tolist()) == (2, [7.0] * 3)
    shutil.rmtree(tmp_path / "run" / "2")
    step, first, _ = checkpoint.restore(tmp_path / "run", target)
    assert (step, first["loss"].tolist()) == (1, [0.0] * 3)
    assert first["run"]["a"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_full_disk_beside_a_run_is_raised_at_the_next_save(tmp_path, monkeypatch):
    folder, tree = tmp_path / "run", {"a": jnp.arange(4.0)}

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with checkpoint.Saver(folder) as saver:
        saver.save(1, tree, {})
        saver.wait()
        monkeypatch.setattr(checkpoint.trust, "seal", full)
        saver.save(2, tree, {})
        with pytest.raises(OSError, match="No space left") as caught:
            saver.save(3, tree, {})
        assert caught.value.filename == str(folder)
        saver.save(4, tree, {})
        with pytest.raises(OSError, match="No space left"):
            saver.wait()
    assert checkpoint.restore(folder, abstract(tree))[0] == 1
    assert [path.name for path in folder.iterdir()] == ["1"]


def test_leaving_a_saver_raises_its_error_but_for_a_worse_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "here")

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(OSError, match="No space"), checkpoint.Saver(tmp_path) as saver:
        saver.save(1, {}, {})
    with pytest.raises(ValueError, match="diverged"):
        diverge(tmp_path)


def test_all_processes_wait_for_the_writer_before_a_save_and_before_they_leave(
    tmp_path, monkeypatch
):
    meetings = []

    def agreed(make):
        meetings.append(make)
        return make()

    monkeypatch.setattr(checkpoint.processes, "agreed", agreed)
    monkeypatch.setattr(checkpoint, "_write", lambda *_: None)
    with checkpoint.Saver(tmp_path / "run") as saver:
        saver.save(1, {"a": jnp.arange(4.0)}, {})
        assert len(meetings) == 1
        saver.wait()  # as after an interruption
        assert len(meetings) == 2
    assert len(meetings) == 3
    with pytest.raises(ValueError, match="diverged"):
        diverge(tmp_path / "run")  # in this process, perhaps in no other
    assert len(meetings) == 4  # for its save


def diverge(folder):
    with checkpoint.Saver(folder) as saver:
        saver.save(1, {}, {})
        raise ValueError("diverged")
