"""The two-hop study: does combining an A->B and a B->C expert answer A->C?

One protocol, and two ways to answer: ``symbols`` (small bases that are trained here, by
argmax) and ``text`` (a checkpoint, by ranking and generation).
"""

from jaxlora.studies.two_hop.symbols.cached import CachedPairs as CachedPairs
from jaxlora.studies.two_hop.symbols.cached import cached_pairs as cached_pairs
