"""A model of random weights that can be asked: a tiny checkpoint and its tokenizer."""

import json

import jax
import pytest

from jaxlora.lora import LoraConfig
from jaxlora.studies.word_problems.text.config import (
    AskConfig,
    ProblemsConfig,
    TrainConfig,
)
from tests import checkpoints


@pytest.fixture(scope="module", autouse=True)
def _optax_promotes():
    """Optax itself mixes floats and integer counts; tests/models is strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A checkpoint folder of the Qwen2 fixture, with room for a problem."""
    out = checkpoints.qwen2(tmp_path_factory.mktemp("model"))
    path = out / "config.json"
    fields = json.loads(path.read_text()) | {"max_position_embeddings": 2048}
    path.write_text(json.dumps(fields))
    return out


@pytest.fixture(scope="session")
def tiny(folder):
    """Few problems of our own in two formats; two sites of seven, no criterion."""
    return ProblemsConfig(
        model=str(folder),
        dtype="float32",
        formats=("plain", "python"),
        methods=("mean", "arrow"),
        rows=6,
        resamples=50,
        min_own=0,
        lora=LoraConfig(rank=2, targets=(r"layers/attn/[qv]_proj/kernel",)),
        train=TrainConfig(steps=2, batch=2, length=512, warmup=1),
        ask=AskConfig(batch=16, new_tokens=4, problems=2, shots=2),
    )


def line(question, steps, answer, **more):
    """A record in the form of GSM8K."""
    text = "\n".join([*steps, f"#### {answer}"])
    return json.dumps({"question": question, "answer": text, **more})


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Three files of our own words: lessons, tests by level, parallel test sets."""
    root = tmp_path_factory.mktemp("files")

    def steps(start, count):
        values = [start + i for i in range(count + 1)]
        return [f"Then {x}+1 = <<{x}+1={x + 1}>>{x + 1}." for x in values[:-1]]

    def problems(first, levels):
        return [
            line(f"{n} and {count} times one more?", steps(n, count), n + count)
            for count in levels
            for n in range(first, first + 4)
        ]

    lessons = problems(10, (1, 2, 3, 4, 5, 9))
    # No annotation gives 7: there is no program.
    lessons.append(line("Who knows 7?", ["It is 7."], 7))
    sets = [
        line(
            f"{n} in set {instance}?",
            steps(n, 2),
            n + 2,
            id=n,
            instance=instance,
            original_id=n,
            canary="Keep this out of training.",
        )
        for n in range(2)
        for instance in range(3)
    ]
    texts = {"train": lessons, "test": problems(50, (2, 4, 6)), "sets": sets}
    for name, lines in texts.items():
        (root / f"{name}.jsonl").write_text("\n".join(lines))
    return root
