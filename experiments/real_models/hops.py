"""Which two-hop questions does a model answer without any adapter, and how?

    python experiments/real_models/hops.py MODEL --out experiments/real_models/NAME

Asks people of the real facts, a sample of each pair of relations, without a bridge in
common: each hop alone, and with its fact before it; both at once; with the first fact,
or both, before the question; with two facts of which the first is false, so that a
right reader gives another answer; and by generation, with the bridge written first.
Writes hops.csv (one line a question) and hops.md (shares with 95% Wilson intervals,
over all people, and over those of whom the model knows both hops). Columns that a
hops.csv of the folder has already are not asked again.
"""

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from knows import interval

from jaxlora.evaluate import metrics
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.files import write_text
from jaxlora.studies.two_hop.text import answer, questions, resources, score
from jaxlora.studies.two_hop.text import reading as reads
from jaxlora.studies.two_hop.text.answer import Setting
from jaxlora.studies.two_hop.text.config import AskConfig, TextConfig
from jaxlora.tasks.two_hop import people, phrases
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tasks.two_hop.records import Record

PAIRS = (
    "located in/capital",
    "located in/language",
    "country of origin/capital",
    "author/country of origin",
)
HOP1, HOP2, DIRECT = "first hop", "second hop", "two-hop"
READ1, READ2 = "first hop, its fact before it", "second hop, its fact before it"
FIRST, CONTEXT = "the first fact before it", "both facts before it"
TEXT = "both facts before it, generated"
MISLED, SAYS = "a false first fact before it", "as the false fact says"
WRITTEN, CHANCE = "bridge written first", "answers shuffled"
COLUMNS = (
    HOP1,
    HOP2,
    READ1,
    READ2,
    DIRECT,
    FIRST,
    CONTEXT,
    TEXT,
    MISLED,
    SAYS,
    WRITTEN,
    CHANCE,
)


def misled(records: tuple[Record, ...]) -> list[Record]:
    """Two-hop records of which each has the bridge and answer of the next person."""
    following = records[1:] + records[:1]
    return [
        dataclasses.replace(x, bridge=y.bridge, answer=y.answer)
        for x, y in zip(records, following, strict=True)
    ]


def ask(this: Setting, columns: Sequence[str]) -> pd.DataFrame:
    """One line a person: what is answered right, a column for each way of asking."""
    group, asked = this.group, this.asked
    who = answer.speaker(this, Arm.BASE, Method.NONE)
    key = asked.keys[Split.TWO_HOP].answer
    false = misled(group.two_hop)
    says = [asked.names.index(record.answer[0]) for record in false]

    @functools.cache
    def chosen(*texts: str):
        length = questions.rounded(max(len(this.codec.prompt(x)) for x in texts))
        prompts = questions.prompts(this.codec, texts, length)
        return metrics.predict(answer.rank(this, who, prompts, group.size))

    def reading(records: Sequence[Record]):
        texts = [f"{phrases.sentences(r)[0]} {phrases.held_out(r)[0]}" for r in records]
        right = [asked.names.index(record.answer[0]) for record in records]
        return chosen(*texts) == right

    def generated(texts: Sequence[str]):
        """The last name in the text is the answer, as where bridges are written."""
        prompts = questions.prompts(this.codec, texts, this.sizes.long)
        batch, new = this.config.ask.batch, this.config.ask.written_tokens
        rows = score.text(who, prompts, batch, new, this.codec.stop, this.codec.pad)
        said = (this.codec.text(ids) for ids in rows)
        return np.array([reads.read(x, "", asked.names).last for x in said])

    two = group.two_hop
    direct = [phrases.held_out(r)[0] for r in two]
    both = [phrases.in_context(r, i % 2 == 1) for i, r in enumerate(two)]
    misread = [phrases.in_context(r) for r in false]
    ways: dict[str, Callable[[], Any]] = {
        HOP1: lambda: answer.right(this, who, Split.HOP1),
        HOP2: lambda: answer.right(this, who, Split.HOP2),
        READ1: lambda: reading(group.hop1),
        READ2: lambda: reading(group.hop2),
        DIRECT: lambda: chosen(*direct) == key,
        FIRST: lambda: chosen(*map(phrases.after_first, two)) == key,
        CONTEXT: lambda: chosen(*both) == key,
        TEXT: lambda: generated(both) == key,
        MISLED: lambda: chosen(*misread) == key,
        SAYS: lambda: chosen(*misread) == says,
        WRITTEN: lambda: answer.written(this, who)[0]["correct"].to_numpy(),
        CHANCE: lambda: metrics.chance(chosen(*direct), key, key * 0),
    }
    frame = pd.DataFrame({name: ways[name]() for name in columns}).astype(float)
    heads = [r.prompt[0] for r in two]
    ends = {"head": heads, "bridge": [r.bridge for r in two]}
    return pd.DataFrame(ends | {"tail": [r.answer[0] for r in two]}).join(frame)


def table(frame: pd.DataFrame) -> str:
    """Markdown: a line for each pair of relations and way of asking."""
    parts = [("all", frame), *frame.groupby("pair", sort=False)]
    names = [name for name, _ in parts]
    lines = [
        f"| share right, {len(frame)} people | {' | '.join(names)} | both hops known |",
        f"|:--|{'--:|' * (len(parts) + 1)}",
    ]
    known = frame[(frame[HOP1] == 1) & (frame[HOP2] == 1)]
    for column in COLUMNS:
        cells = []
        for part in (*(part for _, part in parts), known):
            values, n = part[column], len(part)
            plain = column == CHANCE or n == 0
            text = f"{values.mean():.2f}" if plain else interval(int(values.sum()), n)
            cells.append(text)
        lines.append(f"| {column} | {' | '.join(cells)} |")
    sizes = [str(len(part)) for _, part in parts]
    lines.append(f"| people | {' | '.join(sizes)} | {len(known)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Asks every pair of relations, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", nargs="*", default=PAIRS)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    started = time.monotonic()
    config = TextConfig(
        model=given.model,
        dtype=given.dtype,
        real=tuple(given.pairs),
        cells=(),
        ask=AskConfig(phrasings=1, written_tokens=32),
    )
    loaded = resources.load(config, lambda *_: None)
    every = resources.given(config, people.real(given.pairs))
    groups: tuple[Group, ...] = people.sample(every, given.people, 0)
    path = given.out / "hops.csv"
    before = pd.read_csv(path) if path.exists() else None
    known = [] if before is None else list(before.columns)
    wanted = [name for name in COLUMNS if name not in known]
    given.out.mkdir(parents=True, exist_ok=True)
    parts: list[pd.DataFrame] = []
    for pair, group in zip(given.pairs, groups, strict=True):
        ready = resources.setting(loaded, config, [group], group, 0, {})
        parts.append(ask(ready, wanted).assign(pair=pair))
        seconds = time.monotonic() - started
        print(f"{pair}: {seconds:.0f} s so far", flush=True)
    frame = pd.concat(parts, ignore_index=True)
    if before is not None:
        frame = before.merge(frame, validate="one_to_one")
    frame = frame[["head", "bridge", "tail", "pair", *COLUMNS]]
    write_text(path, frame.to_csv(index=False))
    write_text(given.out / "hops.md", table(frame))
    print(table(frame))


if __name__ == "__main__":
    main()
