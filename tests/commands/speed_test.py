"""Speed, utilisation and memory of a training, a profile, and a sign of life."""

import threading

import pytest

from jaxlora.commands import bars, profiling, speed, talk


def test_speed_is_of_the_updates_since_the_last_report(monkeypatch):
    times = iter([10.0, 14.0, 15.0])
    monkeypatch.setattr(speed.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(speed, "peak_flops", lambda: 1000.0)
    meter = speed.Meter(speed.Work(tokens=8, flops=50.0))
    assert meter(5) is None  # what compiles is no speed
    slow, fast = meter(15), meter(20)
    assert (slow.tokens, fast.tokens) == (20.0, 40.0)
    assert (slow.utilisation, fast.utilisation) == (0.125, 0.25)
    assert slow.memory > 0.05
    assert set(slow.scalars()) == {
        "speed/tokens_per_second",
        "speed/utilisation",
        "speed/memory_gib",
    }


def test_a_device_without_a_known_peak_has_no_utilisation(monkeypatch):
    times = iter([1.0, 2.0])
    monkeypatch.setattr(speed.time, "monotonic", lambda: next(times))
    meter = speed.Meter(speed.Work(tokens=8, flops=50.0))
    meter(1)
    assert meter(2).utilisation is None


@pytest.fixture
def calls(monkeypatch):
    out = []
    profile = profiling.Profile
    monkeypatch.setattr(profile, "_profiler", staticmethod(lambda *x: out.append(x)))
    return out


def words(*given: str) -> talk.Talk:
    return talk.split(["train", *given])[1]


def test_a_profile_begins_with_a_report_and_ends_with_the_run(calls, tmp_path, capsys):
    how = words("--profile", str(tmp_path))
    with talk.heard(how), profiling.traced(how), bars.bar("loading") as move:
        move("model", 1, 2)
        assert not calls
    with talk.heard(how), profiling.traced(how), bars.bar("training") as move:
        move("a", 1, 4)
        move("a", 2, 4)
        assert calls == [("start_trace", str(tmp_path))]
    assert calls[1:] == [("stop_trace",)]
    assert f"xprof --logdir {tmp_path}" in capsys.readouterr().err


def test_a_profile_is_half_a_minute_at_most(calls, monkeypatch, tmp_path):
    profile = profiling.Profile(tmp_path)
    profile.report()
    monkeypatch.setattr(profiling, "SECONDS", -1.0)
    profile.report()
    profile.report()
    profile.end()
    assert [name for name, *_ in calls] == ["start_trace", "stop_trace"]


def test_a_run_too_short_to_profile_says_so(calls, tmp_path, capsys):
    how = words(f"--profile={tmp_path}")
    with talk.heard(how), profiling.traced(how):
        pass
    assert not calls
    assert "Profile: nothing, as it ended before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--profile", "{}/file"], "--profile is {}/file, but {}/file is a file"),
        (["--profile={}/file/x"], "but {}/file is a file, expected a folder"),
        (["--profile"], "--profile needs the name of a folder"),
        (["--profile="], "--profile needs the name of a folder"),
        (["--profile", "--rank", "2"], "--profile needs the name of a folder"),
        (["--profile", "{}", "--profile", "{}"], "Got --profile twice"),
    ],
)
def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path, given, says):
    (tmp_path / "file").touch()
    how = words(*(word.format(tmp_path) for word in given))
    with (
        pytest.raises(ValueError, match=says.format(tmp_path, tmp_path)),
        profiling.traced(how),
    ):
        pytest.fail("it ran")


def test_a_trace_that_cannot_be_written_does_not_end_the_run(
    tmp_path, monkeypatch, capsys
):
    def full(name, *_):
        if name == "stop_trace":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(profiling.Profile, "_profiler", staticmethod(full))
    how = words("--profile", str(tmp_path / "new"))
    with talk.heard(how), profiling.traced(how), bars.bar("training") as move:
        move("a", 1, 4)
    said = capsys.readouterr().err
    assert "Profile: none could be made ([Errno 28] No space left" in said


def test_a_long_silence_is_broken_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(bars, "BEAT", 0.04)
    over = threading.Event()
    with bars.bar("training", first=bars.COMPILING):
        over.wait(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert "training: compiling ..." in lines
    assert "training: compiling ... (no report for 0:00; still at work)" in lines
