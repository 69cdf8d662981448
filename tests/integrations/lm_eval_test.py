"""The harness runs our models, and finds what it finds with transformers' own."""

import json
import logging
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxlora import reuse as reuses
from jaxlora.evaluate import likelihood
from jaxlora.integrations import lm_eval as integration
from jaxlora.integrations.lm_eval import JaxLora

ROOT = pathlib.Path(__file__).parents[2]
TASKS = ["jaxlora_choice", "jaxlora_writing"]
ATOL = 1e-4  # the longest text has -2256, float32 rounds to 2e-4; measured 5e-5

pytestmark = [  # what transformers, datasets and the harness warn of is theirs
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PAIRS = [
    ("The heron stands in", " the reeds"),
    ("The heron stands in ", "the reeds"),  # the space moves to the continuation
    ("The heron", " is"),
    ("", "Boats"),
    ("<bos>Nine boats", " left"),
    ("one two three four five six seven eight nine ten " * 8, "and so on"),
    ("Water runs", " down the hill and through the reeds to the harbour"),
]
TEXTS = ["A heron.", "", "Nine boats left the harbour and four came back. " * 10]
CHAT = [
    {"role": "system", "content": "Count."},
    {"role": "user", "content": "How many?"},
    {"role": "assistant", "content": "The answer is"},
]


def test_without_the_harness_the_error_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(integration, "_HERE", False)
    with pytest.raises(ImportError, match=r"pip install 'jaxlora\[lm-eval\]'"):
        JaxLora("anywhere")
    assert integration.main() == 2
    assert "jaxlora[lm-eval]" in capsys.readouterr().err


@pytest.fixture(scope="module")
def harness():
    return pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def hf(harness, checkpoint):
    """transformers' model, of the same folder."""
    pytest.importorskip("torch")
    return _hf(checkpoint)


def _hf(folder, **arguments):
    from lm_eval.models.huggingface import HFLM

    return HFLM(str(folder), device="cpu", batch_size=2, dtype="float32", **arguments)


@pytest.fixture(scope="module")
def ours(harness, checkpoint):
    return JaxLora(str(checkpoint), batch_size=4)


def asked(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def assert_same_likelihoods(ours, theirs):
    ours, theirs = (
        lm.loglikelihood(asked("loglikelihood", PAIRS)) for lm in (ours, theirs)
    )
    np.testing.assert_allclose(*([t for t, _ in x] for x in (ours, theirs)), atol=ATOL)
    assert [g for _, g in ours] == [g for _, g in theirs]
    return [t for t, _ in ours]


def test_loglikelihood_is_that_of_transformers(ours, hf):
    assert_same_likelihoods(ours, hf)


def test_greedy_is_told_as_transformers_does(ours, hf):
    prompt = "The heron"
    (said,) = ours.generate_until(
        asked("generate_until", [(prompt, {"max_gen_toks": 2})])
    )
    pairs = asked("loglikelihood", [(prompt, said), (prompt, said + "zz")])
    flags = [[greedy for _, greedy in lm.loglikelihood(pairs)] for lm in (ours, hf)]
    assert flags[0] == flags[1]
    assert not flags[0][1]


def test_rolling_is_that_of_transformers(ours, hf):
    requests = asked("loglikelihood_rolling", [(text,) for text in TEXTS])
    found, wanted = (lm.loglikelihood_rolling(requests) for lm in (ours, hf))
    np.testing.assert_allclose(found, wanted, atol=ATOL)
    assert len(ours.tok_encode(TEXTS[2])) > 2 * ours.max_length  # so in windows


def test_a_shorter_context_is_that_of_transformers(harness, checkpoint, ours):
    pytest.importorskip("torch")
    short = JaxLora(str(checkpoint), max_length=16)
    pairs = asked("loglikelihood", PAIRS[5:6])
    texts = asked("loglikelihood_rolling", [(TEXTS[2],)])
    found, wanted = (
        [lm.loglikelihood(pairs)[0][0], *lm.loglikelihood_rolling(texts)]
        for lm in (short, _hf(checkpoint, max_length=16))
    )
    assert found == pytest.approx(wanted, abs=ATOL)
    assert abs(ours.loglikelihood(pairs)[0][0] - found[0]) > 10 * ATOL


@pytest.mark.parametrize(
    "options",
    [
        {"max_gen_toks": 10},
        {"max_gen_toks": 10, "until": ["e"]},
        {"max_gen_toks": 10, "until": ["th", "o"], "do_sample": False},
    ],
)
def test_generation_is_that_of_transformers(ours, hf, options):
    prompts = [(text, dict(options)) for text, _ in PAIRS[2:] if text]
    found, wanted = (
        lm.generate_until(asked("generate_until", prompts)) for lm in (ours, hf)
    )
    assert found == wanted
    assert len(set(found)) > 1


def test_an_adapter_scores_as_in_peft(ours, checkpoint, adapters):
    pytest.importorskip("peft")
    adapted = JaxLora(str(checkpoint), adapters=adapters[0], batch_size=4)
    theirs = _hf(checkpoint, peft=adapters[0])
    found = assert_same_likelihoods(adapted, theirs)
    plain = [t for t, _ in ours.loglikelihood(asked("loglikelihood", PAIRS))]
    assert np.abs(np.subtract(found, plain)).min() > 10 * ATOL


@pytest.mark.parametrize(
    "how",
    [{"merge": "sum", "weights": "1:-0.5"}, {"route": "arrow", "top_k": 1}],
    ids=["merge", "route"],
)
def test_merges_and_routes_are_what_the_library_makes_of_them(
    ours, checkpoint, adapters, how
):
    model = JaxLora(str(checkpoint), adapters=":".join(adapters), **how)
    weights = {"weights": [1.0, -0.5]} if "weights" in how else {}
    reuse = reuses.load(checkpoint, adapters, **{**how, **weights})
    pair = (model.tok_encode("The heron"), model.tok_encode(" is", False))
    wanted = likelihood.score(reuse.model, reuse.base, [pair], **reuse.arguments())
    request = asked("loglikelihood", [("The heron", " is")])
    (found,) = model.loglikelihood(request)
    assert found[0] == pytest.approx(wanted.total[0], abs=ATOL)
    assert abs(found[0] - ours.loglikelihood(request)[0][0]) > 10 * ATOL
    model.generate_until(asked("generate_until", [("A", {"max_gen_toks": 2})]))


def test_chats_are_rendered_as_by_transformers(harness, chatting):
    pytest.importorskip("torch")
    ours, hf = JaxLora(str(chatting)), _hf(chatting)
    for messages, prompt in ((CHAT[:2], True), (CHAT, False)):
        text = ours.apply_chat_template(messages, add_generation_prompt=prompt)
        assert text == hf.apply_chat_template(messages, add_generation_prompt=prompt)
        assert ours.tok_encode(text) == hf.tok_encode(text)
    assert ours.chat_template(True) == hf.chat_template(True)
    assert ours.prefix_token_id == ours.eot_token_id == hf.prefix_token_id
    assert ours.tokenizer_name.endswith(chatting.name)


def test_texts_without_a_token(harness, chatting):
    model = JaxLora(str(chatting))
    assert model.loglikelihood_rolling(asked("loglikelihood_rolling", [("",)])) == [0]
    options = {"max_gen_toks": 4}
    (found,) = model.generate_until(asked("generate_until", [("", options)]))
    first = model.tokenizer.decode([model.prefix_token_id], False)
    request = asked("generate_until", [(first, options)])
    assert model.generate_until(request) == [found]


def test_special_tokens_are_those_of_transformers(ours, hf):
    assert (ours.prefix_token_id, ours.eot_token_id, ours.max_length) == (
        hf.prefix_token_id,
        hf.eot_token_id,
        hf.max_length,
    )
    for text in ("Boats", "<bos>Boats"):
        for special in (None, True, False):
            assert ours.tok_encode(text, special) == hf.tok_encode(text, special)


def test_prompts_that_are_too_long_lose_their_start_and_it_is_said(ours, caplog):
    room = ours.max_length - 8
    text = "a heron " * 200
    options = {"max_gen_toks": 8}
    with caplog.at_level(logging.WARNING):
        (found,) = ours.generate_until(asked("generate_until", [(text, options)]))
    assert "1 prompts are too long" in caplog.text
    kept = ours.tokenizer.decode(ours.tok_encode(text)[-room:])
    assert found == _without_bos(ours, kept, options)


def _without_bos(model, text, options):
    from jaxlora.integrations import generation
    from jaxlora.reuse import decode

    prompt = model.tok_encode(text, False)
    how = generation.settings(options)
    batching = decode.Batching(4, fixed=True)
    (part,) = decode.in_batches(model.reuse, model.tokenizer, [prompt], how, batching)
    return part[0].text


def test_truncation_and_rooms_are_refused_where_asked(harness, checkpoint):
    strict = JaxLora(str(checkpoint), truncate=False, max_length=16)
    long = "a heron " * 20
    with pytest.raises(ValueError, match=r"1 contexts are longer than the 16 tokens"):
        strict.loglikelihood(asked("loglikelihood", [(long, "x")]))
    with pytest.raises(ValueError, match=r"1 prompts are longer"):
        strict.generate_until(asked("generate_until", [(long, {"max_gen_toks": 2})]))
    with pytest.raises(ValueError, match=r"16 new tokens, but the model sees 16"):
        strict.generate_until(asked("generate_until", [("a", {"max_gen_toks": 16})]))


def test_requests_with_other_options_are_answered_in_their_order(ours):
    prompts = ["A heron", "Boats", "A heron", "Boats"]
    options = [{"max_gen_toks": n} for n in (3, 5, 5, 3)]
    pairs = list(zip(prompts, options, strict=True))
    found = ours.generate_until(asked("generate_until", pairs))
    for pair, text in zip(pairs, found, strict=True):
        assert ours.generate_until(asked("generate_until", [pair])) == [text]
    assert found[2].startswith(found[0])
    assert len(found[2]) > len(found[0])


def test_samples_differ_between_calls_and_follow_the_seed(harness, checkpoint):
    options = {"max_gen_toks": 8, "do_sample": True, "temperature": 1.5}
    requests = asked("generate_until", [("A heron", options)] * 2)
    first, again, other = (JaxLora(str(checkpoint), seed=s) for s in (0, 0, 1))
    texts = first.generate_until(requests)
    assert texts[0] != texts[1]
    assert again.generate_until(requests) == texts
    assert other.generate_until(requests) != texts
    assert first.generate_until(requests) != texts


def test_thoughts_end_where_the_token_says(harness, checkpoint, ours):
    request = asked("generate_until", [("A heron", {"max_gen_toks": 12})])
    (whole,) = ours.generate_until(request)
    mark = whole[len(whole) // 2]
    thinking = JaxLora(str(checkpoint), think_end_token=mark)
    assert thinking.generate_until(request) == [whole.rpartition(mark)[2].lstrip()]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Data sets are read from the repository, and cached nowhere else."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(ROOT)


def evaluate(model, arguments, **more):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path="tests/data/lm_eval", include_defaults=False)
    more = {"tasks": TASKS, "task_manager": manager, **more}
    return simple_evaluate(model, model_args=arguments, batch_size=2, **more)


def test_local_tasks_are_scored_as_by_transformers(harness, offline, checkpoint):
    pytest.importorskip("torch")
    found = evaluate("jaxlora", f"pretrained={checkpoint}")
    arguments = {"pretrained": str(checkpoint), "dtype": "float32"}
    wanted = evaluate("hf", arguments, device="cpu")
    for task in TASKS:
        ours, theirs = found["samples"][task], wanted["samples"][task]
        assert len(ours) == len(theirs) == {"jaxlora_choice": 5}.get(task, 3)
        for a, b in zip(ours, theirs, strict=True):
            assert a["arguments"] == b["arguments"]
            _assert_same_responses(a["filtered_resps"], b["filtered_resps"])
        names = [n for n in wanted["results"][task] if n.split(",")[0] != "alias"]
        assert any("acc" in n or "exact_match" in n for n in names)
        for name in names:
            assert found["results"][task][name] == wanted["results"][task][name]


def _assert_same_responses(ours, theirs):
    if isinstance(ours[0], str):
        assert ours == theirs
        assert ours[0]
        return
    for (total, greedy), (wanted, flag) in zip(ours, theirs, strict=True):
        assert total == pytest.approx(wanted, abs=ATOL)
        assert greedy == flag


def test_answers_are_cached_for_the_harness(harness, offline, checkpoint, tmp_path):
    pytest.importorskip("sqlitedict")
    cache = str(tmp_path / "answers")
    model = JaxLora(str(checkpoint))
    first = evaluate(model, None, use_cache=cache)
    model.generate_until = model.loglikelihood = None  # not to be called again
    again = evaluate(model, None, use_cache=cache)
    assert first["results"] == again["results"]


def test_partial_answers_reach_the_cache(ours, monkeypatch):
    kept = []
    monkeypatch.setattr(
        ours.cache_hook, "add_partial", lambda *answer: kept.append(answer)
    )
    pair, options = PAIRS[2], {"max_gen_toks": 3}
    (score,) = ours.loglikelihood(asked("loglikelihood", [pair]))
    (whole,) = ours.loglikelihood_rolling(asked("loglikelihood_rolling", [("A",)]))
    (text,) = ours.generate_until(asked("generate_until", [("A", options)]))
    assert kept == [
        ("loglikelihood", pair, score),
        ("loglikelihood_rolling", ("A",), whole),
        ("generate_until", ("A", options), text),
    ]


def test_the_command_line_of_the_harness(harness, checkpoint, adapters, tmp_path):
    words = [
        *(sys.executable, "-m", "jaxlora.integrations.lm_eval", "run"),
        *("--model", "jaxlora", "--tasks", "jaxlora_choice"),
        *("--model_args", f"pretrained={checkpoint}", f"adapters={adapters}"),
        *("route=arrow", "top_k=1", "--include_path", "tests/data/lm_eval"),
        *("--output_path", str(tmp_path / "out"), "--batch_size", "4"),
    ]
    home = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "out").rglob("results_*.json")
    assert "acc,none" in json.loads(path.read_text())["results"]["jaxlora_choice"]


def test_registering_twice_changes_nothing(harness):
    from lm_eval.api.registry import get_model

    integration.register()
    assert get_model("jaxlora") is JaxLora
    integration.register()
    assert get_model("jaxlora") is JaxLora


def test_the_harness_keeps_its_own_models(harness):
    code = (
        "import jaxlora.integrations.lm_eval as here; "
        "from lm_eval.api.registry import get_model; "
        "assert get_model('jaxlora') is here.JaxLora; get_model('dummy')"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
