"""Word problems on text: problems, experts of a checkpoint, and every system asked.

The checkpoint is read only if something is left to ask, and experts are trained only if
one of them is.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlora import lora, models
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.io import tensors, trust
from jaxlora.lora import Adapter
from jaxlora.models import (
    Decoder,
    DecoderConfig,
    architectures,
    division,
    pretrained,
    tokenizer,
)
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.parallel import written
from jaxlora.reuse import words as sources
from jaxlora.studies import harness
from jaxlora.studies.harness import Outcome, Results, Run, Study, code
from jaxlora.studies.word_problems.text import (
    answer,
    design,
    learning,
    problems,
    summary,
)
from jaxlora.studies.word_problems.text.answer import COLUMNS, Setting
from jaxlora.studies.word_problems.text.config import FREE, STUDY, ProblemsConfig
from jaxlora.studies.word_problems.text.design import Expert, Regime
from jaxlora.studies.word_problems.text.problems import Data
from jaxlora.tasks.packing import Rows
from jaxlora.tree import Tree

# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest(
    "jaxlora.studies.word_problems.text.answer",
    "jaxlora.studies.word_problems.text.learning",
)


class Loaded(NamedTuple):
    """A checkpoint in memory."""

    model: Decoder
    base: Tree
    tokenizer: Tokenizer


class Prepared(NamedTuple):
    """One seed before anything is loaded."""

    data: Data
    sets: Mapping[Expert, Rows]
    """What experts learn."""


def run(
    config: ProblemsConfig,
    out: Path,
    cache: Path,
    progress: harness.Progress = lambda *_: None,
) -> Results:
    """Runs, or goes on with, a study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: folder of trained experts, shared between studies.
      progress: called with (stage, done, total, text) as the study moves on; the
        stages are loading, experts and questions.

    Raises:
      ValueError: if ``out`` holds something else, or a file given is not usable.
    """
    shapes, words = check(config)
    prepared = {seed: _prepare(config, words, seed) for seed in config.numbers}
    for ready in prepared.values():
        _check_prompts(config, shapes, words, ready.data)
    files = problems.digests(config)
    folders = [x for x in (config.model, config.tokenizer) if x]
    model = trust.folders_hash(folders) if config.model else ""
    study = Study(
        name=STUDY, config=config, code=CODE, model=model, people=files, free=FREE
    )

    def work(this: Run[ProblemsConfig]) -> Results:
        @functools.cache
        def loaded() -> Loaded:
            with this.clock.time("loading"):
                return load(config, this.progress)

        log = summary.Log()
        for seed, ready in prepared.items():
            _ask_seed(this, log, loaded, seed, ready)
        with this.clock.time("statistics"):
            notes = {seed: x.data.notes for seed, x in prepared.items()}
            return summary.finish(this, log, notes)

    return harness.run(study, out, cache, work, progress)


def check(config: ProblemsConfig) -> tuple[DecoderConfig, Tokenizer]:
    """Reads shapes and tokenizer, and refuses what these allow to refuse.

    Args:
      config: names the checkpoint.

    Raises:
      ValueError: if no model is named, it is of no supported architecture, adapters of
        this config do not fit it, the mesh would cut a head, or the tokenizer is of
        another one.
    """
    if not config.model:
        raise ValueError("No model was given; --model DIR names a checkpoint.")
    raw = tensors.read_json(Path(config.model) / "config.json")
    shapes = architectures.from_json(raw)
    if (mesh := written.mesh(config.mesh)) is not None:
        division.check(shapes, mesh.shape)
    asked = Path(config.tokenizer) if config.tokenizer else None
    source = sources.source(Path(config.model), asked=asked)
    words = tokenizer.load(source.folder, source.rest)
    words = tokenizer.fitted(words, shapes.vocab_size)

    def make(key: Any) -> Adapter:
        return lora.init(key, models.init(key, Decoder(shapes)), config.lora)

    jax.eval_shape(make, jax.random.key(0))
    plain = dataclasses.replace(words, chat_template=None)
    return shapes, words if config.chat else plain


def _check_prompts(
    config: ProblemsConfig, shapes: DecoderConfig, words: Tokenizer, data: Data
) -> None:
    """Refuses prompts that leave no room for a solution, before experts are trained."""
    longest = max((x.question for x in data.asked), key=len)
    forms = config.formats if data.shots else ()
    asked = [longest, *(answer.worked(data.shots, x, longest) for x in forms)]
    tokens = max(len(answer.prompt(words, text)) for text in asked)
    if tokens + config.ask.new_tokens > shapes.max_length:
        raise ValueError(
            f"The longest prompt has {tokens} tokens and a solution up to "
            f"{config.ask.new_tokens}, and the model sees {shapes.max_length} at once; "
            f"lower ask.shots or ask.new_tokens."
        )


def load(config: ProblemsConfig, progress: harness.Progress) -> Loaded:
    """Reads the checkpoint and its tokenizer.

    Args:
      config: names the checkpoint.
      progress: called with the mebibytes that are read.
    """
    unit, name = 2**20, Path(config.model).name

    def loading(done: int, total: int) -> None:
        progress("loading", done // unit, max(1, total // unit), name)

    model, base = pretrained.load(
        config.model,
        dtype=config.dtype,
        param_dtype=config.dtype,
        mesh=written.mesh(config.mesh),
        progress=loading,
    )
    return Loaded(model, base, check(config)[1])


def _prepare(config: ProblemsConfig, words: Tokenizer, seed: int) -> Prepared:
    data = problems.prepare(config, seed)
    length = config.train.length
    sets = {
        expert: learning.rows(expert, data.lessons, words, length, seed)
        for expert in design.experts(config)
    }
    return Prepared(data, sets)


def _ask_seed(
    this: Run[ProblemsConfig],
    log: summary.Log,
    loaded: Callable[[], Loaded],
    seed: int,
    ready: Prepared,
) -> None:
    """Asks the base once, and every system of every regime."""
    config = this.config

    @functools.cache
    def bare() -> Setting:
        return Setting(config, *loaded(), ready.data.asked, ready.data.shots, seed)

    @functools.cache
    def full() -> Setting:
        return bare()._replace(adapters=_learn(this, loaded(), seed, ready.sets))

    regimes = design.regimes(config)
    blocks = [(summary.base_block(seed), regimes[0], Arm.BASE, Method.NONE)]
    for regime in regimes:
        for arm, method in design.plan(config, regime):
            blocks.append((regime.block(seed, arm, method), regime, arm, method))
    for number, (block, regime, arm, method) in enumerate(blocks):
        this.progress("questions", number, len(blocks), f"seed {seed}, {arm} {method}")
        where, same = design.same_as(regime, arm)
        if (where, same) != (regime, arm):
            log.outcomes[block] = log.outcomes[where.block(seed, same)]
            continue
        setting = bare if arm in (Arm.BASE, Arm.FEW_SHOT) else full
        make = functools.partial(_answer, setting, regime, arm, method)
        log.outcomes[block] = harness.ask(this, block.path(this.out), COLUMNS, make)


def _answer(
    setting: Callable[[], Setting], regime: Regime, arm: Arm, method: Method
) -> Outcome:
    return answer.answer(setting(), regime, arm, method)


def _learn(
    this: Run[ProblemsConfig], given: Loaded, seed: int, sets: Mapping[Expert, Rows]
) -> dict[Expert, Adapter]:
    def progress(done: int, total: int, recent: np.ndarray) -> None:
        text = f"{', '.join(x.name for x in sets)}, seed {seed}"
        loss = np.nanmean(recent[0])
        this.progress("experts", done, total, f"{text}: loss {loss:.3f}")

    with this.clock.time("experts"):
        return learning.learn(
            given.model, given.base, sets, this.config, seed, this.cache, progress
        )
