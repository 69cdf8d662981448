"""Which layers of a decoder the sites of an adapter are of."""

from jaxlora import lora
from jaxlora.lora import Adapter
from jaxlora.merge import Places, in_periods
from jaxlora.models.config import DecoderConfig


def layer_places(config: DecoderConfig, adapter: Adapter) -> Places | None:
    """Returns what ``Merge.at`` takes, or None of a decoder of layers that are alike.

    Args:
      config: of the decoder.
      adapter: on it, or a library.

    >>> layer_places(DecoderConfig(), {}) is None
    True
    """
    kinds = len(config.kinds)
    if kinds == 1:
        return None
    inside = [name for name in lora.sites(adapter) if name.startswith("layers/")]
    return in_periods(inside, kinds, config.num_layers)
