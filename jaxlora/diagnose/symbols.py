"""Features of groups of people in a world of symbols, for a plan of rows and layers.

The people of every group are asked at once: rows and questions are stacked over groups,
and one program gives all kernels of an expert.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.diagnose import effects
from jaxlora.diagnose.effects import Asked, Lesson
from jaxlora.diagnose.features import Ask, Features, log_effect, order
from jaxlora.evaluate import scoring
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder
from jaxlora.tasks.two_hop import formats, practice
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.tasks.two_hop.practice import Practices
from jaxlora.tasks.two_hop.records import (
    PAD,
    Record,
    Vocab,
    answer_position,
    encode,
    prompts,
    row_length,
)
from jaxlora.tasks.two_hop.world import World
from jaxlora.theory.tangent import Selectivity
from jaxlora.tree import Tree

DIRECT_LENGTH, WRITTEN_LENGTH = 3, 5
"""Tokens of a two-hop question, and of one with its bridge written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What two experts shall be trained on, how they are combined and asked."""

    practices: Practices = Practices()  # noqa: RUF009 (frozen)
    """Rows of the A->B and of the B->C expert."""
    layers: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """Layers that each may change; empty for all."""
    ask: Ask = "direct"
    """How the two-hop question is asked."""
    weight: float = 0.5
    """What a merge gives each expert: 0.5 for the mean of two, 1 for their sum."""
    lora: LoraConfig = LoraConfig()  # noqa: RUF009 (frozen)
    """Rank, scale and targets."""
    experts: tuple[Expert, Expert] = (Expert.HOP1, Expert.HOP2)
    """Which experts of a library the two are."""


def symbol_features(
    model: Decoder, base: Tree, world: World, groups: Sequence[Group], plan: Plan
) -> tuple[Features, ...]:
    """Returns the features of every group; no expert is trained.

    Args:
      model: a decoder without a route.
      base: params tree of a trained base.
      world: of that base.
      groups: of its study people, all of one size.
      plan: rows, layers, and how they are asked.

    Raises:
      ValueError: if groups differ in size, or a layer does not exist.
    """
    sizes = {group.size for group in groups}
    if len(sizes) != 1:
        raise ValueError(
            f"Groups have {sorted(sizes)} people, expected one size for all."
        )
    every = model.config.num_layers
    masks = [effects.layers_of(layers, every) for layers in plan.layers]
    changes = effects.metrics(base, plan.lora, masks)
    firsts, seconds = (
        _selectivities(model, base, world.vocab, groups, plan, hop, changes[hop])
        for hop in (0, 1)
    )
    known = _right(model, base, world.vocab)
    skill = float(known([_familiar(world, plan.ask)])[0])
    return tuple(
        Features(
            second_selectivity=second.share,
            second_effect=log_effect(second, plan.weight),
            first_selectivity=first.share,
            first_effect=log_effect(first, plan.weight),
            first_known=float(first_known),
            second_known=float(second_known),
            skill=skill,
            ordered=order(*masks),
        )
        for first, second, first_known, second_known in zip(
            firsts,
            seconds,
            known([group.hop1 for group in groups]),
            known([group.hop2 for group in groups]),
            strict=True,
        )
    )


def _selectivities(
    model, base, vocab: Vocab, groups, plan: Plan, hop: int, metric
) -> list[Selectivity]:
    """Of the rows of one expert, group by group."""
    lessons = _lessons(vocab, groups, plan, hop)
    asked = [_asked(vocab, _questions(group, plan.ask, hop)) for group in groups]
    stacked = Asked(*map(jnp.asarray, map(np.stack, zip(*asked, strict=True))))
    kernels = effects.effects_of_groups(model, base, lessons, stacked, metric)
    people = np.arange(groups[0].size)
    return [effects.summed_up(kernel, people) for kernel in np.asarray(kernels)]


def _lessons(vocab: Vocab, groups: Sequence[Group], plan: Plan, hop: int) -> Lesson:
    """Rows of every group, fact by fact, [G, N, K, T]."""
    sets = [_by_fact(vocab, group, plan, hop, groups) for group in groups]
    flat = [rows for some in sets for rows in some]
    most = max(map(len, flat))
    length = max(row_length(r, vocab.form) for rows in flat for r in rows)
    encoded = [
        [
            np.pad(x, [(0, most - len(rows)), (0, 0)])
            for x in encode(rows, vocab, length)
        ]
        for rows in flat
    ]
    tokens, targets, weights = (
        np.stack(x).reshape(len(groups), -1, most, length)
        for x in zip(*encoded, strict=True)
    )
    mask = tokens != vocab.ids[PAD]
    return Lesson(*map(jnp.asarray, (tokens, mask, targets, weights)))


def _by_fact(
    vocab: Vocab, group: Group, plan: Plan, hop: int, groups: Sequence[Group]
) -> list[list[Record]]:
    """The rows of each person's fact: those that are answered by it.

    Rows of the fact itself only; identity rows are of no fact of their own.
    """
    rows = practice.rows(group, plan.experts[hop], vocab, plan.practices, groups)
    facts = (group.hop1, group.hop2)[hop]
    answers = {fact.answer: i for i, fact in enumerate(facts)}
    out: list[list[Record]] = [[] for _ in facts]
    for row in rows:
        if row.kind != "copy" and row.answer in answers:
            out[answers[row.answer]].append(row)
    return out


def _questions(group: Group, ask: Ask, hop: int) -> tuple[Record, ...]:
    """Where an expert's fact is needed, as records whose first answer is that fact."""
    if ask == "direct":
        return (group.hop1, group.two_hop)[hop]
    written = [formats.written(record) for record in group.two_hop]
    if hop == 0:
        return tuple(written)
    # The bridge is written already: what is predicted is the answer.
    return tuple(
        dataclasses.replace(r, prompt=(*r.prompt, r.bridge), answer=r.answer[1:])
        for r in written
    )


def _asked(vocab: Vocab, questions: Sequence[Record]) -> Asked:
    tokens = prompts(questions, vocab, WRITTEN_LENGTH)
    at = [answer_position(record, vocab.form) for record in questions]
    answers = [vocab.ids[record.answer[0]] for record in questions]
    mask = tokens != vocab.ids[PAD]
    return Asked(tokens, mask, np.array(at, np.int32), np.array(answers, np.int32))


def _familiar(world: World, ask: Ask) -> tuple[Record, ...]:
    """Held-out two-hop queries over familiar facts, in the way that is asked."""
    return world.splits["held_out" if ask == "direct" else "held_out_written"]


def _right(
    model: Decoder, base: Tree, vocab: Vocab
) -> Callable[[Sequence[Sequence[Record]]], np.ndarray]:
    """A function that gives the accuracy of the base on sets of one size, [G]."""

    def accuracy(sets: Sequence[Sequence[Record]]) -> np.ndarray:
        records = [record for some in sets for record in some]
        length = max(row_length(record, vocab.form) for record in records)
        rows = jax.tree.map(jnp.asarray, encode(records, vocab, length))
        hits = scoring.right(model, vocab.ids[PAD], base, *rows)
        return np.asarray(hits).reshape(len(sets), -1).mean(axis=1)

    return accuracy
