"""Greedy generation: ours, and transformers' ``generate`` on the same weights.

    python experiments/benchmarks/generate.py

Needs torch and transformers beside jaxlora. Batch 32, prompt 16, 32 new tokens, hidden
256, four layers, float32. The two sides must give the same tokens. Then eight LoRA
experts at once, against the same eight one after another.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import peer
import tyro

from jaxlora import lora
from jaxlora.models import Decoding, generate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """New tokens per second."""

    batch: int = 32
    """B."""
    prompt: int = 16
    """Tokens of a prompt."""
    new: int = 32
    """Tokens to come."""
    experts: int = 8
    """E."""
    repeats: int = 7
    """Measurements of each side; the median counts."""


def main(given: Arguments) -> None:
    """Prints one line a side."""
    model = peer.decoder("wide")
    base = peer.base_of(model)
    shape = (given.batch, given.prompt)
    tokens = np.random.default_rng(0).integers(3, 2048, shape).astype(np.int32)
    prompts = jnp.asarray(tokens)
    library = lora.stack([shaken(base, i) for i in range(given.experts)])

    def ours(**reuse):
        out = generate(model, base, prompts, Decoding(given.new), **reuse)
        return np.asarray(jax.block_until_ready(out.tokens))

    def one_by_one():
        return [ours(adapter=adapter) for adapter in lora.unstack(library)]

    count = given.batch * given.new
    with peer.theirs(model, base) as network:
        sides = {
            "jaxlora": ours,
            "transformers": lambda: theirs(network, tokens, given.new),
        }
        same = (sides["jaxlora"]() == sides["transformers"]()).mean()
        print(f"same tokens on both sides: {same:.4f}")
        sizes = dict.fromkeys(sides, count)
        peer.table(peer.in_turn(sides, sizes, given.repeats), "transformers")
    name = f"{given.experts} experts"
    sides = {f"{name} at once": lambda: ours(library=library), "one by one": one_by_one}
    sizes = dict.fromkeys(sides, count * given.experts)
    peer.table(peer.in_turn(sides, sizes, given.repeats), "one by one")


def shaken(base, seed: int):
    """An adapter of which no part is zero."""
    adapter = lora.init(jax.random.key(seed), base, lora.LoraConfig(rank=8))
    return jax.tree.map(lambda x: x + 0.01, adapter)


def theirs(network, tokens: np.ndarray, new: int) -> np.ndarray:
    """What transformers generates greedily."""
    import torch

    ids = torch.from_numpy(tokens.astype(np.int64))
    with torch.inference_mode():
        out = network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
        )
    return out[:, ids.shape[1] :].numpy()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
