"""Weights that bitsandbytes stored in 4 or 8 bits, read as the floats they stand for.

Four bits (NF4 or FP4; Dettmers et al., QLoRA, arXiv 2305.14314): two numbers a byte,
the first in the high half, each an index into a table of 16 values, times the absolute
maximum of its block. With double quantisation those maxima are themselves bytes, with a
table, maxima of their blocks, and an offset. Eight bits (LLM.int8(), arXiv 2208.07339):
a row of int8 times the absolute maximum of the row, over 127.

Beside ``NAME.weight`` lie the tensors that say so; all of them are a stranger's, and
are checked before a number is computed.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlora.io import header
from jaxlora.io.errors import PathError
from jaxlora.io.header import DTYPES, Entry
from jaxlora.io.tensors import Tensors, short
from jaxlora.strangers import data

_SIDE = re.compile(
    r"(?P<weight>.+\.weight)\.(?P<part>absmax|quant_map|nested_absmax|nested_quant_map"
    r"|quant_state\.bitsandbytes__(?P<kind>nf4|fp4))"
)
_ROWS = re.compile(r"(?P<module>.+)\.(?P<part>SCB|weight_format)")
_STATE_BYTES = 2**14
_CHUNK = 2**20  # numbers that are computed at a time
_PACKED = ("U8", "BF16", "F16", "F32")
_STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclasses.dataclass(frozen=True)
class Dequantised(Tensors):
    """Named tensors, some of them of fewer bits in their files."""

    stored: Tensors
    """What the files hold."""
    states: Mapping[str, dict[str, Any]]
    """Of each tensor of 4 bits, its quant_state."""
    rows: frozenset[str]
    """Tensors of 8 bits."""

    def read(self, name: str, *, finite: bool = False) -> np.ndarray:
        """Returns one tensor as floats.

        Args:
          name: a key of ``entries``.
          finite: check the values as well.

        Raises:
          ValueError: if what lies beside it is not of its size, or as
            :meth:`Tensors.read`.
        """
        if name in self.states:
            values = self._of_four_bits(name)
        elif name in self.rows:
            values = self._of_eight_bits(name)
        else:
            return super().read(name, finite=finite)
        if finite and not np.isfinite(values.astype(np.float32, copy=False)).all():
            raise self._bad(name, "its scales are NaN or infinite")
        return values

    def _of_four_bits(self, name: str) -> np.ndarray:
        state, entry = self.states[name], self.entries[name]
        size, block = math.prod(entry.shape), state["blocksize"]
        packed = self._packed(name, -(-size // 2))
        table = self._side(name, ".quant_map", "F32", 16)
        most = self._maxima(name, -(-size // block))
        values = np.empty(size, DTYPES[entry.dtype])
        step = block * max(1, _CHUNK // block)
        # A part at a time: indices and products are wider than the tensor.
        for start in range(0, size, step):
            count = min(step, size - start)
            part = packed[start // 2 : -(-(start + count) // 2)]
            index = np.stack((part >> 4, part & 15), axis=1).reshape(-1)[:count]
            scales = most[start // block : -(-(start + count) // block)]
            scales = np.repeat(scales, block)[:count]
            values[start : start + count] = table[index] * scales
        return values.reshape(entry.shape)

    def _packed(self, name: str, count: int) -> np.ndarray:
        """Two numbers a byte, of floats for FSDP (bnb_4bit_quant_storage)."""
        entry = self.stored.entries[name]
        if entry.nbytes != count or entry.dtype not in _PACKED:
            raise self._bad(
                name,
                f"it holds {entry.nbytes} bytes of {entry.dtype}, expected {count} of "
                f"{', '.join(_PACKED)}",
            )
        return header.raw(self.files[name], entry)

    def _maxima(self, name: str, count: int) -> np.ndarray:
        """Absolute maxima of the blocks of a tensor of 4 bits, float32."""
        state = self.states[name]
        if "nested_blocksize" not in state:
            return self._side(name, ".absmax", "F32", count)
        bytes_, wide = (
            self._side(name, ".absmax", "U8", count),
            state["nested_blocksize"],
        )
        outer = self._side(name, ".nested_absmax", "F32", -(-count // wide))
        inner = self._side(name, ".nested_quant_map", "F32", 256)[bytes_]
        offset = np.float32(state["nested_offset"])
        return inner * np.repeat(outer, wide)[:count] + offset

    def _of_eight_bits(self, name: str) -> np.ndarray:
        shape = self.entries[name].shape
        most = self._side(name.removesuffix(".weight"), ".SCB", "F32", shape[0])
        stored = self.stored.entries[name]
        values = header.values(self.files[name], stored).astype(np.float32)
        values *= (most / np.float32(127))[:, None]
        return values

    def _side(self, name: str, part: str, dtype: str, count: int) -> np.ndarray:
        """One of the tensors that make up another, checked and flat."""
        key = name + part
        entry = self.stored.entries.get(key)
        got = None if entry is None else (math.prod(entry.shape), entry.dtype)
        if entry is None or got != (count, dtype):
            raise self._bad(
                name if name in self.files else f"{name}.weight",
                f"{key!r} holds {got}, expected {(count, dtype)} (numbers, type)",
            )
        return header.values(self.stored.files[key], entry).reshape(-1)

    def _bad(self, name: str, why: str) -> ValueError:
        path = self.files[name]
        return PathError(
            path, f"Tensor {name!r} of {path} cannot be dequantised: {why}."
        )


def opened(stored: Tensors) -> Tensors:
    """Returns the tensors of a checkpoint, those of 4 and 8 bits as floats.

    Args:
      stored: as its files hold them.

    Raises:
      ValueError: if what a file says of a quantised tensor makes no sense.
    """
    beside = [match for name in stored.entries if (match := _SIDE.fullmatch(name))]
    rows = [match for name in stored.entries if (match := _ROWS.fullmatch(name))]
    if not beside and not rows:
        return stored
    states = {
        match["weight"]: _state(stored, match[0]) for match in beside if match["kind"]
    }
    eight = frozenset(
        f"{match['module']}.weight" for match in rows if match["part"] == "SCB"
    )
    hidden = {match[0] for match in (*beside, *rows)}
    entries = {name: x for name, x in stored.entries.items() if name not in hidden}
    for name in (*states, *eight):
        if name not in entries:
            raise ValueError(
                f"The checkpoint says how {name!r} is quantised, but lacks it; the "
                f"download is incomplete."
            )
        entries[name] = _entry(name, entries[name], states.get(name))
    files = {name: stored.files[name] for name in entries}
    return Dequantised(files, entries, stored, states, eight)


def _entry(name: str, entry: Entry, state: dict[str, Any] | None) -> Entry:
    """Shape and type that a quantised tensor has as floats."""
    if state is not None:
        return Entry(tuple(state["shape"]), _STORED[state["dtype"]])
    if entry.dtype != "I8" or len(entry.shape) != 2:
        raise ValueError(
            f"Tensor {name!r} is {entry.dtype} of shape {entry.shape}, expected I8 of "
            f"two axes: it has scales of rows (SCB) beside it."
        )
    return Entry(entry.shape, "F32")


def _state(stored: Tensors, key: str) -> dict[str, Any]:
    """The JSON that bitsandbytes keeps as bytes beside a tensor of 4 bits."""
    entry = stored.entries[key]
    if entry.dtype != "U8" or math.prod(entry.shape) > _STATE_BYTES:
        raise _strange(key, f"{entry.dtype} of shape {entry.shape}")
    text = header.raw(stored.files[key], entry).tobytes()
    try:
        state = data.loads(text.decode("utf-8"))
    except ValueError as error:
        raise _strange(key, str(error)) from None
    if not isinstance(state, dict):
        raise _strange(key, short(state))
    nested = "nested_blocksize" in state
    sizes: list[Any] = [state.get("blocksize")]
    sizes += [state["nested_blocksize"]] if nested else []
    shape, offset = state.get("shape"), state.get("nested_offset", 0.0)
    fine = (
        all(_is_count(x) for x in sizes)
        and sizes[0] % 2 == 0  # two numbers a byte
        and isinstance(shape, list)
        and len(shape) == 2
        and all(_is_count(x) for x in shape)
        and isinstance(offset, int | float)
        and ("nested_offset" in state or not nested)
        and state.get("dtype") in _STORED
    )
    if not fine:
        raise _strange(key, short(state))
    return state


def _strange(key: str, what: str) -> ValueError:
    return ValueError(
        f"{key!r} holds {what}, expected what bitsandbytes writes: JSON with "
        f"blocksize, shape, dtype and perhaps nested_blocksize and nested_offset."
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def packed(checkpoint: Tensors) -> frozenset[str]:
    """Returns the names of tensors that are stored in 4 or 8 bits.

    Args:
      checkpoint: as :func:`opened` returns it.
    """
    if not isinstance(checkpoint, Dequantised):
        return frozenset()
    return frozenset(checkpoint.states) | checkpoint.rows


def kind(config: Any) -> str | None:
    """Returns what a ``quantization_config`` of bitsandbytes is, or None for others.

    Args:
      config: as config.json has it.

    >>> kind({"quant_method": "bitsandbytes", "load_in_8bit": True})
    'bitsandbytes int8'
    """
    if not isinstance(config, dict):
        return None
    if config.get("quant_method", "bitsandbytes") != "bitsandbytes":
        return None
    if config.get("load_in_8bit"):
        return "bitsandbytes int8"
    if config.get("load_in_4bit"):
        return f"bitsandbytes {str(config.get('bnb_4bit_quant_type', 'fp4'))[:8]}"
    return None
