"""``jaxlora train``: one adapter for each data file, all in one program."""

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxlora import lora, parallel
from jaxlora.commands import bars, flags, printing, train_output
from jaxlora.commands.flags import Dtype, Several
from jaxlora.commands.flags.training import Learning, Remat, adapter_names
from jaxlora.io import origin
from jaxlora.lora import ALL_LINEAR, LoraConfig
from jaxlora.models import Decoder, adapters, pretrained, tokenizer
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import data_sets, text
from jaxlora.tasks.packing import Rows
from jaxlora.tasks.text import Read
from jaxlora.train import session
from jaxlora.train.session import Checkpoints
from jaxlora.train.training import Training, faster
from jaxlora.tree import Tree

CHECKPOINT = ".checkpoint"
SCHEDULE = [
    "epochs",
    "steps",
    "learning_rate",
    "warmup",
    "decay",
    "batch",
    "accumulate",
]
"""Numbers of a training that the record shows as they were used."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Trains one adapter for each data file."""

    model: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of a Hugging Face checkpoint."""
    data: Annotated[Several, tyro.conf.arg(metavar="FILE...")]
    """Files, folders of *.jsonl, or tfds:NAME; one adapter each."""
    out: Annotated[Path, tyro.conf.arg(metavar="LIB")]
    """Folder of the library: one folder an adapter, and the losses."""
    rank: int = 8
    """R of every adapted kernel."""
    alpha: float = 16.0
    """The scale is alpha / rank."""
    rslora: bool = False
    """The scale is alpha / sqrt(rank) instead."""
    targets: Annotated[Several, tyro.conf.arg(metavar="REGEX...")] = ()
    """Kernels to adapt: regular expressions on full names; every linear one if none."""
    training: Annotated[Learning, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Learning
    )
    remat: Remat = "auto"
    """Recompute layers in the backward pass; auto: from width 1024 on."""
    truncate: bool = False
    """Cut examples longer than a row, instead of leaving them out."""
    skip_bad: bool = False
    """Leave out lines that cannot be read, and count them."""
    dtype: Dtype = "auto"
    data_devices: int = 1
    """Devices along the batch."""
    fsdp_devices: int = 1
    """Devices along which the base is cut."""
    expert_devices: int = 1
    """Devices along the adapters."""


def run(arguments: Sequence[str]) -> int:
    """Reads, trains and writes."""
    started = time.monotonic()
    given = parse(arguments)
    config = LoraConfig(
        rank=given.rank,
        alpha=given.alpha,
        use_rslora=given.rslora,
        targets=given.targets or ALL_LINEAR,
    )
    names = adapter_names(given.data)
    _check_new(given.out, names)
    sources = zip(names, given.data, strict=True)
    data = {name: text.read(x, skip_bad=given.skip_bad) for name, x in sources}
    words = tokenizer.load(given.model)
    model, base = _load(given)
    tokenizer.check(words, model.config.vocab_size)
    printing.say(origin.notes(given.model))
    rows, counts = _pack(given, data, words, model.config.max_length)
    training = _fitted(given, rows)
    updates = {name: training.total(len(part.tokens)) for name, part in rows.items()}
    train_output.say(counts, next(iter(rows.values())).tokens.shape[1], updates)
    made_by = {"model": str(given.model.resolve()), "dtype": model.config.dtype}
    with bars.bar("training") as move:
        trained = session.train_experts(
            model,
            base,
            rows,
            config,
            training,
            checkpoints=Checkpoints(given.out / CHECKPOINT, made_by),
            mesh=_mesh(given),
            progress=lambda done, total, loss: move(f"loss {loss:.3f}", done, total),
        )
    for name, adapter in zip(names, lora.unstack(trained.learned), strict=True):
        if not (given.out / name).exists():  # else written before an interruption
            adapters.save(given.out / name, adapter, base_name=str(given.model))
    seconds = time.monotonic() - started
    facts = _facts(given, training) | {"data": counts, "seconds": round(seconds, 1)}
    train_output.write(given.out, trained, names, facts)
    shutil.rmtree(given.out / CHECKPOINT, ignore_errors=True)
    train_output.show(given.out, trained, names, seconds)
    return 0


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses flags.

    Args:
      arguments: what was given.

    Raises:
      ValueError: if a flag does not exist, or a number is out of range.
    """
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    flags.at_least(1, given, "rank", "data_devices", "fsdp_devices", "expert_devices")
    batch = given.training.batch
    if len(given.data) % given.expert_devices or batch % given.data_devices:
        raise ValueError(
            f"{len(given.data)} data files on {given.expert_devices} --expert-devices, "
            f"and --batch {batch} on {given.data_devices} --data-devices: "
            f"expected both to divide without a rest."
        )
    return given


def _check_new(out: Path, names: Sequence[str]) -> None:
    """Refuses to write over a library, or over any folder that is no adapter of it."""
    flags.check_out(out / train_output.RECORD)
    interrupted = (out / CHECKPOINT).is_dir()
    files = [name for name in (train_output.RECORD, *names) if (out / name).exists()]
    if files and (files[0] == train_output.RECORD or not interrupted):
        raise ValueError(
            f"{out / files[0]} exists already and is not overwritten; give another "
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
    return Decoder(faster(model.config, given.remat)), base


def _pack(given: Arguments, data: Mapping[str, Read], words: Tokenizer, context: int):
    with bars.bar("packing") as move:
        return data_sets.pack(
            data,
            words,
            min(given.training.length, context),
            seed=given.training.seed,
            truncate=given.truncate,
            skip_bad=given.skip_bad,
            progress=move,
        )


def _fitted(given: Arguments, rows: Mapping[str, Rows]) -> Training:
    training = given.training
    if given.expert_devices > 1:  # they are cut over devices, all at once
        training = dataclasses.replace(training, together=len(given.data))
    if given.data_devices > 1:
        return training
    return training.fitted(max(len(part.tokens) for part in rows.values()))


def _mesh(given: Arguments):
    sizes = (given.data_devices, given.fsdp_devices, given.expert_devices)
    if sizes == (1, 1, 1):
        return None
    return parallel.mesh(data=sizes[0], fsdp=sizes[1], expert=sizes[2])


def _facts(given: Arguments, training: Training) -> dict[str, Any]:
    """Flags, as training.json has them: as typed, and as used."""
    plain = dataclasses.asdict(given)
    plain |= plain.pop("training")
    del plain["decay"]
    typed = {k: str(v) if isinstance(v, Path) else v for k, v in plain.items()}
    schedule = {name: getattr(training, name) for name in SCHEDULE}
    return {"command": "train", "arguments": typed, "schedule": schedule}
