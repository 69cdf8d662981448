"""Our programs, compiled for GPUs by their own compiler, with no GPU.

As compiled_test.py: nothing runs. cuDNN's attention is compiled where cuDNN is
installed, and is XLA's where it is not.
"""

import dataclasses
import importlib.util
import math

import pytest

from jaxlora import parallel
from jaxlora.plan import describe, gpus, hlo, planning, programs
from jaxlora.plan.memory import estimate
from plan_shapes import CONFIG, EXPERTS, WORK

pytestmark = pytest.mark.skipif(
    not gpus.installed(), reason=f"no compiler for GPUs ({gpus.INSTALL})"
)


@pytest.fixture(scope="module")
def cards():
    where = describe("h100:4")
    assert where.devices, where.note
    return where


def test_a_merge_is_compiled_with_no_gpu(cards):
    four = dataclasses.replace(CONFIG, num_layers=4)
    work = dataclasses.replace(WORK, config=four, task="merge", method="mean")
    plan = planning.plan(work, cards, {"expert": 4})
    assert (plan.by, plan.fits) == ("compiled", True)
    assert {(x.kind, x.axes) for x in plan.traffic} == {("all-to-all", ("expert",))}


@pytest.fixture(scope="module")
def training(cards):
    return planning.plan(WORK, cards, EXPERTS)


@pytest.mark.slow
def test_training_is_as_designed(training):
    """Experts never talk; weights are gathered along fsdp, layer by layer."""
    assert training.by == "compiled"
    assert {x.axes for x in training.traffic} == {("fsdp",)}
    sent = {x.kind: x.received for x in training.traffic}
    layer = 4 * 256 * 256 + 3 * 256 * 512
    assert sent["all-gather"] > CONFIG.num_layers * layer  # bytes, of bfloat16, half


@pytest.mark.slow
def test_the_peak_is_within_the_plan(training):
    arrays = sum(training.parts[name] for name in ("base", "adapters", "optimizer"))
    assert arrays < training.peak < 1.2 * training.formula


@pytest.mark.slow
def test_attention_is_that_of_cudnn_where_it_is_installed(cards):
    """Rows of all experts at once: JAX's own rule for mapped calls has none."""
    if importlib.util.find_spec("nvidia") is None:
        assert "cuDNN is not installed" in planning.plan(WORK, cards, EXPERTS).note
        return
    mesh = parallel.mesh(**EXPERTS, devices=cards.devices)
    compiled = programs.lower(WORK.on("gpu"), mesh).compile()
    assert "__cudnn$fmhaScaleBiasSoftmax" in compiled.as_text()
    every = hlo.collectives(compiled.as_text(), mesh.shape)
    rows = WORK.batch * WORK.length * CONFIG.hidden_size
    assert all(
        math.prod(shape) < rows
        for x in every
        for _, shape in x.shapes
        if x.kind == "all-reduce"
    )
    assert planning.peak_bytes(compiled) < 1.2 * sum(
        estimate(WORK.on("gpu"), EXPERTS).values()
    )


@pytest.mark.slow
def test_too_much_is_not_refused_by_this_compiler_and_still_does_not_fit(cards):
    big = dataclasses.replace(CONFIG, hidden_size=4096, vocab_size=2**24)
    work = dataclasses.replace(WORK, config=big, task="route", method="arrow")
    plan = planning.plan(work, cards, {"data": 4})
    assert (plan.by, plan.fits) == ("compiled", False)
    assert plan.peak > 80e9
