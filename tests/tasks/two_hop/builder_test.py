"""What is stored is what is trained on; nothing half-written, nothing fetched."""

import errno
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import pytest

from jaxlora.tasks.two_hop import builder, facts, records, world
from jaxlora.tasks.two_hop.facts import Fact, Facts
from jaxlora.tasks.two_hop.world import WorldConfig

SMALL = WorldConfig(
    entities=12, relations=6, pairs=2, people=3, context_rows=16, trained=0.8
)
LENGTH = 9


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return builder.write(SMALL, 0, tmp_path_factory.mktemp("data"))


def test_reading_gives_back_what_is_generated(stored):
    made, found = world.generate(SMALL, 0), builder.read(stored)
    assert found.vocab == made.vocab
    assert set(found.splits) == set(made.splits)
    for name, expected in made.splits.items():
        assert len(expected) > 0
        assert found.splits[name] == expected, name
        for got, want in zip(
            records.encode(found.splits[name], found.vocab, LENGTH),
            records.encode(expected, made.vocab, LENGTH),
            strict=True,
        ):
            np.testing.assert_array_equal(got, want)
    assert found == made
    assert "tensorflow" not in sys.modules


def test_order_on_disk_is_not_the_generators(stored):
    """Else the index would be idle, and a test of the order no test."""
    source = builder.tfds.builder_from_directory(stored).as_data_source("two_hop")
    on_disk = [source[i]["index"] for i in range(len(source))]
    assert on_disk != sorted(on_disk)


def test_a_split_without_records_stays(tmp_path):
    config = WorldConfig(**{**vars(SMALL), "trained": 1.0, "context_rows": 0})
    made = world.generate(config, 0)
    assert made.splits["held_out"] == made.splits["context"] == ()
    assert builder.read(builder.write(config, 0, tmp_path)) == made


def test_a_users_people_are_stored_with_their_names(tmp_path):
    told = [("ann", "wife", "zoë"), ("cid", "wife", "New York")]
    told += [("zoë", "city", "Rome"), ("New York", "city", "大阪")]
    people = facts.people(Facts(tuple(Fact(*line) for line in told)), SMALL)
    path = builder.write(SMALL, 0, tmp_path, people)
    found = builder.read(path)
    assert found == world.generate(SMALL, 0, people)
    assert {"zoë", "New York", "大阪"} <= set(found.vocab.entities)


def test_names_differ_where_records_may():
    people = facts.people(
        Facts(tuple(Fact(*f.split()) for f in ("a r b", "c r d", "b s e", "d s f"))),
        SMALL,
    )
    other = WorldConfig(**{**vars(SMALL), "coverage": 0.5})
    asked = [(SMALL, 0), (SMALL, 1), (other, 0), (SMALL, 0, people)]
    names = [builder.config(*args).name for args in asked]
    assert len(set(names)) == len(names)
    assert builder.config(SMALL, 0).name == names[0]


def test_a_change_of_the_generator_gives_a_new_name(monkeypatch):
    before = builder.config(SMALL, 0).name
    monkeypatch.setattr(builder, "CODE", builder.CODE + b"# edited")
    assert builder.config(SMALL, 0).name != before


def test_a_finished_dataset_is_reused(stored, monkeypatch):
    monkeypatch.setattr(builder.world, "generate", None)
    assert builder.write(SMALL, 0, stored.parents[2]) == stored


def test_an_interruption_leaves_nothing_and_the_next_write_works(tmp_path, monkeypatch):
    whole = builder.TwoHop._generate_examples

    def interrupted(self, rows):
        yield from list(whole(self, rows))[:3]
        if rows[0].kind == "document":
            raise KeyboardInterrupt

    monkeypatch.setattr(builder.TwoHop, "_generate_examples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        builder.write(SMALL, 0, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    monkeypatch.undo()
    assert builder.read(builder.write(SMALL, 0, tmp_path)) == world.generate(SMALL, 0)


@pytest.mark.parametrize(
    ("message", "expected"),
    [("write() failed: No space left on device;", OSError), ("bug", RuntimeError)],
)
def test_a_full_disk_is_an_os_error(tmp_path, monkeypatch, message, expected):
    def full(self, rows):
        raise RuntimeError(message)  # what array_record raises

    monkeypatch.setattr(builder.TwoHop, "_generate_examples", full)
    with pytest.raises(expected) as caught:
        builder.write(SMALL, 0, tmp_path)
    if expected is OSError:
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_killed_write_is_not_taken_for_a_dataset(tmp_path):
    done = _python(f"""
        import os
        from jaxlora.tasks.two_hop import builder
        from jaxlora.tasks.two_hop.world import WorldConfig
        whole = builder.TwoHop._generate_examples
        def killed(self, rows):
            yield from whole(self, rows)
            if rows[0].kind == "document":
                os._exit(9)
        builder.TwoHop._generate_examples = killed
        builder.write({SMALL!r}, 0, {str(tmp_path)!r})
    """)
    assert done.returncode == 9
    assert list(tmp_path.rglob("*.array_record*"))  # it had begun
    with pytest.raises(ValueError, match="below it there is none"):
        builder.read(tmp_path)
    final = tmp_path / "two_hop" / builder.config(SMALL, 0).name / "1.0.0"
    assert not final.exists()
    assert builder.write(SMALL, 0, tmp_path) == final
    assert builder.read(final) == world.generate(SMALL, 0)


def test_reading_what_is_no_dataset(stored, tmp_path):
    with pytest.raises(ValueError, match=r"no finished dataset .*there is none\.$"):
        builder.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"no finished dataset.*there is {stored}"):
        builder.read(stored.parents[2])


def test_reading_another_dataset(tmp_path, monkeypatch):
    tfds = builder.tfds
    # A builder that asks its bucket leaves a temporary folder behind.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with tfds.core.registered.skip_registration():

        class Other(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = tfds.features.FeaturesDict({"x": np.int64})
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {"train": [(0, {"x": 1})]}

            def _generate_examples(self):
                raise NotImplementedError

    other = Other(data_dir=tmp_path)
    other.download_and_prepare(file_format="array_record")
    with pytest.raises(
        ValueError, match=r"a dataset 'other' .*expected 'two_hop' as b"
    ):
        builder.read(other.data_path)


def test_missing_records_are_noticed(stored, monkeypatch):
    metadata = builder._metadata

    def one_more(asked, made):
        found = metadata(asked, made)
        found["sizes"]["people"] += 1
        return found

    monkeypatch.setattr(builder, "_metadata", one_more)
    path = builder.write(SMALL, 7, stored.parents[2])
    with pytest.raises(
        ValueError, match=r"'people' .* has 108 records, expected those "
    ):
        builder.read(path)


def test_nothing_is_fetched_or_written_elsewhere(tmp_path):
    """In a fresh process: its home stays empty, and no connection opens."""
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    done = _python(
        f"""
        import socket, sys
        import jaxlora.tasks.two_hop.facts, jaxlora.tasks.two_hop.questions
        assert "tensorflow_datasets" not in sys.modules
        assert "grain" not in sys.modules

        def refuse(*args, **kwargs):
            raise AssertionError("opens a connection")

        socket.socket.connect = socket.getaddrinfo = refuse
        from jaxlora.tasks.two_hop import builder, world
        from jaxlora.tasks.two_hop.world import WorldConfig
        path = builder.write({SMALL!r}, 0, {str(data)!r})
        assert builder.read(path) == world.generate({SMALL!r}, 0)
        assert "tensorflow" not in sys.modules
        """,
        HOME=str(home),
        USERPROFILE=str(home),
        TMPDIR=str(home),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    for noise in ("custom data configuration", "Generating", "Downloading"):
        assert noise not in done.stderr
    assert list(home.iterdir()) == []
    assert {p.name for p in data.iterdir()} == {"two_hop", "downloads"}
    assert [p for p in (data / "downloads").rglob("*") if p.is_file()] == []


def _python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs code in a new interpreter, where warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[3],
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )
