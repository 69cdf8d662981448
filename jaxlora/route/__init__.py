"""Routing: keep the library, weigh its experts by a gate."""

from jaxlora.route.route import Gate as Gate
from jaxlora.route.route import Route as Route
from jaxlora.route.route import arrow as arrow
from jaxlora.route.route import gate as gate
from jaxlora.route.route import mix as mix
from jaxlora.route.route import names as names
from jaxlora.route.route import oracle as oracle
from jaxlora.route.route import top_k_softmax as top_k_softmax
from jaxlora.route.route import uniform as uniform
