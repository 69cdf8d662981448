"""The oracle: it is given which expert each layer and token needs, by a searched route.

A relation token has its own expert: S A->B, Z B->C. On the two-hop prompt that alone
cannot be right in all layers, so its route is searched, see ``oracle_search``: one
expert, or none, per layer and token for all people of a cell, chosen on one half of
them and scored on the other half, then the other way round.

The right answers are the true ones, but in a counterfactual library those that its
experts' facts compose to: what ``lessons.examples`` says.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora, route
from jaxlora.evaluate import scoring
from jaxlora.evaluate.scoring import Answers, Labels, Questions
from jaxlora.models import Decoder
from jaxlora.studies.two_hop.protocol import Count
from jaxlora.studies.two_hop.symbols import oracle_score, oracle_search
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig
from jaxlora.studies.two_hop.symbols.lessons import Examples, spans
from jaxlora.studies.two_hop.symbols.oracle_score import Problem
from jaxlora.studies.two_hop.symbols.oracle_search import Best
from jaxlora.studies.two_hop.symbols.questions import Asked
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tree import Tree

EXPERTS = ("A->B", "B->C")
"""The members, in order, of every library that the oracle routes."""
TOKENS = ("subject", "relation", "last")
"""The tokens of a two-hop prompt."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """How routes are searched."""

    mode: Literal["local", "exhaustive"] = "local"
    """From many starts to the best route nearby, or through all routes."""
    starts: int = 4
    """Random starts of a local search, beside those made by hand."""
    climbers: int = 3
    """How many starts of a cell and half, the best, go on to climb."""
    sweeps: int = 3
    """Most sweeps of a local search over all layers and tokens."""
    none: bool = True
    """Whether a layer and token may be left to the base alone."""

    @property
    def values(self) -> int:
        """Number of values that a layer and token can take."""
        return len(EXPERTS) + self.none

    def space(self, layers: int) -> int:
        """Number of routes there are."""
        return self.values ** (layers * len(TOKENS))


def search_of(config: TwoHopConfig) -> Search:
    """How a study searches."""
    fields = ("starts", "sweeps", "none")
    given = {name: getattr(config, f"oracle_{name}") for name in fields}
    return Search(mode=config.oracle_search, **given)


class Searched(NamedTuple):
    """The routes that a search ended with."""

    best: Best
    cells: tuple[str, ...]
    """Names of the C cells."""
    of_group: np.ndarray
    """[G], the number of each group's cell."""


def by_hand(layers: int) -> np.ndarray:
    """Routes to start from: every split of the layers, in two forms, [2 L + 1, L, 3].

    Layers below the split use A->B at the last token, the others B->C; the tokens
    before it use A->B throughout, or follow the same split.

    >>> by_hand(4).shape
    (9, 4, 3)
    """
    first = np.zeros(layers, np.int32)
    out = []
    for split in range(layers + 1):
        last = (np.arange(layers) >= split).astype(np.int32)
        out += [np.stack([first, first, last], -1), np.stack([last] * 3, -1)]
    return np.stack(out[:-1])  # the last split puts A->B everywhere, in both forms


def search(
    base: Base,
    library: lora.Library,
    examples: Examples,
    groups: Sequence[Group],
    how: Search,
    progress: Count = lambda *_: None,
) -> Searched:
    """Searches the routes of all cells, on two-hop prompts alone.

    Args:
      base: a trained base.
      library: of every group, [G, 2, ...].
      examples: prompts and right answers of every group and half.
      groups: whose people are asked.
      how: what is tried.
      progress: called with (tried, all) as an exhaustive search goes on.

    Raises:
      ValueError: if there are too many routes for an exhaustive search.
    """
    names = tuple(dict.fromkeys(str(group.cell) for group in groups))
    numbers = np.array([names.index(str(group.cell)) for group in groups], np.int32)
    problem = Problem(base.params, library, examples, jnp.asarray(numbers))
    run = _exhaustive if how.mode == "exhaustive" else _local
    return Searched(run(base, problem, len(names), how, progress), names, numbers)


def _local(base: Base, problem: Problem, cells: int, how: Search, _: Count) -> Best:
    layers = base.model.config.num_layers
    drawn = oracle_search.random(base.seed, how.starts, how.values, layers, len(TOKENS))
    starts = np.concatenate([by_hand(layers), drawn])
    static = (_routed(base.model), base.pad, how.values)
    climbers = min(how.climbers, len(starts))
    starts = jnp.asarray(np.broadcast_to(starts, (cells, 2, *starts.shape)))
    sweeps = jnp.asarray(how.sweeps, jnp.int32)
    return oracle_score.climb(*static, climbers, problem, starts, sweeps)


def _exhaustive(
    base: Base, problem: Problem, cells: int, how: Search, progress: Count
) -> Best:
    layers = base.model.config.num_layers
    total = oracle_search.size(how.values, layers, len(TOKENS))
    best = oracle_search.nothing(cells, layers, len(TOKENS))
    model = _routed(base.model)
    for tried in range(0, total, oracle_score.CHUNK):
        progress(tried, total)
        best = oracle_score.look(model, base.pad, how.values, problem, best)
    return best


def _routed(model: Decoder) -> Decoder:
    return Decoder(model.config, route.Route(gate=route.oracle))


def answers(
    base: Base, library: lora.Library, asked: Asked, searched: Searched
) -> Answers:
    """Asks all groups everything, each person under the route of its half.

    Args:
      base: a trained base.
      library: of every group, [G, 2, ...].
      asked: the questions of all groups.
      searched: routes, chosen on the other half.
    """
    routes = np.asarray(searched.best.routes)[searched.of_group]
    given = labels(routes, asked.people, asked.familiar)
    model = _routed(base.model)
    return _ask(model, base.pad, base.params, library, asked.questions, given)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _ask(model: Decoder, pad: int, params: Tree, libraries, questions, given):
    def group(library: lora.Library, asked: Questions, labels: Labels) -> Answers:
        alone = jax.tree.map(lambda x: x[None], (library, asked))
        answers = scoring.of_libraries(model, pad, params, *alone, labels)
        return jax.tree.map(lambda x: x[0], answers)

    return jax.vmap(group)(libraries, questions, given)


def labels(routes: np.ndarray, people: int, familiar: int) -> Labels:
    """Returns the labels of all questions about G groups, with an axis G in front.

    The direct questions are hop 1, hop 2 and two-hop of every person, then familiar
    ones, for which the oracle uses no expert. A written bridge is asked of A->B and
    read by B->C; for facts in context no expert is needed.

    Args:
      routes: for two-hop prompts, [G, 2, L, 3]; person p follows that of half p mod 2.
      people: of a group.
      familiar: number of familiar questions.
    """
    groups, _, layers, _ = routes.shape
    first, second, none = 0, 1, 2
    mine = np.moveaxis(routes[:, np.arange(people) % 2], 1, 2)  # [G, L, N, 3]

    def all_of(values: Sequence[int], count: int) -> np.ndarray:
        return np.broadcast_to(values, (groups, layers, count, len(values)))

    direct = [all_of([first] * 3, people), all_of([second] * 3, people), mine]
    direct.append(all_of([none] * 3, familiar))
    written = all_of([first, first, second, first, second], people)
    parts = np.concatenate(direct, axis=2), written, all_of([none] * 9, people)
    return Labels(*(oracle_score.labels(jnp.asarray(x), len(EXPERTS)) for x in parts))


def rows(
    searched: Searched, examples: Examples, groups: tuple[Group, ...]
) -> dict[str, list[int]]:
    """The fewest and the most rows that a route was chosen on, by cell.

    Args:
      searched: one route for all groups of a cell.
      examples: what routes were chosen on.
      groups: in the order of G.
    """
    mine = np.asarray(examples.weights).sum(-1).T  # [2, G]
    same = searched.of_group[:, None] == searched.of_group[None, :]
    return spans(mine @ same, groups)


def notes(searched: Searched, examples: Examples, how: Search) -> dict[str, Any]:
    """What was searched and with what result, for results.json.

    Under ``"CELL, half H"`` is the route of the people whose number mod 2 is H, with
    its score where it was chosen, on the others.
    """
    best = jax.tree.map(np.asarray, searched.best)
    counts = np.asarray(examples.weights).sum(-1)  # [G, 2]
    space = how.space(best.routes.shape[2])
    out: dict[str, Any] = {"search": dataclasses.asdict(how)}
    out["search"] |= {"routes": space, "tried": int(best.tried)}
    names = np.array([*EXPERTS, "none"])
    for c, name in enumerate(searched.cells):
        for half in (0, 1):
            by_token = names[best.routes[c, half].T].tolist()
            out[f"{name}, half {half}"] = {
                "route": dict(zip(TOKENS, by_token, strict=True)),
                "right": int(best.score.right[c, half]),
                "of": int(counts[searched.of_group == c, half].sum()),
                "loss": round(float(best.score.loss[c, half]), 4),
            }
    return out
