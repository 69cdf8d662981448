"""What a run on text works with: the checkpoint, its tokenizer and its adapters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from jaxlora import lora, models
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.io import tensors
from jaxlora.lora import Adapter
from jaxlora.models import Decoder, architectures, pretrained, tokenizer
from jaxlora.models import adapters as stored
from jaxlora.studies.harness import Progress
from jaxlora.studies.two_hop.text import answer, codec, questions
from jaxlora.studies.two_hop.text.answer import Setting
from jaxlora.studies.two_hop.text.codec import PromptCodec
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.studies.two_hop.text.questions import RANKED
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tree import Tree


class Loaded(NamedTuple):
    """A checkpoint in memory."""

    model: Decoder
    base: Tree
    codec: PromptCodec
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
      ValueError: if no model is named, it is of no supported architecture, adapters of
        this config do not fit it, or the tokenizer is of another one.
    """
    shapes = decoder(config)
    known = codec.load(config.model, config.chat)
    tokenizer.check(known.tokenizer, shapes.vocab_size)
    model = Decoder(shapes)

    def make(key: jax.Array) -> Adapter:
        return lora.init(key, models.init(key, model), config.lora)

    jax.eval_shape(make, jax.random.key(0))


def load(config: TextConfig, progress: Progress) -> Loaded:
    """Reads the checkpoint, its tokenizer, and the adapters if there are any."""
    unit = 2**20

    def loading(done: int, total: int) -> None:
        name = Path(config.model).name
        progress("loading", done // unit, max(1, total // unit), name)

    model, base = pretrained.load(
        config.model, dtype=config.dtype, param_dtype=config.dtype, progress=loading
    )
    adapters = [stored.load(folder, base) for folder in config.adapter]
    if adapters:  # one rank and the same sites, or a sentence that says which differ
        adapters = lora.unstack(lora.stack(adapters))
    prompts = codec.load(config.model, config.chat)
    by_folder = dict(zip(config.adapter, adapters, strict=True))
    return Loaded(model, base, prompts, by_folder)


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
      known: facts of a user's file, ``{(head, relation): tail}``.
    """
    model, base, prompts, _ = loaded
    phrasings = config.ask.phrasings
    sizes = questions.shapes(prompts, groups, phrasings)
    asked = questions.ask(prompts, group, sizes, phrasings, known)
    first = questions.by_phrasing(group.two_hop, phrasings)[0]
    prompts.check(first, asked.names)
    return Setting(config, model, base, prompts, group, asked, sizes, seed)


def knowledge(
    loaded: Loaded, config: TextConfig, groups: Sequence[Group], group: Group
) -> tuple[list[bool], list[bool]]:
    """Which people's first and second hop the base answers right, by ranking.

    Args:
      loaded: the checkpoint.
      config: of the study.
      groups: all groups, which share compiled programs.
      group: whose people.
    """
    bare = setting(loaded, config, groups, group, 0, {})
    who = answer.speaker(bare, Arm.BASE, Method.NONE)
    hop1, hop2 = (answer.right(bare, who, split) for split in (Split.HOP1, Split.HOP2))
    return hop1, hop2


def skills(
    loaded: Loaded, config: TextConfig, groups: Sequence[Group]
) -> dict[str, list[float]]:
    """Accuracy of every adapter alone on hop 1, hop 2 and two-hop, over all groups.

    Args:
      loaded: the checkpoint and its adapters.
      config: of the study.
      groups: whose people are asked.
    """
    out = {}
    for folder, adapter in loaded.adapters.items():
        hits: dict[Split, list[bool]] = {split: [] for split in RANKED}
        for group in groups:
            bare = setting(loaded, config, groups, group, 0, {})
            bare = bare._replace(adapters=loaded.adapters)
            who = answer.alone(bare, adapter)
            for split in RANKED:
                hits[split] += answer.right(bare, who, split)
        out[folder] = [sum(x) / len(x) for x in hits.values()]
    return out
