"""Routes by name, each with its fields, its source and the data it needs.

Names with brackets follow the conventions of other software; under one name, ``arrow``,
peers ship methods that differ in what is mixed, how many experts are kept, and how
scores are scaled.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxlora.registry import Registry, check_fields, imported
from jaxlora.route import learned, spectral
from jaxlora.route.gate import Gate
from jaxlora.route.route import Route


class Entry(NamedTuple):
    """A preset: a route, and what there is to say of it."""

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
        return _values(self.route) | _values(self.route.gate)


def _values(part: Route | Gate) -> dict[str, Any]:
    values = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    return {name: value for name, value in values.items() if name != "gate"}


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

_ENTRIES: Mapping[str, Entry] = {
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
        Route(gate=learned.ExpertKeys(standard=True), normalize="layer", top_k=2),
        "by keys that each expert trained as a sigmoid gate on its own data",
        "Phatgoose, arXiv 2402.05859",
        training=Route(gate=learned.ExpertKeys(), weighting="sigmoid"),
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

PRESETS = Registry("route", _ENTRIES)
"""Every preset, ours first."""

names = PRESETS.names
describe = PRESETS.describe


def preset(name: str, **fields: Any) -> Route:
    """Returns a route by its name, or your own by ``module:attribute``.

    Args:
      name: one of ``route.names()``; or where a :class:`Route` can be imported from.
      **fields: of the route or of its gate, in place of the preset's.

    Raises:
      ValueError: naming what exists, if there is no such route or field, or a field
        has an impossible value.

    >>> preset("smile", rank=2, top_k=None).gate
    Spectral(per='site', rank=2, scaled=False)
    >>> names()[:3], describe("phatgoose").data
    (('uniform', 'random-arrow', 'oracle'), 'own')
    """
    route = imported("route", name) if ":" in name else describe(name).route
    if not isinstance(route, Route):
        raise ValueError(
            f"{name!r} is a {type(route).__name__}, expected a jaxlora.route.Route."
        )
    of_gate = _values(route.gate)
    check_fields("route", name, fields, sorted({*_values(route), "gate", *of_gate}))
    gate: Gate = dataclasses.replace(
        route.gate, **{k: v for k, v in fields.items() if k in of_gate}
    )
    rest: Any = {k: v for k, v in fields.items() if k not in of_gate}
    return dataclasses.replace(route, gate=gate, **rest)
