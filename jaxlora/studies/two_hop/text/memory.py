"""What a study needs in memory, from shapes alone: nothing is loaded.

Training is planned as any training is (:mod:`jaxlora.plan`); what is added here is what
no compiler knows: how many prompts, candidates and merges are asked at once.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax

from jaxlora import merge, route
from jaxlora.evaluate.schema import USUAL, Arm, Method
from jaxlora.models import DecoderConfig, cache, layer_places
from jaxlora.plan import memory
from jaxlora.plan.work import Work, shapes, size
from jaxlora.studies.two_hop import arms
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.train.step import CHUNK_FLOATS
from jaxlora.train.training import at_once, faster
from jaxlora.tree import Tree

TRAINING = (*memory.ARRAYS, *memory.BESIDE)
ASKING = ("base", "adapters asked", "keys and values", "logits asked")


def work(decoder: DecoderConfig, config: TextConfig, experts: int) -> Work:
    """The training of a group of experts, as a plan takes it.

    Args:
      decoder: shapes of the base; its types are those of ``config``.
      config: of the study.
      experts: that a group trains.
    """
    types = {"dtype": config.dtype, "param_dtype": config.dtype}
    decoder = dataclasses.replace(decoder, attention="plain", **types)
    train = config.train
    platform = jax.devices()[0].platform  # of a study of this machine, mesh or not
    return Work(
        config=faster(decoder, "on" if decoder.remat else "auto", platform),
        experts=experts,
        lora=config.lora,
        batch=train.batch,
        length=train.length,
        accumulate=train.accumulate,
        together=train.together or at_once(decoder, experts, platform),
    )


def estimate(
    decoder: DecoderConfig, config: TextConfig, experts: int, longest: int = 64
) -> dict[str, int]:
    """Returns bytes by part on one device, and totals ``training`` and ``asking``.

    Args:
      decoder: shapes of the base; its types are those of ``config``.
      config: of the study.
      experts: that a group trains.
      longest: tokens of the longest prompt.

    >>> from jaxlora.lora import LoraConfig
    >>> tiny = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, num_heads=2,
    ...     num_kv_heads=2, head_dim=4, mlp_size=16, positions="rope")
    >>> parts = estimate(tiny, TextConfig(lora=LoraConfig(rank=2)), 10)
    >>> parts["training"] == sum(parts[name] for name in TRAINING)
    True
    """
    training = work(decoder, config, experts)
    decoder, ask = training.config, config.ask
    single = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), shapes(training).library
    )
    # Candidates are read side by side after a prompt; two tokens each, shared or not.
    nodes = 2 * ask.candidates_at_once
    slots = longest + max(ask.new_tokens, ask.written_tokens, nodes)
    prompts = jax.eval_shape(lambda: cache.empty(decoder, ask.batch, slots))
    parts = memory.estimate(training, {}) | {
        # A library of three, and the largest merge of it.
        "adapters asked": 3 * size(single) + _merged(decoder, config, single),
        # Before a call, and after it.
        "keys and values": 2 * size(prompts),
        # Of a part of the candidates, and of those of one prompt at least.
        "logits asked": 4 * max(CHUNK_FLOATS, nodes * decoder.vocab_size),
    }
    totals = {"training": TRAINING, "asking": ASKING}
    return parts | {k: sum(parts[x] for x in names) for k, names in totals.items()}


def table(parts: Mapping[str, int]) -> str:
    """Returns the estimate as lines of a Markdown table, in GiB."""
    lines = [f"| {name} | {n / 2**30:.2f} |" for name, n in parts.items()]
    return "\n".join(["| part | GiB |", "|:--|--:|", *lines])


def _merged(decoder: DecoderConfig, config: TextConfig, expert: Tree) -> int:
    """The usual merges have three times an expert's rank, others may be dense."""
    three = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), expert)
    sizes = [3 * size(expert)]
    places = layer_places(decoder, expert)
    key = jax.random.key(0)
    for name in set(config.methods) - set(map(str, USUAL)) - set(route.names()):
        if not arms.obstacle(Arm.TRIPLE, Method(name), decoder.num_layers):
            how = functools.partial(merge.preset(name).at(places), key=key)
            sizes.append(size(jax.eval_shape(how, three)))
    return max(sizes)
