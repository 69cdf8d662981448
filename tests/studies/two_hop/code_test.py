"""Results are bound to the source that made them."""

import pytest

from jaxlora.studies.two_hop import code


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "part" / "deep").mkdir(parents=True)
    for name in ("one.py", "part/two.py", "part/deep/three.py", "part/notes.txt"):
        (tmp_path / name).write_text(f"# {name}")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("part/two.py", True),
        ("part/deep/three.py", True),
        ("one.py", False),
        ("part/notes.txt", False),
    ],
)
def test_an_edit_counts_where_it_is_asked_about(package, edited, changes):
    before = code.digest("part")
    (package / edited).write_text("# another")
    assert (code.digest("part") != before) == changes


def test_a_renamed_file_is_another_source(package):
    before = code.digest("part")
    (package / "part/two.py").rename(package / "part/too.py")
    assert code.digest("part") != before


def test_the_order_of_the_parts_does_not_matter(package):
    assert code.digest("one.py", "part") == code.digest("part", "one.py")


def test_a_part_without_source_is_a_mistake(package):
    with pytest.raises(ValueError, match="no source at 'prat'"):
        code.digest("prat")


def test_rows_depend_on_more_than_experts_and_they_on_more_than_bases():
    assert len({code.BASES, code.EXPERTS, code.STUDY}) == 3
