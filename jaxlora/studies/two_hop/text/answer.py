"""How text answers: one arm under one method, ranked and generated, for one group."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxlora import lora, merge, models
from jaxlora.evaluate import metrics
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.lora import Adapter
from jaxlora.models import Decoder
from jaxlora.reuse import Reuse
from jaxlora.studies.harness import Outcome
from jaxlora.studies.two_hop import arms, items
from jaxlora.studies.two_hop.items import OldAnswers
from jaxlora.studies.two_hop.text import experts, questions, reading, score
from jaxlora.studies.two_hop.text.codec import PromptCodec
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.studies.two_hop.text.questions import RANKED, Asked
from jaxlora.studies.two_hop.text.score import Prompts
from jaxlora.tasks.two_hop.experts import Expert, Group, rows
from jaxlora.tree import Tree

WRITTEN = (Arm.BASE, Arm.PAIR, Arm.JOINT)
"""Arms that are also asked to write the bridge."""
CONTROLS = (
    *arms.COUNTERFACTUALS,
    Arm.SHUFFLED,
    Arm.RANDOM,
    Arm.PERMUTED,
    Arm.TARGET,
    Arm.TRIPLE,
)
"""Arms of which a verdict needs the two-hop questions alone."""


class Setting(NamedTuple):
    """One group, ready to be asked."""

    config: TextConfig
    model: Decoder
    base: Tree
    codec: PromptCodec
    group: Group
    asked: Asked
    sizes: questions.Shapes
    seed: int
    adapters: Mapping[Any, Adapter] = {}
    """By role, or by folder while no role is known: their ranks decide the shapes."""
    accuracy: Mapping[Expert, float] = {}
    """Accuracy of each expert on its own facts, in held-out phrasings."""
    old: OldAnswers | None = None
    """What the base answers, once it was asked."""

    @property
    def rank(self) -> int:
        """Of a merge of three, to which everything is padded: one program for all."""
        sites = [w.rank for a in self.adapters.values() for w in lora.sites(a).values()]
        return 3 * max(sites, default=self.config.lora.rank)


def answer(setting: Setting, arm: Arm, method: Method) -> Outcome:
    """Asks one arm, used by one method."""
    outcome = _ask(setting, arm, speaker(setting, arm, method))
    if arm not in arms.OTHERS:
        return outcome
    # Held-out A->C experts answer only for the half they were not trained on.
    other = _ask(setting, arm, speaker(setting, arm, method, first_half=True))
    half = setting.group.size // 2
    keep = outcome.items["person"] < half
    mixed = outcome.items.where(keep, other.items).astype(outcome.items.dtypes)
    notes = dict(outcome.notes)
    if "generated" in notes:
        pairs = zip(notes["generated"], other.notes["generated"], strict=True)
        fields = ("exact", "contains", "texts")
        notes["generated"] = [
            x | {name: x[name][:half] + y[name][half:] for name in fields}
            for x, y in pairs
        ]
    return Outcome(mixed, notes)


def speaker(
    setting: Setting, arm: Arm, method: Method, first_half: bool = False
) -> Reuse:
    """Returns the model that answers for an arm under a method.

    Args:
      setting: the group.
      arm: whose experts are used.
      method: how.
      first_half: for held-out A->C experts, use the one trained on the first half.
    """
    model, base = setting.model, setting.base
    if arm is Arm.BASE:
        return Reuse(model, base, _nothing(setting))
    stacked = _stacked(setting, arm, first_half)
    if method is Method.NONE:
        return alone(setting, lora.unstack(stacked)[0])
    if arms.merges(method):
        number = experts.number(setting.group)
        key = jax.random.fold_in(arms.key(setting.seed, arm), number)
        how = merge.preset(str(method))
        how = how.at(models.layer_places(model.config, stacked))
        return Reuse(model, base, _merged(how, setting.rank, stacked, key))
    how = arms.route_of(method, setting.config)
    how, stacked = how.fit(lora.num_experts(stacked)), how.library(stacked)
    router = Decoder(model.config, how)
    state = jax.jit(models.gate_state, static_argnums=0)(router, stacked)
    return Reuse(router, base, library=stacked, gate=state)


def _stacked(setting: Setting, arm: Arm, first_half: bool) -> lora.Library:
    """The library of an arm, [E, ...]; random and permuted ones are made of a pair."""
    members = arms.members(arm, first_half)
    stacked = lora.stack([setting.adapters[name] for name in members])
    if arm is Arm.RANDOM:
        key = jax.random.key(setting.seed)
        return _random(jax.random.fold_in(key, experts.number(setting.group)), stacked)
    return _permuted(stacked) if arm is Arm.PERMUTED else stacked


_random = jax.jit(merge.random_like)
_permuted = jax.jit(functools.partial(merge.permute_sites, None))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _merged(
    method: merge.Merge, rank: int, library: lora.Library, key: jax.Array
) -> Adapter:
    # A merge on dense deltas may be of full rank, and keeps it.
    merged = method(library, key=key)
    most = max(site.rank for site in lora.sites(merged).values())
    return lora.pad(merged, max(rank, most))


def _nothing(setting: Setting) -> Adapter:
    """An adapter that adds nothing, so that the base shares the others' program."""

    def like(base: Tree) -> Adapter:
        fresh = lora.init(jax.random.key(0), base, setting.config.lora)
        adapter = next(iter(setting.adapters.values()), fresh)
        return lora.pad(adapter, setting.rank)

    shapes = jax.eval_shape(like, setting.base)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def alone(setting: Setting, adapter: Adapter) -> Reuse:
    """Returns the model with one adapter, padded so that all share a program."""
    return Reuse(setting.model, setting.base, lora.pad(adapter, setting.rank))


def rank(setting: Setting, who: Reuse, prompts: Prompts, number: int) -> np.ndarray:
    """Scores of all candidates, averaged over phrasings.

    Args:
      setting: the group.
      who: model that answers.
      prompts: [P * N, T], phrasing by phrasing.
      number: of questions, N.

    Returns:
      [N, C], log-probabilities in nats.
    """
    ask, asked = setting.config.ask, setting.asked
    sizes, known = (ask.batch, ask.candidates_at_once), len(asked.names)
    scores = score.ranking(
        who,
        prompts,
        asked.answers,
        *sizes,
        per_token=ask.score == "mean",
        shared=setting.codec.opening,
    )
    return scores[:, :known].reshape(-1, number, known).mean(0)


def right(setting: Setting, who: Reuse, split: Split) -> list[bool]:
    """Which questions of a split are answered right, by ranking."""
    scores = rank(setting, who, setting.asked.ranked[split], setting.group.size)
    hits = metrics.predict(scores) == setting.asked.keys[split].answer
    return [bool(hit) for hit in hits]


def _ask(setting: Setting, arm: Arm, who: Reuse) -> Outcome:
    group, asked, ask = setting.group, setting.asked, setting.config.ask
    prompts = dict(asked.ranked)
    if not setting.config.extra and arm in CONTROLS:
        prompts = {Split.TWO_HOP: prompts[Split.TWO_HOP]}
    if arm is Arm.BASE:
        prompts[Split.CONTEXT] = asked.context
    frames = []
    for split, given in prompts.items():
        scores = rank(setting, who, given, group.size)
        key = asked.keys[split]
        frames.append(items.people(scores, group, split, key, setting.old))
    notes: dict[str, Any] = {}
    if arm is not Arm.BASE:
        lowest = min(setting.accuracy[name] for name in arms.judged(arm))
        notes["own"] = {str(group.cell): lowest}
    if ask.generate:
        splits = (split for split in RANKED if split in prompts)
        notes["generated"] = [_generated(setting, who, split) for split in splits]
    if ask.written and (arm in WRITTEN or setting.config.form == "written"):
        frames += written(setting, who)
    return Outcome(pd.concat(frames, ignore_index=True), notes)


def _texts(setting: Setting, who: Reuse, prompts: Prompts, new: int) -> list[str]:
    codec, batch = setting.codec, setting.config.ask.batch
    rows = score.text(who, prompts, batch, new, codec.stop, codec.pad)
    return [codec.text(ids) for ids in rows]


def _generated(setting: Setting, who: Reuse, split: Split) -> dict[str, Any]:
    """Greedy answers to the first phrasing: the texts, and whether each is right."""
    asked, n = setting.asked, setting.group.size
    new = setting.config.ask.new_tokens
    texts = _texts(setting, who, asked.first(split, n), new)
    answers = asked.keys[split].answer
    read = [
        reading.read(text, asked.names[i], asked.names)
        for text, i in zip(texts, answers, strict=True)
    ]
    return {
        "cell": str(setting.group.cell),
        "split": str(split),
        "exact": [int(x.exact) for x in read],
        "contains": [int(x.first == i) for x, i in zip(read, answers, strict=True)],
        "texts": texts,
    }


def written(setting: Setting, who: Reuse) -> list[pd.DataFrame]:
    """Items of answers whose bridge is written first, and of these bridges.

    The last name in a text is the answer, the first the bridge.

    Args:
      setting: the group.
      who: model that answers.
    """
    asked, group = setting.asked, setting.group
    key = asked.keys[Split.WRITTEN]
    texts = _texts(setting, who, asked.written, setting.config.ask.written_tokens)
    read = [reading.read(text, "", asked.names) for text in texts]
    last, first = (np.array([x[i] for x in read]) for i in (2, 1))
    frame = items.right_or_wrong(Split.WRITTEN, last, key.answer, group)
    alike = np.zeros(group.size, int)  # answers are shuffled among all people
    frame["chance"] = metrics.chance(last, key.answer, alike)
    split = Split.WRITTEN_BRIDGE
    return [frame, items.right_or_wrong(split, first, key.bridge, group)]


def own_facts(setting: Setting, expert: Expert) -> float:
    """Accuracy of an expert on what it was trained on, in held-out phrasings."""
    trained = {
        Expert.DOCUMENT: setting.group.hop1 + setting.group.hop2,
        Expert.IDENTITY: setting.group.hop2,
    }
    facts = trained.get(expert) or rows(setting.group, expert)
    who = alone(setting, setting.adapters[expert])
    texts = questions.by_phrasing(facts, setting.config.ask.phrasings)
    prompts = questions.prompts(setting.codec, texts, setting.sizes.prompt)
    known = setting.asked.names
    answers = [known.index(record.answer[0]) for record in facts]
    predicted = metrics.predict(rank(setting, who, prompts, len(facts)))
    return float((predicted == answers).mean())
