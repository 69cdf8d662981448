"""Operations and traffic by formula: what the compiler does not count, or not here.

XLA counts the body of a loop once, so operations come from the shapes: two for each
parameter and token, forward; as many backward for a frozen base, whose own gradient
nobody needs, and twice as many for what learns. Traffic is that of the design: weights
gathered along ``fsdp``, sums of activations along ``tensor``, gradients along ``data``
and ``fsdp``, and nothing along ``expert``.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax

from jaxlora import lora, merge
from jaxlora.models.config import DecoderConfig
from jaxlora.models.delta_rule import CHUNK
from jaxlora.parallel import merging
from jaxlora.plan.hlo import Collective
from jaxlora.plan.memory import base_bytes, expert_bytes, share
from jaxlora.plan.work import Work, shapes, size
from jaxlora.tree import Tree


class Traffic(NamedTuple):
    """All collectives of a kind along some axes."""

    kind: str
    axes: tuple[str, ...]
    count: int
    """Of the compiled program, where loops count once; 0 by formula."""
    received: float
    """Bytes that a chip receives in one step."""


def operations(work: Work) -> float:
    """Floating-point operations of one step, on all chips together.

    Args:
      work: the program; a merge has none that count.
    """
    if work.task == "merge":
        return 0.0
    c, given = work.config, shapes(work)
    tokens = work.batch * work.length * work.accumulate
    kernels = sum(
        math.prod(x.shape)
        for x in jax.tree.leaves(given.base["layers"])
        if len(x.shape) > 2
    )
    factors, _ = lora.split(given.library)
    adapter = sum(math.prod(x.shape) for x in jax.tree.leaves(factors)) / work.experts
    head = c.hidden_size * c.vocab_size
    # Every pair of tokens twice, for scores and for values; half of them are masked,
    # but computed or not by the kernel that runs.
    attending = c.num_layers - sum(c.delta_layers)
    pairs = 2 * work.length * c.num_heads * c.head_dim * attending + _rule(c)
    if work.task == "route":
        each = kernels * c.passes + pairs + work.experts * adapter
        return 2.0 * tokens * each + 2.0 * work.batch * head
    again = 1 if c.remat else 0
    layers = (2 + again) * kernels * c.passes + (3 + again) * pairs
    each = layers + (3 + again) * adapter + 3 * head  # the head is computed again
    return 2.0 * tokens * work.experts * each


def _rule(c: DecoderConfig) -> int:
    """Products of a token in all layers of a gated delta rule, by chunks."""
    if c.delta is None:
        return 0
    d, k, v = c.delta, c.delta.key_dim, c.delta.value_dim
    pairs = 2 * CHUNK * k * d.key_heads
    # Half of a triangular system, what is attended to, and three uses of the state.
    each = CHUNK * (k + v) // 2 + CHUNK * v + 3 * k * v
    return (pairs + each * d.value_heads) * sum(c.delta_layers)


def traffic(work: Work, sizes: Mapping[str, int]) -> list[Traffic]:
    """What a chip receives in one step, by formula.

    Args:
      work: the program.
      sizes: of the axes of the mesh.
    """
    if work.task == "merge":
        return _merging(work, sizes)
    c, here = work.config, share(work, sizes)
    item = 2 if c.dtype == "bfloat16" else 4
    learns = work.task == "train"
    turns = work.accumulate * (work.experts // sizes.get("expert", 1) // here.experts)
    turns = max(1, turns if learns else 1)
    rows = here.batch * work.length * here.experts * turns * c.hidden_size * item
    only = {"tensor": sizes.get("tensor", 1)}
    base = base_bytes(shapes(work).base, only)
    passes = 2 if learns else 1
    out = _of("all-gather", ("fsdp",), sizes, 1.0 * passes * turns * base, 1)
    sums = 2 * c.num_layers * c.passes * (passes + (learns and c.remat))
    out += _of("all-reduce", ("tensor",), sizes, sums * rows, 2)
    if learns:
        only = only | {"expert": sizes.get("expert", 1)}
        factors, _ = lora.split(shapes(work).library)
        gradient = work.accumulate * expert_bytes(factors, only)
        out += _of("all-reduce", ("data", "fsdp"), sizes, 1.0 * gradient, 2)
        return out
    # Updates of experts on other devices are added at every site.
    sites = lora.sites(shapes(work).library).values()
    wide = sum(site.b.shape[-1] for site in sites) * c.num_layers // len(c.kinds)
    answers = here.batch * work.length * wide * item
    return out + _of("all-reduce", ("expert",), sizes, 1.0 * answers, 2)


def _merging(work: Work, sizes: Mapping[str, int]) -> list[Traffic]:
    """What a chip receives of a library, and of what it becomes.

    Experts change places with layers. Layers that the devices do not divide are filled
    up with copies before, which moves most of them along the other axes, and what is
    merged is cut along inputs and outputs in the end; see ``parallel.merging``.
    """
    library, parts = shapes(work).library, math.prod(sizes.values())
    layers = work.config.num_layers
    filled = -(-layers // parts) * parts / layers
    held = filled * size(library) / parts
    out = _of("all-to-all", ("expert",), sizes, held, 1)
    if filled == 1:
        return out
    result = jax.eval_shape(_merged(work), library)
    others = math.prod(sizes.get(axis, 1) for axis in merging.OTHERS)
    moves = 1 if layers % others else 2  # they lie along inputs and outputs, or layers
    out += _of("all-to-all", merging.OTHERS, sizes, held, moves)
    every = ("expert", *merging.OTHERS)
    out += _of("all-to-all", every, sizes, filled * size(result) / parts, 1)
    if len(out) == 2 and out[0].axes == out[1].axes:  # there are no other axes
        return [out[0]._replace(received=sum(x.received for x in out))]
    return out


def _merged(work: Work) -> Callable[[Tree], Tree]:
    how = merge.preset(work.method or "mean")
    key = jax.random.key(0) if how.draws else None
    return functools.partial(how, key=key)


def _of(
    kind: str,
    axes: Sequence[str],
    sizes: Mapping[str, int],
    size: float,
    factor: int,
) -> list[Traffic]:
    """What a ring of devices sends of so many bytes; nothing where there is none."""
    group = math.prod(sizes.get(axis, 1) for axis in axes)
    if group == 1:
        return []
    cut = tuple(axis for axis in axes if sizes.get(axis, 1) > 1)
    return [Traffic(kind, cut, 0, factor * size * (group - 1) / group)]


def summed(every: Iterable[Collective]) -> list[Traffic]:
    """Collectives of a program, by kind and axes, the largest first.

    Args:
      every: of :func:`jaxlora.plan.hlo.collectives`.
    """
    by: dict[tuple[str, tuple[str, ...]], list[Collective]] = {}
    for each in every:
        by.setdefault((each.kind, each.axes), []).append(each)
    out = [
        Traffic(kind, axes, len(some), sum(x.received for x in some))
        for (kind, axes), some in by.items()
    ]
    return sorted(out, key=lambda x: -x.received)
