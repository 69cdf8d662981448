"""Two-hop facts: A -r1-> B -r2-> C, as symbols and in words."""

from jaxlora.tasks.two_hop.cells import Cell as Cell
from jaxlora.tasks.two_hop.cells import arrows as arrows
from jaxlora.tasks.two_hop.cells import plain as plain
from jaxlora.tasks.two_hop.experts import Expert as Expert
from jaxlora.tasks.two_hop.experts import Group as Group
from jaxlora.tasks.two_hop.experts import groups as groups
from jaxlora.tasks.two_hop.experts import rows as rows
from jaxlora.tasks.two_hop.records import Record as Record
from jaxlora.tasks.two_hop.records import Vocab as Vocab
from jaxlora.tasks.two_hop.records import encode as encode
from jaxlora.tasks.two_hop.world import World as World
from jaxlora.tasks.two_hop.world import WorldConfig as WorldConfig
from jaxlora.tasks.two_hop.world import generate as generate
