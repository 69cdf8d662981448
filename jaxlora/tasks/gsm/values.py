"""Values of a template, drawn so that every condition holds.

Each draw is as likely as by trying all values anew until the conditions hold. Two
things save tries and change nothing about that: values that no condition links are
drawn apart, and a value that an equation fixes is computed, then kept if its list has
it (its entries are equally likely).
"""

import ast
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from jaxlora.tasks import arithmetic
from jaxlora.tasks.gsm import expressions
from jaxlora.tasks.gsm.template import Binding, Condition, Template, names_of
from jaxlora.tasks.refusals import Reason, RefusedError

TRIES = 2_000_000
"""The most tries of values that are linked by conditions: a minute, at worst."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One draw, and the conditions that can be checked after it."""

    binding: Binding
    conditions: tuple[Condition, ...]
    equation: ast.AST | None = None
    """What the value must be, instead of a draw."""
    entries: Mapping[Any, Any] | None = None
    """With an equation, the entries of the list by their values."""


Plan = tuple[tuple[Stage, ...], ...]
"""Groups of stages; no condition links two groups."""


def plan(template: Template) -> Plan:
    """Returns the order of the draws of a template.

    Args:
      template: with its conditions.
    """
    return tuple(
        tuple(_stages(bindings, conditions))
        for bindings, conditions in _groups(template)
    )


def draw(
    template: Template,
    rng: np.random.Generator,
    order: Plan | None = None,
    tries: int = TRIES,
) -> dict[str, Any]:
    """Returns an entry of its list for each name, such that every condition holds.

    Args:
      template: with its conditions.
      rng: moves on.
      order: of :func:`plan`; None to make it.
      tries: the most of each group of linked values.

    Raises:
      ValueError: with the file, if no try fulfils the conditions.
    """
    entries: dict[str, Any] = {}
    for stages in order or plan(template):
        for _ in range(tries):
            if (drawn := _try(stages, rng)) is not None:
                entries |= drawn
                break
        else:
            names = ", ".join(name for x in stages for name in x.binding.names)
            raise ValueError(
                f"{template.where}: {tries} draws of {names} fulfil no condition; "
                f"expected some that do, so the conditions may contradict each other."
            )
    return entries


def number_of(entry: Any) -> Any:
    """Returns the value of an entry: of a pair of words and number, the number.

    Args:
      entry: of a list that values are drawn from.

    >>> number_of(("twice", 2)), number_of("tea")
    (2, 'tea')
    """
    value = entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry
    return arithmetic.exact(value)


def holds(condition: Condition, values: Mapping[str, Any]) -> bool:
    """Does a condition hold? Not if it divides by zero.

    Args:
      condition: of a template.
      values: by name.

    Raises:
      RefusedError: if it is no arithmetic on these values.
    """
    try:
        return bool(expressions.value(condition.node, values))
    except RefusedError as error:
        if error.reason is not Reason.DIVISION:
            raise
        return False


def _try(stages: Iterable[Stage], rng: np.random.Generator) -> dict[str, Any] | None:
    entries: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for stage in stages:
        picked = _pick(stage, values, rng)
        if picked is None:
            return None
        entries |= picked
        values |= {name: number_of(entry) for name, entry in picked.items()}
        if not all(holds(x, values) for x in stage.conditions):
            return None
    return entries


def _pick(
    stage: Stage, values: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, Any] | None:
    names, choice = stage.binding.names, stage.binding.choice
    items, count = choice.items, choice.count
    if stage.equation is not None and stage.entries is not None:
        wanted = expressions.value(stage.equation, values)
        return {names[0]: stage.entries[wanted]} if wanted in stage.entries else None
    if count == 1:
        return {names[0]: items[int(rng.integers(len(items)))]}
    if choice.consecutive:
        first = int(rng.integers(len(items) - count + 1))
        indices: Any = range(first, first + count)
    else:
        indices = rng.permutation(len(items))[:count]
    return {x: items[int(i)] for x, i in zip(names, indices, strict=True)}


def _groups(
    template: Template,
) -> Iterator[tuple[list[Binding], list[Condition]]]:
    """Bindings that conditions link, directly or by others."""
    groups = [({*x.names}, [x]) for x in template.bindings]
    for condition in template.conditions:
        touched = [group for group in groups if group[0] & condition.names]
        rest = [group for group in groups if not group[0] & condition.names]
        if touched:
            names = set().union(*(group[0] for group in touched))
            merged = [x for group in touched for x in group[1]]
            groups = [*rest, (names, merged)]
    for names, bindings in groups:
        order = [x for x in template.bindings if x in bindings]
        yield order, [x for x in template.conditions if x.names & names]


def _stages(bindings: list[Binding], conditions: list[Condition]) -> Iterator[Stage]:
    equations = _equations(bindings, conditions)
    known: set[str] = set()
    waiting = list(conditions)
    for binding in _order(bindings, conditions, equations):
        known |= {*binding.names}
        ready = tuple(x for x in waiting if x.names <= known)
        waiting = [x for x in waiting if x not in ready]
        if (equation := equations.get(binding.names[0])) is None:
            yield Stage(binding, ready)
        else:
            entries = {number_of(item): item for item in binding.choice.items}
            yield Stage(binding, ready, equation, entries)


def _order(
    bindings: list[Binding],
    conditions: list[Condition],
    equations: Mapping[str, ast.AST],
) -> list[Binding]:
    """So that conditions on few values come first: most tries end there."""
    of = {name: x for x in bindings for name in x.names}
    names = [name for x in sorted(conditions, key=_size) for name in sorted(x.names)]
    sought = [*map(of.__getitem__, names), *bindings]
    drawn = [x for x in sought if x.names[0] not in equations]
    out: list[Binding] = []
    for binding in dict.fromkeys(map(bindings.index, drawn)):
        out.append(bindings[binding])
        known = {name for x in out for name in x.names}
        for name, node in equations.items():
            if of[name] not in out and names_of(node) <= known:
                out.append(of[name])
    return out


def _size(condition: Condition) -> int:
    return len(condition.names)


def _equations(
    bindings: list[Binding], conditions: list[Condition]
) -> dict[str, ast.AST]:
    """By name, what an equation says of a value in terms of values that are drawn."""
    single = {x.names[0] for x in bindings if _distinct_numbers(x)}
    out: dict[str, ast.AST] = {}
    needed: set[str] = set()
    for condition in conditions:
        for name, node in _solved(condition):
            others = condition.names - {name}
            free = name in single and name not in out and name not in needed
            if free and others and not others & out.keys():
                out[name] = node
                needed |= others
                break
    return out


def _solved(condition: Condition) -> Iterator[tuple[str, ast.AST]]:
    node = condition.node
    if isinstance(node, ast.Compare) and [type(x) for x in node.ops] == [ast.Eq]:
        sides = (node.left, node.comparators[0])
        for side, other in (sides, sides[::-1]):
            if isinstance(side, ast.Name) and side.id not in names_of(other):
                yield side.id, other


def _distinct_numbers(binding: Binding) -> bool:
    if len(binding.names) != 1:
        return False
    values = [number_of(item) for item in binding.choice.items]
    numeric = all(isinstance(x, int | Fraction) for x in values)
    return numeric and len(set(values)) == len(values)
