"""Routes by name, each with its fields, its source and the data it needs.

Names with brackets follow the conventions of other software; under one name, ``arrow``,
peers ship methods that differ in what is mixed, how many experts are kept, and how
scores are scaled.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxlora.names import unknown
from jaxlora.route import learned, spectral
from jaxlora.route.gate import Gate
from jaxlora.route.route import Route


class Entry(NamedTuple):
    """What there is to say of a preset."""

    route: Route
    """With its defaults; ``preset`` replaces fields of it or of its gate."""
    summary: str
    """One line."""
    source: str
    """The paper or the software that the convention is of."""
    training: Route | None = None
    """How keys are trained: each expert alone on its own data if the gate's data are
    its "own", else all of them on the target task; None if they are not."""

    @property
    def data(self) -> str:
        """What the gate must see: "free", "own", "target" or "labels"."""
        return self.route.gate.data

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the preset and their values: the route's and the gate's."""
        own = {f.name: getattr(self.route, f.name) for f in _fields(self.route)}
        gate = own.pop("gate")
        return own | {f.name: getattr(gate, f.name) for f in _fields(gate)}


def _fields(thing: Any):
    return dataclasses.fields(thing)


def _spectral(rank: int | None = 1, scaled: bool = False, **fields: Any) -> Route:
    return Route(gate=spectral.Spectral(rank, scaled), **fields)


_LINEAR = Route(gate=learned.linear)
_SMEAR = Route(
    gate=learned.Linear(start="normal", standard=True),
    normalize="layer",
    granularity="sequence",
    mixing="factors",
)
_FLOW = Route(gate=learned.Flow())
_ARROW = "Arrow, arXiv 2405.11157"

PRESETS: Mapping[str, Entry] = {
    "uniform": Entry(
        Route(gate=spectral.uniform),
        "the same weight for every expert: the mean, as a route",
        "baseline",
    ),
    "random-arrow": Entry(
        Route(gate=spectral.random),
        "Arrow with directions drawn at random: a gate that knows nothing",
        "control",
    ),
    "oracle": Entry(
        Route(gate=spectral.oracle),
        "weights come as labels with the call",
        "upper bound",
    ),
    "arrow": Entry(
        _spectral(),
        "by |v . x|, v the top singular direction of an expert; updates are mixed",
        _ARROW,
    ),
    "arrow-cosine": Entry(
        _spectral(normalize="unit", temperature=0.1),
        "Arrow by the cosine: as sharp in a layer of small inputs as in one of large",
        f"{_ARROW}, with normalised scores",
    ),
    "top-1": Entry(
        _spectral(top_k=1, weighting="unit"),
        "Arrow's best expert, with weight 1: the update as it was trained",
        "Hard-Routed MoR-LoRA, arXiv 2606.31413",
    ),
    "smile": Entry(
        _spectral(rank=4, top_k=1),
        "by the norm of the projection on an expert's `rank` top directions",
        "SMILE, arXiv 2408.10174",
    ),
    "spectr": Entry(
        _spectral(rank=None, scaled=True),
        "by |delta x|, how much an expert would change the output",
        "SpectR, arXiv 2504.03454",
    ),
    "genknowsub": Entry(
        _spectral(top_k=3, prepare="delta"),
        "Arrow after a general expert's delta is taken out of every expert",
        "GenKnowSub, arXiv 2505.10939, as its text says",
    ),
    "average-activation": Entry(
        Route(gate=learned.Mean(), normalize="width"),
        "by the product with an expert's mean input on its own data",
        "baseline of arXiv 2402.05859",
    ),
    "phatgoose": Entry(
        Route(gate=learned.Own(standard=True), normalize="layer", top_k=2),
        "by keys that each expert trained as a sigmoid gate on its own data",
        "Phatgoose, arXiv 2402.05859",
        training=Route(gate=learned.Own(), weighting="sigmoid"),
    ),
    "linear": Entry(
        _LINEAR,
        "a linear gate at every site, trained on the target task",
        "mixture of experts over frozen adapters",
        training=_LINEAR,
    ),
    "smear": Entry(
        _SMEAR,
        "a trained gate on the mean of the sequence so far; factors are mixed",
        "SMEAR, arXiv 2306.03745",
        training=_SMEAR,
    ),
    "lora-flow": Entry(
        _FLOW,
        "a trained gate once a layer, softmax(W x) + b, shared by its sites",
        "LoRA-Flow, ACL 2024",
        training=_FLOW,
    ),
    "retrieval": Entry(
        Route(
            gate=learned.Nearest(),
            granularity="sequence",
            top_k=1,
            weighting="unit",
        ),
        "the expert that has the example most like the sequence, in the whole model",
        "baseline of arXiv 2402.05859, with the base's embeddings",
    ),
    "arrow[peft]": Entry(
        _spectral(top_k=3),
        "top 3 of |v . x|; updates are mixed",
        "PEFT 0.21.2, with exact directions in place of 15 power iterations",
    ),
    "arrow[mttl]": Entry(
        _spectral(mixing="factors"),
        "all experts by |v . x|; factors are mixed",
        "mttl, the authors' code",
    ),
    "arrow[genknowsub]": Entry(
        _spectral(top_k=3, mixing="factors", prepare="factor"),
        "factors of the general expert are subtracted; top 3; factors are mixed",
        "GenKnowSub's code, without its dropout at inference",
    ),
    "arrow[phatgoose]": Entry(
        _spectral(top_k=2, temperature=10.0, normalize="width"),
        "top 2 of |v . x| / (10 sqrt(D)); updates are mixed",
        "phatgoose's code, score_type=arrow",
    ),
    "genknowsub[peft]": Entry(
        _spectral(top_k=3, prepare="factor"),
        "factors of the general expert are subtracted; top 3; updates are mixed",
        "PEFT 0.21.2, use_gks=True",
    ),
}
"""Every preset, ours first."""


def preset(name: str, **fields: Any) -> Route:
    """Returns a route by its name, or your own by ``module:attribute``.

    Args:
      name: one of :func:`names`; or where a :class:`Route` can be imported from.
      **fields: of the route or of its gate, in place of the preset's.

    Raises:
      ValueError: naming what exists, if there is no such route or field, or a field
        has an impossible value.

    >>> preset("smile", rank=2, top_k=None).gate
    Spectral(level='site', rank=2, scaled=False)
    """
    found = _imported(name) if ":" in name else describe(name).route
    gate = {f.name: getattr(found.gate, f.name) for f in _fields(found.gate)}
    known = {f.name for f in _fields(found)} | set(gate)
    for field in fields:
        if field not in known:
            raise ValueError(
                f"The route {name!r} has no field {field!r}; its fields: "
                f"{', '.join(sorted(known))}."
            )
    changed: Gate = dataclasses.replace(
        found.gate, **{k: v for k, v in fields.items() if k in gate}
    )
    rest: Any = {k: v for k, v in fields.items() if k not in gate}
    return dataclasses.replace(found, gate=changed, **rest)


def describe(name: str) -> Entry:
    """What there is to say of a preset: its fields, summary, source and data.

    Raises:
      ValueError: naming what exists, if there is no such route.

    >>> describe("phatgoose").data
    'own'
    """
    if name not in PRESETS:
        raise ValueError(unknown("route", name, PRESETS))
    return PRESETS[name]


def names() -> tuple[str, ...]:
    """The names :func:`preset` knows.

    >>> names()[:3]
    ('uniform', 'random-arrow', 'oracle')
    """
    return tuple(PRESETS)


def _imported(name: str) -> Route:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Cannot import the route {name!r}: {error}.") from None
    if not isinstance(found, Route):
        raise ValueError(
            f"{name!r} is a {type(found).__name__}, expected a jaxlora.route.Route."
        )
    return found
