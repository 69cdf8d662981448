"""``jaxlora inspect`` measures deltas, whatever their gauge."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from jax import monitoring

from jaxlora import cli, spectra
from jaxlora.commands import inspect
from jaxlora.io import collection, peft, peft_out
from jaxlora.io.peft import PeftAdapter, PeftModule
from jaxlora.report import spectra_figure

RTOL = 1e-4  # singular values of factors in float32
COMPILED = "backend_compile_duration"
PATHS = ("m.0.q", "m.1.q", "m.0.up")


def adapter(folder, seed, ranks, gauge=False):
    """Writes an adapter with a module for each rank; 0 is none."""
    rng = np.random.default_rng(seed)
    modules = {}
    for path, rank in zip(PATHS, ranks, strict=True):
        f = 5 if path.endswith("q") else 7
        a, b = rng.standard_normal((rank, 6)), rng.standard_normal((f, rank))
        if gauge:
            turn = np.random.default_rng(rank).standard_normal((rank, rank))
            turn += 3 * np.eye(rank)
            a, b = 4 * turn @ a, b @ np.linalg.inv(turn) / 4
        if rank:
            a, b = a.astype(np.float32), b.astype(np.float32)
            modules[path] = PeftModule(a, b, 0.5)
    peft_out.write(folder, PeftAdapter(modules=modules, base_name="base"))
    return str(folder)


@pytest.fixture
def three(tmp_path):
    made = [adapter(tmp_path / "one", 1, (2, 3, 2))]
    made += [adapter(tmp_path / "two", 2, (3, 3, 0))]
    return [*made, adapter(tmp_path / "turned", 1, (2, 3, 2), gauge=True)]


def dense(folder):
    modules = peft.read(folder).modules
    return {path: m.scale * m.b @ m.a for path, m in modules.items()}


def test_numbers_are_those_of_dense_deltas(three, tmp_path):
    assert cli.main(["inspect", *three, "--table", str(tmp_path / "x.json")]) == 0
    said = json.loads((tmp_path / "x.json").read_text())
    names = [entry["name"] for entry in said["adapters"]]
    assert names == ["one", "two", "turned"]
    deltas = {name: dense(tmp_path / name) for name in names}
    for group, told in said["groups"].items():
        assert told["modules"] == [p for p in PATHS if p[-1] == group[-1]]
        for name in names:
            one = told["adapters"][name]
            for i, path in enumerate(told["modules"]):
                delta = deltas[name].get(path, np.zeros((2, 2)))
                s = np.linalg.svd(delta, compute_uv=False)
                np.testing.assert_allclose(
                    one["singular_values"][i], s[: one["rank"][i]], rtol=RTOL
                )
                np.testing.assert_allclose(one["norm"][i], np.sqrt((s**2).sum()), RTOL)
                if one["rank"][i]:
                    shares = s[: one["rank"][i]] ** 2 / (s**2).sum()
                    entropy = -(shares * np.log(shares)).sum()
                    assert one["effective_rank"][i] == pytest.approx(np.exp(entropy))
                    assert one["stable_rank"][i] == pytest.approx(1 / shares[0])
                    assert one["scale"][i] == pytest.approx(0.5)
                else:
                    assert (one["scale"][i], one["stable_rank"][i]) == (None, None)
        _check_cosines(told["cosines"], told["modules"], deltas)
    _check_cosines(said["cosines"], PATHS, deltas)
    entry = said["adapters"][1]
    assert (entry["base"], entry["modules"], entry["parameters"]) == ("base", 2, 66)


def _check_cosines(found, paths, deltas):
    vectors = [
        np.concatenate([one.get(path, np.zeros((7, 6))).ravel() for path in paths])
        for one in deltas.values()
        if all(path in one or path == "m.0.up" for path in paths)
    ]
    sizes = {len(vector) for vector in vectors}
    assert len(sizes) == 1
    norms = [np.linalg.norm(vector) for vector in vectors]
    for i, x in enumerate(vectors):
        for j, y in enumerate(vectors):
            if norms[i] * norms[j]:
                wanted = x @ y / norms[i] / norms[j]
                assert found[i][j] == pytest.approx(wanted, abs=1e-5)
            else:
                assert found[i][j] is None


def test_the_tables_say_so(three, capsys):
    assert cli.main(["inspect", *three]) == 0
    said = capsys.readouterr()
    shown = " ".join(said.out.split())
    for words in (
        "one base 3 2-3",
        "two base 2 3 66",
        "q 6>5 2-3 0.5",
        "cosine one, two one, turned two, turned",
        "up - 1.000 -",
    ):
        assert words in shown
    assert said.err == ""


def test_a_delta_of_zero_is_said(three, tmp_path, capsys):
    fresh = peft.read(tmp_path / "one")
    zero = {p: dataclasses.replace(m, b=0 * m.b) for p, m in fresh.modules.items()}
    peft_out.write(tmp_path / "zero", PeftAdapter(modules=zero))
    some = dict(fresh.modules) | {PATHS[0]: zero[PATHS[0]]}
    peft_out.write(tmp_path / "some", PeftAdapter(modules=some))
    folders = [three[0], str(tmp_path / "zero"), str(tmp_path / "some")]
    assert cli.main(["inspect", *folders]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Adapter zero changes nothing: its delta is zero in all 3 modules" in shown
    assert "Adapter some has a delta of zero in 1 of 3 modules: m.0.q." in shown
    assert "Adapter one" not in shown


def test_shapes_compile_no_program(tmp_path):
    rng = np.random.default_rng(0)
    modules = {
        f"m.x{i}": PeftModule(rng.random((2, 5 + i)), rng.random((3 + i, 2)), 1.0)
        for i in range(6)
    }
    modules = {
        path: dataclasses.replace(m, a=m.a.astype("f4"), b=m.b.astype("f4"))
        for path, m in modules.items()
    }
    peft_out.write(tmp_path / "x", PeftAdapter(modules=modules))
    compiled = []
    monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: event.endswith(COMPILED) and compiled.append(event)
    )
    assert cli.main(["inspect", str(tmp_path / "x")]) == 0
    assert not compiled
    jax.jit(lambda x: x + 1)(np.ones(3))  # the listener hears what is compiled
    assert compiled


def test_huge_and_tiny_deltas_have_numbers(tmp_path):
    sizes = {"m.x": 1e30, "m.y": 1e-30}
    modules = {
        path: PeftModule(
            np.full((1, 4), size, np.float32), np.ones((3, 1), np.float32), 1e7
        )
        for path, size in sizes.items()
    }
    peft_out.write(tmp_path / "x", PeftAdapter(modules=modules))
    library = collection.open_folders([tmp_path / "x"])
    for name, group in spectra.measure(library.library, library.ranks).items():
        assert group.norms[0] == pytest.approx(sizes[name] * 1e7 * np.sqrt(12))


def test_many_pairs_are_summed_up(tmp_path, capsys):
    folders = [adapter(tmp_path / f"a{i}", i, (2, 2, 1)) for i in range(5)]
    assert cli.main(["inspect", *folders]) == 0
    assert "least mean largest" in " ".join(capsys.readouterr().out.split())


def test_a_figure_shows_every_group_and_adapter(three, tmp_path):
    out = tmp_path / "deep" / "x.png"
    assert cli.main(["inspect", *three, "--figure", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    found = collection.read(three)
    groups = spectra.measure(found.library, found.ranks)
    chart = spectra_figure.chart(groups, found.names)
    axes = {a.get_title(loc="left"): a for a in chart.axes}
    assert [len(axes[group].lines) for group in ("q", "up")] == [3, 3]
    lengths = [len(line.get_xdata()) for line in axes["up"].lines]
    assert lengths == [2, 0, 2]
    numbers = [text.get_text() for text in axes["Cosines of deltas, all groups"].texts]
    assert (len(numbers), numbers[2]) == (9, "1.00")


@pytest.mark.parametrize("count", [1, 14])
def test_a_figure_of_one_or_many(tmp_path, count):
    folders = [adapter(tmp_path / f"a{i}", i, (2, 2, 1)) for i in range(count)]
    found = collection.read(folders)
    groups = spectra.measure(found.library, found.ranks)
    chart = spectra_figure.chart(groups, found.names)
    chart.canvas.draw()
    assert len(chart.axes) == (2 if count == 1 else 5)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "Got no adapter to inspect; the command is"),
        (["one", "one"], "is given twice"),
        (["one", "none"], "none"),
        (["one", "broken"], "broken"),
        (["one", "--tabel", "x"], "Did you mean --table?"),
        (["one", "--json", "x"], "No option --json: it is --table now"),
        (["one", "--figure", "x.jpg"], "x.jpg ends in '.jpg', but a figure is"),
        (["one", "--table", "broken/adapter_config.json"], "exists already"),
        (["one", "--table", "one"], "is a folder, expected the name of a file"),
    ],
)
def test_a_bad_request_shows_nothing(three, tmp_path, capsys, words, expected):
    adapter(tmp_path / "broken", 1, (1, 1, 1))
    (tmp_path / "broken" / "adapter_config.json").write_text("{")
    before = sorted(tmp_path.iterdir())
    there = [str(tmp_path / word) if word[0] != "-" else word for word in words]
    assert cli.main(["inspect", *there]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert sorted(tmp_path.iterdir()) == before


def test_the_examples_work(three, tmp_path, monkeypatch, shown):
    monkeypatch.chdir(tmp_path)
    places = dict(zip(("ADAPTER", "A", "B", "C"), (three[0], *three), strict=True))
    commands = shown(inspect.DESCRIPTION)
    assert len(commands) == 3
    for words in commands:
        assert cli.main([places.get(word, word) for word in words]) == 0
    assert (tmp_path / "numbers.json").is_file()
    assert (tmp_path / "spectra.svg").is_file()
