"""Where a command writes is tried before it works."""

import errno
import tempfile

import pytest

from jaxlora.commands.flags import folders


def test_writing_is_tried_and_leaves_nothing(tmp_path, monkeypatch):
    folders.check_out(tmp_path / "a" / "b" / "x.npy")
    folders.check_new_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())

    def full(dir):
        raise OSError(errno.EROFS, "Read-only file system", "/some/temporary")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    for check in (folders.check_out, folders.check_new_folder):
        with pytest.raises(OSError, match="Read-only") as caught:
            check(tmp_path / "a" / "x")
        assert caught.value.filename == str(tmp_path)


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "file").write_text("mine")
    for odd in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="exists already"):
            folders.check_new_folder(odd)
    (tmp_path / "empty").mkdir()
    folders.check_new_folder(tmp_path / "empty")
