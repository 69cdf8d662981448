"""Training eight LoRA experts: ours in one program, PEFT's one after another.

    python experiments/benchmarks/train_text.py wide
    python experiments/benchmarks/train_text.py narrow --compile

Needs torch, transformers and peft beside jaxlora. Both sides train rank 8 on every
projection of the same exported weights with AdamW, on the same tokens, in float32, and
print their first loss. First calls (compilation) are printed apart; then the sides
take turns.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import peer
import tyro

from jaxlora.lora import LoraConfig
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed
from jaxlora.train.training import Plan, optimizer

ROWS = {"wide": (32, 64), "narrow": (20, 4)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Tokens per second of training E experts, and PEFT beside it."""

    shape: tyro.conf.Positional[Literal["wide", "narrow"]]
    """Hidden 256, 32 x 64 tokens a batch; or hidden 128, 20 x 4 tokens."""
    experts: int = 8
    """E."""
    steps: int = 0
    """Updates per measurement; 0 is 2 (wide) or 20 (narrow)."""
    repeats: int = 5
    """Measurements of each side; the median counts."""
    compile: bool = False
    """Also PEFT under torch.compile."""


def main(given: Arguments) -> None:
    """Prints one line a side."""
    steps = given.steps or {"wide": 2, "narrow": 20}[given.shape]
    model = peer.decoder(given.shape)
    base = peer.base_of(model)
    batch, length = ROWS[given.shape]
    vocab = model.config.vocab_size
    shape = (given.experts, steps, 1, batch, length)
    tokens = np.random.default_rng(0).integers(0, vocab, shape).astype(np.int32)
    all_tokens = tokens.size
    sides, sizes = {}, {}
    for together in (given.experts, 1):
        name = f"jaxlora, {together} at once"
        sides[name] = ours(model, base, tokens, together)
        sizes[name] = all_tokens
    with peer.theirs(model, base) as network:
        sides["PEFT"] = theirs(network, tokens[0, :, 0])
        sizes["PEFT"] = all_tokens // given.experts
        if given.compile:
            sides["PEFT compiled"] = compiled(network, tokens[0, :, 0])
            sizes["PEFT compiled"] = all_tokens // given.experts
        rates = peer.in_turn(sides, sizes, given.repeats)
    peer.table(rates, "PEFT compiled" if given.compile else "PEFT")


def ours(model, base, tokens: np.ndarray, together: int):
    """A function that runs the updates of all experts."""
    targets = np.roll(tokens, -1, axis=-1)
    weights = np.ones(tokens.shape, np.float32)
    weights[..., -1] = 0
    spots = np.broadcast_to(np.arange(tokens.shape[-1], dtype=np.int32), tokens.shape)
    rows = jax.tree.map(
        jnp.asarray, Rows(tokens, targets, weights, np.ones_like(tokens), spots)
    )
    opt = optimizer(clip=0, weight_decay=0.01)
    keys = jax.random.split(jax.random.key(1), tokens.shape[0])
    start = jax.jit(packed.start, static_argnums=(1, 2))
    state = [start(base, LoraConfig(rank=8), opt, keys)]
    program = packed.Program(model, opt, together)
    plan = Plan(*(jnp.full(len(keys), x) for x in (1e-3, 0.0, 1e9, 0.0)))

    def run() -> None:
        first = int(state[0].step) == 0
        state[0], report = packed.updates(program, base, state[0], plan, rows)
        jax.block_until_ready(state[0])
        if first:
            print(f"  first loss {float(report.loss[0, 0]):.5f}")

    return run


def theirs(network, tokens: np.ndarray, forward=None):
    """A function that runs the updates of one expert."""
    import torch
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    if forward is None:
        network = get_peft_model(
            network, PeftConfig(r=8, lora_alpha=16, target_modules="all-linear")
        )
        network.train()
    forward = network if forward is None else forward
    trained = [p for p in network.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(trained, lr=1e-3)
    batches = [torch.from_numpy(x.astype(np.int64)) for x in tokens]
    told = []

    def run() -> None:
        for batch in batches:
            loss = forward(input_ids=batch, labels=batch).loss
            loss.backward()
            opt.step()
            opt.zero_grad(set_to_none=True)
            if not told:
                told.append(float(loss.detach()))
                print(f"  first loss {told[0]:.5f}")

    run.network = network
    return run


def compiled(network, tokens: np.ndarray):
    """The same through torch.compile; the network is a PEFT model already."""
    import torch

    return theirs(network, tokens, torch.compile(network))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
