"""What a run works with: the checkpoint, adapters, and what is measured only once."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxlora import lora, models
from jaxlora.evaluate import metrics
from jaxlora.evaluate.schema import Library, Method, Split
from jaxlora.io import tensors
from jaxlora.io.files import write_text
from jaxlora.lora import Adapter
from jaxlora.models import Decoder, architectures, pretrained, tokenizer
from jaxlora.models import adapters as stored
from jaxlora.reuse import Reuse
from jaxlora.studies.two_hop_text import asked, blocks, talk
from jaxlora.studies.two_hop_text.asked import RANKED
from jaxlora.studies.two_hop_text.blocks import Setting
from jaxlora.studies.two_hop_text.config import TextConfig
from jaxlora.studies.two_hop_text.talk import Talk
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tree import Tree


class Loaded(NamedTuple):
    """A checkpoint in memory."""

    model: Decoder
    base: Tree
    talk: Talk
    adapters: Mapping[str, Adapter]
    """By folder, padded to one rank; empty if experts are trained."""


def decoder(config: TextConfig) -> models.DecoderConfig:
    """Returns the shapes of the model, from its config.json alone.

    Raises:
      ValueError: if no model is named, or it is of no supported architecture.
    """
    if not config.model:
        raise ValueError("No model was given; --model DIR names a checkpoint.")
    raw = tensors.read_json(Path(config.model) / "config.json")
    return architectures.from_json(raw)


def check(config: TextConfig) -> None:
    """Refuses what can be refused from config.json and tokenizer.json alone.

    Raises:
      ValueError: as :func:`decoder`; if adapters of this config do not fit the model,
        or the tokenizer is of another one.
    """
    shapes = decoder(config)
    found = talk.load(config.model, config.chat)
    tokenizer.check(found.tokenizer, shapes.vocab_size)
    model = Decoder(shapes)

    def make(key: jax.Array) -> Adapter:
        return lora.init(key, models.init(key, model), config.lora)

    jax.eval_shape(make, jax.random.key(0))


def load(config: TextConfig, progress: Callable[[str, int, int, str], None]) -> Loaded:
    """Reads the checkpoint, its tokenizer, and the adapters if there are any."""
    unit = 2**20

    def tell(text: str, done: int, total: int) -> None:
        progress("loading", done // unit, max(1, total // unit), text)

    model, base = pretrained.load(
        config.model,
        dtype=config.dtype,
        param_dtype=config.dtype,
        progress=lambda done, total: tell(Path(config.model).name, done, total),
    )
    found = [stored.load(folder, base) for folder in config.adapter]
    if found:  # one rank and the same sites, or a sentence that says which differ
        found = lora.unstack(lora.stack(found))
    return Loaded(
        model,
        base,
        talk.load(config.model, config.chat),
        dict(zip(config.adapter, found, strict=True)),
    )


def setting(
    loaded: Loaded,
    config: TextConfig,
    groups: Sequence[Group],
    group: Group,
    seed: int,
    known: Mapping[tuple[str, str], str],
) -> Setting:
    """Makes the questions of a group; its experts are not there yet.

    Args:
      loaded: the checkpoint.
      config: of the study.
      groups: all groups of the seed, which share compiled programs.
      group: one of them.
      seed: of random controls.
      known: facts of a user's file.
    """
    phrasings = config.ask.phrasings
    sizes = asked.shapes(loaded.talk, groups, phrasings)
    put = asked.ask(loaded.talk, group, sizes, phrasings, known)
    first = asked.by_phrasing(group.two_hop, phrasings)[0]
    loaded.talk.check(first, put.names)
    return Setting(
        config, loaded.model, loaded.base, loaded.talk, group, put, sizes, {}, {}, seed
    )


def knowledge(
    loaded: Loaded, config: TextConfig, groups: Sequence[Group], group: Group
) -> tuple[list[bool], list[bool]]:
    """Which people's first and second hop the base answers right, by ranking."""
    bare = setting(loaded, config, groups, group, 0, {})
    who = blocks.speaker(bare, Library.BASE, Method.NONE)
    return right(bare, who, Split.HOP1), right(bare, who, Split.HOP2)


def skills(
    loaded: Loaded, config: TextConfig, groups: Sequence[Group]
) -> dict[str, list[float]]:
    """Accuracy of every adapter alone on hop 1, hop 2 and two-hop, over all groups."""
    out = {}
    for folder, adapter in loaded.adapters.items():
        hits: dict[Split, list[bool]] = {split: [] for split in RANKED}
        for group in groups:
            bare = setting(loaded, config, groups, group, 0, {})
            bare = bare._replace(adapters=_numbered(loaded.adapters))
            who = blocks.alone(bare, adapter)
            for split in RANKED:
                hits[split] += right(bare, who, split)
        out[folder] = [sum(x) / len(x) for x in hits.values()]
    return out


def _numbered(found: Mapping[str, Adapter]) -> dict[Any, Adapter]:
    """Adapters before their roles are known: their ranks decide the shapes."""
    return dict(found)


def right(bare: Setting, who: Reuse, split: Split) -> list[bool]:
    """Which questions of a split are answered right, by ranking."""
    found = blocks.rank(bare, who, bare.asked.ranked[split], bare.group.size)
    hits = metrics.predict(found) == bare.asked.keys[split].answer
    return [bool(hit) for hit in hits]


def remembered(path: Path, make: Callable[[], Any]) -> Any:
    """Returns what a JSON file of the run holds, or makes and stores it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        write_text(path, json.dumps(make()))
        return json.loads(path.read_text(encoding="utf-8"))


def teller(
    progress: Callable[[str, int, int, str], None], who: str
) -> Callable[[int, int, float], None]:
    """Tells the progress of training."""

    def tell(done: int, total: int, loss: float) -> None:
        progress("experts", done, total, f"{who}: loss {loss:.3f}")

    return tell
