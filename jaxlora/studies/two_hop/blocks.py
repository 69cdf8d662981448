"""The blocks of the study: which combinations are asked, and how each is run."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np
import pandas as pd

from jaxlora import lora, merge, route
from jaxlora.evaluate import scoring
from jaxlora.evaluate.schema import USUAL, Library, Method, Split
from jaxlora.evaluate.scoring import Answers
from jaxlora.models import Decoder
from jaxlora.studies.two_hop import (
    items,
    learning,
    libraries,
    merging,
    oracle,
    questions,
    routing,
)
from jaxlora.studies.two_hop.config import TwoHopConfig
from jaxlora.studies.two_hop.learning import COUNTERFACTUALS
from jaxlora.studies.two_hop.libraries import COMBINED, NEEDED, OTHERS, Experts
from jaxlora.studies.two_hop.questions import Asked
from jaxlora.tasks.two_hop.experts import Expert

# The oracle's labels name the A->B and the B->C expert; a third has no token.
NOT_FOR_ORACLE = (Library.TRIPLE, Library.TRIPLE_OTHERS)

# Where to look at what the gate chose: the library, and what it is held against.
DIAGNOSED = (Library.PAIR, Library.RANDOM, Library.SHUFFLED)


class Setting(NamedTuple):
    """One seed, ready to be asked."""

    config: TwoHopConfig
    experts: Experts
    asked: Asked
    old: items.Old | None

    @property
    def people(self) -> int:
        """Largest number of people in a group."""
        return self.asked.people


class Outcome(NamedTuple):
    """What a block found: its items, and facts that are no items."""

    items: pd.DataFrame
    notes: dict[str, object]


def plan(methods: Sequence[str]) -> list[tuple[Library, Method]]:
    """All blocks of one base, in order; the base comes first.

    The usual methods combine every library, others those that a verdict rests on.
    """
    single = [Library.BASE, *libraries.ALONE, Library.FULL]
    out = [(library, Method.NONE) for library in single]
    for name in methods:
        method = Method(name)
        for library in COMBINED if method in USUAL else NEEDED:
            if method is Method.ORACLE and library in NOT_FOR_ORACLE:
                continue
            out.append((library, method))
    return out


def run(setting: Setting, library: Library, method: Method) -> Outcome:
    """Runs one block on one base."""
    if library is Library.BASE:
        return Outcome(_items(setting, _ask_params(setting, None)), {})
    if library is Library.FULL:
        params, own = libraries.finetuned(setting.experts, setting.config.experts)
        frame = _items(setting, _ask_params(setting, params))
        return Outcome(frame, {"own": _by_cell(setting, own)})
    if method is Method.ORACLE:
        found = _oracle(setting, library)
        return found._replace(notes=found.notes | {"own": _own(setting, library)})
    if reason := merging.obstacle(library, method):
        return Outcome(items.nothing(), {"unavailable": reason})
    if merging.merges(method) and merge.preset(str(method)).data == "target":
        found = _learned(setting, library, method)
        return found._replace(notes=found.notes | {"own": _own(setting, library)})
    frame = _run_halves(setting, library, method)
    notes: dict[str, object] = {"own": _own(setting, library)}
    if method is Method.ARROW and library in DIAGNOSED:
        notes["routes"] = _routes(setting, library, method)
    return Outcome(frame, notes)


def _routes(setting: Setting, library: Library, method: Method):
    base, n = setting.experts.base, setting.people
    return routing.diagnose(
        _routed(base.model, route_of(method, setting.config)),
        base,
        libraries.stacked(setting.experts, library),
        setting.asked.questions.direct[:, 2 * n : 3 * n],
        setting.experts.groups,
    )


def _run_halves(setting: Setting, library: Library, method: Method) -> pd.DataFrame:
    """Held-out A->C experts answer only for the half they were not trained on."""
    frame = _items(setting, _ask(setting, library, method, first_half=False))
    if library not in OTHERS:
        return frame
    other = _items(setting, _ask(setting, library, method, first_half=True))
    sizes = {(str(g.cell), g.pair): g.size // 2 for g in setting.experts.groups}
    half = np.array(
        [sizes[key] for key in zip(frame["cell"], frame["pair"], strict=True)]
    )
    # The expert of the second half (the first frame) is asked about the first half.
    keep = (frame["person"] < half) | (frame["split"] == str(Split.FAMILIAR_TWO_HOP))
    return frame.where(keep, other).astype(frame.dtypes)


def _ask(setting: Setting, library: Library, method: Method, first_half: bool):
    experts, base = setting.experts, setting.experts.base
    asked = setting.asked.questions
    if merging.merges(method):
        return merging.answers(experts, library, method, asked, first_half=first_half)
    stacked = libraries.stacked(experts, library, first_half)
    if method is Method.NONE:
        rank = 3 * setting.config.lora.rank
        adapters = lora.pad(jax.tree.map(lambda x: x[:, 0], stacked), rank)
        return scoring.of_adapters(base.model, base.pad, base.params, adapters, asked)
    model = _routed(base.model, route_of(method, setting.config))
    return scoring.of_libraries(model, base.pad, base.params, stacked, asked)


def _learned(setting: Setting, library: Library, method: Method) -> Outcome:
    """Each half of the people is asked of the merge that was learned on the other."""
    experts, asked = setting.experts, setting.asked
    base, groups = experts.base, experts.groups
    found = learning.target(
        base,
        method,
        libraries.stacked(experts, library),
        learning.examples(asked, groups, library),
        merging.keys(base.seed, library, len(groups)),
    )
    frames = []
    for half in (0, 1):
        data = {name: values[half] for name, values in found.items()}
        told = merging.answers(experts, library, method, asked.questions, data=data)
        frames.append(_items(setting, told))
    mine = frames[0]["person"] % 2 == 0
    frame = frames[0].where(mine, frames[1]).astype(frames[0].dtypes)
    return Outcome(frame, {"learned": learning.shown(found, groups)})


class ArrowOptions(Protocol):
    """What a configuration says of Arrow."""

    @property
    def arrow_top_k(self) -> int:
        """Experts kept per token and site; 0 for all."""
        ...

    @property
    def arrow_temperature(self) -> float:
        """Divides the scores."""
        ...


def route_of(method: Method, config: ArrowOptions) -> route.Route:
    """Returns the route that a method names."""
    if method is Method.ARROW:
        return route.Route(
            gate=route.arrow,
            top_k=config.arrow_top_k,
            temperature=config.arrow_temperature,
        )
    return route.Route(gate=route.gate(str(method)))


def _routed(model: Decoder, how: route.Route) -> Decoder:
    return Decoder(model.config, how)


def _ask_params(setting: Setting, params) -> Answers:
    base = setting.experts.base
    stacked = params is not None
    return scoring.of_params(
        base.model,
        base.pad,
        params if stacked else base.params,
        setting.asked.questions,
        stacked,
    )


def _items(setting: Setting, answers: Answers) -> pd.DataFrame:
    return items.collect(answers, setting.experts.groups, setting.asked, setting.old)


def _oracle(setting: Setting, library: Library) -> Outcome:
    """Asks under every candidate route; each half of the people gets the other's."""
    base, layers = setting.experts.base, setting.experts.base.model.config.num_layers
    model = _routed(base.model, route.Route(gate=route.oracle))
    stacked = libraries.stacked(setting.experts, library)
    choices = oracle.candidates(layers)
    frames = []
    for choice in choices:
        given = oracle.labels(choice, layers, setting.people, setting.asked.familiar)
        answers = scoring.of_libraries(
            model, base.pad, base.params, stacked, setting.asked.questions, given
        )
        frames.append(_items(setting, answers))
    right = "counterfactual" if library in COUNTERFACTUALS else "correct"
    found = _searched(choices, frames, right)
    return found._replace(notes=found.notes | {"own": _own(setting, library)})


def _searched(choices, frames: list[pd.DataFrame], right: str = "correct") -> Outcome:
    """Gives each half of the people the route that was best for the other half.

    ``right`` is the column of the answer that a composing model would give: that of the
    experts' facts, which are not the true ones in a counterfactual library.
    """
    out = frames[0].copy()
    notes: dict[str, object] = {}
    first = frames[0]
    for cell in first["cell"].unique():
        for half in (0, 1):
            asked = (first["cell"] == cell) & (first["split"] == str(Split.TWO_HOP))
            mine = (first["cell"] == cell) & (first["person"] % 2 == half)
            theirs = asked & (first["person"] % 2 != half)
            best = oracle.choose(
                [frame.loc[theirs, right].to_numpy() for frame in frames],
                [
                    # The loss is that of the true answer: no guide if another is right.
                    frame.loc[theirs, "loss"].to_numpy() * (right == "correct")
                    for frame in frames
                ],
            )
            out.loc[mine] = frames[best].loc[mine]
            notes[f"{cell}, half {half}"] = choices[best]._asdict()
    return Outcome(out, {"oracle": notes})


def _own(setting: Setting, library: Library) -> dict[str, float]:
    """The lowest accuracy of the library's experts on their own facts, by cell."""
    members = libraries.MEMBERS[library]
    if library in OTHERS:
        members = (*members, Expert.TARGET_FIRST)
    lowest = np.min([setting.experts.own[name] for name in members], axis=0)
    return _by_cell(setting, lowest)


def _by_cell(setting: Setting, values: np.ndarray) -> dict[str, float]:
    out: dict[str, float] = {}
    for group, value in zip(setting.experts.groups, values, strict=True):
        out[str(group.cell)] = min(out.get(str(group.cell), 1.0), float(value))
    return out


def prepare(
    config: TwoHopConfig, experts: Experts, old: items.Old | None = None
) -> Setting:
    """Makes the questions of a seed."""
    asked = questions.ask(experts.base, experts.groups, config.retention_items)
    return Setting(config, experts, asked, old)
