"""Meshes by formula, costs, and what would fit."""

import dataclasses
import itertools
import math

import pytest

from jaxlora.lora import LoraConfig
from jaxlora.plan import Work, costs, describe, model_of, planning, search

QWEN = dataclasses.replace(
    model_of("qwen2.5-1.5b"), dtype="bfloat16", param_dtype="bfloat16", remat=True
)
WORK = Work(config=QWEN, experts=8, batch=8, length=512).on("tpu")


def plain(name):
    return describe(name, compiled=False)


def test_every_mesh_divides_the_work_and_the_devices():
    every = list(search.meshes(WORK, 16))
    assert {"expert": 8, "data": 1, "fsdp": 2, "tensor": 1} in every
    for sizes in every:
        assert sizes["tensor"] in (1, 2)  # two key heads
        assert 8 % sizes["expert"] == 0
        assert 8 % (sizes["data"] * sizes["fsdp"]) == 0


def test_work_that_divides_too_few_devices_says_how_much_divides_them():
    few = dataclasses.replace(WORK, experts=2, batch=2)
    with pytest.raises(ValueError, match=r"divide among 8 .* --experts 4, --batch 4"):
        search.rank(few, plain("v5e:4x4"))
    for more in ({"experts": 4}, {"batch": 4}):
        assert next(search.meshes(dataclasses.replace(few, **more), 16), None)


@pytest.mark.parametrize("count", [1, 12, 16, 60])
def test_every_product_of_devices_is_tried(count):
    seen = list(search._products(count, 3))
    every = itertools.product(range(1, count + 1), repeat=3)
    assert seen == [sizes for sizes in every if math.prod(sizes) == count]


def test_layers_of_a_merge_lie_along_what_its_experts_leave():
    for experts, expert, fsdp in ((8, 8, 1), (6, 2, 4), (7, 1, 8)):
        work = dataclasses.replace(WORK, task="merge", experts=experts)
        (mesh,) = search.meshes(work, 8)
        assert mesh == {"expert": expert, "data": 1, "fsdp": fsdp, "tensor": 1}
        assert search.rank(work, plain("v5e:2x4"))


def test_the_largest_batch_is_the_largest(monkeypatch):
    monkeypatch.setattr(
        search.memory, "estimate", lambda work, _: {"all": work.batch * 2**30}
    )
    where = plain("v5e:2x4")  # 15.75 GiB, of which 0.9 are 14.2
    for batch, most in ((16, 14), (13, 12), (2, 2), (64, 14), (1, 0)):
        work = dataclasses.replace(WORK, batch=batch)
        assert search.largest_batch(work, where, {"data": 2}) == most
    assert search.largest_batch(WORK, where, {"data": 2}, scale=15.0) == 0


def test_what_fits_is_ranked_first():
    ranked = search.rank(WORK, plain("v5e:4x4"))
    fits = [x.fits for x in ranked]
    assert fits == sorted(fits, reverse=True)
    seconds = [x.seconds for x in ranked if x.fits]
    assert seconds == pytest.approx(sorted(seconds), abs=1e-4)


def test_a_mesh_that_divides_nothing_is_refused():
    for sizes, words in (
        ({"expert": 16}, "expert=16, which does not divide 8 experts; 1, 2, 4 or 8 do"),
        ({"tensor": 4, "fsdp": 4}, "tensor=4, which does not divide 2 key heads"),
        ({"data": 16}, r"data \* fsdp=16, which does not divide 8 rows of a batch"),
        ({"expert": 3}, "expected a product of 16"),
    ):
        with pytest.raises(ValueError, match=words):
            planning.plan(WORK, plain("v5e:4x4"), sizes)
    few = dataclasses.replace(WORK, together=2)
    with pytest.raises(ValueError, match="2 experts train together, which expert=8"):
        planning.plan(few, plain("v5e:4x4"), {"expert": 8, "fsdp": 2})


def test_operations_are_two_a_parameter_and_token():
    """By hand, of a model whose every size is another."""
    config = dataclasses.replace(
        model_of("small"), num_layers=3, mlp_size=40, vocab_size=7, max_length=64
    )
    work = Work(config=config, experts=2, lora=LoraConfig(rank=1), batch=2, length=5)
    kernels = 3 * (4 * 128 * 128 + 2 * 128 * 40)
    adapter = 3 * (4 * (128 + 128) + 2 * (128 + 40))
    pairs = 3 * 2 * 5 * 128
    want = 2 * (2 * 2 * 5) * (2 * kernels + 3 * pairs + 3 * adapter + 3 * 128 * 7)
    assert costs.operations(work) == want
    again = dataclasses.replace(work, config=dataclasses.replace(config, remat=True))
    more = 2 * (2 * 2 * 5) * (kernels + pairs + adapter)
    assert costs.operations(again) == want + more


def test_traffic_is_along_the_axes_that_cut_something():
    sizes = {"expert": 4, "data": 1, "fsdp": 2, "tensor": 2}
    along = {x.axes for x in costs.traffic(WORK, sizes)}
    assert along == {("fsdp",), ("tensor",)}
    assert costs.traffic(WORK, {"expert": 8}) == []
    route = dataclasses.replace(WORK, task="route")
    assert [x.axes for x in costs.traffic(route, {"expert": 8})] == [("expert",)]


@pytest.mark.slow
def test_the_largest_batch_and_the_smallest_slice_fit():
    seven = dataclasses.replace(
        model_of("qwen2.5-7b"), dtype="bfloat16", param_dtype="bfloat16", remat=True
    )
    work = Work(config=seven, experts=8, batch=64, length=2048).on("tpu")
    where, sizes = plain("v5e:2x4"), {"fsdp": 8}
    assert not search.ranked(work, where, sizes).fits
    name, mesh = search.smallest(work, where)
    other = search.ranked(work, plain(name), mesh)
    assert other.fits
    assert plain(name).count > 8
    rows = search.largest_batch(work, plain("v5p:2x2x1"), {"fsdp": 4})
    assert rows % 4 == 0
    less = dataclasses.replace(work, batch=max(4, rows))
    assert (rows == 0) or search.ranked(less, plain("v5p:2x2x1"), {"fsdp": 4}).fits


def test_a_formula_says_so():
    plan = planning.plan(WORK, plain("v5e:4x4"), {"expert": 8, "fsdp": 2})
    assert (plan.by, plan.took) == ("formula", 0.0)
    assert plan.peak == plan.formula == sum(plan.parts.values())
    assert plan.fits == (plan.peak <= 0.9 * 15.75 * 2**30)
    assert plan.seconds > 0


def test_h100_and_cpu_have_no_and_some_numbers():
    plan = planning.plan(WORK, plain("h100:8"), {"expert": 8})
    assert plan.limit == 80 * 10**9
    here = planning.plan(WORK, plain("cpu:8"), {"expert": 8})
    assert (here.limit, here.fits) == (None, None)
