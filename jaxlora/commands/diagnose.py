"""``jaxlora diagnose``: will two merged experts compose? Before they are trained."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from jaxlora import diagnose
from jaxlora.commands import bars, diagnose_tables, flags, loading, printing
from jaxlora.commands.flags import Dtype, Folders, Model, Several, Words
from jaxlora.diagnose import Ask, effects, outlook, placement, text, text_rows
from jaxlora.diagnose.features import order
from jaxlora.diagnose.text import Knows, Moved
from jaxlora.diagnose.text_rows import Rows
from jaxlora.io import adapter_folders
from jaxlora.io.errors import naming
from jaxlora.lora import Adapter, LoraConfig
from jaxlora.models import adapters as peft
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.reuse import Reuse
from jaxlora.tasks import text as tasks_text
from jaxlora.tasks.text import Record
from jaxlora.tasks.two_hop import probes as probing
from jaxlora.tasks.two_hop.probes import Probe

PROG = "jaxlora diagnose"
DESCRIPTION = """\
Predicts whether the mean of two experts composes what each of them knows.

No expert is trained: what counts is the base, and how the rows of each expert move the
right answers where its facts are needed (the tangent kernel of a fresh LoRA). Rows are
those of `jaxlora train`: {"prompt": "...", "answer": "..."}, one a line; a row teaches
the fact that its answer ends in. Probes are two-hop questions with their parts:

{"question": "Where does Ann's wife live?", "answer": "Rome", "bridge": "Bo",
"first": "Who is Ann's wife?", "second": "Where does Bo live?"}

With --ask written the bridge is written before the answer: "Bo Rome". The predictor is
of small bases of symbols; on a language model its probability is a hint, no more.

examples:
  jaxlora diagnose MODEL --data wives.jsonl cities.jsonl --probe probes.jsonl
  jaxlora diagnose MODEL --data wives.jsonl cities.jsonl --probe probes.jsonl \\
      --ask written --adapter LIBRARY/wives LIBRARY/cities
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Predicts whether the mean of two experts composes."""

    model: Model
    data: Annotated[Several, tyro.conf.arg(metavar="FILE")] = ()
    """JSON lines of the first expert, and of the second."""
    probe: Annotated[Path, tyro.conf.arg(metavar="FILE.jsonl")]
    """Two-hop questions with answer, bridge, and both one-hop questions."""
    adapter: Annotated[Folders, tyro.conf.arg(metavar="DIR")] = ()
    """Folders of both experts as PEFT adapters, if there are any yet; or of a library
    of the two."""
    ask: Ask = "direct"
    """Is a two-hop question answered at once, or with the bridge written before?"""
    chat: bool = True
    """Use the chat template, if there is one."""
    dtype: Dtype = "auto"
    tokenizer: Words = None


class Setting(NamedTuple):
    """A model and what it is asked; inputs are read and checked."""

    base: Reuse
    tokenizer: Tokenizer
    probes: tuple[Probe, ...]
    rows: tuple[Rows, Rows]
    adapters: tuple[Adapter, ...]
    ask: Ask


def run(arguments: Sequence[str]) -> int:
    """Reads, measures, predicts and shows."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    _check(given)
    probes = probing.read(given.probe)
    read = [tasks_text.read(source) for source in given.data]
    printing.say(note for source in read for note in source.notes)
    records = [source.records for source in read]
    setting = _setting(given, probes, records)
    with bars.bar("asking") as move:
        bases, experts = _knows(setting, move)
    layers = [placement.layer_norms(adapter) for adapter in setting.adapters]
    masks = [placement.used(norms) for norms in layers]
    with bars.bar("kernels") as move:
        moved = _moved(setting, masks, move)
    predictor = diagnose.shipped()
    mean = dict(zip(diagnose.NAMES, predictor.coefficients.mean, strict=True))
    skill = bases.skill if bases.skill is not None else mean["skill"]
    ordered = order(*masks) if masks else 0.0
    features = text.features(moved, bases, skill, ordered)
    seen = outlook.outlook(predictor.coefficients, features, setting.ask)
    diagnose_tables.known(bases, experts, skill)
    diagnose_tables.moved(setting.rows, moved, setting.ask)
    if layers:
        diagnose_tables.placed(layers, masks, ordered)
    diagnose_tables.verdict(seen, predictor.about, setting.ask)
    return 0


def _check(given: Arguments) -> None:
    if len(given.data) != 2:
        raise ValueError(
            f"Got {len(given.data)} files of rows, expected two: --data FIRST.jsonl "
            f"SECOND.jsonl, in the order of the hops."
        )
    count = len(adapter_folders.expand(given.adapter))
    if count not in (0, 2):
        raise ValueError(
            f"Got {count} adapters, expected none, or those of both "
            f"experts in the order of the hops: --adapter FIRST SECOND."
        )


def _setting(
    given: Arguments, probes: tuple[Probe, ...], records: Sequence[Sequence[Record]]
) -> Setting:
    base = loading.load(given.model, (), given.dtype)
    words = {"tokenizer": given.tokenizer, "chat": given.chat}
    tokenizer = loading.words(given.model, base, given.adapter, **words)
    length = base.model.config.max_length
    read = functools.partial(text_rows.rows_of, tokenizer=tokenizer, length=length)
    rows: list[Rows] = []
    for hop, source in enumerate(given.data):
        with naming(source):
            rows.append(read(records[hop], text_rows.facts_of(probes, hop)))
    adapters = []
    folders = adapter_folders.expand(given.adapter)
    printing.say(adapter_folders.notes(given.adapter))
    printing.say(
        adapter_folders.other_bases(adapter_folders.bases(folders), given.model)
    )
    for folder in folders:
        with naming(folder):
            adapters.append(peft.load(folder, base.base))
    first, second = rows
    return Setting(base, tokenizer, probes, (first, second), tuple(adapters), given.ask)


def _knows(setting: Setting, move: bars.Move) -> tuple[Knows, list[Knows]]:
    """What the base answers, and what each expert does."""
    probes, kinds = setting.probes, ("first hop", "second hop", "two hops")
    sets = (
        text_rows.one_hop(probes, 0),
        text_rows.one_hop(probes, 1),
        text_rows.two_hop(probes, setting.ask),
    )
    models = (None, *setting.adapters)
    total = len(models) * len(kinds) * len(probes)
    out = []
    for m, adapter in enumerate(models):
        parts: list[np.ndarray] = []
        for kind, questions in zip(kinds, sets, strict=True):
            before = (m * len(kinds) + len(parts)) * len(probes)
            parts.append(
                text.answered(
                    *(setting.base.model, setting.base.base),
                    questions,
                    setting.tokenizer,
                    adapter,
                    lambda n, _, kind=kind, b=before: move(kind, b + n, total),
                )
            )
        out.append(Knows(*parts))
    return out[0], out[1:]


def _moved(
    setting: Setting, masks: Sequence[Sequence[bool]], move: bars.Move
) -> tuple[Moved, Moved]:
    model, base = setting.base.model, setting.base.base
    every = masks or [(True,) * model.config.num_layers] * 2
    changes = effects.metrics(base, LoraConfig(), every)
    out: list[Moved] = []
    for hop, name in enumerate(("first expert", "second expert")):
        questions = text_rows.asked(
            text_rows.needed(setting.probes, hop, setting.ask),
            text_rows.facts_of(setting.probes, hop),
            setting.tokenizer,
            model.config.max_length,
        )
        progress: Any = functools.partial(move, name)
        how = (setting.rows[hop], questions, changes[hop], progress)
        out.append(text.moved(model, base, *how))
    first, second = out
    return first, second
