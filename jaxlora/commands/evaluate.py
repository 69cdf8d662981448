"""``jaxlora eval``: how many answers of a model are right, with an interval."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxlora.commands import bars, flags, loading, printing, talk
from jaxlora.commands.flags import Combine, Combining, Dtype, Words, outputs
from jaxlora.commands.flags.mesh import MeshSizes, mesh
from jaxlora.evaluate import answers, questions
from jaxlora.evaluate.answers import Judged
from jaxlora.evaluate.statistics import wilson
from jaxlora.parallel import processes
from jaxlora.reuse import decode
from jaxlora.reuse.decode import Continuation, TextDecoding
from jaxlora.tasks import jsonl, text, text_shown
from jaxlora.tasks.text import Record

PROG = "jaxlora eval"
DESCRIPTION = """\
Says how many answers of a model are right, with a 95% interval (Wilson).

Records are those of `jaxlora train`: {"question": "...", "answer": "..."}, one a line.
exact compares the whole answer, but for case, spaces and a final point; number compares
the number after ####, or else the last one. Decoding is greedy.

examples:
  jaxlora eval --model MODEL --data test.jsonl --metric exact
  jaxlora eval --model MODEL --adapter A --data gsm8k.jsonl --metric number \\
      --max-new-tokens 400 --out rows.jsonl
  jaxlora eval --model MODEL --adapter A B --merge mean --data test.jsonl \\
      --metric exact --records 100
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Says how many answers of a model are right."""

    model: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of a Hugging Face checkpoint."""
    data: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """JSON lines with prompt and answer; a folder of them, or a TFDS name."""
    metric: Literal["exact", "number"]
    """How answers are compared."""
    records: int = 0
    """Only the first so many records; 0 for all."""
    max_new_tokens: int = 128
    """Where an answer is cut, unless the context ends before."""
    batch: int = 8
    """Prompts at once; fewer need less memory."""
    chat: bool = True
    """Use the chat template, if there is one."""
    skip_bad: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave bad records out, and count them, instead of stopping at the first."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.jsonl")] = None
    """Also write one object a record: answer, text, and whether it is right."""
    force: flags.Force = False
    combine: Combine = dataclasses.field(default_factory=Combining)
    dtype: Dtype = "auto"
    mesh: MeshSizes = ""
    tokenizer: Words = None


def run(arguments: Sequence[str]) -> int:
    """Reads, decodes, judges and prints."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    combining = given.combine.routing()
    flags.at_least(1, given, "max_new_tokens", "batch")
    flags.at_least(0, given, "records")
    source, skip = given.data, given.skip_bad
    read = text.read(source, skip_bad=skip, tests=True)
    printing.say(read.notes)
    first = read.records[: given.records or None]
    records, bad = questions.usable(first, source, given.metric, skip_bad=skip)
    bad += read.skipped
    processes.agreed(lambda: outputs.check_files(given.force, given.out))
    combining["mesh"] = mesh(given.mesh, batch={"rows of --batch": given.batch})
    reuse = loading.load(given.model, given.combine.adapter, given.dtype, **combining)
    words = {"tokenizer": given.tokenizer, "chat": given.chat}
    tokenizer = loading.words(given.model, reuse, given.combine.adapter, **words)
    asked = questions.askable(records, bad, source, tokenizer, reuse, skip_bad=skip)
    silent = text_shown.left_out(asked.records, tokenizer, asked=True)
    printing.say(text_shown.note(silent, source))
    total = len(asked.prompts)
    with bars.bar("asking") as move:
        texts = decode.continuations(
            reuse,
            tokenizer,
            asked.prompts,
            TextDecoding(max_new_tokens=given.max_new_tokens),
            batch=given.batch,
            progress=lambda n: move(f"{n} of {total} questions", n, total),
        )
    pairs = zip(asked.records, texts, strict=True)
    judged = [answers.METRICS[given.metric](t.text, r.answer) for r, t in pairs]
    if given.out and talk.current().writes:
        rows = zip(asked.records, texts, judged, strict=True)
        jsonl.write(given.out, itertools.starmap(_row, rows))
    printing.facts(_facts(given, asked, texts, judged))
    return 0


def _facts(
    given: Arguments,
    asked: questions.Questions,
    texts: Sequence[Continuation],
    judged: Sequence[Judged],
) -> dict[str, str]:
    right = sum(verdict.correct for verdict in judged)
    share = wilson(right, len(judged))
    facts = {
        f"accuracy ({given.metric})": f"{share.value:.3f}   95% interval "
        f"{share.lo:.3f} to {share.hi:.3f}",
        "right": f"{right} of {len(judged)}",
        "skipped as bad": str(asked.bad),
        "left out as too long": str(asked.too_long),
        "answers cut at the limit": str(sum(not text.ended for text in texts)),
    }
    return facts | ({"rows": str(given.out)} if given.out else {})


def _row(record: Record, text: Continuation, verdict: Judged) -> dict[str, Any]:
    return {
        "where": record.where,
        "messages": list(record.asked),
        "answer": record.answer,
        **text._asdict(),
        **verdict._asdict(),
    }
