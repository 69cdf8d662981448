"""The routing benchmark runs, at sizes where it says nothing about speed."""

import dataclasses
import importlib
import pathlib
import re
import sys

import numpy as np
import pytest

from decoders import TEXT

SCRIPTS = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks"
SMALL = dataclasses.replace(
    TEXT, num_layers=1, activation="silu", attention_bias=True, tie_head=False
)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.delitem(sys.modules, "route", raising=False)
    yield importlib.import_module("route")
    for name in ("route", "peer"):
        sys.modules.pop(name, None)


def given(bench, **fields):
    return bench.Arguments(batch=2, length=3, rank=2, repeats=1, peft=False, **fields)


def test_a_line_for_every_case_of_our_side(bench, capsys):
    cases = (bench.ONE, bench.Case("Arrow, 2 experts", 2, 1))
    bench.side_by_side(given(bench), SMALL, cases)
    printed = capsys.readouterr().out
    for case in cases:
        assert re.search(rf"^{case.name} +[\d,]+ +\d+\.\d\d$", printed, re.MULTILINE)
        assert f"jaxlora, {case.name}: compiled in" in printed


@pytest.mark.slow
def test_the_device_alone_is_compared_with_the_base(bench, capsys):
    cases = (bench.BASE, bench.Case("Arrow, 2 experts", 2))
    bench.on_device(given(bench, device_only=True), SMALL, cases)
    printed = capsys.readouterr().out
    assert re.search(r"^base .* \+0\.0%$", printed, re.MULTILINE)
    assert re.search(r"^Arrow, 2 experts .* [+-][\d,.]+%$", printed, re.MULTILINE)


def test_nothing_is_timed_where_logits_differ(bench, capsys):
    same = np.zeros((4, 3, 5), np.float32)
    bench.compare("x", same, same + 1e-5)
    assert "x: logits differ by 1.0e-05" in capsys.readouterr().out
    odd = same.copy()
    odd[2] = 1.0  # one sequence, in which two experts score the same
    bench.compare("x", same, odd)
    for wrong in (same + 0.1, np.full_like(same, np.nan)):
        with pytest.raises(SystemExit, match="nothing was timed"):
            bench.compare("x", same, wrong)
