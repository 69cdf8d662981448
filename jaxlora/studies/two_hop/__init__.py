"""The two-hop study: does combining an A->B and a B->C expert answer A->C?

One protocol, and two ways to answer: ``symbols`` (small bases that are trained here, by
argmax) and ``text`` (a checkpoint, by ranking and generation). What follows is what
other studies may use of it.
"""

from jaxlora.studies.two_hop import arms as arms
from jaxlora.studies.two_hop import items as items
from jaxlora.studies.two_hop import judge as judge
from jaxlora.studies.two_hop import rows as rows
from jaxlora.studies.two_hop.config import METHODS as METHODS
from jaxlora.studies.two_hop.rows import Block as Block
from jaxlora.studies.two_hop.symbols import answer as answer
from jaxlora.studies.two_hop.symbols import bases as bases
from jaxlora.studies.two_hop.symbols import experts as experts
from jaxlora.studies.two_hop.symbols import questions as questions
from jaxlora.studies.two_hop.symbols.cached import CachedPairs as CachedPairs
from jaxlora.studies.two_hop.symbols.cached import cached_pairs as cached_pairs
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig as TwoHopConfig
from jaxlora.studies.two_hop.symbols.pretraining import PretrainConfig as PretrainConfig
from jaxlora.studies.two_hop.symbols.recipes import ExpertsConfig as ExpertsConfig
from jaxlora.studies.two_hop.symbols.recipes import Kind as Kind
from jaxlora.studies.two_hop.symbols.recipes import kinds as kinds
