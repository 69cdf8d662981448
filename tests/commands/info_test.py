"""``jaxlora info``: versions, devices and the cache."""

import jax

import jaxlora
from jaxlora import cli


def said(capsys, *words) -> str:
    assert cli.main(["info", *words]) == 0
    return capsys.readouterr().out


def test_versions_devices_and_cache_are_named(capsys, tmp_path):
    (tmp_path / "entry").mkdir()
    (tmp_path / "entry" / "data").write_bytes(bytes(3 * 2**20))
    found = said(capsys, "--cache-dir", str(tmp_path))
    for name, version in (("jaxlora", jaxlora.__version__), ("jax", jax.__version__)):
        assert any(line.split() == [name, version] for line in found.splitlines())
    assert all(str(device) in found for device in jax.devices())
    assert "3 MiB" in found


def test_a_cache_that_does_not_exist_is_not_made(capsys, tmp_path):
    found = said(capsys, "--cache-dir", str(tmp_path / "none"))
    assert "does not exist yet" in " ".join(found.split())
    assert not (tmp_path / "none").exists()
