"""Flags that several commands share."""

import dataclasses
import errno
import tempfile
from pathlib import Path

import pytest

from jaxlora import merge
from jaxlora.commands import reuse_options
from jaxlora.commands.reuse_options import Combine, Combining, Model
from jaxlora.models import reuse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Some:
    """A command."""

    model: Model
    combine: Combine = dataclasses.field(default_factory=Combining)
    chat: bool = True
    batch: int = 1


def parse(*words):
    return reuse_options.parse(Some, "jaxlora some", "Some.", words)


@pytest.mark.parametrize(
    ("words", "adapters"),
    [
        ("m --adapter a b", ["a", "b"]),
        ("m --adapter a --adapter b", ["a", "b"]),
        ("m --adapter a b --no-chat --adapter c", ["a", "b", "c"]),
        ("--adapter a m", ["a"]),
        ("--adapter a --adapter b m", ["a", "b"]),
        ("m --adapter=a --adapter b c", ["a", "b", "c"]),
        ("m", []),
    ],
)
def test_adapters_are_repeated_or_listed(words, adapters):
    found = parse(*words.split())
    assert found.model == Path("m")
    assert found.combine.adapter == tuple(map(Path, adapters))


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        ("--weights 1 -0.5", (1, -0.5)),
        ("--weights=-0.5", (-0.5,)),
        ("--weights -1e-3 -.5 2", (-1e-3, -0.5, 2)),
        ("--weights=-1 2 --top-k 1", (-1, 2)),
    ],
)
def test_weights_may_be_negative(words, weights):
    assert parse("m", *words.split()).combine.weights == weights


def test_what_is_not_given_is_none():
    assert parse("m").combine.routing(0.5) == {
        "merge": None,
        "weights": None,
        "route": None,
        "top_k": 0,
        "temperature": 0.5,
    }


def test_help_names_what_exists(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    said = " ".join(capsys.readouterr().out.split())
    for name in (*reuse.COMMON, *reuse.route_names()):
        assert name in said
    assert f"`jaxlora merge --list` shows all {len(merge.names())}" in said
    assert "breadcrumbs" not in said
    assert "oracle" not in said


def test_a_flag_that_does_not_exist_names_the_nearest():
    with pytest.raises(ValueError, match=r"lists all 10\. Did you mean --top-k\?"):
        parse("m", "--topk", "1")
    with pytest.raises(ValueError, match=r"No option --zzzz; .* lists all 10\.$"):
        parse("m", "--zzzz")


def test_writing_is_tried_and_leaves_nothing(tmp_path, monkeypatch):
    reuse_options.check_out(tmp_path / "a" / "b" / "x.npy")
    reuse_options.check_new_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())

    def full(dir):
        raise OSError(errno.EROFS, "Read-only file system", "/some/temporary")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    for check in (reuse_options.check_out, reuse_options.check_new_folder):
        with pytest.raises(OSError, match="Read-only") as caught:
            check(tmp_path / "a" / "x")
        assert caught.value.filename == str(tmp_path)


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "file").write_text("mine")
    for odd in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="exists already"):
            reuse_options.check_new_folder(odd)
    (tmp_path / "empty").mkdir()
    reuse_options.check_new_folder(tmp_path / "empty")


def test_sizes_are_checked_by_the_name_of_their_flag():
    reuse_options.at_least(1, parse("m"), "batch")
    with pytest.raises(ValueError, match="--batch is 0, expected 1 or more"):
        reuse_options.at_least(1, parse("m", "--batch", "0"), "batch")
