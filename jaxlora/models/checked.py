"""Numbers and flags of a ``config.json``, which a stranger wrote, checked."""

from typing import Any, TypeAlias

from jaxlora.io.tensors import short

Raw: TypeAlias = dict[str, Any]

MOST = {
    "num_hidden_layers": 2**12,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**16,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "vocab_size": 2**24,
}
"""The largest sizes, some times those of any model; others are below 2**31."""
_FLOATS = (1e-30, 1e30)


def size(raw: Raw, field: str, default: int | None = None, *, least: int = 1) -> int:
    """Returns a whole number from ``least`` on; null and absent are the default.

    Raises:
      ValueError: if it is none.
    """
    value = raw.get(field)
    value = default if value is None else value
    most = MOST.get(field, 2**31 - 1)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"config.json has {field} {short(value)}, expected a whole number from "
            f"{least} to {most}."
        )
    return value


def positive(raw: Raw, field: str, default: float | None = None) -> float:
    """Returns a positive finite number; null and absent are the default.

    Raises:
      ValueError: if it is none.
    """
    value = raw.get(field)
    if value is None and default is not None:
        return default
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    least, most = _FLOATS
    if not fine or not least <= value <= most:
        raise ValueError(
            f"config.json has {field} {short(value)}, expected a positive number, at "
            f"least {least} and at most {most}."
        )
    return float(value)


def flag(raw: Raw, field: str) -> bool:
    """Returns true or false; null and absent are false.

    Raises:
      ValueError: if it is something else.
    """
    value = raw.get(field)
    if not isinstance(value, bool | None):
        raise ValueError(
            f"config.json has {field} {short(value)}, expected true or false."
        )
    return bool(value)
