"""The two-hop study: bases, experts, blocks of questions, rows, verdicts.

``run`` is a function of a config and two folders. It stores every block as it is
finished and skips those it finds, so an interrupted study goes on where it stopped and
ends with the same rows.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxlora.evaluate import predictions
from jaxlora.evaluate.schema import Cell, Library, Method, Metric, Split, row
from jaxlora.io.files import write_text
from jaxlora.studies import provenance
from jaxlora.studies.two_hop import (
    bases,
    blocks,
    check,
    items,
    judge,
    libraries,
    rows,
    store,
)
from jaxlora.studies.two_hop.bases import Base
from jaxlora.studies.two_hop.config import PREDICTIONS, PretrainConfig, TwoHopConfig
from jaxlora.studies.two_hop.rows import STUDY, Block
from jaxlora.tasks.two_hop import facts, world
from jaxlora.tasks.two_hop.experts import groups
from jaxlora.tasks.two_hop.records import Record
from jaxlora.tasks.two_hop.world import World

GATE_SPLITS = {
    "one-hop recall": Split.FAMILIAR_ONE_HOP,
    "held-out two-hop": Split.FAMILIAR_TWO_HOP,
    "copy": Split.COPY,
    "written bridge": Split.FAMILIAR_WRITTEN,
    "one document": Split.FAMILIAR_DOCUMENT,
    "facts in context": Split.RANDOM_CONTEXT,
}
# The controls that rest on an extra format, and the row that each would fill.
FORMAT_CONTROLS = {
    "written bridge": (Library.PAIR, Method.MEAN, Split.WRITTEN),
    "one document": (Library.DOCUMENT, Method.NONE, Split.TWO_HOP),
    "facts in context": (Library.BASE, Method.NONE, Split.CONTEXT),
}

Progress = Callable[[str, int, int, str], None]
"""``progress(stage, done, total, text)``; stages are pretrain, experts, questions."""


class Results(NamedTuple):
    """What a study found: tidy rows, and everything that is not a row."""

    rows: pd.DataFrame
    summary: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether some base never passed its gates."""
        return bool(self.summary["failed_seeds"])


@dataclasses.dataclass
class _Clock:
    """Seconds spent in each stage; compilation is counted apart by JAX itself."""

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent


def run(
    config: TwoHopConfig,
    out: Path,
    cache: Path,
    progress: Progress = lambda *_: None,
) -> Results:
    """Runs, or goes on with, a study; writes results.csv and results.json.

    Args:
      config: everything that decides the results.
      out: folder of this study and configuration.
      cache: folder of trained bases and experts, shared between studies.
      progress: called as the study moves on.

    Raises:
      ValueError: if ``out`` holds something else, or a file given is not usable.
    """
    claims = predictions.load(_predictions(config))
    people = own_people(config)
    _check(config, people)
    store.claim(out, config, people)
    cache.mkdir(parents=True, exist_ok=True)
    clock = _Clock()
    found: dict[Block, pd.DataFrame] = {}
    # Asked now: what runs is the code of now, whatever is edited meanwhile.
    record = _Record(
        origin=provenance.here()
        | {"predictions_revision": provenance.revision_of(_predictions(config))}
    )
    with provenance.compile_time() as compiled, clock.time("total"):
        for level in config.levels:
            for base in _bases(config, level, people, cache, clock, progress):
                _one_base(
                    config, level, base, out, cache, clock, progress, found, record
                )
        results = _finish(config, found, record, claims, out)
    timings = {f"{name}_s": round(s, 1) for name, s in clock.seconds.items()}
    timings["compile_s"] = round(compiled.seconds, 1)
    results.summary["timings"] = timings | {
        "peak_memory_gib": round(provenance.peak_memory_gib(), 2),
        "blocks_resumed": record.resumed,
    }
    write_text(out / "results.json", provenance.to_json(results.summary))
    return results


@dataclasses.dataclass
class _Record:
    """What a study learns beside items, as it runs."""

    origin: dict[str, Any]
    gates: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    gate_rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    own: dict[tuple[float, Cell, Library], float] = dataclasses.field(
        default_factory=dict
    )
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    routes: dict[Block, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    passed: dict[float, list[int]] = dataclasses.field(default_factory=dict)
    failed: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    resumed: int = 0


def seeds(config: TwoHopConfig) -> list[int]:
    """The seeds of a study."""
    return [config.first_seed + i for i in range(config.seeds)]


def own_people(config: TwoHopConfig) -> tuple[Record, ...]:
    """The people of a user's facts file, if one was given."""
    if config.facts is None:
        return ()
    given = facts.read(config.facts, config.allow_ties)
    people = tuple(facts.people(given, config.world))
    check.people(config.facts, people)
    return people


def _check(config: TwoHopConfig, people: tuple[Record, ...]) -> None:
    """Refuses, before a file is written, what could only fail after training."""
    check.router(config)
    if config.data_dir is not None:
        check.data_dir(config, config.data_dir, seeds(config), people)
    first = _world(config, config.levels[0], seeds(config)[0], people)
    check.world(first)
    check.adapters(first, config.model, config.lora)


def _predictions(config: TwoHopConfig) -> Path:
    return config.predictions or PREDICTIONS


def _bases(config, level: float, people, cache, clock: _Clock, progress: Progress):
    numbers = seeds(config)
    at_once = config.seeds_at_once
    if at_once == 0:
        at_once = 1 if jax.default_backend() == "cpu" else len(numbers)
    for i in range(0, len(numbers), at_once):
        some = numbers[i : i + at_once]
        with clock.time("pretrain"):
            made = [_world(config, level, seed, people) for seed in some]
            trained = bases.train(
                some,
                made,
                config.model,
                config.pretrain,
                cache,
                at_once,
                _tell(progress, config.pretrain, level),
            )
        yield from trained


def _world(config: TwoHopConfig, level: float, seed: int, people) -> World:
    sizes = dataclasses.replace(config.world, coverage=level)
    if config.data_dir is not None:
        from jaxlora.tasks.two_hop import builder

        return builder.read(builder.folder(sizes, seed, config.data_dir, people))
    return world.generate(sizes, seed, people)


def _tell(progress: Progress, config: PretrainConfig, level: float):
    def tell(seed: int, steps: int, gates: Mapping[str, tuple[float, int]]) -> None:
        held = gates.get("held-out two-hop", (0.0, 0))[0]
        text = f"coverage {level:g}, seed {seed}: held-out two-hop {held:.2f}"
        progress("pretrain", steps, config.max_steps, text)

    return tell


def _one_base(
    config: TwoHopConfig,
    level: float,
    base: Base,
    out: Path,
    cache: Path,
    clock: _Clock,
    progress: Progress,
    found: dict[Block, pd.DataFrame],
    record: _Record,
) -> None:
    _note_gates(config, level, base, record)
    if not base.passed(config.pretrain):
        record.failed.append({"coverage": level, "seed": base.seed})
        return
    record.passed.setdefault(level, []).append(base.seed)
    plan = [Block(level, base.seed, *names) for names in blocks.plan(config.methods)]
    setting: blocks.Setting | None = None
    old: items.Old | None = None
    for i, block in enumerate(plan):
        text = f"coverage {level:g}, seed {base.seed}: {block.library}, {block.method}"
        progress("questions", i, len(plan), text)
        outcome = store.load(out, block)
        if outcome is None:
            if setting is None:
                setting = _setting(config, base, cache, clock, progress)
            with clock.time("evaluate"):
                outcome = blocks.run(
                    setting._replace(old=old), block.library, block.method
                )
            store.save(out, block, outcome)
            # What is stored is what counts: a resumed run must see the same numbers.
            outcome = store.load(out, block)
            assert outcome is not None
        else:
            record.resumed += 1
        if block.library is Library.BASE:
            old = items.predictions(outcome.items)
        found[block] = outcome.items
        _note(record, block, outcome)
        _add_rows(config, block, outcome, record)
    _write(out, record)
    progress("questions", len(plan), len(plan), f"seed {base.seed} done")


def _setting(config, base: Base, cache: Path, clock: _Clock, progress: Progress):
    total = sum(len(names) for names, _ in libraries.PROGRAMS) * len(groups(base.world))
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        progress("experts", done, total, f"seed {base.seed}")

    progress("experts", 0, total, f"seed {base.seed}")
    with clock.time("experts"):
        experts = libraries.train(base, config.lora, config.experts, cache, tell)
    return blocks.prepare(config, experts)


def _note_gates(config: TwoHopConfig, level: float, base: Base, record: _Record):
    rules = bases.GATES | bases.FORMAT_GATES
    told = {}
    for name, (value, n) in base.gates.items():
        least = getattr(config.pretrain, rules[name][2])
        told[name] = (GATE_SPLITS[name], value, n, value >= least)
        record.gates.append(
            {
                "coverage": level,
                "seed": base.seed,
                "gate": name,
                "value": value,
                "n": n,
                "threshold": least,
                "passed": value >= least,
                "steps": base.steps,
                "required": name in bases.GATES,
            }
        )
    record.gate_rows += rows.gate_rows(level, base.seed, told)
    record.gate_rows += _world_rows(level, base)


def _world_rows(level: float, base: Base) -> list[dict[str, Any]]:
    """Steps and phi of a base, and what guessing would give in each cell."""

    def one(cell, split, metric, value, n):
        return row(
            study=STUDY,
            seed=base.seed,
            cell=cell,
            library=Library.BASE,
            method=Method.NONE,
            split=split,
            metric=metric,
            value=round(float(value), 6),
            n=n,
            condition={"coverage": level},
        )

    steps = one(None, Split.FAMILIAR_TWO_HOP, Metric.STEPS, base.steps, 1)
    phi = one(None, Split.FAMILIAR_TWO_HOP, Metric.PHI, base.world.phi, 1)
    out = [steps, phi]
    by_cell: dict[Cell, list] = {}
    for group in groups(base.world):
        by_cell.setdefault(group.cell, []).append(group)
    for cell, some in by_cell.items():
        n = sum(group.size for group in some)
        answers = [[r.answer for r in group.two_hop] for group in some]
        one_of = np.mean([1 / len(set(a)) for a in answers])
        most = np.mean([max(a.count(x) for x in a) / len(a) for a in answers])
        out.append(one(cell, Split.TWO_HOP, Metric.ONE_OF_N, one_of, n))
        out.append(one(cell, Split.TWO_HOP, Metric.MAJORITY, most, n))
    return out


def _note(record: _Record, block: Block, outcome: blocks.Outcome) -> None:
    own = outcome.notes.get("own", {})
    assert isinstance(own, dict)
    for cell, value in own.items():
        place = (block.coverage, Cell(cell), block.library)
        record.own[place] = min(record.own.get(place, 1.0), value)
    if "oracle" in outcome.notes:
        name = f"coverage {block.coverage:g}, seed {block.seed}, {block.library}"
        record.notes[name] = outcome.notes["oracle"]
    if "routes" in outcome.notes:
        routes = outcome.notes["routes"]
        assert isinstance(routes, list)
        record.routes[block] = routes


def _add_rows(config, block: Block, outcome: blocks.Outcome, record: _Record) -> None:
    found = rows.samples({block: outcome.items})
    found |= rows.route_samples({block: record.routes.get(block, [])})
    record.rows += rows.per_seed(found, [block.seed], config.thresholds.level)


def _write(out: Path, record: _Record, more: list[dict[str, Any]] | None = None):
    table = rows.frame(record.gate_rows + record.rows + (more or []))
    write_text(out / "results.csv", table.to_csv(index=False))
    return table


def _finish(config: TwoHopConfig, found, record: _Record, claims, out: Path) -> Results:
    level, draws = config.thresholds.level, config.resamples
    made = _usable(rows.samples(found), record) | rows.route_samples(record.routes)
    pooled = rows.pooled(made, sorted({b.seed for b in found}), level, draws)
    pooled += _differences(config, made, record)
    pooled += _unavailable(config, record) + _guesses(record)
    table = _write(out, record, pooled)
    outcomes = predictions.check(claims, pooled)
    summary = {
        "study": STUDY,
        "config": store.plain(config),
        "failed_seeds": record.failed,
        "gates": record.gates,
        "own_facts": [
            {"coverage": c, "cell": str(cell), "library": str(name), "value": value}
            for (c, cell, name), value in record.own.items()
        ],
        "oracle": record.notes,
        "predictions": {
            "digest": predictions.digest(claims),
            "revision": record.origin.pop("predictions_revision"),
            "outcomes": [
                {"statement": o.prediction.statement, "held": o.held, "got": o.sentence}
                for o in outcomes
            ],
        },
        "verdicts": _verdicts(config, made, record),
    } | record.origin
    return Results(table, summary)


def _verdicts(config: TwoHopConfig, made: rows.Samples, record: _Record):
    out = []
    for level in config.levels:
        passed = tuple(record.passed.get(level, ()))
        if not passed:
            out += [_invalid(level, cell) for cell in Cell]
            continue
        judging = judge.Record(
            passed,
            record.own,
            config.experts.min_own,
            config.thresholds,
            config.resamples,
        )
        mine = {place: x for place, x in made.items() if place.coverage == level}
        out += judge.verdicts(mine, judging)
    return out


def _invalid(level: float, cell: Cell) -> dict[str, Any]:
    return {
        "coverage": level,
        "cell": str(cell),
        "library": str(Library.PAIR),
        "method": str(Method.MEAN),
        "label": "invalid",
        "cause": "base",
        "reason": "No base passed its gates, so nothing was combined.",
    }


def _differences(config: TwoHopConfig, made: rows.Samples, record: _Record):
    """Paired differences: to every control, and of 3- to 2-combinations."""
    out = []
    for x in list(made):
        if x.library not in judge.JUDGED or x.metric is not Metric.ACCURACY:
            continue
        if x.split is not Split.TWO_HOP or x.covered is not None:
            continue
        against = judge.controls(x)
        if x.library is not Library.PAIR:
            against.append(x._replace(library=Library.PAIR))
        for y in against:
            passed = record.passed.get(x.coverage, [])
            found = rows.difference(
                made, x, y, passed, config.thresholds.level, config.resamples
            )
            if found is not None:
                out.append(rows.difference_row(x, y, found.difference))
    return out


def _guesses(record: _Record) -> list[dict[str, Any]]:
    """What guessing gives in each cell, over all seeds."""
    metrics = (Metric.ONE_OF_N.value, Metric.MAJORITY.value)
    same: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for found in record.gate_rows:
        if found["metric"] in metrics:
            keys = ("familiarity", "knows", "metric", "condition")
            same.setdefault(tuple(found[key] for key in keys), []).append(found)
    return [
        some[0]
        | {
            "seed": "all",
            "value": round(float(np.mean([found["value"] for found in some])), 6),
            "n": sum(found["n"] for found in some),
        }
        for some in same.values()
    ]


def _format(place: rows.Place) -> str | None:
    """The extra format that a measurement rests on."""
    if place.split in (Split.WRITTEN, Split.WRITTEN_BRIDGE):
        return "written bridge"
    if place.split is Split.CONTEXT:
        return "facts in context"
    return "one document" if place.library is Library.DOCUMENT else None


def _without(record: _Record) -> set[tuple[str, float, int]]:
    """The (format, coverage, seed) whose gate failed."""
    return {
        (g["gate"], g["coverage"], g["seed"])
        for g in record.gates
        if not g["required"] and not g["passed"]
    }


def _usable(made: rows.Samples, record: _Record) -> rows.Samples:
    """Leaves out what rests on a format that the base of a seed did not learn."""
    without = _without(record)
    return {
        place: {
            seed: values
            for seed, values in by_seed.items()
            if (_format(place), place.coverage, seed) not in without
        }
        for place, by_seed in made.items()
    }


def _unavailable(config: TwoHopConfig, record: _Record) -> list[dict[str, Any]]:
    """Rows of the controls whose format a base, or every base, did not learn."""
    out = []
    without = _without(record)
    for level in config.levels:
        passed = record.passed.get(level, [])
        for gate, (library, method, split) in FORMAT_CONTROLS.items():
            failed = [seed for seed in passed if (gate, level, seed) in without]
            reason = f"the gate of '{gate}' failed"
            where: list[int | str] = [*failed]
            if len(failed) == len(passed):
                where.append("all")
            out += [
                rows.unavailable(seed, level, library, method, split, reason)
                for seed in where
            ]
    return out
