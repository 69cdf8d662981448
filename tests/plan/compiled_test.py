"""Our programs, compiled for TPUs by their own compiler, with no TPU.

Shapes are small, and still cut along every axis that matters. Nothing runs: what is
tested is which chips talk to which about what, and how much memory a chip needs.
"""

import dataclasses
import math

import pytest

from jaxlora import parallel
from jaxlora.plan import describe, hlo, planning, programs, topology
from jaxlora.plan.memory import estimate
from plan_shapes import CONFIG, EXPERTS, WORK

pytest.importorskip("libtpu", reason=f"no compiler for TPUs ({topology.INSTALL})")


@pytest.fixture(scope="module")
def chips():
    return describe("v5e:2x2")


def compile_for(work, where, sizes):
    """The compiled program, and its collectives."""
    mesh = parallel.mesh(**sizes, devices=where.devices)
    compiled = programs.lower(work.on("tpu"), mesh).compile()
    return compiled, hlo.collectives(compiled.as_text(), mesh.shape)


def largest(each):
    return max(math.prod(shape) for _, shape in each.shapes)


def test_a_merge_moves_experts_and_gathers_none(chips):
    four = dataclasses.replace(CONFIG, num_layers=4)  # a layer for each chip
    work = dataclasses.replace(WORK, config=four, task="merge", method="mean")
    _, every = compile_for(work, chips, {"expert": 4})
    assert {x.axes for x in every} == {("expert",)}
    assert {x.kind for x in every} == {"all-to-all"}


@pytest.fixture(scope="module")
def training(chips):
    return compile_for(WORK, chips, EXPERTS)


@pytest.mark.slow
def test_training_experts_never_talk_to_each_other(training):
    _, every = training
    assert every
    assert {x.axes for x in every} == {("fsdp",)}


@pytest.mark.slow
def test_weights_are_gathered_layer_by_layer_along_fsdp(training):
    _, every = training
    gathers = [x for x in every if x.kind == "all-gather"]
    # Seven kernels of one layer, forward and backward; never a stack of all layers.
    kernels = [x for x in gathers if largest(x) in (256 * 256, 256 * 512)]
    layers = [x for x in kernels if x.times == CONFIG.num_layers]
    assert len(layers) >= 2 * 7 - 1
    assert all(largest(x) <= 256 * 512 for x in gathers)


@pytest.mark.slow
def test_no_activation_is_summed_along_fsdp(training):
    """Only gradients of factors are, and sums of a loss."""
    _, every = training
    activation = WORK.batch // 2 * WORK.length * CONFIG.hidden_size
    factors = {8 * 256, 8 * 512}
    for each in every:
        if each.kind in ("all-reduce", "reduce-scatter"):
            for _, shape in each.shapes:
                size = math.prod(shape)
                assert size <= 8 or size // (shape[0] or 1) in factors, each
                assert size < activation


@pytest.mark.slow
def test_the_peak_is_within_the_plan(training):
    compiled, _ = training
    work = WORK.on("tpu")
    peak = planning.peak_bytes(compiled)
    parts = estimate(work, EXPERTS)
    arrays = sum(parts[name] for name in ("base", "adapters", "optimizer"))
    assert arrays < peak < 1.2 * sum(parts.values())


@pytest.mark.slow
def test_a_route_sums_updates_and_gathers_no_expert(chips):
    work = dataclasses.replace(WORK, task="route", method="arrow")
    _, every = compile_for(work, chips, {"expert": 4})
    assert {x.axes for x in every} == {("expert",)}
    library = 8 * 256 * 8  # one site of all experts
    gathered = [x for x in every if x.kind == "all-gather"]
    assert all(math.prod(shape) < library for x in gathered for _, shape in x.shapes)
    assert any(x.kind == "all-reduce" for x in every)


@pytest.mark.slow
def test_tensor_is_as_in_megatron(chips):
    """Two sums of the residual stream a layer forward, two backward, none else."""
    compiled, every = compile_for(WORK, chips, {"tensor": 2, "expert": 2})
    assert all(x.axes == ("tensor",) for x in every)
    stream = 4 * WORK.batch * WORK.length * CONFIG.hidden_size
    sums = [x for x in every if x.kind == "all-reduce" and largest(x) == stream]
    assert [x.times for x in sums].count(CONFIG.num_layers) == 4
    assert planning.peak_bytes(compiled) > 0


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_its_size(chips):
    big = dataclasses.replace(CONFIG, hidden_size=4096, vocab_size=2**20)
    work = dataclasses.replace(WORK, config=big, length=128)
    plan = planning.plan(work, chips, {"data": 4})
    assert plan.by == "refused"
    assert plan.fits is False
    assert plan.peak > 15.75 * 2**30
