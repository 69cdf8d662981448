"""``jaxlora plan``: tables by formula, and one program compiled for this machine."""

import re

import pytest

from jaxlora import cli

SMALL = [
    "--model",
    "small",
    "--experts",
    "4",
    "--rank",
    "2",
    "--batch",
    "4",
    "--length",
    "8",
]


def said_by(capsys, *words):
    code = cli.main(["plan", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def numbers(text, name):
    return float(re.search(rf"^ *{name} +([\d.]+)", text, re.MULTILINE)[1])


def test_training_by_formula(capsys):
    words = ["train", "--model", "qwen2.5-7b", "--topology", "v5p-8", "--formula"]
    words += ["--mesh", "expert=2,tensor=2"]
    code, out, err = said_by(capsys, *words)
    assert (code, err) == (0, "")
    assert "training 8 experts of rank 16, 8 x 512 tokens each, on v5p:2x2x1" in out
    parts = ("base", "adapters", "optimizer", "gradients", "activations", "logits")
    total = sum(numbers(out, name) for name in parts)
    if "gathered" in out:
        total += numbers(out, "gathered")
    assert numbers(out, "peak") == pytest.approx(total, abs=0.01)
    assert numbers(out, "limit") == 95.74
    assert "TFLOP a step by formula" in out
    assert "It fits" in out


@pytest.mark.slow
def test_what_does_not_fit_says_what_would(capsys):
    words = "train --model qwen2.5-14b --topology v5e-8 --formula --mesh expert=8"
    _, out, _ = said_by(capsys, *words.split())
    assert "It does not fit. By formula these would:" in out
    assert "--topology v5e:" in out


def test_without_the_compiler_the_plan_is_by_formula(capsys, monkeypatch):
    from jaxlora.plan import topology

    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda _: None)
    code, out, err = said_by(
        capsys, "route", *SMALL, "--topology", "v5e-4", "--mesh", "expert=4"
    )
    assert code == 0
    assert "pip install 'jax[tpu]'" in err
    assert err.count("\n") == 1
    assert "routing 4 experts of rank 2 by arrow, 4 prompts of 8 tokens" in out


def test_a_merge_is_compiled_for_this_machine(capsys):
    code, out, _err = said_by(
        capsys, "merge", *SMALL, "--topology", "cpu:4", "--mesh", "expert=4"
    )
    assert code == 0
    assert "by the compiler" in out
    assert re.search(r"\d+ x all-to-all +expert", out)
    assert "all-gather" not in out


def test_a_study_is_its_training_and_its_questions(capsys):
    words = "study two-hop-text --model llama-3.1-8b --topology h100:2 --formula "
    words += "--experts 4 --mesh expert=2"
    code, out, _ = said_by(capsys, *words.split())
    assert code == 0
    assert "keys and values" in out
    assert numbers(out, "asking") > numbers(out, "logits asked")


def test_a_folder_needs_no_weights(capsys, tmp_path):
    import json

    qwen = {"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2}
    qwen |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 99}
    qwen |= {"intermediate_size": 96, "rms_norm_eps": 1e-6, "hidden_act": "silu"}
    qwen |= {"max_position_embeddings": 64, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(qwen))
    words = ["--topology", "v5e-4", "--formula", "--batch", "4", "--length", "16"]
    code, out, _ = said_by(capsys, "train", "--model", tmp_path, *words)
    assert code == 0
    assert "v5e:2x2 (4 chips, 15.75 GiB each)" in out


def test_what_jax_starts_is_settled_before_a_study_asks_it(monkeypatch):
    """Else it looks for accelerators, and says at length that there are none."""
    from jaxlora.commands import plan_study

    calls = []
    monkeypatch.setattr(plan_study, "prepare", calls.append)

    def work(*_):
        assert calls == ["v5e-8"]
        raise ValueError("asked")

    monkeypatch.setattr(plan_study.memory, "work", work)
    words = "plan study two-hop-text --model small --topology v5e-8 --formula"
    assert cli.main(words.split()) == 2


def test_a_study_that_cannot_ask_on_one_device_is_told_so(capsys, monkeypatch):
    from jaxlora.commands import plan_study

    def estimate(*_):
        return dict.fromkeys([*plan_study.memory.ASKING, "asking"], 16 * 2**30)

    monkeypatch.setattr(plan_study.memory, "estimate", estimate)
    monkeypatch.setattr(plan_study.plan_output, "run", lambda *_: 0)
    words = ["study", "two-hop-text", "--model", "qwen2.5-1.5b", "--formula"]
    _, out, _ = said_by(capsys, *words, "--topology", "v5e-8")
    assert "A device has 15.75 GiB: for asking, too, the study needs a --mesh" in out
    _, out, _ = said_by(capsys, *words, "--topology", "v6e-8")
    assert "for asking, too" not in out
