"""How many people each cell of a study on text has, and whether they are enough."""

from jaxlora.studies.two_hop import deciding
from jaxlora.studies.two_hop.text import resources
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.tasks.two_hop.people import Given

REAL = "the facts file"
"""What real people are called before it is known which hops the base knows of them."""


def sizes(config: TextConfig, facts: Given | None) -> dict[str, int]:
    """People of each cell over all seeds, as every verdict pools them.

    Args:
      config: of the study.
      facts: a user's people.
    """
    out: dict[str, int] = {}
    for group in (
        *resources.generated(config, config.numbers[0]),
        *resources.given(config, facts),
    ):
        cell = REAL if group.cell.familiarity == "R" else str(group.cell)
        out[cell] = out.get(cell, 0) + group.size * len(config.numbers)
    return out


def warnings(config: TextConfig) -> tuple[str, ...]:
    """Sentences on cells in which some verdict is impossible; none if all can be had.

    Args:
      config: of the study.
    """
    facts = resources.facts_of(config)
    methods = len(config.all_methods)
    return deciding.warnings(sizes(config, facts), config.thresholds, methods)
