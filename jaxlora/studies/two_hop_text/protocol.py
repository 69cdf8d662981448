"""The study on text models: people, experts, blocks of questions, rows, verdicts.

``run`` stores every block of every group as it is finished and skips those it finds;
the checkpoint is read only if something is left to ask.
"""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlora.evaluate import predictions
from jaxlora.evaluate.predictions import Prediction
from jaxlora.evaluate.schema import Cell
from jaxlora.io.files import write_text
from jaxlora.studies import provenance
from jaxlora.studies.two_hop import store
from jaxlora.studies.two_hop.record import Clock
from jaxlora.studies.two_hop.summary import Results
from jaxlora.studies.two_hop_text import adapters, resources, summary
from jaxlora.studies.two_hop_text.config import PREDICTIONS, STUDY, TextConfig
from jaxlora.studies.two_hop_text.record import TextLog
from jaxlora.studies.two_hop_text.resources import Loaded
from jaxlora.studies.two_hop_text.seeds import Progress, Run, ask_seed
from jaxlora.tasks.two_hop import people, separation
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.tasks.two_hop.people import Given


def run(
    config: TextConfig,
    out: Path,
    cache: Path,
    progress: Progress = lambda *_: None,
) -> Results:
    """Runs, or goes on with, a study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: folder of trained experts, shared between studies.
      progress: called as the study moves on.

    Raises:
      ValueError: if ``out`` holds something else, or a file given is not usable.
    """
    started = time.monotonic()
    given = people.read(config.facts, config.allow_ties) if config.facts else None
    claims, revision = _claims(config)
    _check(config, given)
    records = [r for some in given.people for p in some for r in p] if given else []
    store.claim(out, config, records, predictions.digest(claims), STUDY)
    cache.mkdir(parents=True, exist_ok=True)
    log = TextLog(origin=provenance.here() | {"predictions_revision": revision})
    with provenance.compile_time() as compiled:
        clock = Clock(compiled)

        @functools.cache
        def loaded() -> Loaded:
            with clock.time("loading"):
                return resources.load(config, progress)

        this = Run(config, given, out, cache, progress, clock, log, loaded)
        more = _all(this)
        with clock.time("statistics"):
            results = summary.finish(config, log, claims, out, more)
    seconds = clock.seconds | {"compile": compiled.seconds}
    seconds["total"] = time.monotonic() - started
    timings: dict[str, float] = {f"{k}_s": round(s, 1) for k, s in seconds.items()}
    timings["peak_memory_gib"] = round(provenance.peak_memory_gib(), 2)
    timings["blocks_resumed"] = log.resumed
    results.summary["timings"] = timings
    write_text(out / "results.json", provenance.to_json(results.summary))
    return results


def _claims(config: TextConfig) -> tuple[tuple[Prediction, ...], str | None]:
    """The predictions; those of the package are about trained experts only."""
    path = config.predictions or PREDICTIONS
    if config.adapter and config.predictions is None:
        return (), None
    return predictions.load(path), provenance.revision_of(path)


def _check(config: TextConfig, given: Given | None) -> None:
    """Refuses, before a file is written, what could only fail after loading."""
    resources.check(config)
    for seed in () if config.adapter else config.numbers:
        for group in (*_generated(config, seed), *_provisional(config, given)):
            separation.check(group, most=config.phrasings)


def _generated(config: TextConfig, seed: int) -> tuple[Group, ...]:
    if config.adapter or not config.cells:
        return ()
    cells = tuple(map(Cell, config.cells))
    return people.generate(cells, config.people, config.pairs, seed)


def _provisional(config: TextConfig, given: Given | None) -> tuple[Group, ...]:
    """A user's people, before it is known what the base knows of them."""
    cell = Cell(f"{config.familiarity}-OO")
    found = given.people if given else ()
    # Pairs of a file are numbered after those of generated people.
    start = 0 if config.adapter else config.pairs
    return tuple(people.group(p, cell, start + i) for i, p in enumerate(found))


def _all(this: Run) -> dict[str, Any]:
    """Asks everything; returns what the summary holds beside rows and verdicts."""
    config, log = this.config, this.log
    real, known = _real(this)
    roles = _roles(this, real)
    present = set(roles.of) if roles else set(Expert)
    log.left_out = adapters.left_out(config, present) + _nobody(this, real)
    for seed in config.numbers:
        mine = (*_generated(config, seed), *real)
        log.cells = list(dict.fromkeys([*log.cells, *(g.cell for g in mine)]))
        ask_seed(this, seed, mine, roles)
    more: dict[str, Any] = {"known_by_base": known}
    if roles:
        more["roles"] = {
            "of": {str(role): folder for role, folder in roles.of.items()},
            "how": roles.how,
            "unused": list(roles.unused),
        }
    return more


def _nobody(this: Run, real: Sequence[Group]) -> list[dict[str, str]]:
    """People of a file who are in no group."""
    if this.given is None:
        return []
    asked = sum(group.size for group in real)
    count = this.given.left_out + sum(map(len, this.given.people)) - asked
    why = (
        f"fewer than {people.LEAST} alike: same relations, same hops known to the base"
    )
    return [{"what": f"{count} people of the facts", "why": why}] if count else []


def _real(this: Run) -> tuple[tuple[Group, ...], list[dict[str, Any]]]:
    """A user's people by what the base knows, measured once and stored."""
    found = _provisional(this.config, this.given)
    if not found or this.config.familiarity != "R":
        return found, []
    known = resources.remembered(
        this.out / "known.json",
        lambda: [
            {"pair": g.pair, "hop1": x, "hop2": y}
            for g in found
            for x, y in [resources.knowledge(this.loaded(), this.config, found, g)]
        ],
    )
    split = [
        part
        for group, told in zip(found, known, strict=True)
        for part in people.by_knowledge(group, told["hop1"], told["hop2"])
    ]
    if not split:
        raise ValueError(
            f"Of the people in {this.config.facts}, fewer than {people.LEAST} are "
            f"alike in what the base knows of them; give more facts."
        )
    return tuple(split), known


def _roles(this: Run, real: Sequence[Group]) -> adapters.Roles | None:
    if not this.config.adapter:
        return None
    told = resources.remembered(
        this.out / "skills.json",
        lambda: resources.skills(this.loaded(), this.config, real),
    )
    found = {folder: adapters.Skill(*values) for folder, values in told.items()}
    return adapters.roles(this.config, found)
