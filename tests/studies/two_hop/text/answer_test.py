"""What each method combines, and the size of what it makes, without a model."""

import jax.numpy as jnp

from jaxlora import lora
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.models import DecoderConfig
from jaxlora.studies.two_hop.rows import Block
from jaxlora.studies.two_hop.text import memory, protocol
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.tasks.two_hop.experts import Expert


def test_what_a_method_refuses_is_said_and_not_planned():
    config = TextConfig(methods=("mean", "slerp", "placed-sum"))
    refused, plan = protocol.plan(config, set(Expert), 0, 2)
    triple = Block(None, 0, Arm.TRIPLE, Method.SLERP)
    placed = Block(None, 0, Arm.TRIPLE, Method.PLACED_SUM)
    assert set(refused) == {triple, placed}
    assert "two experts" in refused[triple]
    assert refused[placed].startswith("Got 3 experts for 2 layers")
    assert Block(None, 0, Arm.PAIR, Method.SLERP) in plan
    assert not set(plan) & set(refused)
    pair = {Expert.HOP1, Expert.HOP2}
    assert protocol.plan(TextConfig(methods=("slerp",)), pair, 0, 2)[0] == {}


def test_only_experts_that_are_asked_are_trained():
    every = protocol.wanted(TextConfig())
    assert set(Expert) - set(every) == {Expert.HOP1_REVERSED, Expert.HOP2_REVERSED}
    few = protocol.wanted(TextConfig(extra=False, methods=("mean",)))
    assert [str(x) for x in few] == [
        "hop1",
        "hop2",
        "target",
        "counterfactual hop1",
        "counterfactual hop2",
        "joint",
    ]


def test_memory_counts_the_dense_result_of_a_merge_on_deltas():
    def made(d, f):
        return lora.LoraWeight(jnp.zeros((2, d, 2)), jnp.zeros((2, 2, f)), jnp.zeros(2))

    one = {"up/kernel": made(8, 16), "down/kernel": made(16, 8)}

    def merged(*methods):
        return memory._merged(
            DecoderConfig(num_layers=2), TextConfig(methods=methods), one
        )

    assert (
        merged("mean") == merged("mean", "slerp", "placed-sum") == 3 * memory.size(one)
    )
    # Two layers of both kernels, in full, the identity beside each, and a scale.
    assert merged("mean", "delta-ties") == 2 * 2 * 4 * (8 * 16 + 8 * 8 + 1)
    assert merged("mean", "delta-ties") > merged("mean")
