"""One rule for what a command writes: tried before it works, never over what exists."""

import errno
import tempfile

import pytest

from jaxlora.commands.flags import outputs


def test_writing_is_tried_and_leaves_nothing(tmp_path, monkeypatch):
    outputs.check_files(False, tmp_path / "a" / "b" / "x.npy", None)
    outputs.check_folder(False, tmp_path / "a" / "b", outputs.ADAPTER)
    assert not list(tmp_path.iterdir())

    def full(dir):
        raise OSError(errno.EROFS, "Read-only file system", "/some/temporary")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    for check in (
        lambda x: outputs.check_files(True, x),
        lambda x: outputs.check_folder(True, x, outputs.ADAPTER),
    ):
        with pytest.raises(OSError, match="Read-only") as caught:
            check(tmp_path / "a" / "x")
        assert caught.value.filename == str(tmp_path)


def test_a_file_is_overwritten_with_force_only(tmp_path):
    path = tmp_path / "x.npy"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"x\.npy exists already .* --force"):
        outputs.check_files(False, path)
    outputs.check_files(True, path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("force", [False, True])
def test_no_force_makes_a_file_of_a_folder(tmp_path, force):
    with pytest.raises(ValueError, match="is a folder, expected the name of a file"):
        outputs.check_files(force, tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file, expected a folder"):
        outputs.check_files(force, tmp_path / "file" / "x")
    with pytest.raises(ValueError, match="by --force neither: it is a file"):
        outputs.check_folder(force, tmp_path / "file", outputs.ADAPTER)


def test_two_outputs_have_two_names(tmp_path):
    with pytest.raises(ValueError, match="given for two outputs"):
        outputs.check_files(True, tmp_path / "x", tmp_path / "a" / ".." / "x")


def adapter(folder, text="old"):
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        (folder / name).write_text(text)
    return folder


def test_a_folder_is_replaced_with_force_only_when_the_new_is_complete(tmp_path):
    old = adapter(tmp_path / "a")
    with pytest.raises(ValueError, match=r"--force to replace the adapter in it"):
        outputs.check_folder(False, old, outputs.ADAPTER)
    outputs.check_folder(True, old, outputs.ADAPTER)

    def half():
        with outputs.replaced(old) as new:
            adapter(new, "half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert (old / "adapter_config.json").read_text() == "old"
    with outputs.replaced(old) as new:
        assert new != old
        new.mkdir()
        (new / "adapter_config.json").write_text("new")
        assert (old / "adapter_config.json").read_text() == "old"
    assert [path.name for path in old.iterdir()] == ["adapter_config.json"]
    assert list(tmp_path.iterdir()) == [old]


def test_the_old_folder_comes_back_if_the_new_cannot_take_its_place(tmp_path):
    old = adapter(tmp_path / "a")
    adapter(tmp_path / ".a.new.tmp", "of a run that was killed")

    def nothing():
        with outputs.replaced(old) as new:
            assert not new.exists()  # and it is never made

    with pytest.raises(FileNotFoundError):
        nothing()
    assert (old / "adapter_config.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_a_new_or_empty_folder_needs_no_other_name(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new"):
        outputs.check_folder(False, folder, outputs.ADAPTER)
        with outputs.replaced(folder) as new:
            assert new == folder


@pytest.mark.parametrize("force", [False, True])
def test_no_force_replaces_what_no_command_wrote(tmp_path, force):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="by --force neither: it holds no adapter"):
        outputs.check_folder(force, home, outputs.ADAPTER)
    mixed = adapter(tmp_path / "mixed")
    (mixed / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"it holds 'thesis.tex', which no adapter"):
        outputs.check_folder(force, mixed, outputs.ADAPTER)
    (home / "study.json").write_text("{}")
    with pytest.raises(ValueError, match=r"'thesis.tex', which no study has"):
        outputs.remove(home, outputs.STUDY)
    assert (home / "thesis.tex").read_text() == "precious"
    assert (mixed / "thesis.tex").read_text() == "precious"
