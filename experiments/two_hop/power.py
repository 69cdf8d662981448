"""What the presets of the two-hop study can decide: writes power.md.

Run: ``python experiments/two_hop/power.py``. Nothing is trained: it is a table of the
number of people, the chance that is reckoned with, and the thresholds.
"""

from collections.abc import Iterator
from pathlib import Path

from jaxlora.evaluate import power
from jaxlora.studies.two_hop.deciding import NO_CHANCE
from jaxlora.studies.two_hop.symbols import deciding
from jaxlora.studies.two_hop.symbols.config import PRESETS, TwoHopConfig

HEADER = "| preset | people a cell | verdict | best outcome | must reach | decided |"
UNLIKE = (0.1, 0.2, 0.3, 0.4)
"""Shares of people whom exactly one of two models answers right."""


def lines() -> Iterator[str]:
    """The table, line by line."""
    yield HEADER
    yield "|---|--:|---|---|---|---|"
    for name, config in {"21 people a cell": TwoHopConfig(), **PRESETS}.items():
        n = min(deciding.sizes(config).values())
        tries = len(config.all_methods)
        for x in power.attainable(n, NO_CHANCE, config.thresholds, tries):
            interval = (
                f"{x.interval.value:.2f} [{x.interval.lo:.3f}, {x.interval.hi:.3f}]"
            )
            end = "upper" if x.label.startswith("no ") else "lower"
            bound = f"{end} end, {x.bound:.2f}"
            cells = (
                name,
                str(n),
                x.label,
                interval,
                bound,
                "yes" if x.decided else "no",
            )
            yield f"| {' | '.join(cells)} |"


def needed() -> Iterator[str]:
    """How many people tell whether an expert alone is beaten by the margin."""
    thresholds = TwoHopConfig().thresholds
    by = thresholds.chance_margin
    for unlike in UNLIKE:
        n = power.to_beat_before(unlike, by, thresholds.confidence)
        yield f"{n} if {unlike:.0%} of the people are answered by one of them only"


def main() -> None:
    """Writes the table."""
    thresholds = TwoHopConfig().thresholds
    text = "\n".join(lines())
    least = power.smallest(NO_CHANCE, thresholds, len(PRESETS["standard"].all_methods))
    margin, kept = thresholds.chance_margin, thresholds.preserved_margin
    text += (
        f"\n\nChance is reckoned with as {NO_CHANCE:.2f}: wrong answers may be "
        f"nobody's. Margins are {margin:.2f} above chance or an expert alone, and "
        f"{kept:.2f} below the base; intervals have {thresholds.confidence:.0%}. "
        f"The fewest people that can decide all: {least}.\n\nPeople who tell, with "
        f"{power.CHANCE_TO_SEE:.0%} power, whether a combination beats an expert "
        f"alone by {margin:.2f} (paired): {'; '.join(needed())}.\n"
    )
    Path(__file__).with_name("power.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
