r"""Tensors of a PEFT adapter beside its low-rank factors, told apart by their names.

``lora_magnitude_vector`` [F]: DoRA (Liu et al., arXiv 2402.09353). The layer becomes
``m (W + s b a) / |W + s b a|``, each row of W [F, D] by its own norm. ``lora_B.bias``
[F]: ``s bias`` is added to the layer's output. ``token_adapter`` [N, D]: rows of an
embedding that replace those of the config's ``trainable_token_indices``. Any other
``weight`` or ``bias``: a tensor of the base that the adapter replaces, as PEFT saves
``modules_to_save``, resized embeddings and trained biases.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

from jaxlora.io import module_names
from jaxlora.io.peft_checks import CONFIG, Raw
from jaxlora.io.peft_keys import is_foreign, path_of
from jaxlora.io.tensors import short

_NAME = r"(?:\.(?!weight$)[^.]+)??"  # an adapter's name may stand in its keys
_MAGNITUDE = re.compile(rf"(.+)\.lora_magnitude_vector{_NAME}(?:\.weight)?")
_BIAS = re.compile(rf"(.+)\.lora_B{_NAME}\.bias")
_ROWS = re.compile(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.[^.]+)?")
_REPLACED = re.compile(
    r"(.+?)(?:\.modules_to_save(?:\.[^.]+)?)?\.(weight|bias)"
    r"|(.+)\.base_layer\.(bias)"
)


_ORIGINAL = ".original_module."

SETTINGS = "modules_to_save", "ensure_weight_tying", "bias"
"""Fields of a config that say what is replaced, tokens apart."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """Keys of the tensors of one adapter that are no low-rank factors."""

    magnitudes: Mapping[str, str]
    """By module path."""
    biases: Mapping[str, str]
    """By module path."""
    rows: Mapping[str, str]
    """Rows of an embedding, by its module path."""
    replaced: Mapping[str, str]
    """Tensors of the base that are replaced, by their names in the base."""


def split(keys: Iterable[str]) -> tuple[Parts, list[str]]:
    """Returns the parts beside the factors, and the keys that are none of them.

    Args:
      keys: names of the tensors of one file.

    Raises:
      ValueError: if two keys mean the same tensor.

    >>> parts, rest = split(["a.q.lora_A.weight", "a.q.lora_magnitude_vector"])
    >>> parts.magnitudes, rest
    ({'a.q': 'a.q.lora_magnitude_vector'}, ['a.q.lora_A.weight'])
    """
    tables: tuple[dict[str, str], ...] = ({}, {}, {}, {})
    rest = []
    for key in keys:
        place = None if is_foreign(key) else _place(module_names.unwrapped(key))
        if place is None:
            rest.append(key)
            continue
        kind, module, suffix = place
        name = path_of(module) + suffix
        if name in tables[kind]:
            raise ValueError(
                f"Tensors {tables[kind][name]!r} and {key!r} of the adapter are both "
                f"of {name!r}, expected one."
            )
        tables[kind][name] = key
    # The state of a whole model has what a saved module replaces beside it.
    for name in [x for x in tables[3] if _ORIGINAL in x]:
        if name.replace(_ORIGINAL, ".") in tables[3]:
            del tables[3][name]
    return Parts(*tables), rest


def _place(key: str) -> tuple[int, str, str] | None:
    for kind, pattern in enumerate((_MAGNITUDE, _BIAS, _ROWS)):
        match = pattern.fullmatch(key)
        if match is not None:
            return kind, match[1], ""
    match = _REPLACED.fullmatch(key)
    # A copy of the base's weight stands beside factors, and is not what they change.
    if match is None or "lora_" in key or key.endswith(".base_layer.weight"):
        return None
    module, part = (match[1], match[2]) if match[1] else (match[3], match[4])
    return 3, module.removesuffix(".base_layer"), f".{part}"


def check(raw: Raw, parts: Parts, modules: Iterable[str]) -> None:
    """Refuses parts that the config does not speak of, and the reverse.

    Args:
      raw: what adapter_config.json holds.
      parts: of the same adapter.
      modules: paths of those that have low-rank factors.

    Raises:
      ValueError: naming a field and a module.
    """
    modules = set(modules)
    for field, there, what in (
        ("use_dora", parts.magnitudes, "magnitude of DoRA"),
        ("lora_bias", parts.biases, "bias (lora_bias)"),
    ):
        odd = sorted(modules ^ set(there)) if raw.get(field) else sorted(there)
        if odd:
            has = "has" if odd[0] in there else "lacks"
            raise ValueError(
                f"{CONFIG} has {field} {short(raw.get(field))}, but the adapter {has} "
                f"a {what} of {odd[0]!r}; config and tensors are of different adapters."
            )
    if raw.get("trainable_token_indices") and not parts.rows:
        raise ValueError(
            f"{CONFIG} has trainable_token_indices "
            f"{short(raw['trainable_token_indices'])}, but the adapter holds no "
            f"trained tokens (token_adapter); the download is incomplete."
        )
    _check_replaced(raw, parts.replaced, modules)


def _check_replaced(raw: Raw, replaced: Mapping[str, str], modules: set[str]) -> None:
    """Every module to save must have been saved, and none be updated as well."""
    for name, key in replaced.items():
        path, _, part = name.rpartition(".")
        if part == "weight" and path in modules:
            raise ValueError(
                f"Tensor {key!r} of the adapter replaces {name!r}, and the adapter "
                f"updates it as well; PEFT would ignore one of the two."
            )
    if raw.get("ensure_weight_tying"):  # of two tied modules PEFT saves one
        return
    owners = {name.rpartition(".")[0] for name in replaced}
    for module in raw.get("modules_to_save") or ():
        inside = (f".{owner}." for owner in owners)
        if not any(f".{module}." in owner for owner in inside):
            raise ValueError(
                f"{CONFIG} has {module!r} in modules_to_save, but the adapter holds no "
                f"tensor of it; it was saved without, or the download is incomplete."
            )


def token_ids(raw: Raw, path: str, rows: int) -> tuple[int, ...]:
    """Returns the ids of the rows that an adapter replaces in an embedding.

    Args:
      raw: what adapter_config.json holds.
      path: of the embedding's module.
      rows: how many there are.

    Raises:
      ValueError: if the config does not give as many different ids.

    >>> token_ids({"trainable_token_indices": {"wte": [7, 3]}}, "model.wte", 2)
    (7, 3)
    """
    given = raw.get("trainable_token_indices") or []
    if isinstance(given, dict):
        named = (x for x in given if path == x or path.endswith(f".{x}"))
        given = given.get(next(named, None), [])
    if len(given) != rows or len(set(given)) != rows:
        raise ValueError(
            f"{CONFIG} has trainable_token_indices "
            f"{short(raw.get('trainable_token_indices'))}, expected {rows} different "
            f"ids for {path!r}, of which the adapter holds {rows} rows."
        )
    return tuple(given)
