"""What the devices of a mesh must divide of a decoder: heads, and units of the MLP."""

from collections.abc import Mapping

from jaxlora.models.config import DecoderConfig
from jaxlora.parallel.mesh import check as check_numbers


def numbers(config: DecoderConfig) -> dict[str, int]:
    """What devices along ``tensor`` must divide, by name.

    Args:
      config: of the decoder.

    >>> numbers(DecoderConfig(num_heads=4, num_kv_heads=2, mlp_size=32))
    {'heads': 4, 'key heads': 2, 'hidden units of the MLP': 32}
    """
    heads = {"heads": config.num_heads, "key heads": config.num_kv_heads}
    return heads | {"hidden units of the MLP": config.mlp_size}


def check(config: DecoderConfig, sizes: Mapping[str, int]) -> None:
    """Refuses a mesh that would cut a head, or leave a part of the MLP whole.

    Args:
      config: of the decoder.
      sizes: of the axes of the mesh.

    Raises:
      ValueError: naming what is not divided, and sizes that do.

    >>> check(DecoderConfig(num_heads=6, num_kv_heads=2, mlp_size=32), {"tensor": 3})
    Traceback (most recent call last):
        ...
    ValueError: The mesh has tensor=3, which does not divide 2 key heads; 1 or 2 do.
    """
    check_numbers(sizes, tensor=numbers(config))
