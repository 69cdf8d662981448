"""Flags of routes: which, how sharp, and what they learned."""

from pathlib import Path
from typing import Annotated

import tyro

from jaxlora import route as routes
from jaxlora.commands import merge_fields
from jaxlora.models import reuse


def gate_names() -> tuple[str, ...]:
    """Names of the routes whose gate is made from data.

    >>> "phatgoose" in gate_names(), "arrow" in gate_names()
    (True, False)
    """
    made = ("own", "target")
    return tuple(n for n in routes.names() if routes.describe(n).data in made)


RouteName = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help=f"Or choose among them for each token, by the adapters alone: "
        f"{', '.join(reuse.route_names())}; or, with --gate: "
        f"{', '.join(gate_names())}; `jaxlora gate --list` says what each is.",
    ),
]
GateName = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="FILE",
        help="What a route learned from data, as `jaxlora gate` writes it; it names "
        "its route.",
    ),
]
General = Annotated[
    tyro.conf.UseAppendAction[tuple[Path, ...]],
    tyro.conf.arg(
        metavar="DIR",
        help="Adapter of general knowledge, of which genknowsub takes the mean out of "
        "the others (default: their own mean); repeat it for several.",
    ),
]
TopK = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="K",
        help="Experts a route keeps per token and site, 1 or more; if not given, as "
        "the route says.",
    ),
]
RouteTemperature = Annotated[
    float | None,
    tyro.conf.arg(
        metavar="T",
        help="Divides a route's scores before its softmax; if not given, as the route "
        "says.",
    ),
]


def check_top_k(top_k: int | None) -> None:
    """Refuses a ``--top-k`` below 1.

    Raises:
      ValueError: saying what to give in its place.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(
            f"--top-k is {top_k}, expected 1 or more; leave it out for what the route "
            f"says, or give the number of adapters to keep all."
        )


def importable(name: str | None) -> None:
    """Imports a route ``module:attribute`` from the current folder, as merges are.

    Raises:
      ValueError: if it cannot be imported, or is no route.
    """
    if name and ":" in name:
        with merge_fields.importable():
            routes.preset(name)
