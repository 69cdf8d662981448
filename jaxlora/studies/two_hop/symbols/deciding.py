"""How many people each cell of a study on symbols has, and whether they are enough."""

from collections.abc import Sequence

from jaxlora.studies.two_hop import deciding
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.records import Record


def sizes(config: TwoHopConfig, given: Sequence[Record] = ()) -> dict[str, int]:
    """People of each cell over all seeds, as every verdict pools them.

    Args:
      config: sizes of the world, and the seeds.
      given: records of a user's people, in the place of F-OO.
    """
    n = config.world.pairs * config.world.people * len(config.numbers)
    out = {str(cell): n for cell in Cell}
    if given:
        people = sum(record.role == "two_hop" for record in given)
        out[str(Cell.F_OO)] = people * len(config.numbers)
    return out


def warnings(config: TwoHopConfig, given: Sequence[Record] = ()) -> tuple[str, ...]:
    """Sentences on cells in which some verdict is impossible; none if all can be had.

    Args:
      config: of the study.
      given: records of a user's people.
    """
    methods = len(config.all_methods)
    return deciding.warnings(sizes(config, given), config.thresholds, methods)
