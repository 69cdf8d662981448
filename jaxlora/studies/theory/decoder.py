"""Which of the claims a trained decoder obeys, on cached bases of the two-hop study.

Nothing is trained here: without a cached base, or without its experts, what would be
measured is reported as unavailable. The decoder has four layers and keys that move, so
the theory need not hold; what it says is predicted all the same, and judged.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import merge, models
from jaxlora.evaluate.schema import Cell, Library, Split
from jaxlora.evaluate.statistics import bootstrap
from jaxlora.models.statistics import mean_inputs
from jaxlora.studies.theory.config import TheoryConfig
from jaxlora.studies.theory.design import LINEAR, of_decoder
from jaxlora.studies.two_hop import bases, libraries, protocol, questions
from jaxlora.studies.two_hop.bases import Base
from jaxlora.studies.two_hop.config import PRESETS, TwoHopConfig
from jaxlora.studies.two_hop.libraries import Experts
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.experts import Expert

OVERLAP = "key overlap"
CELLS = (Cell.R_OO, Cell.H_OO, Cell.F_OO)
"""Where the base knows neither hop."""
SITE = "layers/mlp/down_proj/kernel"
"""The decoder's key-value memory; its inputs are the keys."""
SPLITS = {"hop 1": Split.HOP1, "hop 2": Split.HOP2, "two-hop": Split.TWO_HOP}

Items = dict[str, list[np.ndarray]]
"""Per base, right or wrong of every person (or a cosine)."""


class Found(NamedTuple):
    """What the decoders said."""

    outcomes: list[dict[str, Any]]
    notes: list[str]


def run(config: TheoryConfig, cache: Path) -> Found:
    """Measures every cached base of the two-hop study that has its experts.

    Args:
      config: which seeds are looked for.
      cache: the cache folder of ``jaxlora study two-hop``.
    """
    items: Items = {}
    told, notes = [], []
    for name, settings, base in cached(cache, config.decoder_seeds):
        missing = _missing(base, settings, cache)
        if missing:
            notes.append(f"{name}: no cached experts ({missing})")
            continue
        experts = libraries.train(base, settings.lora, settings.experts, cache)
        for item, values in measure(experts).items():
            items.setdefault(item, []).append(values)
        told.append(name)
    if not told:
        why = "no cached base with experts; run `jaxlora study two-hop` first"
        notes.append(f"unavailable: {why}")
    return Found(list(_outcomes(config, items, told, notes)), notes)


def cached(
    cache: Path, seeds: Sequence[int]
) -> Iterator[tuple[str, TwoHopConfig, Base]]:
    """Yields (name, settings, base) of every finished base in the cache.

    Args:
      cache: the cache folder.
      seeds: of the presets of the two-hop study, those that count.
    """
    for name, settings in PRESETS.items():
        mine = [s for s in protocol.seeds(settings) if s in seeds]
        if name == "full" or not (cache / "bases").is_dir():
            continue
        for seed in mine:
            made = world.generate(settings.world, seed)
            model = bases.vocabulary(settings.model, made.vocab)
            key = bases.key_of(seed, made, model.config, settings.pretrain)
            if not (cache / "bases" / key).is_dir():
                continue
            (base,) = bases.train(
                [seed], [made], settings.model, settings.pretrain, cache
            )
            yield f"{name}, seed {seed}", settings, base


def _missing(base: Base, settings: TwoHopConfig, cache: Path) -> str:
    """The programs of experts that are not in the cache; nothing is trained here."""
    keys = [
        libraries.key_of(base, names, settings.lora, settings.experts)
        for names, _ in libraries.PROGRAMS
    ]
    lost = [key for key in keys if not (cache / "libraries" / key).is_dir()]
    return f"{len(lost)} of {len(keys)} sets" if lost else ""


def measure(experts: Experts) -> dict[str, np.ndarray]:
    """Returns every item of one base over the people whom it does not know.

    Args:
      experts: of a base; those of A->B and B->C are combined.
    """
    base = experts.base
    asked = questions.ask(base, experts.groups, 1)
    chosen = [g for g, group in enumerate(experts.groups) if group.cell in CELLS]
    pairs = libraries.stacked(experts, Library.PAIR)
    pairs = jax.tree.map(lambda x: x[np.asarray(chosen)], pairs)
    tokens = asked.questions.direct[np.asarray(chosen), : 3 * asked.people]
    said = jax.tree.map(
        np.asarray, _logits(base.model, base.pad, base.params, pairs, tokens)
    )
    parts = [
        _of_group(said, g, experts.groups[number].size, asked.keys[number])
        for g, number in enumerate(chosen)
    ]
    found = {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}
    hops = (Expert.HOP1, Expert.HOP2)
    own = [experts.own[name][g] for name in hops for g in chosen]
    return found | {"own facts": np.asarray(own)} | _overlaps(base, pairs, tokens)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(model, pad: int, params, pairs, tokens) -> dict[str, jax.Array]:
    """Logits at the answer of the base, each expert and both merges, [G, ..., Q, V]."""

    def ask(tokens, adapter=None):
        inputs = models.Inputs(tokens, tokens != pad)
        return models.apply(model, params, inputs, adapter=adapter)[:, 2]

    def one(pair, tokens):
        merged = {name: merge.preset(name)(pair) for name in ("mean", "sum")}
        each = jax.vmap(lambda adapter: ask(tokens, adapter))(pair)
        found = {"base": ask(tokens), "experts": each}
        return found | {name: ask(tokens, x) for name, x in merged.items()}

    return jax.vmap(one)(pairs, tokens)


def _of_group(said, g: int, size: int, keys) -> dict[str, np.ndarray]:
    """What one group's merged models say, and what single experts predict of it."""
    found = {}
    people = said["base"].shape[1] // 3
    change = said["experts"][g] - said["base"][g][None]
    for name, gate in (("mean", 0.5), ("sum", 1.0)):
        linear = said["base"][g] + gate * change.sum(axis=0)
        for prefix, logits in (("", said[name][g]), ("predicted ", linear)):
            best = logits.argmax(-1).reshape(3, people)[:, :size]
            for i, (what, split) in enumerate(SPLITS.items()):
                right = best[i] == keys[split].answer
                key = "composed" if what == "two-hop" else what
                found[f"{prefix}{name}: {key}"] = right.astype(np.float64)
            bridge = best[2] == keys[Split.TWO_HOP].bridge
            found[f"{prefix}{name}: bridge"] = bridge.astype(np.float64)
    return found


def _overlaps(base: Base, pairs, tokens) -> dict[str, np.ndarray]:
    """Cosines of keys at the answer position by layer: within and between relations."""
    keys = np.asarray(
        _keys(base.model, base.pad, base.params, pairs, tokens), np.float64
    )  # [G, Q, L, D]
    keys /= np.linalg.norm(keys, axis=-1, keepdims=True)
    _, q, layers, _ = keys.shape
    hop1, hop2, both = np.split(keys, 3, axis=1)
    pair = {
        "within a relation": (hop1, hop1, True),
        "between relations": (hop1, hop2, False),
        "two-hop and its hop 1": (both, hop1, None),
        "two-hop and its hop 2": (both, hop2, None),
    }
    found = {}
    for name, (x, y, within) in pair.items():
        cosine = np.einsum("gild,gjld->lgij", x, y)
        own = np.eye(q // 3, dtype=bool)
        for layer in range(layers):
            # Own pairs alone, all others alone, or all.
            keep = own if within is None else (~own if within else own | ~own)
            found[f"{name}, layer {layer}"] = cosine[layer][:, keep].ravel()
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _keys(model, pad: int, params, pairs, tokens) -> jax.Array:
    """The base's keys at the answer position of every prompt, [G, Q, L, D]."""
    none = jax.tree.map(lambda x: jnp.zeros_like(x[0, 0]), pairs)
    none = {"layers": {"mlp": {"down_proj": none["layers"]["mlp"]["down_proj"]}}}
    last = jnp.asarray([[0.0, 0.0, 1.0]])

    def one(row: jax.Array) -> jax.Array:
        inputs = models.Inputs(row[None], (row != pad)[None])
        found = mean_inputs(model, params, inputs, last, adapter=none)
        return found[SITE]

    return jax.lax.map(one, tokens.reshape(-1, tokens.shape[-1])).reshape(
        *tokens.shape[:2], *jax.eval_shape(one, tokens[0, 0]).shape
    )


def _outcomes(
    config: TheoryConfig, items: Items, told: list[str], notes: list[str]
) -> Iterator[dict[str, Any]]:
    """One outcome a prediction; then the overlaps, of which nothing is predicted."""
    for record in of_decoder():
        blank = {"value": None, "value_lo": None, "value_hi": None, "n": 0}
        out = record | blank | {"held": None, "bases": told}
        out["why"] = notes[-1] if notes and not told else ""
        if told:
            out |= _judged(config, record, items)
        yield out
    for name in [n for n in items if "layer" in n]:
        yield {
            "claim": OVERLAP,
            "item": name,
            "rule": "reported",
            "predicted": None,
            "lo": None,
            "hi": None,
            "held": None,
            "bases": told,
            "why": "",
        } | _interval(config, items[name], share=False)


def _judged(config: TheoryConfig, record: Mapping[str, Any], items: Items):
    measured = _interval(config, items[record["item"]])
    predicted, low, high = (record[k] for k in ("predicted", "lo", "hi"))
    if record["claim"] == LINEAR:
        every = np.concatenate(items[f"predicted {record['item']}"])
        predicted = round(float(every.mean()), 4)
        low, high = max(predicted - 0.1, 0.0), min(predicted + 0.1, 1.0)
    held = bool(low <= measured["value"] <= high)
    ends = {"predicted": predicted, "lo": round(low, 4), "hi": round(high, 4)}
    return measured | ends | {"held": held}


def _interval(config: TheoryConfig, values: list[np.ndarray], share: bool = True):
    rng = np.random.default_rng(0)
    found = bootstrap(values, rng, config.level, config.resamples, share=share)
    names = {"value": found.value, "value_lo": found.lo, "value_hi": found.hi}
    return {k: round(float(v), 6) for k, v in names.items()} | {"n": found.n}
