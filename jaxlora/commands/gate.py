"""``jaxlora gate``: the gate of a route that learns from data, as one file."""

import dataclasses
import shutil
from collections.abc import Sequence
from typing import Any

from jaxlora import route as routes
from jaxlora.commands import (
    flags,
    gate_make,
    gate_options,
    gate_tables,
    loading,
    merge_tables,
    train_data,
)
from jaxlora.commands.flags import adapters
from jaxlora.commands.gate_make import Plan
from jaxlora.commands.gate_options import PROG, Arguments
from jaxlora.commands.merge import names
from jaxlora.io import gate_file
from jaxlora.io.gate_file import About
from jaxlora.reuse import Reuse, decode
from jaxlora.route import Route


def run(arguments: Sequence[str]) -> int:
    """Reads, measures or trains, and writes."""
    if "--list" in arguments:
        return _list([word for word in arguments if word != "--list"])
    given = gate_options.parse(arguments)
    plan, called = planned(given), names(given.adapter)
    sources = _sources(given, plan, called)
    flags.check_new_file(given.out)
    found = train_data.read(sources, skip_bad=given.skip_bad)
    reuse = loading.load(given.model, given.adapter, given.dtype, route="uniform")
    words = decode.load_tokenizer(given.model, reuse)
    made = gate_make.make(given, plan, reuse, words, found)
    gate_file.save(given.out, made.state, _about(given, called, reuse, made.facts))
    shutil.rmtree(gate_make.checkpoint(given.out), ignore_errors=True)
    console = merge_tables.console()
    if plan.training:
        gate_tables.trained(console, given.out, given.route, made.rows)
    else:
        gate_tables.measured(console, given.out, given.route, made.counts)
    return 0


def planned(given: Arguments) -> Plan:
    """Finds the route, and how it is made.

    Raises:
      ValueError: if it needs no data, or cannot be made here.
    """
    known = ", ".join(adapters.gate_names())
    if not given.route:
        raise ValueError(
            f"Got no --route, expected the one to make; there are {known}."
        )
    adapters.import_route(given.route)
    asked = {"top_k": given.top_k, "temperature": given.temperature}
    fields = {name: value for name, value in asked.items() if value is not None}
    route = routes.preset(given.route, **fields).fit(max(len(given.adapter), 1))
    data = route.gate.data
    if data in ("free", "labels"):
        kind = "the adapters alone" if data == "free" else "labels with each call"
        raise ValueError(
            f"The route {given.route!r} is made from {kind}, and there is no gate to "
            f"make from data; routes with one are {known}."
        )
    if isinstance(route.gate, routes.Mean | routes.Nearest):
        return Plan(route, None, own=True)
    training = None if ":" in given.route else routes.describe(given.route).training
    if data == "target":
        _check_learnable(given, route)
        # Keys learn under the choice that they will make.
        top_k, heat = route.top_k, route.temperature
        how = dataclasses.replace(training or route, top_k=top_k, temperature=heat)
        return Plan(route, how, own=False)
    if training is None:
        training = Route(gate=routes.ExpertKeys(per=route.per), weighting="sigmoid")
    return Plan(route, training, own=True)


def _check_learnable(given: Arguments, route: Route) -> None:
    if route.top_k == 1 and len(given.adapter) > 1:
        raise ValueError(
            f"--top-k 1 leaves the route {given.route!r} nothing to learn: the weight "
            f"of the one that is kept is always 1; train with more, and give --top-k 1 "
            f"where the gate is used."
        )


def _sources(given: Arguments, plan: Plan, called: Sequence[str]) -> dict[str, str]:
    """Data files by the name of their adapter, or by their own."""
    if not given.adapter:
        raise ValueError(
            f"Got no --adapter, expected one for each expert of the route "
            f"{given.route!r}."
        )
    if given.top_k is not None and given.top_k > len(given.adapter):
        raise ValueError(
            f"--top-k is {given.top_k} for {len(given.adapter)} adapters, expected at "
            f"most as many; leave it out for what the route says."
        )
    if plan.own and len(given.data) != len(given.adapter):
        raise ValueError(
            f"The route {given.route!r} learns from each adapter's own data: got "
            f"{len(given.data)} --data for {len(given.adapter)} adapters, expected one "
            f"for each, in the same order."
        )
    if not given.data:
        raise ValueError("No --data was given, expected a file of the target task.")
    return dict(zip(called if plan.own else given.data, given.data, strict=plan.own))


def _about(
    given: Arguments, called: Sequence[str], reuse: Reuse, facts: dict[str, Any]
) -> About:
    asked = {"top_k": given.top_k, "temperature": given.temperature}
    return About(
        route=given.route,
        experts=tuple(called),
        fields={name: value for name, value in asked.items() if value is not None},
        base=given.model.resolve().name,
        base_mark=gate_file.mark(reuse.base),
        training=facts,
    )


def _list(words: Sequence[str]) -> int:
    if words and set(words) - {"-h", "--help"}:
        raise ValueError(f"`{PROG} --list` takes nothing else, got {words[0]}.")
    gate_tables.every(merge_tables.console())
    return 0
