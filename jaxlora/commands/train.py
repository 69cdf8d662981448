"""``jaxlora train``: one adapter for each data file, all in one program."""

import csv
import dataclasses
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlora import lora, parallel
from jaxlora.commands import bars, flags, train_data, train_options
from jaxlora.commands.train_options import Arguments
from jaxlora.io.files import write_text
from jaxlora.lora import ALL_LINEAR, LoraConfig
from jaxlora.models import Decoder, adapters, pretrained, tokenizer
from jaxlora.studies import provenance
from jaxlora.tasks.packing import Rows
from jaxlora.train import session
from jaxlora.train.session import Checkpoints, Trained
from jaxlora.train.training import Training
from jaxlora.tree import Tree

RECORD = "training.json"
CHECKPOINT = ".checkpoint"
SCHEDULE = (
    "epochs",
    "steps",
    "learning_rate",
    "warmup",
    "decay",
    "batch",
    "accumulate",
)
"""Numbers of a training that the record shows as they were used."""


def run(arguments: Sequence[str]) -> int:
    """Reads, trains and writes."""
    started = time.monotonic()
    given = train_options.parse(arguments)
    config, training = _config(given), _training(given)
    names = train_data.names(given.data)
    _check_new(given.out, names)
    sources = dict(zip(names, given.data, strict=True))
    found = train_data.read(sources, skip_bad=given.skip_bad)
    words = tokenizer.load(given.model)
    model, base = _load(given)
    tokenizer.check(words, model.config.vocab_size)
    length = min(given.length, model.config.max_length)
    rows, counts = train_data.pack(
        found,
        words,
        length,
        seed=given.seed,
        truncate=given.truncate,
        skip_bad=given.skip_bad,
    )
    training = _shortened(training, given, rows)
    updates = {name: training.total(len(some.tokens)) for name, some in rows.items()}
    train_data.say(counts, length, updates)
    trained = _train(given, model, base, rows, config, training)
    _write(given, trained, names)
    seconds = time.monotonic() - started
    _record(given, trained, names, counts, training, seconds)
    shutil.rmtree(given.out / CHECKPOINT, ignore_errors=True)
    Console().print(_results(given, trained, names, seconds))
    return 0


def _check_new(out: Path, names: Sequence[str]) -> None:
    """Refuses to write over a library, or over any folder that is no adapter of it."""
    flags.check_out(out / RECORD)
    interrupted = (out / CHECKPOINT).is_dir()
    there = [name for name in (RECORD, *names) if (out / name).exists()]
    if there and (there[0] == RECORD or not interrupted):
        raise ValueError(
            f"{out / there[0]} exists already and is not overwritten; give another "
            f"--out, or remove it first."
        )


def _load(given: Arguments) -> tuple[Decoder, Tree]:
    kept: Any = None if given.dtype == "auto" else given.dtype
    with bars.bar("loading") as move:
        model, base = pretrained.load(
            given.model,
            dtype=kept,
            param_dtype=kept,
            mesh=_mesh(given),
            progress=lambda done, total: move(given.model.name, done, total),
        )
    return Decoder(train_options.faster(given.remat, model.config)), base


def _config(given: Arguments) -> LoraConfig:
    return LoraConfig(
        rank=given.rank,
        alpha=given.alpha,
        use_rslora=given.rslora,
        targets=given.targets or ALL_LINEAR,
    )


def _training(given: Arguments) -> Training:
    return Training(
        epochs=given.epochs,
        steps=given.steps,
        learning_rate=given.learning_rate,
        warmup=given.warmup,
        weight_decay=given.weight_decay,
        clip=given.clip,
        length=given.length,
        batch=given.batch,
        accumulate=given.accumulate,
        together=len(given.data) if given.expert_devices > 1 else given.together,
        seed=given.seed,
    )


def _shortened(
    training: Training, given: Arguments, rows: Mapping[str, Rows]
) -> Training:
    """A microbatch has no more rows than the largest data set."""
    most = max(len(found.tokens) for found in rows.values())
    if given.data_devices > 1 or most >= training.batch:
        return training
    return dataclasses.replace(training, batch=most)


def _mesh(given: Arguments):
    sizes = (given.data_devices, given.fsdp_devices, given.expert_devices)
    if sizes == (1, 1, 1):
        return None
    return parallel.mesh(data=sizes[0], fsdp=sizes[1], expert=sizes[2])


def _train(
    given: Arguments,
    model: Decoder,
    base: Tree,
    rows: Mapping[str, Rows],
    config: LoraConfig,
    training: Training,
) -> Trained:
    made_by = {"model": str(given.model.resolve()), "dtype": model.config.dtype}
    with bars.bar("training") as move:
        return session.train_experts(
            model,
            base,
            rows,
            config,
            training,
            checkpoints=Checkpoints(given.out / CHECKPOINT, made_by),
            mesh=_mesh(given),
            progress=lambda done, total, loss: move(f"loss {loss:.3f}", done, total),
        )


def _write(given: Arguments, trained: Trained, names: Sequence[str]) -> None:
    for name, adapter in zip(names, lora.unstack(trained.learned), strict=True):
        if not (given.out / name).exists():  # else written before an interruption
            adapters.save(given.out / name, adapter, base_name=str(given.model))


def _record(
    given: Arguments,
    trained: Trained,
    names: Sequence[str],
    counts: Mapping[str, train_data.Counts],
    training: Training,
    seconds: float,
) -> None:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["adapter", "update", "loss", "gradient_norm"])
    for name, losses, norms in zip(names, trained.loss, trained.norm, strict=True):
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
            if np.isfinite(loss):
                table.writerow([name, i, f"{loss:.6g}", f"{norm:.6g}"])
    write_text(given.out / "losses.csv", buffer.getvalue())
    plain = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in dataclasses.asdict(given).items()
    }
    facts = {
        "command": "train",
        "arguments": plain,
        "schedule": {name: getattr(training, name) for name in SCHEDULE},
        "data": counts,
        "resumed_at": trained.resumed,
        "seconds": round(seconds, 1),
        **provenance.here(),
    }
    write_text(given.out / RECORD, json.dumps(facts, indent=2) + "\n")


def _results(
    given: Arguments, trained: Trained, names: Sequence[str], seconds: float
) -> Table:
    table = Table(title=Text(f"{given.out} ({seconds:.0f} s)"))
    for name in ("adapter", "updates", "first loss", "last loss"):
        table.add_column(name, justify="left" if name == "adapter" else "right")
    for name, losses in zip(names, trained.loss, strict=True):
        losses = losses[np.isfinite(losses)]
        few = max(1, len(losses) // 20)
        table.add_row(
            Text(name),
            str(len(losses)),
            f"{losses[:few].mean():.3f}",
            f"{losses[-few:].mean():.3f}",
        )
    return table
