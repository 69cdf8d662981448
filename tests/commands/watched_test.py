"""A training that is watched: its trace, its scalars and its signs of life, as read."""

import contextlib
import csv
import io
import json
import struct

import pytest
from jax.profiler import ProfileData

from jaxlora import cli
from jaxlora.commands import bars, speed
from lines import overridden

UPDATES = 20  # two chunks of eight, and a half: the first one is not traced

LAYER = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128  # of the llama; and its norms, head
OPERATIONS = 4 * (2 * LAYER + 5 * 64 + 64 * 256)  # of a token, forward and back


@pytest.fixture(autouse=True, scope="module")
def _setting(optax_promotes):
    """Every test of this module; see tests/conftest.py."""


@pytest.fixture(scope="module")
def run(speaking, tmp_path_factory):
    """Folder of the trace, folder of the run, and what was said."""
    pytest.importorskip("tensorboardX", reason="no tensorboardX")
    folder = tmp_path_factory.mktemp("watched")
    lines = [
        json.dumps({"prompt": f"{a} + {b} = ", "answer": f"{a + b}"})
        for a in range(4)
        for b in range(5)
    ]
    data = folder / "sums.jsonl"
    data.write_text("\n".join(lines) + "\n")
    trace, out = folder / "trace", folder / "out"
    words = f"train --model {speaking('plain')} --data {data} --out {out} --rank 2"
    words += f" --length 16 --batch 1 --steps {UPDATES} --warmup 0 --tensorboard -v"
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stderr(said):
        patched.setattr(bars, "BEAT", 0.02)
        patched.setattr(speed, "peak_flops", lambda: 1e12)  # a CPU's is not known
        argv = overridden([*words.split(), "--profile", str(trace)])
        assert cli.main(argv) == 0
    return trace, out, said.getvalue()


# JAX 0.12 ends the process where this warning of its reader is an error.
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_a_trace_lies_where_it_was_asked_for_and_has_steps(run):
    (path,) = run[0].rglob("*.xplane.pb")
    assert path.relative_to(run[0]).parts[:2] == ("plugins", "profile")
    profile = ProfileData.from_file(str(path))  # its events point into it
    events = [
        event
        for plane in profile.planes
        for line in plane.lines
        for event in line.events
        if event.name == "updates"
    ]
    steps = [dict(event.stats) for event in events]
    assert [step["step_num"] for step in steps] == [8, 16]
    assert all(event.duration_ns > 0 for event in events)


def test_a_line_says_where_the_trace_is_and_others_that_the_run_is_alive(run):
    trace, _, said = run
    assert f"Profile: {trace}; `xprof --logdir {trace}` shows it." in said
    lines = [line for line in said.splitlines() if "still at work" in line]
    assert any(line.startswith("training: sums: compiling ...") for line in lines)


def scalars(folder):
    """``{tag: [(step, value)]}`` of event files, read as records of TensorFlow."""
    from tensorboardX.proto.event_pb2 import Event

    out = {}
    for path in folder.glob("events.out.tfevents.*"):
        rest = path.read_bytes()
        while rest:
            (size,) = struct.unpack("<Q", rest[:8])
            event = Event.FromString(rest[12 : 12 + size])
            rest = rest[16 + size :]
            for value in event.summary.value:
                pair = event.step, value.simple_value
                out.setdefault(value.tag, []).append(pair)
    return out


def test_tensorboard_gets_what_the_files_have(run):
    read = scalars(run[1] / "tensorboard")
    with (run[1] / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = dict(read["loss/sums"])
    assert list(losses) == list(range(UPDATES))
    for row in rows:
        assert losses[int(row["update"])] == pytest.approx(float(row["loss"]), rel=1e-5)
    steps = [16, UPDATES]  # nothing of the first chunk, which compiles
    pace = dict(read["speed/tokens_per_second"])
    assert list(pace) == steps
    for step, value in read["speed/utilisation"]:
        share = value * 1e12 / pace[step]  # operations a token
        assert share == pytest.approx(OPERATIONS, rel=1e-4)
    assert all(0.05 < value < 100 for _, value in read["speed/memory_gib"])
