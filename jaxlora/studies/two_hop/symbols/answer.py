"""How symbols answer: one arm under one method, for all groups of a base at once."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxlora import merge
from jaxlora.evaluate import metrics, scoring
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.evaluate.scoring import Answers
from jaxlora.studies.harness import Outcome
from jaxlora.studies.two_hop import arms, items
from jaxlora.studies.two_hop.items import OldAnswers
from jaxlora.studies.two_hop.protocol import Count
from jaxlora.studies.two_hop.symbols import (
    experts,
    learning,
    lessons,
    libraries,
    oracle,
    routed,
)
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig
from jaxlora.studies.two_hop.symbols.experts import Experts
from jaxlora.studies.two_hop.symbols.questions import PEOPLE_SPLITS, Asked

# Where to look at what the gate chose: the arm, and what it is held against.
DIAGNOSED = (Arm.PAIR, Arm.RANDOM, Arm.SHUFFLED)
ROWS = "rows"
"""The note of how many target rows were learned from: fewest and most, by cell."""


class Setting(NamedTuple):
    """One seed, ready to be asked."""

    config: TwoHopConfig
    experts: Experts
    asked: Asked
    old: OldAnswers | None = None
    """What the base answers, once it was asked."""
    progress: Count = lambda *_: None
    """Called with (done, all) as the oracle goes through all routes."""


def answer(setting: Setting, arm: Arm, method: Method) -> Outcome:
    """Asks one arm under one method of every group."""
    if arm is Arm.BASE:
        return Outcome(_items(setting, _of_params(setting, None)), {})
    if arm is Arm.FULL:
        recipe = setting.config.experts
        params, accuracy = experts.finetuned(setting.experts, recipe)
        frame = _items(setting, _of_params(setting, params))
        return Outcome(frame, {"own": _by_cell(setting, accuracy)})
    if reason := _obstacle(setting, arm, method):
        return Outcome(items.nothing(), {"unavailable": reason})
    outcome = _way(method)(setting, arm, method)
    return Outcome(outcome.items, outcome.notes | {"own": _own(setting, arm)})


def _obstacle(setting: Setting, arm: Arm, method: Method) -> str:
    if not arms.merges(method):
        return ""
    layers = setting.experts.base.model.config.num_layers
    return arms.obstacle(arm, method, layers)


def _way(method: Method) -> Callable[[Setting, Arm, Method], Outcome]:
    if method is Method.ORACLE:
        return _oracle
    if arms.routes(method):
        return _routed
    learns = arms.merges(method) and merge.preset(str(method)).data == "target"
    return _learned if learns else _merged


def _merged(setting: Setting, arm: Arm, method: Method) -> Outcome:
    """Asks a merge, or an expert alone."""
    trained = setting.experts

    def ask(first_half: bool) -> pd.DataFrame:
        if method is Method.NONE:
            stacked = libraries.stacked(trained, arm, first_half)
            adapters = jax.tree.map(lambda x: x[:, 0], stacked)
        else:
            adapters = libraries.merged(trained, arm, method, first_half=first_half)
        questions = setting.asked.questions
        return _items(setting, libraries.answers(trained, adapters, questions))

    return Outcome(_of_others(setting, arm, ask), {})


def _routed(setting: Setting, arm: Arm, method: Method) -> Outcome:
    """Asks a route; where there are two gates, each half of the people has its own."""
    how = arms.route_of(method, setting.config)
    trained, asked = setting.experts, setting.asked

    @functools.cache
    def by(first_half: bool) -> routed.Routed:
        return routed.routed(trained, asked, arm, method, how, first_half=first_half)

    def ask(first_half: bool) -> pd.DataFrame:
        return _by_halves(setting, routed.answers(trained, asked, by(first_half)))

    frame = _of_others(setting, arm, ask)
    notes: dict[str, Any] = {}
    if (rows := by(False).rows) is not None:
        notes[ROWS] = rows
    watched = DIAGNOSED if method is Method.ARROW else DIAGNOSED[:1]
    if arm in watched and method is not Method.UNIFORM:
        notes["routes"] = routed.chosen(trained, asked, by(False))
    return Outcome(frame, notes)


def _learned(setting: Setting, arm: Arm, method: Method) -> Outcome:
    """Each half of the people is asked of the merge that was learned on all others."""
    trained, asked = setting.experts, setting.asked
    given = lessons.lessons(asked, arm)
    learned = learning.target(
        trained.base,
        method,
        libraries.stacked(trained, arm),
        asked.groups,
        given,
        libraries.keys(trained, arm),
    )
    answers = []
    for half in (0, 1):
        data = {site: x[half] for site, x in learned.items()}
        adapters = libraries.merged(trained, arm, method, data=data)
        answers.append(libraries.answers(trained, adapters, asked.questions))
    notes = {"learned": learning.notes(learned, asked.groups)}
    rows = {ROWS: lessons.counts(given, asked.groups)}
    return Outcome(_by_halves(setting, answers), notes | rows)


def _oracle(setting: Setting, arm: Arm, method: Method) -> Outcome:
    """Each half of the people is asked under the route that was chosen on the other."""
    base, asked = setting.experts.base, setting.asked
    library = libraries.stacked(setting.experts, arm)
    examples = lessons.examples(asked, arm)
    how = oracle.search_of(setting.config)
    searched = oracle.search(
        base, library, examples, asked.groups, how, setting.progress
    )
    frame = _items(setting, oracle.answers(base, library, asked, searched))
    notes = {"oracle": oracle.notes(searched, examples, how)}
    return Outcome(frame, notes | {ROWS: oracle.rows(searched, examples, asked.groups)})


def _of_params(setting: Setting, params: Any) -> Answers:
    """Asks the base, or params with a leading axis G."""
    base, stacked = setting.experts.base, params is not None
    params = params if stacked else base.params
    questions = setting.asked.questions
    return scoring.of_params(base.model, base.pad, params, questions, stacked)


def _by_halves(setting: Setting, answers: Sequence[Answers]) -> pd.DataFrame:
    """Items of answers for everybody, or of those for even people and for odd ones."""
    frames = [_items(setting, x) for x in answers]
    if len(frames) == 1:
        return frames[0]
    even = frames[0]["person"] % 2 == 0
    return frames[0].where(even, frames[1]).astype(frames[0].dtypes)


def _of_others(
    setting: Setting, arm: Arm, ask: Callable[[bool], pd.DataFrame]
) -> pd.DataFrame:
    """Held-out A->C experts answer only for the half they were not trained on."""
    frame = ask(False)
    if arm not in arms.OTHERS:
        return frame
    other = ask(True)
    sizes = {(str(g.cell), g.pair): g.size // 2 for g in setting.asked.groups}
    pairs = zip(frame["cell"], frame["pair"], strict=True)
    half = np.array([sizes[key] for key in pairs])
    # The expert of the second half (the first frame) is asked about the first half.
    keep = (frame["person"] < half) | (frame["split"] == str(Split.FAMILIAR_TWO_HOP))
    return frame.where(keep, other).astype(frame.dtypes)


def _own(setting: Setting, arm: Arm) -> dict[str, float]:
    """The lowest accuracy of an arm's experts on their own facts, by cell."""
    shares = [setting.experts.accuracy[name] for name in arms.judged(arm)]
    return _by_cell(setting, np.min(shares, axis=0))


def _by_cell(setting: Setting, values: np.ndarray) -> dict[str, float]:
    out: dict[str, float] = {}
    for group, value in zip(setting.asked.groups, values, strict=True):
        out[str(group.cell)] = min(out.get(str(group.cell), 1.0), float(value))
    return out


def _items(setting: Setting, answers: Answers) -> pd.DataFrame:
    return collect(answers, setting.asked, setting.old)


def collect(answers: Answers, asked: Asked, old: OldAnswers | None) -> pd.DataFrame:
    """Returns the items of one arm over all groups.

    Args:
      answers: logits with a leading axis G.
      asked: what was asked.
      old: what the base answers; None when the base itself is asked.
    """
    direct, bridge, written, context = (np.asarray(x) for x in answers)
    # Direct questions: both hops and two-hop of all people, then the familiar ones.
    *direct, familiar = np.split(direct, asked.people * np.arange(1, 4), axis=1)
    logits = dict(zip(PEOPLE_SPLITS, (*direct, written, context), strict=True))
    frames = []
    for g, group in enumerate(asked.groups):
        keys, n = asked.keys[g], group.size
        for split, x in logits.items():
            frames.append(items.people(x[g, :n], group, split, keys[split], old))
        split, bridges = Split.WRITTEN_BRIDGE, keys[Split.WRITTEN].bridge
        frames.append(items.right_or_wrong(split, bridge[g, :n], bridges, group))
        split, predicted = Split.FAMILIAR_TWO_HOP, metrics.predict(familiar[g])
        right = asked.familiar_answers[g]
        frames.append(items.right_or_wrong(split, predicted, right, group))
    return pd.concat(frames, ignore_index=True)
