"""What the rows of two experts do to a language model's answers, and what it knows.

Effects are of the first token of each answer, at the place where it is predicted.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.diagnose import effects
from jaxlora.diagnose.effects import Asked
from jaxlora.diagnose.features import Features, log_effect
from jaxlora.diagnose.text_rows import Rows, example_of
from jaxlora.evaluate import likelihood
from jaxlora.lora import Adapter
from jaxlora.models import Adapted, Decoder
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks.text import Record
from jaxlora.theory.tangent import Selectivity, selectivity
from jaxlora.tree import Tree

Progress: TypeAlias = Callable[[int, int], None]
"""Called with what is done, and of how much."""
WEIGHT = 0.5
"""Of each expert in the mean of two."""


class Moved(NamedTuple):
    """What an expert's rows do where its facts are needed."""

    selectivity: Selectivity
    """Of the questions whose fact has rows; its share is of all questions."""
    chance: float
    """Share of a kernel that cannot tell facts apart."""


class Knows(NamedTuple):
    """Which questions a model answers right; bool [Q] each."""

    first: np.ndarray
    second: np.ndarray
    both: np.ndarray
    """The two-hop questions, in the way that is asked."""

    @property
    def skill(self) -> float | None:
        """Accuracy on two-hop questions both of whose hops are known; None if none."""
        known = self.first & self.second
        return float(self.both[known].mean()) if known.any() else None


def features(
    moved_by: tuple[Moved, Moved], knows: Knows, skill: float, ordered: float
) -> Features:
    """Puts together what the predictor reads.

    Args:
      moved_by: the rows of the first expert, and of the second.
      knows: what the base knows.
      skill: its accuracy on two-hop questions about familiar facts.
      ordered: how the experts' layers lie, as :func:`.features.order` says.
    """
    first, second = (x.selectivity for x in moved_by)
    return Features(
        second_selectivity=second.share,
        second_effect=log_effect(second, WEIGHT),
        first_selectivity=first.share,
        first_effect=log_effect(first, WEIGHT),
        first_known=float(knows.first.mean()),
        second_known=float(knows.second.mean()),
        skill=skill,
        ordered=ordered,
    )


def moved(
    model: Decoder,
    base: Tree,
    rows: Rows,
    questions: tuple[Asked, np.ndarray],
    metric: Mapping[str, jax.Array],
    progress: Progress = lambda *_: None,
) -> Moved:
    """Returns what rows do where their facts are needed, fact by fact.

    Questions whose fact has no row count as not moved.

    Args:
      model: a decoder without a route.
      base: params tree.
      rows: of one expert.
      questions: from :func:`asked`, about the same facts.
      metric: what the expert may change.
      progress: called with facts done, and of how many.
    """
    where, facts = questions
    taught = np.flatnonzero(rows.counts)
    every = jax.tree.map(jnp.asarray, where)
    # Attention kernels of a GPU have no forward derivative; plain scores have.
    plain = Decoder(dataclasses.replace(model.config, attention="plain"))
    columns = []
    for done, i in enumerate(taught):
        progress(done, len(taught))
        lesson = jax.tree.map(lambda x, i=i: jnp.asarray(x[i : i + 1]), rows.lesson)
        single = every._replace(answers=every.answers[i : i + 1])
        columns.append(effects.effects(plain, base, lesson, single, dict(metric)))
    kernel = np.asarray(jnp.concatenate(columns, axis=1))
    kept = np.isin(facts, taught)
    summary = selectivity(kernel[kept], np.searchsorted(taught, facts[kept]))
    share = summary.share * float(kept.mean())
    return Moved(summary._replace(share=share), 1 / len(taught))


def answered(
    model: Decoder,
    base: Tree,
    questions: Sequence[Record],
    tokenizer: Tokenizer,
    adapter: Adapter | None = None,
    progress: Progress = lambda *_: None,
) -> np.ndarray:
    """Which questions are answered right: every token the model's first choice, [Q].

    Args:
      model: a decoder without a route.
      base: params tree.
      questions: with answers.
      tokenizer: of the model.
      adapter: one, or none.
      progress: called with questions done, and of how many.
    """
    pairs = []
    for record in questions:
        example = example_of(record, tokenizer, model.config.max_length)
        start = int(example.answer.argmax())
        ids = example.tokens.tolist()
        end = len(ids) - (ids[-1] in tokenizer.end_ids and len(ids) - 1 > start)
        pairs.append((ids[:start], ids[start:end]))
    adapted = Adapted(adapter=adapter)
    scores = likelihood.score(model, base, pairs, adapted=adapted, progress=progress)
    return scores.greedy
