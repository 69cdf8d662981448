"""Seconds and bytes of every merge and route, on two experts of the boundary study.

Programs are compiled before they are timed. Routed forwards take turns with one
adapter's, so that what else the machine does falls on both.
"""

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora, merge, models, route
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.models import Decoder
from jaxlora.report.ranking_lines import Cost
from jaxlora.studies.boundary.config import BoundaryConfig
from jaxlora.studies.boundary.design import Point
from jaxlora.studies.two_hop import arms, bases, experts, kinds, questions
from jaxlora.studies.two_hop.symbols import learning, lessons, libraries, own_data
from jaxlora.studies.two_hop.symbols.routed import routed
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.experts import Expert, groups
from jaxlora.tree import Tree

REPEATS = 5
TURNS = 15
"""Of two forwards: their ratio needs more calls than one of them."""
BATCH = 256
"""Rows of a timed forward, as long as the base takes."""
EXPERTS = (Expert.HOP1, Expert.HOP2, Expert.JOINT)
"""What the study trains for this point: those of one program share a cache entry."""


class Bench(NamedTuple):
    """What methods are timed on."""

    trained: experts.Experts
    asked: questions.Asked
    tokens: jax.Array
    """Of one forward, [B, T]."""


def about(given: Bench, revision: str | None) -> str:
    """How costs were measured.

    Args:
      given: what was timed.
      revision: of the study.
    """
    device, (rows, length) = jax.devices()[0], given.tokens.shape
    text = (
        f"Times on {device.platform} ({device.device_kind}), compiled: the median of "
        f"{REPEATS} calls after a first one, of two experts; forwards of {rows} rows "
        f"of {length} tokens, {TURNS} in turn with one adapter's. What a "
        f"method sees or learns is made for all libraries at once, and divided by "
        f"their number."
    )
    return text + (f" Study at {revision}." if revision else "")


def bench(config: BoundaryConfig, point: Point, seed: int, cache: Path) -> Bench:
    """Base, experts and questions, read from the cache or made again.

    Args:
      config: of the study.
      point: at which methods are ranked.
      seed: of a base that met its criteria.
      cache: folder of bases and experts.
    """
    population = world.generate(point.world, seed)
    (base,) = bases.train([seed], [population], point.model, point.pretrain, cache)
    people = tuple(x for x in groups(population) if x.cell in point.cells)
    named = [kinds(x.recipe(config.experts)) for x in point.regimes]
    every = tuple(
        dict.fromkeys(x[name] for x in named for name in kinds_order(x)),
    )
    how = (config.lora, config.experts)
    trained = experts.train_kinds(base, people, every, how, cache)
    first = {name: named[0][name] for name in kinds_order(named[0])}
    shape = (BATCH, point.model.max_length)
    tokens = np.random.default_rng(0).integers(1, point.model.vocab_size, shape)
    return Bench(
        experts.select(base, people, first, trained),
        questions.ask(base, people, config.retention_items),
        jnp.asarray(tokens, jnp.int32),
    )


def kinds_order(named: Mapping[Expert, Any]) -> list[Expert]:
    """The needed experts in the order in which the study trains them."""
    return [name for name in named if name in EXPERTS]


def costs(given: Bench, methods: tuple[Method, ...]) -> dict[str, Cost]:
    """Seconds and bytes of every merge and route; the oracle is a bound and has none.

    Args:
      given: what methods are timed on.
      methods: which.
    """
    out = {}
    for method in methods:
        if method is Method.ORACLE:
            continue
        of = route_cost if arms.routes(method) else merge_cost
        out[str(method)] = of(given, method)
        print(method, *out[str(method)], flush=True)
    return out


def merge_cost(given: Bench, method: Method) -> Cost:
    """Of one merge of two experts, and of what it sees or learns before.

    Args:
      given: what methods are timed on.
      method: a merge.
    """
    trained = given.trained
    library = libraries.stacked(trained, Arm.PAIR)
    key = libraries.keys(trained, Arm.PAIR)[0]
    data, before = sight(given, method, library)
    program = jax.jit(merge.preset(str(method)))
    run = functools.partial(program, first(library), key=key, data=data)
    adapter = run()
    forward = forward_ratio(given, Decoder(trained.base.model.config), adapter=adapter)
    return Cost(before + seconds(run), forward, size(adapter))


def sight(given: Bench, method: Method, library: lora.Library) -> tuple[Any, float]:
    """The data of a merge for one library, and the seconds to measure or learn them.

    Args:
      given: what methods are timed on.
      method: a merge.
      library: of all groups, [G, E, ...].
    """
    trained, how = given.trained, merge.preset(str(method))
    count = len(trained.groups)
    if how.data == "own":
        run = functools.partial(own_data.measure, trained, Arm.PAIR, method, library)
        return first(run()), seconds(run, 1) / count
    if how.data == "target":
        lesson = lessons.lessons(given.asked, Arm.PAIR)
        keys = libraries.keys(trained, Arm.PAIR)
        fixed = (trained.base, method, library, given.asked.groups, lesson, keys)
        run = functools.partial(learning.target, *fixed)
        # Each half of the people has what was learned on all others.
        return first(first(run())), seconds(run, 1) / (2 * count)
    return None, 0.0


def route_cost(given: Bench, method: Method) -> Cost:
    """Of one gate, and of a forward through it.

    Args:
      given: what methods are timed on.
      method: a route.
    """
    trained, how = given.trained, route.preset(str(method))
    run = functools.partial(routed, trained, given.asked, Arm.PAIR, method, how)
    by = run()
    library, state = first(by.libraries), first(by.halves[0])
    forward = forward_ratio(given, by.model, library=library, gate=state)
    repeats = REPEATS if how.gate.data == "free" else 1
    each = len(trained.groups) * len(by.halves)
    made = seconds(lambda: (run().libraries, run().halves), repeats) / each
    return Cost(made, forward, size((library, state)))


def forward_ratio(given: Bench, model: Decoder, **adapted: Any) -> float:
    """Seconds of a forward over those with one adapter, both in turn.

    Args:
      given: what methods are timed on.
      model: with the route, if there is one.
      **adapted: the adapter, or the library and its gate.
    """
    base = given.trained.base
    inputs = models.Inputs(given.tokens, given.tokens != base.pad)
    expert = first(given.trained.adapters[Expert.HOP1])
    plain = Decoder(model.config)
    alone = functools.partial(_forward, plain, base.params, inputs, {"adapter": expert})
    this = functools.partial(_forward, model, base.params, inputs, adapted)
    jax.block_until_ready((alone(), this()))
    times = [(once(this), once(alone)) for _ in range(TURNS)]
    mine, reference = (statistics.median(x) for x in zip(*times, strict=True))
    return mine / reference


@functools.partial(jax.jit, static_argnums=0)
def _forward(model: Decoder, base: Tree, inputs: models.Inputs, adapted: dict):
    return models.apply(model, base, inputs, **adapted)


def seconds(run: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The median of some calls; one call before does not count."""
    jax.block_until_ready(run())
    return statistics.median(once(run) for _ in range(repeats))


def once(run: Callable[[], Any]) -> float:
    """Seconds of one call, until the result is there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def first(tree: Tree) -> Tree:
    """The first entry of every leading axis."""
    return jax.tree.map(lambda x: x[0], tree)


def size(tree: Tree) -> int:
    """Bytes of all arrays."""
    return sum(x.nbytes for x in jax.tree.leaves(tree))
