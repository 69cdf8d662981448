"""Which of the claims a trained decoder obeys, on cached bases of the two-hop study.

Nothing is trained here: without a cached base, or without its experts, what would be
measured is reported as unavailable. The decoder has four layers and keys that move, so
the theory need not hold; what it says is predicted all the same, and judged.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import merge, models
from jaxlora.evaluate.schema import Cell, Split
from jaxlora.evaluate.statistics import bootstrap
from jaxlora.models.statistics import mean_inputs
from jaxlora.studies.theory.config import TheoryConfig
from jaxlora.studies.theory.design import LINEAR, of_decoder
from jaxlora.studies.two_hop import CachedPairs, cached_pairs

OVERLAP = "key overlap"
CELLS = (Cell.R_OO, Cell.H_OO, Cell.F_OO)
"""Where the base knows neither hop."""
SITE = "layers/mlp/down_proj/kernel"
"""The decoder's key-value memory; its inputs are the keys."""
SPLITS = {"hop 1": Split.HOP1, "hop 2": Split.HOP2, "two-hop": Split.TWO_HOP}

Items = dict[str, list[np.ndarray]]
"""Per base, right or wrong of every person (or a cosine)."""


class Decoders(NamedTuple):
    """What was measured of trained decoders."""

    outcomes: list[dict[str, Any]]
    notes: list[str]


def run(config: TheoryConfig, cache: Path) -> Decoders:
    """Measures every cached base of the two-hop study that has its experts.

    Args:
      config: which seeds are looked for.
      cache: the cache folder of ``jaxlora study two-hop``.
    """
    items: Items = {}
    names, notes = [], []
    for name, pairs in cached_pairs(cache, config.decoder_seeds, CELLS):
        if isinstance(pairs, str):
            notes.append(f"{name}: no cached experts ({pairs})")
            continue
        for item, values in measure(pairs).items():
            items.setdefault(item, []).append(values)
        names.append(name)
    if not names:
        why = "no cached base with experts; run `jaxlora study two-hop` first"
        notes.append(f"unavailable: {why}")
    return Decoders(list(_outcomes(config, items, names, notes)), notes)


def measure(pairs: CachedPairs) -> dict[str, np.ndarray]:
    """Returns every item of one base over the people whom it does not know.

    Args:
      pairs: the base, its A->B and B->C experts, and questions.
    """
    asked = (pairs.tokens, pairs.at)
    given = (pairs.model, pairs.pad, pairs.params, pairs.libraries, *asked)
    logits = jax.tree.map(np.asarray, _logits(*given))
    parts = [
        _of_group(logits, g, group.size, pairs.keys[g])
        for g, group in enumerate(pairs.groups)
    ]
    items = {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}
    answers = np.asarray(_written(*given[:4], pairs.written))
    right = [
        answers[g, : group.size] == pairs.keys[g][Split.WRITTEN].answer
        for g, group in enumerate(pairs.groups)
    ]
    items["sum: written"] = np.concatenate(right).astype(np.float64)
    keys = np.asarray(_keys(*given), np.float64)
    return items | {"own facts": pairs.accuracy} | _overlaps(keys)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _written(model, pad: int, params, pairs, prompts) -> jax.Array:
    """Answers of the sum, [G, N], after the bridge that it has written itself."""

    def best(tokens: jax.Array, adapter, place: int) -> jax.Array:
        inputs = models.Inputs(tokens, tokens != pad)
        logits = models.apply(model, params, inputs, adapter=adapter)
        return jnp.argmax(logits[:, place], axis=-1)

    def group(pair, tokens: jax.Array) -> jax.Array:
        total = merge.preset("sum")(pair)
        bridge = best(tokens, total, 3).astype(tokens.dtype)
        return best(tokens.at[:, 4].set(bridge), total, 4)

    return jax.vmap(group)(pairs, prompts)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(model, pad: int, params, pairs, tokens, at) -> dict[str, jax.Array]:
    """Logits at the answer of the base, each expert and both merges, [G, ..., Q, V]."""

    def group(pair, tokens, at):
        def ask(adapter=None):
            inputs = models.Inputs(tokens, tokens != pad)
            logits = models.apply(model, params, inputs, adapter=adapter)
            return jnp.take_along_axis(logits, at[:, None, None], axis=1)[:, 0]

        merged = {name: merge.preset(name)(pair) for name in ("mean", "sum")}
        logits = {"base": ask(), "experts": jax.vmap(ask)(pair)}
        return logits | {name: ask(x) for name, x in merged.items()}

    return jax.vmap(group)(pairs, tokens, at)


def _of_group(logits, g: int, size: int, keys) -> dict[str, np.ndarray]:
    """What one group's merged models say, and what single experts predict of it."""
    items = {}
    people = logits["base"].shape[1] // 3
    change = logits["experts"][g] - logits["base"][g][None]
    for name, weight in (("mean", 0.5), ("sum", 1.0)):
        linear = logits["base"][g] + weight * change.sum(axis=0)
        for prefix, of in (("", logits[name][g]), ("predicted ", linear)):
            best = of.argmax(-1).reshape(3, people)[:, :size]
            for i, (what, split) in enumerate(SPLITS.items()):
                right = best[i] == keys[split].answer
                key = "composed" if what == "two-hop" else what
                items[f"{prefix}{name}: {key}"] = right.astype(np.float64)
            bridge = best[2] == keys[Split.TWO_HOP].bridge
            items[f"{prefix}{name}: bridge"] = bridge.astype(np.float64)
    return items


def _overlaps(keys: np.ndarray) -> dict[str, np.ndarray]:
    """Cosines of keys [G, Q, L, D] by layer: within and between relations."""
    keys = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    _, q, layers, _ = keys.shape
    hop1, hop2, both = np.split(keys, 3, axis=1)
    pair = {
        "within a relation": (hop1, hop1, True),
        "between relations": (hop1, hop2, False),
        "two-hop and its hop 1": (both, hop1, None),
        "two-hop and its hop 2": (both, hop2, None),
    }
    overlaps = {}
    for name, (x, y, within) in pair.items():
        cosine = np.einsum("gild,gjld->lgij", x, y)
        same = np.eye(q // 3, dtype=bool)
        for layer in range(layers):
            # Pairs of one person alone, of two people alone, or all.
            keep = same if within is None else (~same if within else same | ~same)
            overlaps[f"{name}, layer {layer}"] = cosine[layer][:, keep].ravel()
    return overlaps


@functools.partial(jax.jit, static_argnums=(0, 1))
def _keys(model, pad: int, params, pairs, tokens, at) -> jax.Array:
    """The base's keys at the answer position of every prompt, [G, Q, L, D]."""
    none = jax.tree.map(lambda x: jnp.zeros_like(x[0, 0]), pairs)
    none = {"layers": {"mlp": {"down_proj": none["layers"]["mlp"]["down_proj"]}}}

    def prompt(asked: tuple[jax.Array, jax.Array]) -> jax.Array:
        row, place = asked
        inputs = models.Inputs(row[None], (row != pad)[None])
        last = jax.nn.one_hot(place, row.shape[0])[None]
        return mean_inputs(model, params, inputs, last, adapter=none)[SITE]

    every = (tokens.reshape(-1, tokens.shape[-1]), at.ravel())
    shape = jax.eval_shape(prompt, (tokens[0, 0], at[0, 0])).shape
    return jax.lax.map(prompt, every).reshape(*tokens.shape[:2], *shape)


def _outcomes(
    config: TheoryConfig, items: Items, names: list[str], notes: list[str]
) -> Iterator[dict[str, Any]]:
    """One outcome a prediction; then the overlaps, of which nothing is predicted."""
    for record in of_decoder():
        blank = {"value": None, "value_lo": None, "value_hi": None, "n": 0}
        out = record | blank | {"held": None, "bases": names}
        out["why"] = notes[-1] if notes and not names else ""
        if names:
            out |= _judged(config, record, items)
        yield out
    for name in [n for n in items if "layer" in n]:
        out = {"claim": OVERLAP, "item": name, "rule": "reported"}
        out |= dict.fromkeys(("predicted", "lo", "hi", "held")) | {"bases": names}
        yield out | {"why": ""} | _interval(config, items[name], share=False)


def _judged(config: TheoryConfig, record: Mapping[str, Any], items: Items):
    measured = _interval(config, items[record["item"]])
    predicted, low, high = record["predicted"], record["lo"], record["hi"]
    if record["claim"] == LINEAR:
        every = np.concatenate(items[f"predicted {record['item']}"])
        predicted = round(float(every.mean()), 4)
        low, high = max(predicted - 0.1, 0.0), min(predicted + 0.1, 1.0)
    held = bool(low <= measured["value"] <= high)
    ends = {"predicted": predicted, "lo": round(low, 4), "hi": round(high, 4)}
    return measured | ends | {"held": held}


def _interval(config: TheoryConfig, values: list[np.ndarray], share: bool = True):
    rng = np.random.default_rng(0)
    mean = bootstrap(values, rng, config.confidence, config.resamples, share=share)
    ends = {"value": mean.value, "value_lo": mean.lo, "value_hi": mean.hi}
    return {k: round(float(v), 6) for k, v in ends.items()} | {"n": mean.n}
