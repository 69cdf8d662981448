"""Bases of symbols: pretrained until they meet their criteria, cached, and resumed."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import locks
from jaxlora.evaluate import scoring
from jaxlora.io import checkpoint
from jaxlora.models import Decoder, DecoderConfig
from jaxlora.studies.harness import code, provenance
from jaxlora.studies.two_hop.symbols.pretraining import PretrainConfig
from jaxlora.tasks.two_hop.records import PAD, Record, Rows, Vocab, encode
from jaxlora.tasks.two_hop.world import World
from jaxlora.train import pretrain
from jaxlora.train.step import Batch
from jaxlora.tree import Tree

CRITERIA = {
    "one-hop recall": ("one_hop", 3, "min_one_hop"),
    "held-out two-hop": ("held_out", 3, "min_two_hop"),
    "copy": ("copy", 3, "min_copy"),
}
FORMATS = {
    "written bridge": ("held_out_written", 9, "min_format"),
    "bridge is read": ("held_out_misled", 9, "min_format"),
    "one document": ("held_out_document", 9, "min_format"),
    "facts in context": ("held_out_context", 9, "min_format"),
}
HELD_OUT = "held_out_"


# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.two_hop.symbols.bases")
# Rows of a format for each row of facts in context, by how hard it is to learn.
EXTRA_SHARES = {"misled": 0.5, "written": 0.33, "document": 0.25}


class Base(NamedTuple):
    """A trained base with what was measured of its criteria."""

    seed: int
    model: Decoder
    params: Tree
    world: World
    steps: int
    measured: Mapping[str, tuple[float, int]]
    """Accuracy and number of items of each criterion."""

    def passed(self, config: PretrainConfig) -> bool:
        """Whether the base meets its three criteria."""
        return all(
            self.measured[name][0] >= getattr(config, field)
            for name, (_, _, field) in CRITERIA.items()
        )

    def available(self, name: str, config: PretrainConfig) -> bool:
        """Whether an extra format was learned, so that a control may use it."""
        return name in self.measured and self.measured[name][0] >= config.min_format

    @property
    def pad(self) -> int:
        """Id of the padding token."""
        return self.world.vocab.ids[PAD]


def vocabulary(model: DecoderConfig, vocab: Vocab) -> Decoder:
    """Returns the decoder for a vocabulary."""
    return Decoder(dataclasses.replace(model, vocab_size=len(vocab.words)))


def key_of(
    seed: int, world: World, model: DecoderConfig, config: PretrainConfig
) -> str:
    """Names the cache entry: all that decides a base, code and versions included."""
    return checkpoint.fingerprint(
        {
            "seed": seed,
            "world": hashlib.sha256(repr(world).encode()).hexdigest(),
            "model": dataclasses.asdict(model),
            "pretrain": dataclasses.asdict(config),
            "code": CODE,
            **provenance.program(),
        }
    )


def train(
    seeds: Sequence[int],
    worlds: Sequence[World],
    model_config: DecoderConfig,
    config: PretrainConfig,
    cache: Path,
    concurrent: int = 1,
    progress: Callable[[int, int, Mapping[str, Any]], None] = lambda *_: None,
) -> list[Base]:
    """Returns a base for every seed, trained, resumed or read from the cache.

    Args:
      seeds: numbers of the bases.
      worlds: the world of each.
      model_config: shapes; its vocabulary size is replaced.
      config: recipe and criteria.
      cache: folder of cached bases.
      concurrent: bases trained in one vmapped program.
      progress: called with (seed, steps done, what was measured) after every chunk.
    """
    todo = list(zip(seeds, worlds, strict=True))
    return [
        base
        for i in range(0, len(todo), concurrent)
        for base in _train_some(
            todo[i : i + concurrent], model_config, config, cache, progress
        )
    ]


class _Run(NamedTuple):
    """One base under way."""

    seed: int
    world: World
    model: Decoder
    folder: Path
    state: pretrain.State
    measured: dict[str, tuple[float, int]]
    finished: bool


# One object for one recipe: jit tells compiled programs apart by identity.
_cached = functools.cache(pretrain.optimizer)


def _optimizer(config: PretrainConfig):
    return _cached(config.learning_rate, config.weight_decay, config.warmup)


def _train_some(todo, model_config, config: PretrainConfig, cache: Path, progress):
    folders = [
        _folder(seed, world, model_config, config, cache) for seed, world in todo
    ]
    with locks.making(*folders):
        runs = [
            _open(seed, world, model_config, config, folder)
            for (seed, world), folder in zip(todo, folders, strict=True)
        ]
        runs = _finish(runs, config, progress)
    return [
        Base(r.seed, r.model, r.state.params, r.world, int(r.state.step), r.measured)
        for r in runs
    ]


def _folder(seed: int, world: World, model_config, config, cache: Path) -> Path:
    model = vocabulary(model_config, world.vocab)
    return cache / "bases" / key_of(seed, world, model.config, config)


def _finish(runs: list[_Run], config: PretrainConfig, progress) -> list[_Run]:
    data = [_data(run.world, config.formats) for run in runs]
    while pending := [i for i, run in enumerate(runs) if not run.finished]:
        # Runs that were cut at different steps catch up before they go on together.
        behind = min(int(runs[i].state.step) for i in pending)
        now = [i for i in pending if int(runs[i].state.step) == behind]
        states = _advance([runs[i] for i in now], [data[i] for i in now], config)
        for i, state in zip(now, states, strict=True):
            runs[i] = _look(runs[i], state, config)
            progress(runs[i].seed, int(state.step), runs[i].measured)
    for run in runs:
        progress(run.seed, int(run.state.step), run.measured)
    return runs


_start = jax.jit(pretrain.start, static_argnums=(0, 1))


def _open(seed: int, world: World, model_config, config, folder: Path) -> _Run:
    model = vocabulary(model_config, world.vocab)
    opt = _optimizer(config)
    fresh = functools.partial(_start, model, opt)
    key = jax.random.key(seed)
    target = jax.eval_shape(lambda key: _stored(fresh(key)), key)
    restored = checkpoint.restore(folder, target)
    if restored is None:
        state: pretrain.State = fresh(key)
        return _Run(seed, world, model, folder, state, {}, False)
    _, stored, meta = restored
    measured = {name: (value, n) for name, (value, n) in meta["measured"].items()}
    state = dataclasses.replace(stored, key=jax.random.wrap_key_data(stored.key))
    return _Run(seed, world, model, folder, state, measured, meta["finished"])


def _stored(state: pretrain.State) -> pretrain.State:
    return dataclasses.replace(state, key=jax.random.key_data(state.key))


def _look(run: _Run, state: pretrain.State, config: PretrainConfig) -> _Run:
    """Measures the criteria after a chunk, and saves the run with what they are."""
    steps = int(state.step)
    base = Base(run.seed, run.model, state.params, run.world, steps, {})
    trained = trained_formats(config)
    base = base._replace(measured=measure(base, trained))
    formats = all(base.available(name, config) for name in trained)
    enough = base.passed(config) and (formats or steps >= config.format_steps)
    finished = steps >= config.max_steps or enough
    meta = {"measured": base.measured, "finished": finished, "seed": run.seed}
    checkpoint.save(run.folder, steps, _stored(state), meta)
    return run._replace(state=state, measured=dict(base.measured), finished=finished)


def _advance(runs: Sequence[_Run], data: Sequence[pretrain.Data], config):
    model, opt = runs[0].model, _optimizer(config)
    pad = runs[0].world.vocab.ids[PAD]
    sizes = pretrain.Sizes(config.batch, config.extra_batch, config.extra_every, pad)
    how, states = (model, opt, sizes, config.chunk), [run.state for run in runs]
    if len(runs) == 1:
        return [pretrain.chunk(*how, states[0], data[0])[0]]
    stack = functools.partial(jax.tree.map, lambda *x: jnp.stack(x))
    stacked, _ = pretrain.chunks(*how, stack(*states), stack(*data))
    return [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(len(runs))]


def trained_formats(config: PretrainConfig) -> tuple[str, ...]:
    """The formats of :data:`FORMATS` that a base of a recipe is trained on."""
    trained = [f"{HELD_OUT}{name}" for name in config.formats]
    return tuple(name for name, (split, _, _) in FORMATS.items() if split in trained)


def _data(world: World, formats: Sequence[str]) -> pretrain.Data:
    s, vocab = world.splits, world.vocab
    direct = encode(s["one_hop"] + s["two_hop"] + s["copy"], vocab, 3)
    # Without formats the steps that are theirs train on direct rows too.
    extra = encode(_mix(s, formats), vocab, 9) if formats else direct
    return pretrain.Data(*_padded(direct), *_padded(extra))


def _mix(
    splits: Mapping[str, tuple[Record, ...]], formats: Sequence[str]
) -> tuple[Record, ...]:
    """Extra rows: made-up contexts in full, the other formats in proportion to them."""
    most_rows = len(splits["context"])
    rows = list(splits["context"]) if "context" in formats else []
    for name, share in EXTRA_SHARES.items():
        if name not in formats:
            continue
        # Queries are sorted by relation: take them evenly, not from the front.
        most = min(len(splits[name]), max(1, round(share * most_rows)))
        evenly = np.linspace(0, len(splits[name]) - 1, most).astype(int)
        rows += [splits[name][i] for i in evenly]
    return tuple(rows)


def _padded(rows: Rows, multiple: int = 4096) -> tuple[Batch, jax.Array]:
    """Pads to a common shape, so that all seeds share one compiled program."""
    n = len(rows.tokens)
    short = -n % multiple
    padded = [np.pad(x, [(0, short), (0, 0)]) for x in rows]
    return Batch(*map(jnp.asarray, padded)), jnp.asarray(n, jnp.int32)


def measure(base: Base, formats: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Returns the accuracy and number of items of every criterion.

    Args:
      base: a base.
      formats: those of :data:`FORMATS` that it was trained on.
    """
    rules, out = CRITERIA | {name: FORMATS[name] for name in formats}, {}
    for name, (split, length, _) in rules.items():
        # Copies are repeated in training; each name is asked once.
        asked = tuple(dict.fromkeys(base.world.splits[split]))
        batch, _ = _padded(encode(asked, base.world.vocab, length), 512)
        hits = scoring.right(base.model, base.pad, base.params, *batch)
        out[name] = (float(np.asarray(hits)[: len(asked)].mean()), len(asked))
    return out
