"""The blocks of the study on one group: one library used by one method, and asked."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxlora import lora, merge, models
from jaxlora.evaluate import metrics
from jaxlora.evaluate.schema import Library, Method, Split
from jaxlora.lora import Adapter
from jaxlora.models import Decoder
from jaxlora.reuse import Reuse
from jaxlora.studies.two_hop import blocks, items, merging, routed
from jaxlora.studies.two_hop.blocks import Outcome
from jaxlora.studies.two_hop.libraries import MEMBERS, OTHERS
from jaxlora.studies.two_hop_text import answers, asked, experts, score
from jaxlora.studies.two_hop_text.asked import RANKED, Asked
from jaxlora.studies.two_hop_text.config import TextConfig
from jaxlora.studies.two_hop_text.score import Prompts
from jaxlora.studies.two_hop_text.talk import Talk
from jaxlora.tasks.two_hop.experts import Expert, Group, rows
from jaxlora.tree import Tree

DRAWN = (Library.RANDOM, Library.PERMUTED)
WRITTEN = (Library.BASE, Library.PAIR, Library.JOINT)
"""Libraries that are also asked to write the bridge."""


class Setting(NamedTuple):
    """One group, ready to be asked."""

    config: TextConfig
    model: Decoder
    base: Tree
    talk: Talk
    group: Group
    asked: Asked
    sizes: asked.Shapes
    adapters: Mapping[Expert, Adapter]
    own: Mapping[Expert, float]
    """Accuracy of each expert on its own facts, in held-out phrasings."""
    seed: int
    old: items.Old | None = None

    @property
    def rank(self) -> int:
        """Of a merge of three, to which everything is padded: one program for all."""
        sites = [w.rank for a in self.adapters.values() for w in lora.sites(a).values()]
        return 3 * max(sites, default=self.config.lora.rank)


def plan(methods: Sequence[str], present: Collection[Expert]) -> list:
    """All (library, method) for which the experts are there, the base first.

    What a method refuses to combine is not in it; see :func:`refused`.
    """
    return [x for x in _present(methods, present) if not merging.obstacle(*x)]


def refused(methods: Sequence[str], present: Collection[Expert]) -> dict:
    """Why a method cannot combine a library, ``{(library, method): reason}``."""
    found = {x: merging.obstacle(*x) for x in _present(methods, present)}
    return {x: reason for x, reason in found.items() if reason}


def _present(methods: Sequence[str], present: Collection[Expert]) -> list:
    return [
        (library, method)
        for library, method in blocks.plan(methods)
        if library is not Library.FULL and set(MEMBERS.get(library, ())) <= set(present)
    ]


def run(setting: Setting, library: Library, method: Method) -> Outcome:
    """Asks one library, used by one method."""
    outcome = _ask(setting, library, speaker(setting, library, method))
    if library not in OTHERS:
        return outcome
    # Held-out A->C experts answer only for the half they were not trained on.
    other = _ask(setting, library, speaker(setting, library, method, True))
    half = setting.group.size // 2
    keep = outcome.items["person"] < half
    mixed = outcome.items.where(keep, other.items).astype(outcome.items.dtypes)
    notes, others = cast(Any, outcome.notes), cast(Any, other.notes)
    both = zip(notes.get("generated", []), others.get("generated", []), strict=True)
    texts = [_halves(one, two, half) for one, two in both]
    return Outcome(mixed, notes | ({"generated": texts} if texts else {}))


def _halves(one: dict[str, Any], two: dict[str, Any], half: int) -> dict[str, Any]:
    """What was generated for the first half of the people, and for the second."""
    lists = {k: x[:half] + two[k][half:] for k, x in one.items() if isinstance(x, list)}
    return one | lists


def speaker(
    setting: Setting, library: Library, method: Method, first_half: bool = False
) -> Reuse:
    """Returns who answers for a library under a method."""
    model, base = setting.model, setting.base
    if library is Library.BASE:
        return Reuse(model, base, _nothing(setting))
    stacked = stack(setting, library, first_half)
    if method is Method.NONE:
        return alone(setting, lora.unstack(stacked)[0])
    if method in merge.names():
        group = experts.number(setting.group)
        key = jax.random.fold_in(merging.key(setting.seed, library), group)
        how = merge.preset(str(method))
        return Reuse(model, base, _merged(how, setting.rank, stacked, key))
    how = routed.route_of(method, setting.config)
    how, stacked = how.fit(lora.num_experts(stacked)), how.library(stacked)
    router = Decoder(model.config, how)
    state = jax.jit(models.gate_state, static_argnums=0)(router, stacked)
    return Reuse(router, base, library=stacked, gate=state)


def stack(setting: Setting, library: Library, first_half: bool = False):
    """Returns the adapters of a library, [E, ...]; controls are drawn from the pair."""
    members = MEMBERS[library]
    if first_half:
        swap = {Expert.TARGET_SECOND: Expert.TARGET_FIRST}
        members = tuple(swap.get(name, name) for name in members)
    stacked = lora.stack([setting.adapters[name] for name in members])
    if library is Library.RANDOM:
        key = jax.random.key(setting.seed)
        return _random(jax.random.fold_in(key, experts.number(setting.group)), stacked)
    return _permuted(stacked) if library is Library.PERMUTED else stacked


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
    if setting.adapters:
        like = lora.pad(next(iter(setting.adapters.values())), setting.rank)
    else:
        wide = jax.eval_shape(
            lambda key: lora.init(key, setting.base, setting.config.lora),
            jax.random.key(0),
        )
        like = jax.eval_shape(lambda x: lora.pad(x, setting.rank), wide)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)


def rank(setting: Setting, who: Reuse, prompts: Prompts, questions: int) -> np.ndarray:
    """Scores of all candidates, averaged over phrasings.

    Args:
      setting: the group.
      who: who answers.
      prompts: [P * N, T], phrasing by phrasing.
      questions: N.

    Returns:
      [N, C], nats.
    """
    ask, known = setting.config.ask, len(setting.asked.names)
    scores = score.ranking(
        who,
        prompts,
        setting.asked.answers,
        ask.batch,
        ask.candidates_at_once,
        ask.score == "mean",
    )
    return scores[:, :known].reshape(-1, questions, known).mean(0)


def _ask(setting: Setting, library: Library, who: Reuse) -> Outcome:
    group, put = setting.group, setting.asked
    frames = []
    for split in RANKED:
        found = rank(setting, who, put.ranked[split], group.size)
        said = _said(setting, split)
        frames.append(items.people(found, group, split, put.keys[split], said))
    if library is Library.BASE:
        found = rank(setting, who, put.context, group.size)
        frames.append(
            items.people(found, group, Split.CONTEXT, put.keys[Split.CONTEXT], None)
        )
    ask = setting.config.ask
    notes: dict[str, Any] = {}
    if library is not Library.BASE:
        notes["own"] = {str(group.cell): own(setting, library)}
    if ask.generate:
        notes["generated"] = [_generated(setting, who, split) for split in RANKED]
    if ask.written and library in WRITTEN:
        frames += _written(setting, who)
    return Outcome(pd.concat(frames, ignore_index=True), notes)


def _said(setting: Setting, split: Split) -> np.ndarray | None:
    group = setting.group
    key = (str(group.cell), group.pair, str(split))
    return None if setting.old is None else setting.old[key]


def own(setting: Setting, library: Library) -> float:
    """The lowest accuracy of a library's experts on their own facts."""
    members = MEMBERS[library]
    if library in OTHERS:
        members = (*members, Expert.TARGET_FIRST)
    return min(setting.own[name] for name in members)


def _texts(setting: Setting, who: Reuse, prompts: Prompts, new: int) -> list[str]:
    talk, ask = setting.talk, setting.config.ask
    made = score.text(who, prompts, ask.batch, new, talk.stop, talk.pad)
    return [talk.text(ids) for ids in made]


def _generated(setting: Setting, who: Reuse, split: Split) -> dict[str, Any]:
    """Greedy answers to the first phrasing: the texts, and whether each is right."""
    put, n = setting.asked, setting.group.size
    new = setting.config.ask.new_tokens
    texts = _texts(setting, who, put.first(split, n), new)
    right = put.keys[split].answer
    said = [
        answers.read(text, put.names[i], put.names)
        for text, i in zip(texts, right, strict=True)
    ]
    return {
        "cell": str(setting.group.cell),
        "split": str(split),
        "exact": [int(x.exact) for x in said],
        "contains": [int(x.first == i) for x, i in zip(said, right, strict=True)],
        "texts": texts,
    }


def _written(setting: Setting, who: Reuse) -> list[pd.DataFrame]:
    """The bridge written first: the last name is the answer, the first the bridge."""
    put, group = setting.asked, setting.group
    key = put.keys[Split.WRITTEN]
    texts = _texts(setting, who, put.written, setting.config.ask.written_tokens)
    said = [answers.read(text, "", put.names) for text in texts]
    last, first = (np.array([x[i] for x in said]) for i in (2, 1))
    frame = items.plain(Split.WRITTEN, last, key.answer, group)
    together = np.zeros(group.size, int)
    frame["chance"] = metrics.chance(last, key.answer, together)
    return [frame, items.plain(Split.WRITTEN_BRIDGE, first, key.bridge, group)]


def own_facts(setting: Setting, expert: Expert) -> float:
    """Accuracy of an expert on what it was trained on, in held-out phrasings."""
    trained = {
        Expert.DOCUMENT: setting.group.hop1 + setting.group.hop2,
        Expert.IDENTITY: setting.group.hop2,
    }
    told = trained.get(expert) or rows(setting.group, expert)
    who = alone(setting, setting.adapters[expert])
    texts = asked.by_phrasing(told, setting.config.ask.phrasings)
    prompts = asked.put(setting.talk, texts, setting.sizes.prompt)
    known = setting.asked.names
    right = [known.index(record.answer[0]) for record in told]
    found = metrics.predict(rank(setting, who, prompts, len(told)))
    return float((found == right).mean())


def alone(setting: Setting, adapter: Adapter) -> Reuse:
    """Returns who answers with one adapter, padded so that all share a program."""
    return Reuse(setting.model, setting.base, lora.pad(adapter, setting.rank))
