"""Mutated files of every kind: a right value or one sentence, soon, in little memory.

Each case is made from its kind and number alone, so that a failure is run again by
``echo KIND NUMBER | python tests/stranger_reader.py``.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from jaxlora.strangers import text

TESTS = Path(__file__).parents[1]
FEW = {
    "adapter": 12,
    "spelling": 8,
    "base": 6,
    "tokenizer": 10,
    "template": 6,
    "data": 60,
}
MANY = {"adapter": 500, "spelling": 100, "base": 300}
MANY |= {"tokenizer": 350, "template": 150, "data": 400}
SECONDS = 5
KIB = 2**20


def results(counts):
    """One process reads all; if it dies, the case that it read is broken."""
    cases = [f"{kind} {i}\n" for kind, n in counts.items() for i in range(n)]
    done = subprocess.run(
        [sys.executable, TESTS / "stranger_reader.py"],
        input="".join(cases),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(cases), (cases[len(lines)], done.stderr[-3000:])
    return lines


def check(lines):
    for line in lines:
        assert line["ended"] in ("read", "refused"), line["text"]
        assert "\n" not in line["text"], line
        assert text.visible(line["text"]) == line["text"], line
        assert len(line["text"]) < 1500, line
        assert line["seconds"] <= SECONDS, line
        assert line["kib"] <= KIB, line


def test_a_few_of_each_kind():
    check(results(FEW))


@pytest.mark.slow
def test_1800_of_all_kinds():
    lines = results(MANY)
    check(lines)
    counts = Counter((line["kind"], line["ended"]) for line in lines)
    print(table(counts, lines))
    assert counts["spelling", "read"] == MANY["spelling"]
    for kind in MANY.keys() - {"spelling"}:
        assert counts[kind, "read"]
        assert counts[kind, "refused"]


def table(counts, lines):
    """The rows of experiments/reliability.md."""
    out = [
        "| kind | files | read | refused | slowest | largest process |",
        "|---|--:|" + "--:|" * 4,
    ]
    for kind in MANY:
        of_kind = [line for line in lines if line["kind"] == kind]
        out.append(
            f"| {kind} | {len(of_kind)} | {counts[kind, 'read']} | "
            f"{counts[kind, 'refused']} | {max(x['seconds'] for x in of_kind):.1f} s | "
            f"{max(x['kib'] for x in of_kind) / 1024:.0f} MiB |"
        )
    return "\n".join(out)
