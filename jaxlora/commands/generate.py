"""``jaxlora generate``: what a model says to prompts, with any of its adapters."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console
from rich.text import Text

from jaxlora.commands import bars, flags, loading, printing
from jaxlora.commands.flags import (
    Combine,
    Combining,
    Dtype,
    Model,
    Sample,
    Sampling,
)
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import Reuse, decode
from jaxlora.reuse.decode import Continuation
from jaxlora.tasks import jsonl, text
from jaxlora.tasks.text import Record

PROG = "jaxlora generate"
DESCRIPTION = """\
Prints what a model says to prompts: alone, with an adapter, a merge or a route.

A prompt goes through the chat template of the tokenizer, if it has one; else the model
continues it as it stands. A file of prompts has one a line (.txt), or one object a line
(.jsonl), as {"prompt": "Who is Ann?"} or {"messages": [...]}; these become what
`jaxlora train` puts before an answer.

examples:
  jaxlora generate MODEL --prompt "Who is Ann's wife?"
  jaxlora generate MODEL --prompt "Hello" "Good night" --temperature 0.7 --top-p 0.9
  jaxlora generate MODEL --adapter A B --merge mean --prompts prompts.txt
  jaxlora generate MODEL --adapter A B --route arrow --prompts prompts.jsonl \\
      --out answers.jsonl
"""
EXPECTED = '{"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Prints what a model says to prompts."""

    model: Model
    prompt: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT...")] = ()
    """One or more prompts."""
    prompts: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Or a file of them: .txt or .jsonl."""
    system: Annotated[str, tyro.conf.arg(metavar="TEXT")] = ""
    """What is said before every prompt, as the system."""
    chat: bool = True
    """Use the chat template, if there is one."""
    max_new_tokens: int = 128
    """Where an answer is cut, unless the context ends before."""
    batch: int = 8
    """Prompts at once; fewer need less memory."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.jsonl")] = None
    """Also write one object a prompt, with its answer."""
    sampling: Sample = dataclasses.field(default_factory=Sampling)
    combine: Combine = dataclasses.field(default_factory=Combining)
    route_temperature: flags.RouteTemperature = None
    dtype: Dtype = "auto"


def run(arguments: Sequence[str]) -> int:
    """Reads, decodes and prints."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    combining = given.combine.routing(given.route_temperature)
    flags.at_least(1, given, "max_new_tokens", "batch")
    asked = _asked(given)
    if given.out:
        flags.check_out(given.out)
    reuse = loading.load(
        given.model,
        given.combine.adapter,
        given.dtype,
        seed=given.sampling.seed,
        **combining,
    )
    tokenizer = loading.load_tokenizer(given.model, reuse, chat=given.chat)
    prompts = [_encode(item, tokenizer, reuse) for item in asked]
    with bars.bar("decoding") as move:
        texts = decode.continuations(
            reuse,
            tokenizer,
            prompts,
            given.sampling.texts(given.max_new_tokens),
            batch=given.batch,
            key=jax.random.key(given.sampling.seed),
            progress=lambda n: move(f"{n} of {len(prompts)} prompts", n, len(prompts)),
        )
    _print(asked, texts)
    if given.out:
        rows = [
            {"messages": list(item.messages), **text._asdict()}
            for item, text in zip(asked, texts, strict=True)
        ]
        printing.write_rows(given.out, rows)
    return 0


def read_prompts(path: Path) -> list[Record]:
    """Reads a file of prompts: lines of text, or objects if it is named .jsonl.

    Args:
      path: of the file.

    Raises:
      ValueError: with file and line, if there is nothing, or no prompt in a line.
    """
    if path.suffix != ".jsonl":
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ValueError(
                f"Cannot read {path}: {error.strerror or error}; expected a file with "
                f"a prompt a line."
            ) from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 ({error}).") from None
        records = [
            _plain(line, where=f"{path}:{i}")
            for i, line in enumerate(lines, start=1)
            if line.strip()
        ]
        if not records:
            raise ValueError(f"{path} is empty, expected a prompt a line.")
        return records
    return [_record(fields, f"{path}:{i}") for i, fields in jsonl.read(path)]


def _asked(given: Arguments) -> list[Record]:
    if bool(given.prompt) == (given.prompts is not None):
        raise ValueError(
            f"Got {'both' if given.prompt else 'neither'} --prompt TEXT and --prompts "
            f"FILE, expected one of them."
        )
    if given.prompts is not None:
        records = read_prompts(given.prompts)
    else:
        for i, prompt in enumerate(given.prompt):
            if not prompt.strip():
                raise ValueError(f"Prompt {i} is empty, expected some text.")
        records = [_plain(prompt) for prompt in given.prompt]
    if not given.system:
        return records
    turn = {"role": "system", "content": given.system}
    return [dataclasses.replace(r, messages=(turn, *r.messages)) for r in records]


def _plain(prompt: str, where: str = "") -> Record:
    """A prompt that, without a chat template, is continued as it stands."""
    turn = {"role": "user", "content": prompt}
    return Record(messages=(turn,), glue="", where=where)


def _record(fields: dict, where: str) -> Record:
    if "prompt" in fields and not {"answer", "completion"} & set(fields):
        turn = {
            "role": "user",
            "content": jsonl.text(fields, "prompt", where, EXPECTED),
        }
        return Record(messages=(turn,), where=where)
    record = text.record(fields, where)
    if not record.asked:
        raise ValueError(f"{where}: no prompt, expected {EXPECTED}.")
    return dataclasses.replace(record, messages=record.asked)


def _encode(item: Record, tokenizer: Tokenizer, reuse: Reuse) -> list[int]:
    ids = decode.encode(item, tokenizer)
    if not decode.room(reuse, ids):
        raise ValueError(
            f"{item.where or 'The prompt'}: {len(ids)} tokens leave no room in the "
            f"model's context of {reuse.model.config.max_length}; shorten it."
        )
    return ids


def _print(asked: Sequence[Record], texts: Sequence[Continuation]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for item, answer in zip(asked, texts, strict=True):
        console.print(Text(item.messages[-1]["content"], style="bold cyan"))
        console.print(Text(answer.text))
        if not answer.ended:
            console.print(Text(f"[cut at {answer.tokens} tokens]", style="dim"))
        console.print()
