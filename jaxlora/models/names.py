"""Our leaves and the tensors and modules of Hugging Face checkpoints.

A leaf ``layers/attn/q_proj/kernel`` [L, D, F] is L tensors
``model.layers.0.self_attn.q_proj.weight`` [F, D], ...: PyTorch keeps linear layers as
[out, in]. Gemma has norms after attention and MLP as well, and ``post_attention`` in
their names has another meaning than in the other families.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from jaxlora.io import module_names
from jaxlora.io.module_names import canonical as canonical
from jaxlora.models.config import DecoderConfig

KERNELS = {
    "layers/attn/q_proj": "self_attn.q_proj",
    "layers/attn/k_proj": "self_attn.k_proj",
    "layers/attn/v_proj": "self_attn.v_proj",
    "layers/attn/o_proj": "self_attn.o_proj",
    "layers/mlp/gate_proj": "mlp.gate_proj",
    "layers/mlp/up_proj": "mlp.up_proj",
    "layers/mlp/down_proj": "mlp.down_proj",
}
"""Linear layers: ours and theirs."""

_NORMS = {
    "layers/attn_norm/scale": "input_layernorm",
    "layers/attn/q_norm/scale": "self_attn.q_norm",
    "layers/attn/k_norm/scale": "self_attn.k_norm",
}
_TWO = {"layers/mlp_norm/scale": "post_attention_layernorm"}
_FOUR = {
    "layers/attn_post_norm/scale": "post_attention_layernorm",
    "layers/mlp_norm/scale": "pre_feedforward_layernorm",
    "layers/mlp_post_norm/scale": "post_feedforward_layernorm",
}
_OUTSIDE = {
    "embed/embedding": "model.embed_tokens.weight",
    "final_norm/scale": "model.norm.weight",
    "head": "lm_head.weight",
}

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The two tensors that may be one."""

_BUFFER = re.compile(r"(?:.*\.)?(?:rotary_emb\.\w+|masked_bias)")


class Place(NamedTuple):
    """Where a tensor of a checkpoint goes."""

    leaf: str
    """Name of our leaf."""
    layer: int | None
    """Index into L, or None if the leaf has no layers."""
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
    places = {}
    for leaf in leaves:
        if leaf in _OUTSIDE:
            places[_OUTSIDE[leaf]] = Place(leaf, None, leaf == "head")
            continue
        inner = _inside(config, leaf)
        for layer in range(config.num_layers):
            name = f"model.layers.{layer}.{inner}"
            places[name] = Place(leaf, layer, leaf.endswith("kernel"))
    return places


def _inside(config: DecoderConfig, leaf: str) -> str:
    module, _, part = leaf.rpartition("/")
    norms = _NORMS | (_FOUR if config.post_norms else _TWO)
    if leaf in norms:
        return f"{norms[leaf]}.weight"
    if module in KERNELS and part in ("kernel", "bias"):
        return f"{KERNELS[module]}.{'weight' if part == 'kernel' else 'bias'}"
    raise ValueError(f"Leaf {leaf!r} has no place in a Hugging Face checkpoint.")


def is_ignored(name: str, *, vision: bool = False) -> bool:
    """Is this a tensor that is no parameter of a decoder?

    >>> is_ignored("model.layers.0.self_attn.rotary_emb.inv_freq")
    True
    """
    seen = vision and module_names.is_seen(canonical(name))
    return seen or _BUFFER.fullmatch(name) is not None


def module(site: str, layer: int) -> str:
    """Returns the module path of one layer of an adapted kernel.

    Raises:
      ValueError: if there is no such module.

    >>> module("layers/mlp/up_proj/kernel", 3)
    'model.layers.3.mlp.up_proj'
    """
    inner = KERNELS.get(site.removesuffix("/kernel"))
    if inner is None:
        raise ValueError(
            f"Site {site!r} is no linear layer of a Hugging Face checkpoint; those are "
            f"{', '.join(f'{name}/kernel' for name in KERNELS)}."
        )
    return f"model.layers.{layer}.{inner}"


def site(path: str) -> tuple[str, int] | None:
    """Returns (site, layer) of a module path, or None if it is no linear layer.

    >>> site("model.language_model.layers.3.mlp.up_proj")
    ('layers/mlp/up_proj/kernel', 3)
    """
    match = re.fullmatch(r"model\.layers\.(\d{1,6})\.([\w.]+)", canonical(path))
    ours = {theirs: name for name, theirs in KERNELS.items()}
    if match is None or match[2] not in ours:
        return None
    return f"{ours[match[2]]}/kernel", int(match[1])
