"""Named leaves: one vocabulary for targeting, freezing, sharding and merging.

A leaf's name is its path joined by ``/``, for example
``layers/attn/q_proj/kernel``. A pattern is a regular expression that must match
the *full* name. Every pattern must match at least one name: a pattern that
matches nothing is a misspelling, and a misspelt target is a silent no-op
everywhere else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax

from jaxlora.names import near

Tree: TypeAlias = Any
IsLeaf: TypeAlias = Callable[[Any], bool] | None
_SHOWN = 8  # names in a sentence


def flatten(tree: Tree, is_leaf: IsLeaf = None) -> dict[str, Any]:
    """Returns ``{name: leaf}`` in the order in which JAX flattens ``tree``.

    Args:
      tree: any pytree; mappings, dataclasses and sequences give the path parts.
      is_leaf: as in ``jax.tree.map``.

    >>> flatten({"layers": {"q": 1, "k": 2}})
    {'layers/k': 2, 'layers/q': 1}
    """
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return {_name(path): leaf for path, leaf in pairs}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dictionary whose leaves have the names of ``flat``.

    Args:
      flat: leaves by path, such as ``layers/mlp/kernel``.

    Raises:
      ValueError: if one name is a prefix of another, so that both cannot exist.

    >>> unflatten({"layers/q": 1, "norm": 2})
    {'layers': {'q': 1}, 'norm': 2}
    """
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"Leaf {name!r} lies below another leaf, {parent!r}.")
        if last in node:
            raise ValueError(f"Leaf {name!r} is also the parent of other leaves.")
        node[last] = leaf
    return tree


def map_named(
    fn: Callable[..., Any], tree: Tree, *rest: Tree, is_leaf: IsLeaf = None
) -> Tree:
    """Maps ``fn(name, leaf, *other_leaves)`` over trees of equal structure.

    Args:
      fn: ``fn(path, leaf, *others) -> leaf``.
      tree: of named leaves.
      *rest: trees of the same structure.
      is_leaf: whether a node counts as a leaf.

    >>> map_named(lambda name, x: name if x else None, {"a": 1, "b": {"c": 0}})
    {'a': 'a', 'b': {'c': None}}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: fn(_name(path), *leaves), tree, *rest, is_leaf=is_leaf
    )


def match(patterns: Sequence[str], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns ``{pattern: the names it claims}``; the first match wins.

    Args:
      patterns: regular expressions, each matched against the full name.
      names: leaf names.

    Raises:
      ValueError: if a pattern is no regular expression, or claims no name, or one
        string stands where several patterns are meant.

    >>> match([".*/q", ".*"], ["attn/q", "attn/k"])
    {'.*/q': ('attn/q',), '.*': ('attn/k',)}
    """
    if isinstance(patterns, str):  # a sequence too, of letters
        raise ValueError(
            f"Patterns are {patterns!r}, expected a tuple or list of them: "
            f"({patterns!r},) is one."
        )
    claimed: dict[str, list[str]] = {pattern: [] for pattern in patterns}
    compiled = [(pattern, _compile(pattern)) for pattern in patterns]
    for name in names:
        for pattern, regex in compiled:
            if regex.fullmatch(name):
                # The first pattern wins, so that general ones can follow special ones.
                claimed[pattern].append(name)
                break
    for pattern, matches in claimed.items():
        if not matches:
            raise ValueError(_matched_nothing(pattern, names))
    return {pattern: tuple(matches) for pattern, matches in claimed.items()}


def check_bare(base: Tree) -> None:
    """Refuses the variables of a module where its bare params are meant.

    Args:
      base: params, or what stands in their place.

    Raises:
      ValueError: naming the collections, and the kernels of the params.

    >>> check_bare({"params": {"up": {"kernel": 1}}, "cache": {}})
    Traceback (most recent call last):
        ...
    ValueError: The base holds 'params', 'cache', all variables of a module; ...
    """
    if isinstance(base, Mapping) and isinstance(base.get("params"), Mapping):
        kernels = [x for x in flatten(base["params"]) if x.split("/")[-1] == "kernel"]
        shown = ", ".join(map(repr, kernels[:_SHOWN])) or "no kernel"
        raise ValueError(
            f"The base holds {', '.join(map(repr, base))}, all variables of a module; "
            f"expected its bare params, variables['params'], with {shown}."
        )


def mask(tree: Tree, patterns: Sequence[str], is_leaf: IsLeaf = None) -> Tree:
    """Returns a tree of booleans: does some pattern match this leaf's name?

    Args:
      tree: of named leaves.
      patterns: regular expressions that match whole paths.
      is_leaf: whether a node counts as a leaf.

    >>> mask({"q": 1, "k": 2}, ["q"])
    {'k': False, 'q': True}
    """
    claimed = match(patterns, list(flatten(tree, is_leaf)))
    chosen = {name for names in claimed.values() for name in names}
    return map_named(lambda name, _: name in chosen, tree, is_leaf=is_leaf)


def partition(
    tree: Tree, patterns: Sequence[str], is_leaf: IsLeaf = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a nested dictionary into (matched leaves, all others).

    ``join(*partition(tree, patterns))`` gives ``tree`` back.

    Args:
      tree: of named leaves.
      patterns: regular expressions that match whole paths.
      is_leaf: whether a node counts as a leaf.

    >>> partition({"q": 1, "mlp": {"up": 2}}, ["mlp/.*"])
    ({'mlp': {'up': 2}}, {'q': 1})
    """
    flat = flatten(tree, is_leaf)
    claimed = match(patterns, list(flat))
    chosen = {name for names in claimed.values() for name in names}
    return (
        unflatten({name: x for name, x in flat.items() if name in chosen}),
        unflatten({name: x for name, x in flat.items() if name not in chosen}),
    )


def join(*trees: Mapping[str, Any], is_leaf: IsLeaf = None) -> dict[str, Any]:
    """Puts nested dictionaries with disjoint leaves together.

    Args:
      *trees: of named leaves, no path in two of them.
      is_leaf: whether a node counts as a leaf.

    Raises:
      ValueError: if two trees hold a leaf of the same name.

    >>> join({"q": 1}, {"mlp": {"up": 2}})
    {'q': 1, 'mlp': {'up': 2}}
    """
    flat: dict[str, Any] = {}
    for tree in trees:
        for name, leaf in flatten(tree, is_leaf).items():
            if name in flat:
                raise ValueError(f"Cannot join trees: both hold a leaf {name!r}.")
            flat[name] = leaf
    return unflatten(flat)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"Pattern {pattern!r} is not a regular expression: {error}."
        ) from None


def _matched_nothing(pattern: str, names: Sequence[str]) -> str:
    nearest = near(pattern, names, most=3, cutoff=0.3)
    shown = list(names) if len(names) <= _SHOWN else nearest or list(names[:6])
    such = "one of" if len(names) <= _SHOWN else "such as"
    return (
        f"Pattern {pattern!r} matches none of {len(names)} leaves (or only leaves that "
        f"an earlier pattern already claimed); a pattern must match a full name, "
        f"{such} {', '.join(map(repr, shown)) or '(the tree is empty)'}."
    )
