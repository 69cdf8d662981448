"""Traffic by formula against that of a compiled program."""

import dataclasses

import jax
import pytest

from jaxlora import parallel
from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.plan import Work, costs, hlo, programs

TINY = DecoderConfig(
    vocab_size=48,
    hidden_size=64,
    num_layers=3,
    num_heads=2,
    num_kv_heads=2,
    head_dim=32,
    mlp_size=64,
)


@pytest.mark.parametrize(
    ("layers", "apart"),
    # Of layers that lie along fsdp already, the compiler may move fewer.
    [(3, 0.02), pytest.param(2, 0.35, marks=pytest.mark.slow)],
)
def test_traffic_of_a_merge_is_that_of_the_compiled_program(layers, apart):
    """Few layers on four devices: they are filled up, and cut otherwise in the end."""
    tiny = dataclasses.replace(TINY, num_layers=layers)
    lora = LoraConfig(rank=2)
    work = Work(task="merge", method="mean", config=tiny, experts=4, lora=lora)
    sizes = {"expert": 2, "fsdp": 2}
    mesh = parallel.mesh(**sizes, devices=jax.devices()[:4])
    program = programs.lower(work.on("cpu"), mesh).compile().as_text()
    real = costs.summed(hlo.collectives(program, mesh.shape))
    got: dict = {}
    for x in real:
        # What moves to one neighbour alone may be written as a permutation.
        if x.kind in ("all-to-all", "collective-permute"):
            got[x.axes] = got.get(x.axes, 0) + x.received
    want = {x.axes: x.received for x in costs.traffic(work, sizes)}
    assert got.keys() == want.keys() == {("expert",), ("fsdp",), ("expert", "fsdp")}
    assert got == pytest.approx(want, rel=apart)
    gathered = sum(x.received for x in real if x.kind == "all-gather")
    assert gathered < 0.05 * sum(want.values())
