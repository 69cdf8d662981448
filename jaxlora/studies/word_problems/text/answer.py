"""How a system answers: what it is made of, its texts, and what they say."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import pandas as pd

from jaxlora import lora, merge, parallel, reuse
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.lora import Adapter
from jaxlora.models import Decoder
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import Reuse, decode
from jaxlora.reuse.decode import TextDecoding
from jaxlora.studies.harness import Outcome
from jaxlora.studies.word_problems.text import design, score
from jaxlora.studies.word_problems.text.config import ProblemsConfig
from jaxlora.studies.word_problems.text.design import Expert, Regime
from jaxlora.studies.word_problems.text.problems import Problem
from jaxlora.tasks import text
from jaxlora.train import combine
from jaxlora.tree import Tree

COLUMNS = (
    "test",
    "level",
    "instance",
    "template",
    "correct",
    "form",
    "steps",
    "error",
    "ended",
)
QUESTION, ANSWER = "Question: ", "\nAnswer:"
"""Around the parts of a worked example."""
SAMPLE = "A"
"""An answer that stands for any, where only the prompt is wanted."""
DRAWS = 7919
"""Folded into a seed's key, so that merges and experts draw apart."""


class Setting(NamedTuple):
    """A model, ready to be asked."""

    config: ProblemsConfig
    model: Decoder
    base: Tree
    tokenizer: Tokenizer
    asked: tuple[Problem, ...]
    shots: tuple[Problem, ...]
    seed: int
    adapters: Mapping[Expert, Adapter] = {}


def answer(setting: Setting, regime: Regime, arm: Arm, method: Method) -> Outcome:
    """Asks one system everything.

    Args:
      setting: model, experts and questions.
      regime: what the two experts that are combined differ in.
      arm: the system.
      method: that combines its experts.
    """
    count, layers = len(design.members(regime, arm)), setting.model.config.num_layers
    combines = method is not Method.NONE
    if combines and (reason := combine.obstacle(str(method), count, layers)):
        nothing = pd.DataFrame({name: [] for name in COLUMNS})
        return Outcome(nothing, {"unavailable": reason})
    shots = setting.shots if arm is Arm.FEW_SHOT else ()
    questions = [
        worked(shots, regime.formats[0], x.question) if shots else x.question
        for x in setting.asked
    ]
    written = _continued(setting, speaker(setting, regime, arm, method), questions)
    forms = () if arm is Arm.BASE else regime.formats
    readings = [
        score.read(x.text, problem, forms)
        for x, problem in zip(written, setting.asked, strict=True)
    ]
    items = pd.DataFrame(
        {
            **{name: [getattr(x, name) for x in setting.asked] for name in COLUMNS[:4]},
            "correct": [int(x.correct) for x in readings],
            **{name: [getattr(x, name) for x in readings] for name in COLUMNS[5:8]},
            "ended": [int(x.ended) for x in written],
        }
    )
    return Outcome(items[list(COLUMNS)], {"texts": [x.text for x in written]})


def worked(shots: Sequence[Problem], form: str, question: str) -> str:
    """A question after worked examples, as one text.

    Args:
      shots: problems with solutions.
      form: of the solutions.
      question: to be answered.
    """
    parts = [f"{QUESTION}{x.question}{ANSWER}\n{x.solutions[form]}" for x in shots]
    return "\n\n".join([*parts, f"{QUESTION}{question}{ANSWER}"])


def prompt(tokenizer: Tokenizer, question: str) -> list[int]:
    """The tokens before an answer, as they are in training.

    Args:
      tokenizer: of the model.
      question: to be answered.
    """
    record = text.record({"question": question, "answer": SAMPLE}, "a question")
    tokens, learnt = text.encode_one(record, tokenizer)
    return tokens[: int(learnt.argmax())].tolist()


def speaker(setting: Setting, regime: Regime, arm: Arm, method: Method) -> Reuse:
    """Returns the model that answers for a system.

    Args:
      setting: model and experts.
      regime: what the two experts that are combined differ in.
      arm: the system.
      method: that combines its experts.
    """
    model, base, mesh = setting.model, setting.base, parallel.mesh_of(setting.base)
    adapters = [setting.adapters[x] for x in design.members(regime, arm)]
    if method is Method.NONE:
        return _padded(setting, reuse.build(model, base, adapters, mesh=mesh))
    key = jax.random.fold_in(jax.random.key(setting.seed), DRAWS)
    if arm is Arm.RANDOM:
        adapters = lora.unstack(_random(key, lora.stack(adapters)))
    kind = "merge" if str(method) in merge.names() else "route"
    how: Any = {kind: str(method)}
    who = reuse.build(model, base, adapters, key=key, mesh=mesh, **how)
    return _padded(setting, who)


_random = jax.jit(merge.random_like)


def _padded(setting: Setting, who: Reuse) -> Reuse:
    """An adapter of the rank that a merge of two has: one program for all of them."""
    if who.adapter is None:
        return who
    sites = lora.sites(who.adapter).values()
    # A merge on dense deltas may be of full rank, and keeps it.
    most = max(2 * setting.config.lora.rank, *(site.rank for site in sites))
    return dataclasses.replace(who, adapter=_widened(most, who.adapter))


@functools.partial(jax.jit, static_argnums=0)
def _widened(rank: int, adapter: Adapter) -> Adapter:
    return lora.pad(adapter, rank)


def _continued(
    setting: Setting, who: Reuse, questions: Sequence[str]
) -> list[decode.Continuation]:
    ask, tokenizer = setting.config.ask, setting.tokenizer
    # A base that was shown examples may go on with a question of its own.
    until = ("\n\n" + QUESTION.strip(),)
    how = TextDecoding(max_new_tokens=ask.new_tokens, until=until)
    prompts = [prompt(tokenizer, question) for question in questions]
    return decode.continuations(who, tokenizer, prompts, how, batch=ask.batch)
