"""What ``jaxlora routes`` says: loads, the map as a table, entropy, odd scores."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jaxlora.commands.printing import line, number, plain
from jaxlora.report import route_numbers
from jaxlora.report.route_numbers import Measured
from jaxlora.route import diagnose


def load(console: Console, measured: Measured, experts: Sequence[str]) -> None:
    """Prints how much each expert is used.

    Args:
      console: where to.
      measured: what the route chose.
      experts: names of the E adapters.
    """
    table = plain("", "expert", "mean weight", "share as the top")
    for i, name in enumerate(experts):
        table.add_row(
            str(i), Text(name), number(measured.load[i]), number(measured.share[i])
        )
    console.print(table)


def grid(console: Console, measured: Measured, texts: Sequence[str]) -> None:
    """Prints the top expert of each token and layer; layers that do not fit as bands.

    A band of layers is their mean.

    Args:
      console: where to.
      measured: what the route chose.
      texts: what each of the T tokens stands for.
    """
    shown = [route_numbers.shown(text) for text in texts]
    layers, _, experts = measured.weight.shape
    first = max(5, *map(cell_len, shown)) + len(str(len(texts))) + len("entropy") + 8
    each = len(str(experts - 1)) + 6  # as in "7 .50", with what is between columns
    columns = min(layers, max(1, (console.width - first) // each))
    bands = np.array_split(np.arange(layers), columns)
    heads = [f"{b[0]}" if len(b) == 1 else f"{b[0]}-{b[-1]}" for b in bands]
    weights = np.stack([measured.weight[band].mean(axis=0) for band in bands], axis=1)
    best = route_numbers.single(weights)  # [T, columns]
    table = plain("", "token", "entropy", *heads)
    for t, text in enumerate(shown):
        cells = map(_cell, best[t], weights[t].max(axis=-1))
        table.add_row(str(t), Text(text), number(measured.entropy[:, t].mean()), *cells)
    console.print(table)


def _cell(expert: int, weight: float) -> str:
    """The number of the top expert and its weight.

    >>> _cell(1, 0.75), _cell(-1, 0.5), _cell(-1, 0.0)
    ('1 .75', '= .50', '-')
    """
    if not weight > 0:
        return "-"
    which = "=" if expert == diagnose.NONE else str(expert)
    return f"{which} {route_numbers.decimals(float(weight))}"


def summary(
    console: Console, measured: Measured, sites: Mapping[str, np.ndarray]
) -> None:
    """Prints how sure the route is, and how steady.

    Args:
      console: where to.
      measured: what the route chose.
      sites: weights by site, [L, T, E].
    """
    experts = len(measured.load)
    mean, switched = float(measured.entropy.mean()), measured.switched[1:].tolist()
    changes = number(sum(switched) / len(switched) if switched else math.nan)
    line(
        console,
        f"entropy {number(mean)} nats, as of {number(math.exp(mean))} equal experts; "
        f"no preference is ln {experts} = {number(math.log(experts))}; the top expert "
        f"changes at {changes} of the tokens (means over {len(sites)} sites and "
        f"{len(measured.weight)} layers)",
    )


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
