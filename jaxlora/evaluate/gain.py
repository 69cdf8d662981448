"""Does a combination do more than one of its experts alone, and how many tell?"""

from jaxlora.evaluate import power
from jaxlora.evaluate.evidence import Evidence, Thresholds
from jaxlora.evaluate.statistics import Interval


def none(e: Evidence, t: Thresholds) -> tuple[str, Interval] | None:
    """An expert alone that the combination beats by at most the margin of chance.

    Its name and the paired difference to it; None if that is not shown of any. The
    bound is that of *no transfer*, with what an expert alone answers in the place of
    chance. Where the base knows both hops there is nothing to gain.

    Args:
      e: of one combination.
      t: margin of chance, and the confidence of the intervals.
    """
    if e.cell is not None and e.cell.knows == "II":
        return None
    alone = [(name, e.controls.get(name)) for name in e.alone]
    seen = [(name, x.difference) for name, x in alone if x is not None]
    shown = [pair for pair in seen if pair[1].hi <= t.chance_margin]
    return min(shown, key=lambda pair: pair[1].hi, default=None)


def needed(e: Evidence, t: Thresholds) -> str:
    """How many people tell whether the expert of the only new hop is beaten.

    A remark, or nothing where the base knows both hops or none.

    Args:
      e: of one combination on which nothing was decided.
      t: margin and confidence.
    """
    alone = e.controls[e.ingredient.control] if e.ingredient else None
    if alone is None or e.ingredient is None:
        return ""
    seen, by = alone.difference, t.chance_margin
    n = power.to_beat(seen, by, t.confidence)
    return (
        f"needs {n:,} people: so many tell whether it beats {e.ingredient.control} by "
        f"{by:.2f}; {seen.n:,} give {seen.value:.2f} [{seen.lo:.2f}, {seen.hi:.2f}]"
    )
