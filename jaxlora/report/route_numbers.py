"""What a route chose on one prompt, in numbers: means over sites, and rows.

Weights are means over sites; entropies are means over sites too, of each site's own,
because sites that are sure of different experts would look unsure together.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib import font_manager
from numpy.typing import ArrayLike

from jaxlora.report.fidelity import short
from jaxlora.route import diagnose

Panels = Literal["mean", "part", "site"]
"""One map: the mean over all sites; one for each part of a layer; one for each site."""

COLUMNS = ("layer", "site", "token", "text", "expert", "weight")
"""Of :func:`rows`."""

_LONGEST = 18


class Measured(NamedTuple):
    """What a route chose on one prompt, over all sites."""

    weight: np.ndarray
    """[L, T, E], mean over sites."""
    top: np.ndarray
    """[L, T], the expert of the largest mean weight; -1: none, or no single one."""
    entropy: np.ndarray
    """[L, T] in nats, mean over sites of each site's entropy."""
    load: np.ndarray
    """[E], mean weight over sites, layers and tokens."""
    share: np.ndarray
    """[E], share of sites, layers and tokens whose largest weight it is."""
    switched: np.ndarray
    """[T], share of sites and layers whose top expert is not that of the token before;
    0 at the first."""


def measure(sites: Mapping[str, ArrayLike]) -> Measured:
    """Sums up the gate weights of one prompt.

    Args:
      sites: {site: [L, T, E]}, at least one.

    Raises:
      ValueError: if there is no site, or arrays differ in shape.
    """
    weight, *rest = map(np.asarray, _measure(stack(sites)))
    return Measured(weight, single(weight), *rest)


@jax.jit
def _measure(stacked: jax.Array):  # [S, L, T, E]
    load = diagnose.load(stacked)
    return (
        jnp.mean(stacked, axis=0),
        jnp.mean(diagnose.entropy(stacked), axis=0),
        jnp.mean(load.weight, axis=0),
        jnp.mean(load.top, axis=0),
        jnp.mean(diagnose.switches(stacked).astype(jnp.float32), axis=(0, 1)),
    )


def single(weight: np.ndarray) -> np.ndarray:
    """The expert of the largest weight [..., E], if one is: up to rounding, or -1.

    Args:
      weight: [..., E].

    >>> single(np.array([[0.2, 0.8], [0.5, 0.5], [0.0, 0.0]]))
    array([ 1, -1, -1])
    """
    best = weight.max(axis=-1, keepdims=True)
    # Up to rounding: two equal weights are no choice, whichever is first.
    alone = (weight >= best * (1 - 1e-4)).sum(axis=-1) == 1
    return np.where(alone & (best[..., 0] > 0), weight.argmax(axis=-1), diagnose.NONE)


def bands(measured: Measured, columns: int) -> dict[str, np.ndarray]:
    """Mean weights [T, E] of neighbouring layers, by their numbers, such as "0-3".

    Args:
      measured: what the route chose, at L layers.
      columns: how many bands there are at most.
    """
    layers = np.arange(len(measured.weight))
    parts = np.array_split(layers, min(columns, len(layers)))
    return {
        f"{x[0]}" if len(x) == 1 else f"{x[0]}-{x[-1]}": measured.weight[x].mean(axis=0)
        for x in parts
    }


def stack(sites: Mapping[str, ArrayLike]) -> np.ndarray:
    """Returns [S, L, T, E], float32.

    Args:
      sites: {site: [L, T, E]}, at least one.
    """
    arrays = {name: np.asarray(weights, np.float32) for name, weights in sites.items()}
    shapes = {weights.shape for weights in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise ValueError(
            f"Got weights of shapes {sorted(shapes)}, expected one shape [L, T, E] for "
            f"every site, and a site at least; choose one prompt of a batch."
        )
    return np.stack(list(arrays.values()))


def rows(
    sites: Mapping[str, ArrayLike], tokens: Sequence[str], experts: Sequence[str]
) -> pd.DataFrame:
    """Returns every weight in a row of its own, with ``COLUMNS``.

    Args:
      sites: {site: [L, T, E]}.
      tokens: text of the T tokens.
      experts: names of the E experts.

    Raises:
      ValueError: if there is no site, arrays differ in shape, or texts or names are
        too few or too many.
    """
    stacked = stack(sites)
    check(stacked, tokens, experts)
    S, L, T, E = stacked.shape
    site, layer, token, expert = np.indices((S, L, T, E)).reshape(4, -1)
    names, texts, called = (
        np.asarray(x, object) for x in (list(sites), tokens, experts)
    )
    values = (layer, names[site], token, texts[token], called[expert], stacked.ravel())
    frame = pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))
    # Layer first, as a reader of a table expects; sites keep their order.
    order = np.lexsort((expert, token, site, layer))
    return frame.iloc[order].reset_index(drop=True)


def grouped(sites: Mapping[str, ArrayLike], panels: Panels) -> dict[str, Measured]:
    """Returns ``{title of a panel: what its sites chose}``.

    Args:
      sites: {site: [L, T, E]}.
      panels: one map, or one a part of the layers, or one a site.
    """
    names = dict(zip(sites, short(list(sites)), strict=True))
    if panels == "mean":
        several = f"mean of {len(sites)} sites" if len(sites) > 1 else ""
        return {several or names[next(iter(sites))]: measure(sites)}
    if panels == "site":
        return {
            names[site]: measure({site: weights}) for site, weights in sites.items()
        }
    parts: dict[str, dict[str, ArrayLike]] = {}
    for site, weights in sites.items():
        parts.setdefault(_part(site), {})[site] = weights
    return {part: measure(some) for part, some in parts.items()}


def _part(site: str) -> str:
    inner = site.removesuffix("/kernel").removeprefix("layers/")
    return inner.rpartition("/")[0] or inner


def decimals(weight: float) -> str:
    """Two digits of a weight from 0 to 1.

    Args:
      weight: from 0 to 1.

    >>> decimals(0.25), decimals(1.0)
    ('.25', '1')
    """
    return f"{weight:.2f}".removeprefix("0") if weight < 0.995 else "1"


def shown(text: str) -> str:
    r"""A token for a table: without the space before it, breaks as marks, and cut.

    Args:
      text: of a token.

    >>> shown(" is"), shown("\n"), shown(" "), shown("\x1b[1m"), shown("a" * 30)
    ('is', '↵', '·', '□[1m', 'aaaaaaaaaaaaaaaaa…')
    """
    bare = text.removeprefix(" ") if text.strip() else text
    marks = bare.replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    return cut("".join(c if c.isprintable() else "□" for c in marks))


def printable(text: str) -> str:
    """A token without the space before it, in characters that the font has.

    Args:
      text: of the token.

    >>> printable(" 中 é")
    '□·é'
    """
    known = _glyphs()
    return "".join(c if ord(c) in known else "□" for c in shown(text))


@functools.cache
def _glyphs() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def cut(text: str) -> str:
    """A name of at most 18 characters.

    Args:
      text: any.
    """
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def check(stacked: np.ndarray, tokens: Sequence[str], experts: Sequence[str]) -> None:
    """Refuses texts and names that are too few or too many for [S, L, T, E].

    Args:
      stacked: weights [S, L, T, E].
      tokens: text of the T tokens.
      experts: names of the E experts.
    """
    *_, T, E = stacked.shape
    if (len(tokens), len(experts)) != (T, E):
        raise ValueError(
            f"Got {len(tokens)} tokens and {len(experts)} names of experts for weights "
            f"of {T} tokens and {E} experts, expected one for each."
        )
