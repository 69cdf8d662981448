"""Trainings of a tiny llama by the command, and their data, that tests share."""

import contextlib
import io
import json

import numpy as np

from jaxlora import cli
from lines import overridden

LENGTH, BATCH = 96, 4
FLAGS = f"""
--length {LENGTH} --batch {BATCH} --rank 4 --learning-rate 1e-2 --warmup 0
""".split()
RECORDS = ["log.txt", "losses.csv", "training.json"]


def problems(sign, word, apply, count=32):
    """Records in the form of GSM8K, with reasoning in double angles."""
    rng = np.random.default_rng(ord(sign))
    for a, b in rng.integers(2, 10, (count, 2)).tolist():
        c = apply(a, b)
        question = f"Ann: {a} {word} {sign} {b}?"
        yield {
            "question": question,
            "answer": f"<<{a}{sign}{b}={c}>>{c}\n#### {c}",
        }


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def call(model, data, out, *words):
    """Runs the command; returns its exit code, and what it said on stderr."""
    said = io.StringIO()
    argv = ["train", "--model", str(model), "--data", *data, "--out", str(out)]
    with contextlib.redirect_stderr(said):
        code = cli.main(overridden([*argv, *FLAGS, *words]))
    return code, said.getvalue()
