"""What ``jaxlora diagnose`` shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlora.commands import printing
from jaxlora.commands.printing import line, number, table
from jaxlora.diagnose import Ask, placement
from jaxlora.diagnose.outlook import Outlook
from jaxlora.diagnose.text import Knows, Moved
from jaxlora.diagnose.text_rows import Rows

HEADROOM = (
    "headroom: not measured; train one LoRA on both files together and ask it: below "
    "0.8 fine-tuning fails, not the merge"
)
ORDERS = {
    1.0: "the first expert lies below the second",
    -1.0: "the first expert lies above the second, which reads what is not yet written",
    0.0: "the layers of both overlap",
}


def known(base: Knows, experts: Sequence[Knows], skill: float) -> None:
    """Prints which hops the base and the experts know.

    Args:
      base: answers of the base.
      experts: answers of each expert alone; may be none.
      skill: what is taken for the base's familiar two-hop skill.
    """
    console = printing.console()
    names = ("base", "first expert", "second expert")
    heads = ("knows", "first hop", "second hop", "two hops")
    rows = [
        (name, *(f"{x.sum()} of {x.size}" for x in knows))
        for name, knows in zip(names, (base, *experts), strict=False)
    ]
    table(console, heads, rows)
    source = "asked" if base.skill is not None else "not asked, as of the fitted bases"
    line(console, f"two-hop skill on facts that the base knows: {skill:.3f} ({source})")


def moved(rows: tuple[Rows, Rows], effects: tuple[Moved, Moved], ask: Ask) -> None:
    """Prints how selectively rows move the answers.

    Args:
      rows: of both experts.
      effects: of both.
      ask: how two-hop questions are asked.
    """
    console = printing.console()
    first = "one-hop question" if ask == "direct" else "where the bridge is written"
    places = (first, "where the answer is predicted")
    heads = ("rows", "facts", "selectivity", "chance", "effect", "margin", "asked at")
    cells = [
        (
            name,
            f"{np.count_nonzero(some.counts)} of {len(some.facts)}",
            number(x.selectivity.share),
            number(x.chance),
            number(x.selectivity.effect),
            number(x.selectivity.margin),
            place,
        )
        for name, some, x, place in zip(
            ("first expert", "second expert"), rows, effects, places, strict=True
        )
    ]
    table(console, heads, cells)
    for name, some in zip(("first", "second"), rows, strict=True):
        if some.others:
            line(
                console, f"{some.others} rows of the {name} expert teach none of these."
            )


def placed(
    norms: Sequence[np.ndarray], masks: Sequence[Sequence[bool]], ordered: float
) -> None:
    """Prints which layers hold each expert.

    Args:
      norms: [L] of both experts.
      masks: [L] layers that count as used.
      ordered: as :func:`jaxlora.diagnose.features.order` says.
    """
    console = printing.console()
    names = ("first expert", "second expert")
    rows = [
        (name, placement.spelled(mask), " ".join(map(number, x)))
        for name, x, mask in zip(names, norms, masks, strict=True)
    ]
    table(console, ("placement", "layers", "norm of each layer"), rows)
    line(console, f"placement: {ORDERS[ordered]}")


def verdict(seen: Outlook, about: Mapping[str, Any], ask: Ask) -> None:
    """Prints the prediction, what would change it, and how far it can be trusted.

    Args:
      seen: the prediction.
      about: where the predictor is from.
      ask: how two-hop questions are asked.
    """
    console = printing.console()
    how = "asked directly" if ask == "direct" else "with the bridge written"
    line(console, HEADROOM)
    line(console, f"predicted: {seen.word}, {how}; probability {seen.probability:.2f}")
    for change in seen.changes:
        line(console, f"  up to {change.probability:.2f}: {change.advice}")
    if not seen.changes:
        line(console, "  nothing that the predictor knows of would raise it")
    if seen.beyond:
        names = ", ".join(seen.beyond)
        line(console, f"outside of what was fitted, read as its nearest end: {names}")
    line(console, f"warning: {_trust(about)}")


def _trust(about: Mapping[str, Any]) -> str:
    """How far the predictor can be trusted, by where it is from."""
    if about.get("placeholder"):
        return (
            f"these coefficients stand for ones that no study has fitted yet "
            f"({about['source']}); believe the kernels, not the probability"
        )
    return (
        f"fitted on small bases of symbols ({about['source']}; {about['groups']} "
        f"groups, {about['people']} people), not on language models"
    )
