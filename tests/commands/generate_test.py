"""``jaxlora generate`` prints what the model says, and stops where it ends."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest

from jaxlora import cli, models, reuse
from jaxlora.commands import generate
from jaxlora.models import tokenizer
from jaxlora.reuse import decode
from jaxlora.reuse.decode import Continuation, TextDecoding

RUN = jax.jit(models.apply, static_argnums=0)
NEW = ("--max-new-tokens", "6")


@pytest.fixture
def run(speaking, tmp_path, capsys):
    """Runs the command; returns what it printed, and the objects it wrote."""

    def call(*words, name="plain", model=None):
        out = tmp_path / "out.jsonl"
        folder = str(model or speaking(name))
        assert (
            cli.main(["generate", folder, *words, *NEW, "--out", str(out), "--force"])
            == 0
        )
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        return capsys.readouterr().out, rows

    return call


@functools.lru_cache
def loaded(folder, **options):
    return reuse.load(folder, **options), tokenizer.load(folder)


def greedy(folder, text, new=6, **options):
    """The continuation by a whole forward pass a token; later tokens are not seen."""
    found, words = loaded(folder, **options)
    ids = words.encode(text, special=words.chat_template is None)
    start = len(ids)
    for _ in range(new):
        row = jnp.asarray([ids + [0] * (64 - len(ids))], jnp.int32)
        scores = RUN(found.model, found.base, row, **found.arguments())
        ids = [*ids, int(scores[0, len(ids) - 1].argmax())]
    return words.decode(ids[start:])


def test_it_continues_the_prompt_as_it_stands(run, speaking):
    printed, rows = run("--prompt", "Who is", "Bo [red]")
    assert [row["text"] for row in rows] == [
        greedy(speaking("plain"), text) for text in ("Who is", "Bo [red]")
    ]
    assert rows[1]["messages"] == [{"role": "user", "content": "Bo [red]"}]
    assert [(row["tokens"], row["ended"]) for row in rows] == [(6, False)] * 2
    for text in ("Who is", "Bo [red]", rows[0]["text"], "[cut at 6 tokens]"):
        assert text in printed


def test_a_chat_template_is_used_if_there_is_one(run, speaking):
    words = loaded(speaking("chatml"))[1]
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who is Bo?"},
    ]
    asked = ("--prompt", "Who is Bo?")
    _, (row,) = run(*asked, "--system", "Be brief.", name="chatml")
    assert row["messages"] == turns
    assert row["text"] == greedy(speaking("chatml"), words.render(turns))
    _, (row,) = run(*asked, "--no-chat", name="chatml")
    assert row["text"] == greedy(speaking("chatml"), "Who is Bo?")


def test_adapters_merges_and_routes_speak(run, speaking, hf):
    folders = [str(hf / "llama" / name) for name in ("plain", "plain2")]
    weighted = {"merge": "sum", "weights": (1, -0.5)}
    for flags, options in (
        (["--merge", "sum", "--weights", "1", "-0.5"], weighted),
        (["--route", "arrow", "--route-top-k", "1"], {"route": "arrow", "top_k": 1}),
    ):
        _, (row,) = run("--prompt", "Who is", "--adapter", *folders, *flags)
        options = {"adapter_folders": tuple(folders)} | options
        assert row["text"] == greedy(speaking("plain"), "Who is", **options)
        assert row["text"] != greedy(speaking("plain"), "Who is")


def test_it_stops_at_an_end_token(run, speaking, tmp_path):
    folder = speaking("plain")
    found, words = loaded(folder)
    ids = jnp.asarray([words.encode("Who is")], jnp.int32)
    made = models.generate(found.model, found.base, ids, models.Decoding(6))
    third = int(made.tokens[0, 2])
    model = tmp_path / "model"
    model.mkdir()
    for path in folder.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    config = {"eos_token_id": [2, third]}
    (model / "generation_config.json").write_text(json.dumps(config))
    printed, (row,) = run("--prompt", "Who is", model=model)
    end = made.tokens[0].tolist().index(third)
    assert (row["tokens"], row["ended"]) == (end + 1, True)
    assert row["text"] == words.decode(made.tokens[0, :end].tolist())
    assert "[cut" not in printed


def test_prompts_come_from_files(run, tmp_path, speaking):
    lines = tmp_path / "prompts.txt"
    lines.write_text("Who is\n\n  Bo is \n", encoding="utf-8")
    _, rows = run("--prompts", str(lines))
    wanted = [greedy(speaking("plain"), text) for text in ("Who is", "  Bo is ")]
    assert [row["text"] for row in rows] == wanted

    objects = tmp_path / "prompts.jsonl"
    user = {"role": "user", "content": "Who is"}
    records = (
        {"prompt": "Who is"},
        {"messages": [user]},
        {"question": "Who is", "answer": "Bo"},
        {"messages": [user, {"role": "assistant", "content": "Bo"}]},
    )
    objects.write_text("\n".join(map(json.dumps, records)))
    _, rows = run("--prompts", str(objects))
    # As in training: a line break stands between prompt and answer.
    assert {row["text"] for row in rows} == {greedy(speaking("plain"), "Who is\n")}
    assert [row["messages"] for row in rows] == [[user]] * 4


def test_how_tokens_are_chosen_comes_from_flags(run, monkeypatch):
    asked = []

    def continuations(reuse, tokenizer, prompts, how, **options):
        asked.append((how, options))
        return [Continuation("x", 1, True)]

    monkeypatch.setattr(decode, "continuations", continuations)
    flags = ("--temperature", "0.7", "--top-k", "9", "--top-p", "0.5")
    run("--prompt", "a", *flags, "--seed", "3", "--batch", "2")
    ((how, options),) = asked
    assert how == TextDecoding(max_new_tokens=6, temperature=0.7, top_k=9, top_p=0.5)
    assert options["batch"] == 2
    assert (
        jax.random.key_data(options["key"]) == jax.random.key_data(jax.random.key(3))
    ).all()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "Got no --prompt TEXT and no --prompts FILE, expected one"),
        (["--prompt", "a", "--prompts", "x.txt"], "Got both --prompt TEXT"),
        (["--prompt", " "], "Prompt 0 is empty"),
        (["--prompts", "gone.txt"], "Cannot read gone.txt"),
        (["--prompts", "empty.txt"], "empty.txt is empty, expected a prompt a line"),
        (["--prompts", "bad.txt"], "bad.txt is not UTF-8"),
        (["--prompts", "gone.jsonl"], "Cannot read gone.jsonl"),
        (["--prompts", "bad.jsonl"], "bad.jsonl:2: 'prompt' is 3, expected a string"),
        (["--prompts", "text.jsonl"], "text.jsonl:1: no prompt, expected"),
        (["--prompt", "a", "--route-top-k", "2"], "but no route"),
        (["--prompt", "a", "--top-p", "0.5"], "--temperature is 0"),
        (["--prompt", "a", "--max-new-tokens", "0"], "expected 1 or more"),
        (["--prompt", "a", "--sample-top-k", "0"], "it is --top-k now"),
        (["--prompt", "x" * 300], "tokens leave no room in the model's context of 128"),
        (["--prompt", "a", "--out", "."], "is a folder"),
    ],
)
def test_a_bad_request_is_one_sentence(
    speaking, tmp_path, monkeypatch, capsys, words, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": 3}')
    (tmp_path / "text.jsonl").write_text('{"text": "a"}')
    assert cli.main(["generate", str(speaking("plain")), *words]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_a_model_without_tokenizer_or_with_anothers(hf, tmp_path, speaking, capsys):
    words = ["--prompt", "a", *NEW]
    assert cli.main(["generate", str(hf / "llama" / "base"), *words]) == 2
    assert "has no tokenizer.json" in capsys.readouterr().err


def test_the_examples_work(hf, tmp_path, monkeypatch, shown, speaking, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("Who is\n")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Who is Ann?"}\n')
    places = {"A": hf / "llama" / "plain", "B": hf / "llama" / "plain2"}
    places["MODEL"] = speaking("chatml")
    commands = shown(generate.DESCRIPTION)
    assert len(commands) == 4
    for words in commands:
        assert cli.main([str(places.get(w, w)) for w in words] + list(NEW)) == 0
        assert capsys.readouterr().out
    assert (tmp_path / "answers.jsonl").is_file()
