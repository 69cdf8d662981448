"""The blocks of the study: which combinations are asked, and how each is run."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxlora import lora, merge
from jaxlora.evaluate import scoring
from jaxlora.evaluate.schema import USUAL, Library, Method, Split
from jaxlora.evaluate.scoring import Answers
from jaxlora.studies.two_hop import (
    items,
    learning,
    libraries,
    merging,
    oracle,
    questions,
    routed,
)
from jaxlora.studies.two_hop.config import TwoHopConfig
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
    tell: Callable[[int, int], None] = lambda *_: None
    """Called with (done, all) as the oracle goes through all routes."""

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
    gate: dict[str, object] = {"own": _own(setting, library)}
    if routed.routes(method):
        found = _routed(setting, library, method)
        return found._replace(notes=found.notes | gate)
    if merging.merges(method) and merge.preset(str(method)).data == "target":
        found = _learned(setting, library, method)
        return found._replace(notes=found.notes | gate)

    def one(first_half: bool) -> pd.DataFrame:
        return _items(setting, _ask(setting, library, method, first_half))

    return Outcome(_of_others(setting, library, one), gate)


def _routed(setting: Setting, library: Library, method: Method) -> Outcome:
    """Asks of a route, each half of the people of its own gate if there are two."""
    how = routed.route_of(method, setting.config)
    experts, asked = setting.experts, setting.asked

    def one(first_half: bool) -> pd.DataFrame:
        with_gates = routed.make(
            experts, asked, library, method, how, first_half=first_half
        )
        return _by_halves(setting, routed.answers(with_gates))

    frame = _of_others(setting, library, one)
    watched = DIAGNOSED if method is Method.ARROW else DIAGNOSED[:1]
    if library not in watched or method is Method.UNIFORM:
        return Outcome(frame, {})
    told = routed.look(routed.make(experts, asked, library, method, how))
    return Outcome(frame, {"routes": told})


def _by_halves(setting: Setting, told: Sequence[Answers]) -> pd.DataFrame:
    """Items of answers for everybody, or of those for even people and for odd ones."""
    frames = [_items(setting, answers) for answers in told]
    if len(frames) == 1:
        return frames[0]
    even = frames[0]["person"] % 2 == 0
    return frames[0].where(even, frames[1]).astype(frames[0].dtypes)


def _of_others(
    setting: Setting, library: Library, one: Callable[[bool], pd.DataFrame]
) -> pd.DataFrame:
    """Held-out A->C experts answer only for the half they were not trained on."""
    frame = one(False)
    if library not in OTHERS:
        return frame
    other = one(True)
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
    rank = 3 * setting.config.lora.rank
    adapters = lora.pad(jax.tree.map(lambda x: x[:, 0], stacked), rank)
    return scoring.of_adapters(base.model, base.pad, base.params, adapters, asked)


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
    told = [
        merging.answers(experts, library, method, asked.questions, data=data)
        for data in ({k: x[half] for k, x in found.items()} for half in (0, 1))
    ]
    shown = learning.shown(found, groups)
    return Outcome(_by_halves(setting, told), {"learned": shown})


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
    """Each half of the people is asked under the route that was chosen on the other."""
    experts, asked, config = setting.experts, setting.asked, setting.config
    stacked = libraries.stacked(experts, library)
    examples = learning.examples(asked, experts.groups, library)
    how = oracle.Search(
        mode=config.oracle_search,
        starts=config.oracle_starts,
        sweeps=config.oracle_sweeps,
        none=config.oracle_none,
    )
    base, tell = experts.base, setting.tell
    found = oracle.search(base, stacked, examples, experts.groups, how, tell)
    frame = _items(setting, oracle.answers(base, stacked, asked, found))
    return Outcome(frame, {"oracle": oracle.notes(found, examples, how)})


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
