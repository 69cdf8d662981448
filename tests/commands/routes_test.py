"""``jaxlora routes`` shows the weights that ``models.routes`` gives."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxlora import cli, models, reuse, tree
from jaxlora.commands import route_tables, routes
from jaxlora.models import tokenizer
from jaxlora.report import route_numbers
from jaxlora.reuse import calls

IDS = [[1, 5, 7, 9], [1, 30, 31, 9]]
ATOL = 1e-6  # of numbers as CSV


@pytest.fixture
def folders(hf):
    return [str(hf / "llama" / name) for name in ("plain", "plain2", "rslora")]


@pytest.fixture
def ids(tmp_path):
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(IDS))
    return ["--tokens", str(path)]


@pytest.fixture
def run(hf, folders, capsys):
    """Runs the command with three experts; returns what it printed."""

    def call(*words, model=None, route="arrow"):
        flags = ["--adapter", *folders, *(["--route", route] if route else [])]
        base = str(model or hf / "llama" / "base")
        assert cli.main(["routes", base, *flags, *words]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def weights(hf):
    """Top 2 of arrow for the last row: {site: [L, T, E]}."""
    folders = [hf / "llama" / name for name in ("plain", "plain2", "rslora")]
    found = reuse.load(hf / "llama" / "base", folders, route="arrow", top_k=2)
    call = jax.jit(models.routes, static_argnums=0)
    tokens = jnp.asarray(IDS[1:], jnp.int32)
    with jax.default_matmul_precision("highest"):  # the command's program
        made = call(found.model, found.base, tokens, **found.arguments())
    return {site: np.asarray(one[:, 0]) for site, one in tree.flatten(made[0]).items()}


def test_rows_table_and_figure_are_of_the_weights(run, weights, ids, tmp_path):
    table, png = tmp_path / "deep" / "routes.csv", tmp_path / "routes.png"
    words = (
        "--route-top-k",
        "2",
        "--row",
        "1",
        "--table",
        str(table),
        "--figure",
        str(png),
    )
    said = run(*ids, *words)
    rows = pd.read_csv(table)
    assert list(rows) == list(route_numbers.COLUMNS)
    assert len(rows) == 7 * 2 * 4 * 3
    names = ["plain", "plain2", "rslora"]
    for row in rows.itertuples():
        want = weights[row.site][row.layer, row.token, names.index(row.expert)]
        assert row.weight == pytest.approx(want, abs=ATOL)
        assert str(row.text) == str(IDS[1][row.token])
    numbers = route_numbers.measure(weights)
    for i, name in enumerate(names):
        assert re.search(rf"{i} +{name} +{numbers.load[i]:.3f} ", said)
    for t in range(4):
        cells = (
            f"{numbers.top[layer, t]} {numbers.weight[layer, t].max():.2f}"
            for layer in (0, 1)
        )
        line = " +".join(cell.replace("0.", ".", 1) for cell in cells)
        entropy = numbers.entropy[:, t].mean()
        assert re.search(rf"\n *{t} +{IDS[1][t]} +{entropy:.3f} +{line}", said)
    assert f"entropy {numbers.entropy.mean():.3f} nats" in said
    assert "no preference is ln 3 = 1.099" in said
    assert f"changes at {numbers.switched[1:].mean():.3f} of" in said
    assert "no numbers" not in said
    assert png.read_bytes().startswith(b"\x89PNG")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["deep", "ids.json", "routes.png"]


def test_equal_weights_name_no_expert(run, ids):
    said = run(*ids, route="uniform")
    assert said.count("= .33") == 8
    assert "as of 3.000 equal experts" in said
    assert "changes at 0.000" in said


@pytest.fixture
def no_model(monkeypatch):
    """Equal weights, for tests of the words around them."""

    def routed(found, ids):
        experts = jax.tree.leaves(found.library)[0].shape[0]
        return {"a": np.full((2, len(ids), experts), 0.5)}, {}

    monkeypatch.setattr(calls, "routed", routed)


def test_a_prompt_is_that_of_generate(run, speaking, tmp_path, no_model):
    for name, flags, turns in (
        ("plain", (), None),
        ("chatml", (), [{"role": "user", "content": "Who is é?"}]),
        ("chatml", ("--no-chat",), None),
    ):
        words = tokenizer.load(speaking(name))
        text = words.render(turns) if turns else "Who is é?"
        ids = words.encode(text, special=not turns)
        out = ("--table", str(tmp_path / "x.csv"), "--force")
        said = run("--prompt", "Who is é?", *flags, *out, model=speaking(name))
        rows = pd.read_csv(tmp_path / "x.csv", keep_default_na=False)
        rows = rows.drop_duplicates("token")
        assert len(rows) == len(ids)
        assert "".join(rows.text).replace("\ufffd", "") == words.decode(ids, False)
        assert " é " in said


def test_ids_are_named_by_the_tokenizer_if_there_is_one(run, speaking, ids, no_model):
    assert "<bos>" in run(*ids, model=speaking("plain"))


def test_pieces_are_what_each_token_adds(speaking):
    words = tokenizer.load(speaking("plain"))
    ids = words.encode("Who is 中 é?")
    found = words.pieces(ids)
    assert len(found) == len(ids)
    assert found[0] == "<bos>"
    assert [x for x in found if "\ufffd" not in x][-4:] == ["中", " ", "é", "?"]


def test_experts_that_miss_a_site_have_no_weight_there(run, hf, ids, tmp_path, capsys):
    out = tmp_path / "x.csv"
    llama = hf / "llama"
    pair = ["--adapter", str(llama / "plain"), str(llama / "pattern")]
    words = [*pair, "--route", "arrow", *ids, "--table", str(out)]
    assert cli.main(["routes", str(llama / "base"), *words]) == 0
    rows = pd.read_csv(out)
    mine = rows[(rows.expert == "pattern") & rows.site.str.contains("k_proj")]
    assert len(mine) == 8
    assert (mine.weight == 0).all()
    assert (rows[rows.expert == "pattern"].weight > 0).any()


def test_layers_that_do_not_fit_share_a_column(capsys):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(2), (24, 3)).astype(np.float32)
    numbers = route_numbers.measure({"a": weights})
    console = route_tables.Console(width=60)
    route_tables.grid(console, numbers, ["a", "中", "c"])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 60
    heads = said.split("entropy")[1].split("\n")[0].split()
    assert (heads[0], heads[-1]) == ("0-4", "20-23")
    first = weights[:5, 0].mean(0)
    assert f" {first.argmax()} .{round(100 * first.max())} " in said


def test_scores_that_are_no_numbers_are_counted(capsys):
    strayed = {"a": np.zeros((2, 4), bool), "router": np.zeros((1, 4), bool)}
    console = route_tables.Console(width=200)
    route_tables.odd(console, strayed)
    assert capsys.readouterr().out == ""
    strayed["a"][1, 2:] = True
    route_tables.odd(console, strayed)
    said = capsys.readouterr().out
    assert said.startswith("2 of 4 tokens, from token 2 and layer 1 on, had scores")
    assert "at 1 of 2 places" in said


def test_a_model_that_overflows_is_told(run, ids, monkeypatch):
    def load(*args, **kwargs):
        found = real(*args, **kwargs)
        base = tree.map_named(
            lambda name, x: x * jnp.inf if name == "embed/embedding" else x, found.base
        )
        return dataclasses.replace(found, base=base)

    real = routes.loading.load
    monkeypatch.setattr(routes.loading, "load", load)
    said = run(*ids, "--route-top-k", "2")
    assert "4 of 4 tokens, from token 0 and layer 0 on, had scores" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--prompt", "x"], "Got no --route NAME"),
        (["--route", "arrow"], "Got no --prompt TEXT and no --tokens FILE"),
        (["--route", "arrow", "--prompt", " "], "The prompt is empty"),
        (["--merge", "sum", "--prompt", "x"], "Got the merge 'sum'"),
        (["--route", "arow", "--prompt", "x"], "did you mean 'arrow'?"),
        (["--route", "oracle", "--prompt", "x"], "is told which expert"),
        (
            ["--route", "arrow", "--prompt", "x", "--route-top-k", "9"],
            "Got top_k 9 for 3",
        ),
        (["--route", "arrow", "--prompt", "x"], "tokenizer.json"),
        (["--route", "arrow", "IDS", "--prompt", "x"], "Got both --prompt"),
        (["--route", "arrow", "IDS", "--row", "2"], "--row is 2, but"),
        (["--route", "arrow", "IDS", "--figure", "."], "is a folder"),
        (["--route", "arrow", "IDS", "--pannels", "site"], "Did you mean --panels?"),
        (["--route", "arrow", "BIG"], "row 0 has the token id 256, but the model"),
        (["--route", "arrow", "LONG"], "129 tokens, but the model's context is 128"),
    ],
)
def test_a_bad_request_is_one_sentence(hf, folders, tmp_path, capsys, words, expected):
    made = {"IDS": IDS, "BIG": [[1, 256]], "LONG": [[1] * 129]}
    before = []
    for name, rows in made.items():
        if name in words:
            path = tmp_path / name
            path.write_text(json.dumps(rows))
            before = [path]
            at = words.index(name)
            words = [*words[:at], "--tokens", str(path), *words[at + 1 :]]
    words = ["--adapter", *folders, *words]
    assert cli.main(["routes", str(hf / "llama" / "base"), *words]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == before


def test_help_lists_the_panels(capsys):
    assert cli.main(["routes", "--help"]) == 0
    assert "--panels {mean,part,site}" in capsys.readouterr().out


def test_no_adapter_is_refused(hf, capsys):
    words = ["--route", "arrow", "--prompt", "x"]
    assert cli.main(["routes", str(hf / "llama" / "base"), *words]) == 2
    assert "no adapter to route to" in capsys.readouterr().err


def test_a_figure_of_too_many_tokens_is_refused_before_the_run(
    hf, folders, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(routes.route_map, "LONGEST", 3)
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    words = [
        "--adapter",
        *folders,
        "--route",
        "arrow",
        "--figure",
        str(tmp_path / "x.png"),
    ]
    words += ["--tokens", str(tmp_path / "ids.json")]
    monkeypatch.setattr(calls, "routed", lambda *_: pytest.fail("it ran"))
    assert cli.main(["routes", str(hf / "llama" / "base"), *words]) == 2
    assert "a figure shows at most 3; shorten it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["ids.json"]


def test_the_examples_work(hf, speaking, tmp_path, monkeypatch, shown, no_model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    places = {"A": "plain", "B": "plain2", "C": "rslora"}
    commands = shown(routes.DESCRIPTION)
    assert len(commands) == 3
    for words in commands:
        found = [str(hf / "llama" / places[w]) if w in places else w for w in words]
        found[found.index("MODEL")] = str(speaking("plain"))
        assert cli.main(found) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("ids.json", "routes.csv", "routes.png", "routes.svg"),
    ]
