"""Files and folders appear whole; what a dead process left is swept, and no more."""

import os
import signal
import subprocess
import sys

import pytest

from jaxlora import files

WRITE = """
import sys, time
from pathlib import Path
from jaxlora import files
folder = Path(sys.argv[1])
with files.opened(folder / "file") as file, files.new_folder(folder / "folder") as new:
    file.write(b"half")
    (new / "part").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that writes a file and a folder."""
    words = [sys.executable, "-c", WRITE, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def test_what_is_being_written_is_not_swept(tmp_path, writer):
    before = sorted(tmp_path.iterdir())
    assert len(before) == 2
    files.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_killed_process_left_is_swept(tmp_path, writer):
    for name in ("mine", ".mine.tmp", ".0123.tmp"):
        (tmp_path / name).touch()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    files.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".0123.tmp", ".mine.tmp", "mine"]


def test_a_link_is_swept_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / ".0123456789abcdef.tmp").symlink_to(tmp_path / "precious")
    files.sweep(tmp_path)
    assert (tmp_path / "precious" / "file").exists()


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(descriptor):
        real(descriptor)
        synced.append((os.fstat(descriptor).st_ino, sorted(os.listdir(tmp_path))))

    monkeypatch.setattr(os, "fsync", fsync)
    with files.new_folder(tmp_path / "folder") as new:
        (new / "part").write_text("x")
    part, folder = (os.stat(tmp_path / x).st_ino for x in ("folder/part", "folder"))
    before = [inode for inode, names in synced if "folder" not in names]
    after = [inode for inode, names in synced if "folder" in names]
    assert {part, folder} <= set(before)
    assert after == [os.stat(tmp_path).st_ino]


def test_a_failure_leaves_nothing(tmp_path):
    for make in (files.opened, files.new_folder):
        with pytest.raises(KeyboardInterrupt), make(tmp_path / "x"):
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_removal_shows_no_part(tmp_path):
    files.remove(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    files.remove(tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_a_link_or_a_file_is_removed_and_what_a_link_leads_to_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "file").touch()
    for name in ("link", "file", "nothing"):
        files.remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
