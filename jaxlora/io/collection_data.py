"""What a merge must see besides adapters, such as Gram matrices, from a file."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.io import tensors
from jaxlora.io.collection import Collection


def read_data(path: Path, collection: Collection) -> dict[str, jax.Array]:
    """Reads what a method must see: arrays [E, L, ...] by group, in float32.

    A file names either groups, with arrays [E, L, ...], or modules, with [E, ...].

    Args:
      path: a safetensors file.
      collection: the adapters that the arrays belong to, in the same order.

    Raises:
      ValueError: if it is no safetensors file, or lacks or exceeds what the adapters
        have, naming the file and the tensor.
    """
    file = tensors.open_file(path)
    left, data = set(file.entries), {}
    for group, modules in collection.modules.items():
        names = (group,) if group in file.entries else modules
        missing = [name for name in names if name not in file.entries]
        if missing:
            raise ValueError(
                f"{path} has no data for {missing[0]!r}, expected an array for each "
                f"group (such as {group!r}, [adapters, layers, ...]) or for each of "
                f"its modules ([adapters, ...])."
            )
        arrays = [_array(file, name, path, len(collection.names)) for name in names]
        data[group] = _joined(path, group, arrays, len(modules), names == (group,))
        left -= set(names)
    if left:
        raise ValueError(
            f"{path} has data for {min(left)!r}, which none of the adapters adapts."
        )
    return data


def _array(file: tensors.Tensors, name: str, path: Path, experts: int) -> np.ndarray:
    try:
        tensors.check_dtype(name, file.entries[name])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    array = np.asarray(file.read(name, finite=True), np.float32)
    if array.shape[:1] != (experts,):
        raise ValueError(
            f"{path}: {name!r} has shape {array.shape}, expected {experts} first, one "
            f"for each adapter, in the same order."
        )
    return array


def _joined(path, group, arrays, layers: int, stacked: bool) -> jax.Array:
    if stacked:
        if arrays[0].shape[1:2] != (layers,):
            raise ValueError(
                f"{path}: {group!r} has shape {arrays[0].shape}, expected {layers} in "
                f"second place, one for each of its modules."
            )
        return jnp.asarray(arrays[0])
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"{path}: modules of {group!r} have the shapes {sorted(shapes)}, expected "
            f"one."
        )
    return jnp.asarray(np.stack(arrays, 1))
