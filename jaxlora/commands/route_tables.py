"""What ``jaxlora routes`` says: loads, the map as a table, entropy, odd scores."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.cells import cell_len
from rich.console import Console

from jaxlora.commands.printing import line, number, table
from jaxlora.report import route_numbers
from jaxlora.report.route_numbers import Measured
from jaxlora.route import diagnose


def show(
    console: Console,
    measured: Measured,
    texts: Sequence[str],
    experts: Sequence[str],
    sites: int,
) -> None:
    """Prints how much each expert is used, and where; how sure and steady the route is.

    Args:
      console: where to.
      measured: what the route chose.
      texts: what each of the T tokens stands for.
      experts: names of the E adapters.
      sites: how many there are.
    """
    loads = zip(experts, measured.load, measured.share, strict=True)
    table(
        console,
        ("", "expert", "mean weight", "share as the top"),
        [(str(i), x, number(w), number(top)) for i, (x, w, top) in enumerate(loads)],
    )
    grid(console, measured, texts)
    mean, switched = float(measured.entropy.mean()), measured.switched[1:].tolist()
    changes = number(sum(switched) / len(switched) if switched else math.nan)
    line(
        console,
        f"entropy {number(mean)} nats, as of {number(math.exp(mean))} equal experts; "
        f"no preference is ln {len(experts)} = {number(math.log(len(experts)))}; the "
        f"top expert changes at {changes} of the tokens (means over {sites} sites and "
        f"{len(measured.weight)} layers)",
    )


def grid(console: Console, measured: Measured, texts: Sequence[str]) -> None:
    """Prints the top expert of each token and layer; layers that do not fit as bands.

    A band of layers is their mean.

    Args:
      console: where to.
      measured: what the route chose.
      texts: what each of the T tokens stands for.
    """
    shown = [route_numbers.shown(text) for text in texts]
    first = max(5, *map(cell_len, shown)) + len(str(len(texts))) + len("entropy") + 8
    each = len(str(len(measured.load) - 1)) + 6  # "7 .50", and space between columns
    bands = route_numbers.bands(measured, max(1, (console.width - first) // each))
    rows = []
    for t, text in enumerate(shown):
        cells = [_cell(weights[t]) for weights in bands.values()]
        rows.append((str(t), text, number(measured.entropy[:, t].mean()), *cells))
    table(console, ("", "token", "entropy", *bands), rows)


def _cell(weights: np.ndarray) -> str:
    """The number of the top expert and its weight.

    >>> _cell(np.array([0.25, 0.75])), _cell(np.array([0.5, 0.5])), _cell(np.zeros(2))
    ('1 .75', '= .50', '-')
    """
    best = int(route_numbers.single(weights))
    if not weights.max() > 0:
        return "-"
    which = "=" if best == diagnose.NONE else str(best)
    return f"{which} {route_numbers.decimals(float(weights.max()))}"


def odd(console: Console, strayed: Mapping[str, np.ndarray]) -> None:
    """Prints how many tokens had scores that are no numbers, if any had.

    Args:
      console: where to.
      strayed: {place: [L, T]}.
    """
    places = {place: odd for place, odd in strayed.items() if odd.any()}
    if not places:
        return
    tokens = np.any([odd.any(axis=0) for odd in places.values()], axis=0)
    layer = min(int(odd.any(axis=1).argmax()) for odd in places.values())
    line(
        console,
        f"{int(tokens.sum())} of {len(tokens)} tokens, from token "
        f"{int(tokens.argmax())} and layer {layer} on, had scores that are no numbers, "
        f"at {len(places)} of {len(strayed)} places; these experts were passed over",
    )
