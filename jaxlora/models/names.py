"""Our leaves and the tensors and modules of Hugging Face checkpoints.

A leaf ``layers/attn/q_proj/kernel`` [L, D, F] is L tensors
``model.layers.0.self_attn.q_proj.weight`` [F, D], ...: PyTorch keeps linear layers as
[out, in]. Gemma has norms after attention and MLP as well, and ``post_attention`` in
their names has another meaning than in the other families.
"""

import itertools
import re
from collections.abc import Mapping
from typing import NamedTuple

from jaxlora import periods
from jaxlora.io import module_names
from jaxlora.io.module_names import canonical as canonical
from jaxlora.models.config import DecoderConfig
from jaxlora.models.tables import ARRAYS, GPT2, LLAMA, MIXTRAL, SHARED
from jaxlora.models.tables import KERNELS as KERNELS
from jaxlora.models.tables import table as table

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The two tensors that may be one, as most families call them."""


def embedding(config: DecoderConfig) -> str:
    """Returns the name of the embedding's tensor.

    Args:
      config: of the decoder.
    """
    return f"{table(config).outside['embed']}.weight"


_BUFFER = re.compile(r"(?:.*\.)?(?:rotary_emb\.\w+|masked_bias|h\.\d+\.attn\.bias)")


class Place(NamedTuple):
    """Where a tensor of a checkpoint goes."""

    leaf: str
    """Name of our leaf."""
    index: tuple[int, ...]
    """Into L, or into L and X; empty if the leaf has no layers."""
    turned: bool
    """Is it [out, in] there and [in, out] here?"""


def places(config: DecoderConfig, leaves: Mapping[str, object]) -> dict[str, Place]:
    """Returns ``{tensor name: where it goes}`` for every tensor of a checkpoint.

    Args:
      config: of the decoder.
      leaves: names of its leaves.

    Raises:
      ValueError: if a leaf has no tensor there.
    """
    names, places, period = table(config), {}, len(config.kinds)
    for leaf in leaves:
        plain, first = periods.split(leaf)
        module, part = _module_of(plain)
        turned = names.turned and part == "kernel"
        part = "bias" if part == "bias" else "weight"
        if module in names.outside:
            name = f"{names.outside[module]}.{part}"
            places[name] = Place(leaf, (), leaf == "head")
            continue
        inner = {**names.kernels, **names.norms}.get(module)
        inner = ARRAYS.get(plain) or (inner and f"{inner}.{part}")
        if inner is None:
            raise ValueError(
                f"Leaf {leaf!r} has no place in a Hugging Face checkpoint."
            )
        mlps = (config.moe_mlps,) if "{}" in inner else ()
        counts = (config.num_layers // period, *mlps)
        for index in itertools.product(*map(range, counts)):
            layer = index[0] * period + (first or 0)
            name = ".".join((names.layers, str(layer), inner.format(*index[1:])))
            places[name] = Place(leaf, index, turned)
    return places


def _module_of(leaf: str) -> tuple[str, str]:
    """A leaf's module and its part of it; bare arrays are modules of one part."""
    module, _, part = leaf.rpartition("/")
    return (module, part) if module else (part, "array")


def is_ignored(name: str, *, more: bool = False) -> bool:
    """Is this a tensor that is no parameter of a decoder?

    Args:
      name: of the tensor.
      more: may parts that see, hear or draft later tokens (mtp) be beside it?

    >>> is_ignored("model.layers.0.self_attn.rotary_emb.inv_freq")
    True
    """
    beside = module_names.is_seen(canonical(name)) or name.startswith("mtp.")
    return (more and beside) or _BUFFER.fullmatch(name) is not None


def module(
    site: str, index: int | tuple[int, ...], config: DecoderConfig | None = None
) -> str:
    """Returns the module path of one layer of an adapted kernel.

    Args:
      site: the kernel's name.
      index: of the layer, or of the layer and of the MLP in it.
      config: of the decoder; by default names are those of most families.

    Raises:
      ValueError: if there is no such module, or the index is of more axes.

    >>> module("layers/mlp/up_proj/kernel", 3)
    'model.layers.3.mlp.up_proj'
    """
    names, (plain, first) = table(config), periods.split(site)
    inner = names.kernels.get(plain.removesuffix("/kernel"))
    if inner is None:
        raise ValueError(
            f"Site {site!r} is no linear layer of a Hugging Face checkpoint; those are "
            f"{', '.join(f'{name}/kernel' for name in names.kernels)}."
        )
    layer, *mlp = (index,) if isinstance(index, int) else index
    if len(mlp) != inner.count("{}"):
        raise ValueError(
            f"Site {site!r} has {1 + len(mlp)} axes before its factors, expected "
            f"{1 + inner.count('{}')}; write the adapters of a library one by one, "
            f"with lora.unstack."
        )
    layer = layer if config is None else layer * len(config.kinds) + (first or 0)
    return f"{names.layers}.{layer}.{inner.format(*mlp)}"


def alike(site: str, config: DecoderConfig | None) -> tuple[str, ...]:
    """Returns the sites that are the same layer's in other places of a period.

    Args:
      site: the kernel's name.
      config: of the decoder.
    """
    plain, number = periods.split(site)
    if number is None or config is None:
        return (site,)
    kinds = config.kinds
    mixer = plain.startswith(("layers/attn/", "layers/delta/"))
    field = "delta" if mixer else "dense"
    return tuple(
        periods.place(plain, i, len(kinds))[0]
        for i, kind in enumerate(kinds)
        if getattr(kind, field) == getattr(kinds[number], field)
    )


def short(site: str, config: DecoderConfig | None = None) -> str:
    """Returns the end of the module paths of a site that no other site has.

    Args:
      site: the kernel's name.
      config: of the decoder.

    Returns:
      With ``{}`` for the number of an MLP, where only that tells the MLPs of a mixture
      from another MLP.

    >>> short("layers/mlp/up_proj/kernel")
    'up_proj'
    """
    kernels = table(config).kernels
    inner = kernels[periods.split(site)[0].removesuffix("/kernel")]
    last = inner.rpartition(".")[2]
    same = [x for x in kernels.values() if "{}" not in x and x.endswith(f".{last}")]
    # GPT-2 has a c_proj in attention and another one in the MLP, some mixtures a plain
    # MLP in other layers.
    others = 1 - int("{}" in inner and config is not None and len(config.kinds) > 1)
    return inner if len(same) > others else last


class Site(NamedTuple):
    """One layer of an adapted kernel."""

    name: str
    """Of the kernel."""
    layer: int
    """Index into L."""
    mlp: int | None = None
    """Index into X, the MLPs of a layer, if there are several."""


def site(path: str) -> Site | None:
    """Returns the site of a module path, or None if it is no linear layer.

    >>> site("model.language_model.layers.3.mlp.up_proj")[:2]
    ('layers/mlp/up_proj/kernel', 3)
    >>> site("model.layers.3.block_sparse_moe.experts.5.w2")
    Site(name='layers/moe/down/kernel', layer=3, mlp=5)
    """
    match = _MODULE.fullmatch(canonical(path))
    if match is None:
        return None
    inner = re.sub(r"(?<=\.experts\.)\d{1,6}(?=\.)", "{}", match["inner"])
    names = GPT2 if match["layers"] == GPT2.layers else LLAMA
    for kernels in (names.kernels, MIXTRAL.kernels, SHARED):
        ours = {theirs: name for name, theirs in kernels.items()}
        if inner in ours:
            number = re.search(r"\.experts\.(\d+)\.", match["inner"])
            mlp = None if number is None else int(number[1])
            return Site(f"{ours[inner]}/kernel", int(match["layer"]), mlp)
    return None


_MODULE = re.compile(
    r"(?P<layers>model\.layers|transformer\.h)\.(?P<layer>\d{1,6})\.(?P<inner>[\w.]+)"
)
