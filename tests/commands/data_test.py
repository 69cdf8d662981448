"""``jaxlora data two-hop`` writes what a study would generate."""

import pytest

from jaxlora import cli
from jaxlora.tasks.two_hop import builder, world


@pytest.fixture(scope="module")
def data(tmp_path_factory, world_flags):
    out = tmp_path_factory.mktemp("data")
    sweep = ["--seeds", "2", "--first-seed", "5", "--coverages", "0", "1"]
    assert cli.main(["data", "two-hop", *world_flags, *sweep, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("coverage", [0.0, 1.0])
@pytest.mark.parametrize("seed", [5, 6])
def test_every_seed_and_level_is_there(data, coverage, seed):
    sizes = world.WorldConfig(
        entities=16,
        relations=6,
        pairs=1,
        people=3,
        context_rows=8,
        coverage=coverage,
        comparable=False,  # as quick has it
    )
    found = builder.read(builder.folder(sizes, seed, data))
    assert found == world.generate(sizes, seed)


def test_it_says_where_each_is_and_what_it_holds(data, world_flags, capsys):
    assert cli.main(["data", "two-hop", *world_flags, "--out", str(data)]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert str(data) in said
    assert "coverage1,seed0:" in said
    assert "people54" in said  # three records for each of three people in six cells


def test_a_file_is_no_folder(tmp_path, world_flags, capsys):
    path = tmp_path / "file"
    path.write_text("precious")
    assert cli.main(["data", "two-hop", *world_flags, "--out", str(path)]) == 2
    assert "file" in capsys.readouterr().err
    assert path.read_text() == "precious"
