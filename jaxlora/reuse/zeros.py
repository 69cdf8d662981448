"""Says which adapters change nothing, and which of their sites."""

from collections.abc import Iterator, Mapping

import numpy as np

from jaxlora import lora
from jaxlora.lora import Adapter, LoraWeight


def notes(adapters: Mapping[str, Adapter]) -> Iterator[str]:
    """Sentences about deltas that are zero in every layer of a site.

    Args:
      adapters: by name.

    >>> import jax.numpy as jnp
    >>> fresh = LoraWeight(jnp.ones((2, 1)), jnp.zeros((1, 3)), jnp.ones(()))
    >>> list(notes({"ann": {"q": fresh}}))[0].partition(":")[0]
    'Adapter ann changes nothing'
    """
    for name, adapter in adapters.items():
        sites = lora.sites(adapter)
        zero = [site for site, weight in sites.items() if _is_zero(weight)]
        if zero and len(zero) == len(sites):
            yield (
                f"Adapter {name} changes nothing: its delta is zero at all "
                f"{len(sites)} sites, as before training, where B is zero."
            )
        elif zero:
            more = f" and {len(zero) - 4} more" if len(zero) > 4 else ""
            yield (
                f"Adapter {name} has a delta of zero at {len(zero)} of {len(sites)} "
                f"sites: {', '.join(zero[:4])}{more}."
            )


def _is_zero(weight: LoraWeight) -> bool:
    a, b = (np.asarray(x) for x in (weight.a, weight.b))
    used = (a != 0).any(-2) & (b != 0).any(-1)
    return not (used & (np.asarray(weight.scale) != 0)[..., None]).any()
