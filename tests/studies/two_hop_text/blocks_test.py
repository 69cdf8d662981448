"""What each method combines, and the size of what it makes, without a model."""

import jax.numpy as jnp

from jaxlora import lora
from jaxlora.evaluate.schema import Library, Method
from jaxlora.studies.two_hop_text import blocks, memory
from jaxlora.studies.two_hop_text.config import TextConfig
from jaxlora.tasks.two_hop.experts import Expert


def test_what_a_method_refuses_is_told_and_not_planned():
    every = set(Expert)
    plan = blocks.plan(("mean", "slerp"), every)
    refused = blocks.refused(("mean", "slerp"), every)
    assert set(refused) == {(Library.TRIPLE, Method.SLERP)}
    assert "two experts" in refused[Library.TRIPLE, Method.SLERP]
    assert (Library.PAIR, Method.SLERP) in plan
    assert not set(plan) & set(refused)
    pair = {Expert.HOP1, Expert.HOP2}
    assert blocks.refused(("slerp",), pair) == {}


def test_memory_counts_the_dense_result_of_a_merge_on_deltas():
    def made(d, f):
        return lora.LoraWeight(jnp.zeros((2, d, 2)), jnp.zeros((2, 2, f)), jnp.zeros(2))

    one = {"up/kernel": made(8, 16), "down/kernel": made(16, 8)}

    def merged(*methods):
        return memory._merged(TextConfig(methods=methods), one)

    assert merged("mean") == merged("mean", "slerp") == 3 * memory.size(one)
    # Two layers of both kernels, in full, the identity beside each, and a scale.
    assert merged("mean", "delta-ties") == 2 * 2 * 4 * (8 * 16 + 8 * 8 + 1)
    assert merged("mean", "delta-ties") > merged("mean")
