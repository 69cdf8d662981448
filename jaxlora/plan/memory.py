"""Bytes a chip by formula: of the arrays that a program is given, and of what it keeps.

Arrays are cut by the rules that place them. What the forward pass keeps is read off the
traced program (``jax.make_jaxpr``) of one device's share: its rows, its heads, its part
of the MLP. A compiler needs some room beside that, and saves some by fusing.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import PartitionSpec

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.models import DecoderConfig
from jaxlora.parallel import merging, rules
from jaxlora.plan.activations import activations
from jaxlora.plan.work import Shapes, Work, shapes
from jaxlora.train.step import CHUNK_FLOATS
from jaxlora.tree import Tree

ARRAYS = ("base", "adapters", "optimizer")
"""What a program is given."""
BESIDE = ("gradients", "gathered", "activations", "logits")
"""What it makes."""


def estimate(work: Work, sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes a chip by part, those of ``ARRAYS`` and of ``BESIDE``.

    Args:
      work: for a platform, see :meth:`Work.on`.
      sizes: of the axes of the mesh.
    """
    given = shapes(work)
    parts = dict.fromkeys((*ARRAYS, *BESIDE), 0)
    if work.task == "merge":
        where = functools.partial(merging.spec, sizes)
        parts["adapters"] = _cut(given.library, where, sizes)
        # With its layers in the place of its experts, and the result.
        return parts | {"activations": 2 * parts["adapters"]}
    parts["base"] = base_bytes(given.base, sizes)
    parts["adapters"] = expert_bytes(given.library, sizes)
    parts["adapters"] += expert_bytes(given.gate, sizes)
    parts["gathered"] = _gathered(work, given, sizes)
    if work.task == "route":
        return parts | _asked(work, sizes)
    here = share(work, sizes)
    factors, _ = lora.split(given.library)
    parts["optimizer"] = expert_bytes(given.opt_state, sizes)
    trained = expert_bytes(factors, sizes) * work.at_once // work.experts
    parts["gradients"] = trained * (2 if work.accumulate > 1 else 1)
    parts["activations"] = here.experts * activations(
        here.config, work.lora, here.batch, work.length
    )
    tokens = min(here.batch * work.length, max(1, CHUNK_FLOATS // _vocabulary(work)))
    # Scores of a chunk of tokens, and their gradient; float32.
    columns = _vocabulary(work) // _parts(sizes, "tensor", _vocabulary(work))
    parts["logits"] = here.experts * 2 * 4 * tokens * columns
    return parts


@dataclasses.dataclass(frozen=True)
class Share:
    """What one chip works on."""

    config: DecoderConfig
    """With its heads and its part of the MLP."""
    batch: int
    experts: int
    """At once."""


def share(work: Work, sizes: Mapping[str, int]) -> Share:
    """The part of some work that one chip does.

    Args:
      work: the program.
      sizes: of the axes of the mesh.
    """
    c, tensor = work.config, sizes.get("tensor", 1)
    local = dataclasses.replace(
        c,
        num_heads=max(1, c.num_heads // tensor),
        num_kv_heads=max(1, c.num_kv_heads // tensor),
        mlp_size=max(1, c.mlp_size // tensor),
        unroll=1,
    )
    rows = sizes.get("data", 1) * sizes.get("fsdp", 1)
    experts = max(1, work.at_once // sizes.get("expert", 1))
    return Share(local, max(1, work.batch // rows), experts)


def base_bytes(base: Tree, sizes: Mapping[str, int]) -> int:
    """Bytes a chip of a base, cut by :mod:`jaxlora.parallel.rules`.

    Args:
      base: params, or their shapes.
      sizes: of the axes of the mesh.
    """

    def where(name: str, shape: Sequence[int]) -> PartitionSpec:
        last = rules.axes_of(name)
        axes = (*(None,) * (len(shape) - len(last)), *last) if last else ()
        return rules.fitting(sizes, axes, shape)

    return _cut(base, where, sizes)


def expert_bytes(tree: Tree, sizes: Mapping[str, int]) -> int:
    """Bytes a chip of a library, or of what has its shape.

    Args:
      tree: arrays [E, ...], or their shapes.
      sizes: of the axes of the mesh.
    """

    def where(name: str, shape: Sequence[int]) -> PartitionSpec:
        return rules.fitting(sizes, rules.expert_axes(name, len(shape)), shape)

    return _cut(tree, where, sizes)


def _cut(
    tree: Tree,
    where: Callable[[str, Sequence[int]], PartitionSpec],
    sizes: Mapping[str, int],
) -> int:
    total = 0
    for name, leaf in named.flatten(tree).items():
        names = [
            x
            for axis in where(name, leaf.shape)
            for x in ((axis,) if isinstance(axis, str) else axis or ())
        ]
        parts = math.prod(sizes.get(x, 1) for x in names)
        total += math.prod(leaf.shape) * leaf.dtype.itemsize // parts
    return total


def _gathered(work: Work, given: Shapes, sizes: Mapping[str, int]) -> int:
    """Of one layer and the next, and of the head, whole along ``fsdp``."""
    if sizes.get("fsdp", 1) == 1:
        return 0
    only = {"tensor": sizes.get("tensor", 1)}
    layers = base_bytes({"layers": given.base["layers"]}, only)
    name = "embed" if work.config.tie_head else "head"
    return 2 * layers // work.config.num_layers + base_bytes(
        {name: given.base[name]}, only
    )


def _vocabulary(work: Work) -> int:
    return work.config.vocab_size


def _parts(sizes: Mapping[str, int], axis: str, number: int) -> int:
    parts = sizes.get(axis, 1)
    return parts if number % parts == 0 else 1


def _asked(work: Work, sizes: Mapping[str, int]) -> dict[str, int]:
    """Of one layer of a routed forward pass, and the scores of the last tokens."""
    here, width = share(work, sizes), work.config.hidden_size
    c, tokens = here.config, here.batch * work.length
    item = 2 if c.dtype == "bfloat16" else 4
    experts = max(1, work.experts // sizes.get("expert", 1))
    wide = max(3 * c.mlp_size, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim)
    low = 4 * experts * work.lora.rank  # float32, weighted and not
    plain = c.attention in ("auto", "plain")
    scores = 4 * here.batch * c.num_heads * work.length**2 if plain else 0
    return {
        "activations": tokens * (3 * item * width + item * wide + 2 * low) + scores,
        "logits": 4 * here.batch * work.config.vocab_size,
    }
