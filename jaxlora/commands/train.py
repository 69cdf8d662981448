"""``jaxlora train``: one adapter for each data file, all in one program."""

import csv
import dataclasses
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jaxlora import lora, parallel
from jaxlora.commands import bars, reuse_options
from jaxlora.commands.reuse_options import Dtype
from jaxlora.io.files import write_text
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, adapters, pretrained, tokenizer
from jaxlora.studies import provenance
from jaxlora.tasks import packing, text
from jaxlora.tasks.packing import Rows
from jaxlora.train import session
from jaxlora.train.session import Schedule, Trained
from jaxlora.train.text import optimizer

PROG = "jaxlora train"
DESCRIPTION = """\
Trains one LoRA adapter for each data file, all in one program.

A data file has one JSON object a line: {"prompt", "answer"}, {"question", "answer"},
{"messages": [...]} or {"text"}; a folder of them, or a prepared TFDS data set
(tfds:NAME/CONFIG:SPLIT), is one data set too. Only answers are learnt. Each adapter is
written as OUT/NAME in the PEFT format, NAME being that of its file. Interrupted, the
same command goes on where it stopped.

examples:
  jaxlora train --model MODEL --data gsm8k.jsonl --out LIBRARY
  jaxlora train --model MODEL --data ann.jsonl bo.jsonl --out LIBRARY --epochs 5
  jaxlora train --model MODEL --data FOLDER --out LIBRARY --rank 16 --length 1024 \\
      --batch 4 --accumulate 8
"""
ALL = r"layers/.*_proj/kernel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Trains one adapter for each data file."""

    model: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of a Hugging Face checkpoint."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE...")]
    """Files, folders of *.jsonl, or tfds:NAME; one adapter each."""
    out: Annotated[Path, tyro.conf.arg(metavar="LIB")]
    """Folder of the library: one folder an adapter, and the losses."""
    rank: int = 8
    """R of every adapted kernel."""
    alpha: float = 16.0
    """The scale is alpha / rank."""
    rslora: bool = False
    """The scale is alpha / sqrt(rank) instead."""
    targets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="REGEX...")] = (ALL,)
    """Kernels to adapt: regular expressions on full names."""
    epochs: float = 3.0
    """Passes over each file."""
    steps: int = 0
    """Updates of every adapter, in place of epochs, if not 0."""
    learning_rate: float = 2e-4
    """Peak of AdamW's rate: it rises linearly, then falls linearly to zero."""
    warmup: float = 0.05
    """Share of the updates in which the rate rises."""
    weight_decay: float = 0.0
    """Of AdamW, on a and b."""
    clip: float = 1.0
    """Gradients are shortened to this norm; 0 leaves them."""
    length: int = 512
    """Tokens of a row; several examples share one, without seeing each other."""
    batch: int = 8
    """Rows of a microbatch."""
    accumulate: int = 1
    """Microbatches of an update."""
    together: int = 0
    """Adapters that train at once; 0 chooses, fewer need less memory."""
    remat: Literal["auto", "on", "off"] = "auto"
    """Recompute layers in the backward pass; auto: from width 1024 on."""
    truncate: bool = False
    """Cut examples longer than a row, instead of leaving them out."""
    skip_bad: bool = False
    """Leave out lines that cannot be read, and count them."""
    seed: int = 0
    """Of starts and orders."""
    dtype: Dtype = "auto"
    data_devices: int = 1
    """Devices along the batch."""
    fsdp_devices: int = 1
    """Devices along which the base is cut."""
    expert_devices: int = 1
    """Devices along the adapters."""


def run(arguments: Sequence[str]) -> int:
    """Reads, trains and writes."""
    words = reuse_options.spread("--data", arguments, positional=False)
    del words  # tyro takes several values after one --data
    given = reuse_options.parse(
        Arguments, PROG, DESCRIPTION, arguments, positional=False
    )
    names = _names(given)
    started = time.monotonic()
    model, base, rows, counts = _read(given, names)
    schedule = _schedule(given, rows)
    config = LoraConfig(
        rank=given.rank,
        alpha=given.alpha,
        use_rslora=given.rslora,
        targets=given.targets,
    )
    _say(given, model, rows, counts, schedule)
    trained = _train(given, model, base, rows, config, schedule)
    _write(given, trained, names)
    seconds = time.monotonic() - started
    _record(given, trained, rows, counts, schedule, seconds)
    shutil.rmtree(given.out / ".checkpoint", ignore_errors=True)
    Console().print(_results(given, trained, names, seconds))
    return 0


def _names(given: Arguments) -> list[str]:
    reuse_options.at_least(1, given, "rank", "length", "batch", "accumulate")
    reuse_options.at_least(0, given, "steps", "together", "seed")
    names = [_name(source) for source in given.data]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Two data files would both be adapter {twice[0]!r}, as an adapter has the "
            f"name of its file; rename one."
        )
    done = [name for name in names if (given.out / name).exists()]
    if done and (given.out / "training.json").exists():
        raise ValueError(
            f"{given.out / done[0]} exists already and is not overwritten; give "
            f"another --out, or remove it first."
        )
    reuse_options.check_out(given.out / "training.json")
    return names


def _name(source: str) -> str:
    """The adapter's name: a file's stem, a folder's name, a data set's.

    >>> _name("data/gsm8k.train.jsonl"), _name("tfds:gsm8k/main:train")
    ('gsm8k.train', 'gsm8k-main-train')
    """
    if source.startswith("tfds:"):
        return source.removeprefix("tfds:").replace("/", "-").replace(":", "-")
    return Path(source).name.removesuffix(".jsonl").removesuffix(".json")


def _read(given: Arguments, names: Sequence[str]):
    """The model, and every data set as rows, with what was left out."""
    found = [text.read(source, skip_bad=given.skip_bad) for source in given.data]
    words = tokenizer.load(given.model)
    kept: Any = None if given.dtype == "auto" else given.dtype
    with bars.bar("loading") as move:
        model, base = pretrained.load(
            given.model,
            dtype=kept,
            param_dtype=kept,
            mesh=_mesh(given),
            tell=lambda done, total: move(given.model.name, done, total),
        )
    tokenizer.check(words, model.config.vocab_size)
    length = min(given.length, model.config.max_length)
    rows, counts = {}, {}
    with bars.bar("packing") as move:
        for i, (name, read) in enumerate(zip(names, found, strict=True)):
            move(name, i, len(names))
            rows[name], counts[name] = _pack(given, name, read, words, length)
    return Decoder(_config(given, model.config)), base, rows, counts


def _pack(given: Arguments, name: str, read, words, length: int):
    try:
        encoded = text.encode(
            read.records,
            words,
            length,
            truncate=given.truncate,
            skip_bad=given.skip_bad,
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    rows = packing.pack(encoded.examples, length, given.seed)
    about = packing.report(rows)
    return rows, {
        "examples": about.examples,
        "rows": about.rows,
        "tokens": about.tokens,
        "answer_tokens": about.answer_tokens,
        "efficiency": round(about.efficiency, 4),
        "too_long": encoded.too_long,
        "truncated": encoded.truncated,
        "no_answer": encoded.no_answer,
        "bad_lines": read.skipped,
        "refused": encoded.refused,
        "first_error": read.first_error or encoded.first_error,
    }


def _config(given: Arguments, config):
    """Choices that change time and memory, not values."""
    auto = given.remat == "auto" and config.hidden_size >= 1024
    cpu = jax.default_backend() == "cpu"
    return dataclasses.replace(
        config,
        remat=given.remat == "on" or auto,
        unroll=min(4, config.num_layers) if cpu else 1,
    )


def _schedule(given: Arguments, rows: Mapping[str, Rows]) -> Schedule:
    most = max(len(found.tokens) for found in rows.values())
    return Schedule(
        epochs=given.epochs,
        steps=given.steps,
        learning_rate=given.learning_rate,
        warmup=given.warmup,
        batch=given.batch if given.data_devices > 1 else min(given.batch, most),
        accumulate=given.accumulate,
    )


def _mesh(given: Arguments):
    sizes = (given.data_devices, given.fsdp_devices, given.expert_devices)
    if sizes == (1, 1, 1):
        return None
    return parallel.mesh(data=sizes[0], fsdp=sizes[1], expert=sizes[2])


def _train(given, model, base, rows, config, schedule: Schedule) -> Trained:
    many = given.expert_devices > 1
    with bars.bar("training") as move:
        return session.train(
            model,
            base,
            rows,
            config,
            schedule,
            opt=optimizer(weight_decay=given.weight_decay, clip=given.clip),
            seed=given.seed,
            together=len(rows) if many else given.together,
            folder=given.out / ".checkpoint",
            made_by={
                "model": str(given.model.resolve()),
                "dtype": model.config.dtype,
                "optimizer": [given.weight_decay, given.clip],
            },
            mesh=_mesh(given),
            tell=lambda done, total, loss: move(f"loss {loss:.3f}", done, total),
        )


def _write(given: Arguments, trained: Trained, names: Sequence[str]) -> None:
    for name, adapter in zip(names, lora.unstack(trained.library), strict=True):
        if not (given.out / name).exists():  # else written before an interruption
            adapters.save(given.out / name, adapter, base_name=str(given.model))


def _record(given, trained: Trained, rows, counts, schedule, seconds: float) -> None:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["adapter", "update", "loss", "gradient_norm"])
    for name, losses, norms in zip(rows, trained.loss, trained.norm, strict=True):
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
        "schedule": dataclasses.asdict(schedule),
        "data": counts,
        "resumed_at": trained.resumed,
        "seconds": round(seconds, 1),
        **provenance.here(),
    }
    write_text(given.out / "training.json", json.dumps(facts, indent=2) + "\n")


def _say(given, model, rows, counts, schedule: Schedule) -> None:
    console = Console(stderr=True)
    for name, count in counts.items():
        left = ", ".join(
            f"{count[key]} {key.replace('_', ' ')}"
            for key in ("bad_lines", "refused", "too_long", "truncated", "no_answer")
            if count[key]
        )
        console.print(
            f"{name}: {count['examples']} examples in {count['rows']} rows of "
            f"{rows[name].tokens.shape[1]} tokens, {100 * count['efficiency']:.0f}% "
            f"full; {schedule.total(count['rows'])} updates"
            + (f"; left out or cut: {left}" if left else ""),
            markup=False,
            highlight=False,
        )
        if count["first_error"]:
            console.print(f"  first of them: {count['first_error']}", markup=False)


def _results(given, trained: Trained, names, seconds: float) -> Table:
    table = Table(title=f"{given.out} ({seconds:.0f} s)")
    for name in ("adapter", "updates", "first loss", "last loss"):
        table.add_column(name, justify="left" if name == "adapter" else "right")
    for name, losses in zip(names, trained.loss, strict=True):
        losses = losses[np.isfinite(losses)]
        few = max(1, len(losses) // 20)
        table.add_row(
            name,
            str(len(losses)),
            f"{losses[:few].mean():.3f}",
            f"{losses[-few:].mean():.3f}",
        )
    return table
