"""``jaxlora eval``: how many answers of a model are right, with an interval."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from rich.console import Console

from jaxlora.commands import bars, flags, loading, printing
from jaxlora.commands.flags import Combine, Combining, Dtype
from jaxlora.evaluate import answers
from jaxlora.evaluate.answers import Judged
from jaxlora.evaluate.statistics import wilson
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import Reuse, decode
from jaxlora.reuse.decode import Continuation, TextDecoding
from jaxlora.tasks import text
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
      --metric exact --limit 100
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
    limit: int = 0
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
    combine: Combine = dataclasses.field(default_factory=Combining)
    route_temperature: flags.RouteTemperature = None
    dtype: Dtype = "auto"


class Questions(NamedTuple):
    """Records that can be asked, and what was left out."""

    items: list[Record]
    """Each has an answer that the metric can compare with."""
    prompts: list[list[int]]
    """Their token ids."""
    bad: int
    """Left out by --skip-bad."""
    too_long: int
    """Left out, as their prompts leave no room in the context."""


def run(arguments: Sequence[str]) -> int:
    """Reads, decodes, judges and prints."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    combining = given.combine.routing(given.route_temperature)
    flags.at_least(1, given, "max_new_tokens", "batch")
    flags.at_least(0, given, "limit")
    read = text.read(given.data, skip_bad=given.skip_bad)
    records, unusable = usable(read.records[: given.limit or None], given)
    if given.out:
        flags.check_out(given.out)
    reuse = loading.load(given.model, given.combine.adapter, given.dtype, **combining)
    tokenizer = loading.load_tokenizer(given.model, reuse, chat=given.chat)
    asked = _questions(records, read.skipped + unusable, tokenizer, reuse, given)
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
    metric = answers.METRICS[given.metric]
    judged = [metric(t.text, r.answer) for t, r in zip(texts, asked.items, strict=True)]
    if given.out:
        rows = zip(asked.items, texts, judged, strict=True)
        printing.write_rows(given.out, itertools.starmap(_row, rows))
    Console().print(printing.facts(_facts(given, asked, texts, judged)))
    return 0


def usable(records: Sequence[Record], given: Arguments) -> tuple[list[Record], int]:
    """Returns records with an answer to compare with, and how many have none.

    Args:
      records: to choose from.
      given: the flags.

    Raises:
      ValueError: with file and line, if one has none and bad ones are not skipped.
    """
    kept, bad = [], 0
    for item in records:
        try:
            if not item.answer:
                raise ValueError(
                    "The record has no answer, expected a prompt and an answer."
                )
            answers.METRICS[given.metric]("", item.answer)
            kept.append(item)
        except ValueError as error:
            if not given.skip_bad:
                raise ValueError(f"{item.where}: {error}") from None
            bad += 1
    if not kept:
        raise ValueError(
            f"{given.data} has no record with an answer for --metric {given.metric}; "
            f"{bad} were skipped."
        )
    return kept, bad


def _questions(
    records: Sequence[Record],
    bad: int,
    tokenizer: Tokenizer,
    reuse: Reuse,
    given: Arguments,
) -> Questions:
    items, prompts, too_long = [], [], 0
    for item in records:
        try:
            ids = decode.encode(item, tokenizer)
        except ValueError:
            if not given.skip_bad:
                raise
            bad += 1
            continue
        if decode.room(reuse, ids):
            items.append(item)
            prompts.append(ids)
        else:
            too_long += 1
    if not items:
        raise ValueError(
            f"No record of {given.data} can be asked: {too_long} leave no room in the "
            f"context of {reuse.model.config.max_length} tokens, {bad} were skipped."
        )
    return Questions(items, prompts, bad, too_long)


def _facts(
    given: Arguments,
    asked: Questions,
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


def _row(item: Record, text: Continuation, verdict: Judged) -> dict[str, Any]:
    return {
        "where": item.where,
        "messages": list(item.asked),
        "answer": item.answer,
        **text._asdict(),
        **verdict._asdict(),
    }
