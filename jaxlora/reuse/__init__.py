"""A base that reuses adapters: none, one, a merge of several, or a route."""

from jaxlora.reuse.combination import COMMON as COMMON
from jaxlora.reuse.combination import MORE as MORE
from jaxlora.reuse.combination import Combination as Combination
from jaxlora.reuse.combination import check as check
from jaxlora.reuse.combination import gate_names as gate_names
from jaxlora.reuse.combination import route_names as route_names
from jaxlora.reuse.reuse import Reuse as Reuse
from jaxlora.reuse.reuse import build as build
from jaxlora.reuse.reuse import load as load
