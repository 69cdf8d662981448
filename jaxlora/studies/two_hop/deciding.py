"""Can a study decide anything? Asked of its numbers alone, before it trains."""

from collections.abc import Mapping

from jaxlora.evaluate import power
from jaxlora.evaluate.verdict import Thresholds

NO_CHANCE = 0.0
"""Accuracy of guessing that is reckoned with: wrong answers may be nobody's."""


def warnings(
    sizes: Mapping[str, int], thresholds: Thresholds, methods: int
) -> tuple[str, ...]:
    """One sentence for every number of questions at which some verdict is impossible.

    Args:
      sizes: questions over all seeds, by cell.
      thresholds: of the verdicts.
      methods: number of methods over which p-values are adjusted.

    >>> warnings({"R-OO": 63}, Thresholds(), 6)
    ()
    >>> warnings({"R-OO": 63, "F-OO": 5}, Thresholds(), 6)[0][:35]
    'F-OO has 5 questions, of which no o'
    """
    out = []
    for n in dict.fromkeys(sizes.values()):
        cells = [cell for cell, size in sizes.items() if size == n]
        what = cells[0] if len(cells) == 1 else f"Each of {', '.join(cells)}"
        out.append(power.warning(n, NO_CHANCE, thresholds, what, methods))
    return tuple(filter(None, out))
