"""``jaxlora train``: one adapter for each data file, all in one program."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jax.sharding import Mesh

from jaxlora import files, lora, parallel
from jaxlora import tree as named
from jaxlora.commands import (
    bars,
    flags,
    printing,
    scalars,
    speed,
    talk,
    train_folder,
    train_output,
)
from jaxlora.commands.flags import Dtype, Several, Words
from jaxlora.commands.flags.mesh import MeshSizes, mesh, sizes
from jaxlora.commands.flags.training import Learning, Remat, adapter_names
from jaxlora.io import origin, weight_sets
from jaxlora.lora import ALL_LINEAR, LoraConfig
from jaxlora.models import Decoder, pretrained, tokenizer
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import words as sources
from jaxlora.studies.harness import code, provenance
from jaxlora.tasks import data_sets, text
from jaxlora.tasks.packing import Rows
from jaxlora.tasks.text import Read
from jaxlora.train import session
from jaxlora.train.session import Checkpoints, Trained
from jaxlora.train.training import Training, faster
from jaxlora.tree import Tree

# Taken on import: a file that is edited while a run lasts is not what runs.
CODE = code.digest("jaxlora.train.session")
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

A data file has one JSON object a line, or is an array of them: {"prompt",
"answer"}, {"question", "answer"}, {"instruction", "input", "output"},
{"messages": [...]}, ShareGPT's {"conversations": [...]} or {"text"}; a folder
of them, or a prepared TFDS data set (tfds:NAME/CONFIG:SPLIT), is one data set
too. Only answers are learnt, and of turns with "train": false or "weight": 0
none. Each adapter is written as OUT/NAME in the PEFT format, NAME being that of
its file. Interrupted, the same command goes on where it stopped.

examples:
  jaxlora train --model MODEL --data gsm8k.jsonl --out LIBRARY
  jaxlora train --model MODEL --data ann.jsonl bo.jsonl --out LIBRARY --epochs 5
  jaxlora train --model MODEL --data alpaca.json --out LIBRARY --targets q_proj
  jaxlora train --model MODEL --data FOLDER --out LIBRARY --rank 16 \\
      --length 1024 --batch 4 --accumulate 8
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
    force: flags.Force = False
    rank: int = 8
    """R of every adapted kernel."""
    alpha: float = 16.0
    """The scale is alpha / rank."""
    rslora: bool = False
    """The scale is alpha / sqrt(rank) instead."""
    targets: Annotated[Several, tyro.conf.arg(metavar="REGEX...")] = ()
    """What to adapt: names as of PEFT (q_proj v_proj lm_head embed_tokens), all-linear,
    which leaves out the head, or regular expressions on full names; all-linear if
    none."""
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
    mesh: MeshSizes = ""
    tokenizer: Words = None


def run(arguments: Sequence[str]) -> int:
    """Reads, trains and writes."""
    given = parse(arguments)
    names = adapter_names(given.data)
    train_folder.check(given.out, names, given.force)
    scalars.check()
    with train_output.kept(given.out / train_folder.CHECKPOINT):
        return _run(given, names)


def _run(given: Arguments, names: Sequence[str]) -> int:
    started = time.monotonic()
    config = LoraConfig(
        rank=given.rank,
        alpha=given.alpha,
        use_rslora=given.rslora,
        targets=given.targets or ALL_LINEAR,
    )
    with train_folder.claimed(given.out, names, given.force):
        trained = _train(given, names, config, started)
    train_output.show(given.out, trained, names, time.monotonic() - started)
    return 0


def _train(
    given: Arguments, names: Sequence[str], config: LoraConfig, started: float
) -> Trained:
    named = zip(names, given.data, strict=True)
    data = {name: text.read(x, skip_bad=given.skip_bad) for name, x in named}
    printing.say(note for read in data.values() for note in read.notes)
    words = tokenizer.load(*sources.source(given.model, asked=given.tokenizer)[:2])
    model, base = _load(given)
    lora.adapted(base, config)  # a rank too high is refused before data is read
    printing.say(train_output.left_out(base, config))
    words = tokenizer.fitted(words, model.config.vocab_size)
    printing.say([*weight_sets.notes(given.model), *origin.notes(given.model)])
    rows, counts = _pack(given, data, words, model.config.max_length)
    training = _fitted(given, rows)
    updates = {name: training.total(len(part.tokens)) for name, part in rows.items()}
    train_output.say(counts, next(iter(rows.values())).tokens.shape[1], updates)
    made_by = provenance.base(base, model.config) | {"code": CODE}
    with _watched(given.out, updates, _work(given, base, rows)) as progress:
        trained = session.train_experts(
            model,
            base,
            rows,
            config,
            training,
            checkpoints=Checkpoints(given.out / train_folder.CHECKPOINT, made_by),
            mesh=_mesh(given),
            progress=progress,
        )
    if talk.current().writes:
        how = {"model": given.model, "tokenizer": given.tokenizer, "force": given.force}
        train_folder.write(given.out, trained.learned, names, model.config, **how)
        seconds = round(time.monotonic() - started, 1)
        facts = _facts(given, training) | {"data": counts, "seconds": seconds}
        train_output.write(given.out, trained, names, facts)
        files.remove(given.out / train_folder.CHECKPOINT)
    return trained


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses flags.

    Args:
      arguments: what was given.

    Raises:
      ValueError: if a flag does not exist, or a number is out of range.
    """
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    flags.at_least(1, given, "rank")
    sizes(given.mesh)
    return given


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
    config = faster(model.config, given.remat, parallel.platform_of(base))
    return Decoder(config), base


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


@contextlib.contextmanager
def _watched(
    out: Path, updates: Mapping[str, int], work: speed.Work
) -> Iterator[session.Progress]:
    """A bar, and losses and speed as they come."""
    who = ", ".join(updates) if len(updates) < 4 else f"{len(updates)} adapters"
    with (
        scalars.board(out) as add,
        bars.bar("training", first=f"{who}: {bars.COMPILING}", log=out) as move,
    ):
        losses, meter = scalars.Losses(out, updates, add), speed.Meter(work)

        def progress(done: int, total: int, recent: np.ndarray) -> None:
            losses(done, total, recent)
            now = meter(done)
            for name, value in ({} if now is None else now.scalars()).items():
                add(name, value, done)
            pace = "" if now is None else f", {now.words()}"
            move(f"{who}: loss {scalars.mean(recent):.3f}{pace}", done, total)

        yield progress


def _work(given: Arguments, base: Tree, rows: Mapping[str, Rows]) -> speed.Work:
    sizes = {name: leaf.size for name, leaf in named.flatten(base).items()}
    if "head" in sizes:  # else the embedding is the head, and a product
        del sizes["embed/embedding"]
    size = given.training.batch * given.training.accumulate * len(rows)
    length = next(iter(rows.values())).tokens.shape[1]
    return speed.training_work(sum(sizes.values()), size * length)


def _fitted(given: Arguments, rows: Mapping[str, Rows]) -> Training:
    training = given.training
    cut = _mesh(given)
    if cut is not None and cut.shape["expert"] > 1:  # over devices, all at once
        training = dataclasses.replace(training, together=len(given.data))
    return training.fitted(max(len(part.tokens) for part in rows.values()))


def _mesh(given: Arguments) -> Mesh | None:
    rows = {"rows of --batch": given.training.batch}
    return mesh(given.mesh, expert={"data files": len(given.data)}, batch=rows)


def _facts(given: Arguments, training: Training) -> dict[str, Any]:
    """Flags, as training.json has them: as typed, and as used."""
    plain = dataclasses.asdict(given)
    plain |= plain.pop("training")
    del plain["decay"]
    typed = {k: str(v) if isinstance(v, Path) else v for k, v in plain.items()}
    schedule = {name: getattr(training, name) for name in SCHEDULE}
    return {"command": "train", "arguments": typed, "schedule": schedule}
