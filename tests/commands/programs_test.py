"""Compiled programs that are kept between runs."""

import os

import pytest

from jaxlora.commands import programs


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache folder, and an environment that says nothing of programs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (programs.PLACE, programs.SWITCH):
        monkeypatch.setenv(name, "")  # so that what is set here goes again
        monkeypatch.delenv(name)
    return tmp_path


def test_programs_are_kept_by_host(home):
    programs.keep(on=True)
    place = os.environ[programs.PLACE]
    assert place == str(programs.folder())
    assert os.path.isdir(place)
    assert programs.SWITCH not in os.environ


def test_a_folder_of_the_user_is_left_as_it_is(home, monkeypatch):
    monkeypatch.setenv(programs.PLACE, "mine")
    programs.keep(on=True)
    assert os.environ[programs.PLACE] == "mine"


def test_without_a_cache_jax_is_told(home):
    programs.keep(on=False)
    assert os.environ[programs.SWITCH] == "false"
    assert programs.PLACE not in os.environ


def test_where_nothing_can_be_written_nothing_is_kept(home):
    (home / "cache").write_text("a file")
    programs.keep(on=True)
    assert programs.PLACE not in os.environ


def test_a_folder_that_may_only_be_read_is_not_used(home, monkeypatch):
    programs.folder().mkdir(parents=True)
    monkeypatch.setattr(programs.os, "access", lambda *_: False)  # root may all
    programs.keep(on=True)
    assert programs.PLACE not in os.environ
