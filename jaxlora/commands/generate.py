"""``jaxlora generate``: what a model says to prompts, with any of its adapters."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console
from rich.text import Text

from jaxlora.commands import bars, flags, loading, printing, talk
from jaxlora.commands.flags import (
    Combine,
    Combining,
    Dtype,
    Model,
    Sample,
    Sampling,
    Several,
    Words,
    outputs,
)
from jaxlora.commands.flags.mesh import MeshSizes, mesh
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.parallel import processes
from jaxlora.reuse import Reuse, decode
from jaxlora.reuse.decode import Continuation
from jaxlora.strangers.text import visible
from jaxlora.tasks import jsonl, prompts, record_fields, text_shown
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
  jaxlora generate MODEL --prompt "Hello" "Hi" --temperature 0.7 --top-p 0.9
  jaxlora generate MODEL --adapter A B --merge mean --prompts prompts.txt
  jaxlora generate MODEL --adapter A B --route arrow --prompts prompts.jsonl \\
      --out answers.jsonl
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Prints what a model says to prompts."""

    model: Model
    prompt: Annotated[Several, tyro.conf.arg(metavar="TEXT...")] = ()
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
    force: flags.Force = False
    sampling: Sample = dataclasses.field(default_factory=Sampling)
    combine: Combine = dataclasses.field(default_factory=Combining)
    dtype: Dtype = "auto"
    mesh: MeshSizes = ""
    tokenizer: Words = None


def run(arguments: Sequence[str]) -> int:
    """Reads, decodes and prints."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    combining = given.combine.routing()
    flags.at_least(1, given, "max_new_tokens", "batch")
    asked = _asked(given)
    processes.agreed(lambda: outputs.check_files(given.force, given.out))
    seed, adapters = given.sampling.seed, given.combine.adapter
    combining["mesh"] = mesh(given.mesh, batch={"rows of --batch": given.batch})
    reuse = loading.load(given.model, adapters, given.dtype, seed=seed, **combining)
    words = {"tokenizer": given.tokenizer, "chat": given.chat}
    tokenizer = loading.words(given.model, reuse, adapters, **words)
    encoded = [_encode(record, tokenizer, reuse) for record in asked]
    silent = text_shown.left_out(asked, tokenizer, asked=True)
    printing.say(text_shown.note(silent, str(given.prompts or "--system")))
    with bars.bar("decoding") as move:
        texts = decode.continuations(
            reuse,
            tokenizer,
            encoded,
            given.sampling.texts(given.max_new_tokens),
            batch=given.batch,
            key=jax.random.key(seed),
            progress=lambda n: move(f"{n} of {len(asked)} prompts", n, len(asked)),
        )
    answers = list(zip(asked, texts, strict=True))
    _print(answers)
    if given.out and talk.current().writes:
        rows = ({"messages": list(r.messages), **text._asdict()} for r, text in answers)
        jsonl.write(given.out, rows)
    return 0


def _asked(given: Arguments) -> list[Record]:
    if bool(given.prompt) == (given.prompts is not None):
        raise ValueError(
            f"Got {'both' if given.prompt else 'no'} --prompt TEXT and "
            f"{'' if given.prompt else 'no '}--prompts FILE, expected one of them."
        )
    for i, prompt in enumerate(given.prompt):
        if not prompt.strip():
            raise ValueError(f"Prompt {i} is empty, expected some text.")
    records = [prompts.plain(prompt) for prompt in given.prompt]
    if given.prompts is not None:
        records = prompts.read(given.prompts)
        odd = (name for record in records for name in record.unread)
        printing.say(record_fields.notes(odd, str(given.prompts)))
    if not given.system:
        return records
    turn = {"role": "system", "content": given.system}
    return [dataclasses.replace(r, messages=(turn, *r.messages)) for r in records]


def _encode(record: Record, tokenizer: Tokenizer, reuse: Reuse) -> list[int]:
    ids = decode.encode(record, tokenizer)
    if not decode.room(reuse, ids):
        raise ValueError(
            f"{record.where or 'The prompt'}: {len(ids)} tokens leave no room in the "
            f"model's context of {reuse.model.config.max_length}; shorten it."
        )
    return ids


def _print(answers: Sequence[tuple[Record, Continuation]]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    # What a model was trained to write may act on a terminal; a pipe gets it as it is.
    shown = visible if console.is_terminal else str
    for record, answer in answers:
        console.print(Text(shown(record.messages[-1]["content"]), style="bold cyan"))
        console.print(Text(shown(answer.text)))
        if not answer.ended:
            console.print(Text(f"[cut at {answer.tokens} tokens]", style="dim"))
        console.print()
