"""Names of tensors in an adapter of PEFT: which module, which factor."""

import re
from collections.abc import Iterable, Mapping

from jaxlora.io import module_names

WEIGHTS = "adapter_model.safetensors"
"""The file with the tensors."""

MAX_MODULES = 2**16
"""Modules of one adapter; no model has more linear layers."""

_KEY = re.compile(
    r"(?P<module>.+)\.lora_(?P<table>embedding_)?(?P<which>[AB])"
    r"(?:\.(?P<name>[^.]+))??(?(table)|\.weight)"
)
_COPY = re.compile(r"(?P<module>.+)\.base_layer\.weight")
_FOREIGN = {
    r"\.(?:lora_)?alpha$": "a scalar alpha beside the factors, as other trainers write "
    "it; PEFT has alpha in adapter_config.json, and none in a tensor",
    r"\.lora_[AB]$": "lora_A or lora_B without .weight, which no linear layer has",
    r"\.lora_(?:down|up)\b": "lora_down or lora_up, as of Kohya's trainers, expected "
    "lora_A and lora_B of PEFT",
    r"\.lora_[ab]\b": "lora_a or lora_b, as of MLX and torchtune, expected lora_A and "
    "lora_B of PEFT",
    r"\.lora\.(?:down|up)\b": "lora.down or lora.up, as of old diffusers, expected "
    "lora_A and lora_B of PEFT",
    r"\.(?:ranknum|lora_E)\b": "of AdaLoRA, whose ranks are chosen by lora_E, and no "
    "plain LoRA",
    r"\.(?:hada_w|lokr_w|oft_|vera_lambda|boft_)": "of another method than LoRA",
}
"""Tensors of other programs, by a mark of their names."""
_PATH = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_MAX_PATH = 256


def pairs(keys: Iterable[str]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Returns ``{module path: {"A": tensor, "B": tensor}}`` and ``{path: tensor}``.

    The second holds copies of base weights, which PEFT saves beside the update of an
    embedding or a head. Paths are without the names of training wrappers.

    Args:
      keys: names of the tensors of one file.

    Raises:
      ValueError: if one is no part of an update, or a pair is not whole.

    >>> pairs(["base_model.model.lm_head.lora_A.weight", "lm_head.lora_B.weight"])[0]
    {'lm_head': {'A': 'base_model.model.lm_head.lora_A.weight', ...}}
    """
    factors: dict[str, dict[str, str]] = {}
    copies: dict[str, str] = {}
    adapters = set()
    first: dict[str, str] = {}
    for key in keys:
        plain = module_names.unwrapped(key)
        match = _KEY.fullmatch(plain) or _COPY.fullmatch(plain)
        if match is None:
            raise ValueError(f"Tensor {key!r} of the adapter is {_odd(key)}.")
        # Of two spellings of one module, the first one stands for both.
        path = path_of(match["module"])
        path = first.setdefault(module_names.canonical(path), path)
        if match.re is _COPY:
            copies[path] = key
            continue
        # Keys may hold the name of their adapter; all must then hold the same.
        adapters.add(match["name"])
        if len(adapters) > 1:
            raise ValueError(
                f"{WEIGHTS} mixes tensors of several adapters, "
                f"{', '.join(sorted(x or 'without a name' for x in adapters))}; "
                f"expected one adapter in a file."
            )
        pair = factors.setdefault(path, {})
        which = match["which"]
        if which in pair:
            raise ValueError(
                f"Tensors {pair[which]!r} and {key!r} are both lora_{which} of "
                f"{path!r}, expected one."
            )
        pair[which] = key
    _check(factors, copies)
    return factors, copies


def path_of(path: str) -> str:
    """Returns the path of a module, checked.

    Args:
      path: unwrapped, as a key of the adapter begins.

    Raises:
      ValueError: if it is no path.
    """
    if len(path) > _MAX_PATH or not _PATH.fullmatch(path):
        raise ValueError(
            f"{WEIGHTS} has a tensor of {path[:80]!r}, expected names joined by dots, "
            f"of at most {_MAX_PATH} characters; no module has such a path."
        )
    return path


def is_foreign(key: str) -> bool:
    """Is it a tensor of another program or method?

    Args:
      key: its name.

    >>> is_foreign("layers.0.q_proj.lora_down.weight")
    True
    """
    return any(re.search(mark, key) for mark in _FOREIGN)


def _check(factors: Mapping[str, Mapping[str, str]], copies: Mapping[str, str]) -> None:
    if not factors and not copies:
        raise ValueError(f"{WEIGHTS} holds no tensors.")
    if len(factors) > MAX_MODULES:
        raise ValueError(
            f"{WEIGHTS} adapts {len(factors)} modules, expected at most {MAX_MODULES}."
        )
    for path, pair in factors.items():
        if len(pair) != 2:
            raise ValueError(f"The adapter has lora_{min(pair)} of {path!r} alone.")
        # The factors of an embedding are stored the other way round.
        if len({"lora_embedding_" in key for key in pair.values()}) > 1:
            raise ValueError(
                f"The adapter has {' and '.join(map(repr, pair.values()))}: one of a "
                f"linear layer and one of an embedding, which make no pair."
            )
    for path, key in copies.items():
        if path not in factors:
            raise ValueError(f"Tensor {key!r} of the adapter is {_odd(key)}.")


def _odd(key: str) -> str:
    for mark, what in _FOREIGN.items():
        if re.search(mark, key):
            return what
    if key.endswith(".base_layer.weight"):
        return "the base weight of a module that has no low-rank factors"
    return "not lora_A or lora_B of a linear layer or an embedding"
