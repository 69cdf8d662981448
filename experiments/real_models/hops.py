"""Which two-hop questions does a model answer without any adapter, and how?

    python experiments/real_models/hops.py MODEL --out experiments/real_models/NAME

Asks people of the real facts, a sample of each pair of relations, without a bridge in
common: each hop alone; both at once; with the first fact, or both, before the question;
with two facts of which the first is false, so that a right reader gives another answer;
and by generation, with the bridge written first. Writes hops.csv (one line a question)
and hops.md (shares with 95% Wilson intervals, over all people, and over those of whom
the model knows both hops).
"""

import argparse
import dataclasses
import time
from pathlib import Path

import pandas as pd
from knows import interval

from jaxlora.evaluate import metrics
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.files import write_text
from jaxlora.studies.two_hop.text import answer, questions, resources
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
CHANCE = "answers shuffled"
CONTEXT, MISLED = "both facts before it", "a false first fact before it"
COLUMNS = (
    HOP1,
    HOP2,
    DIRECT,
    "the first fact before it",
    CONTEXT,
    MISLED,
    "as the false fact says",
    "bridge written first",
    CHANCE,
)


def misled(records: tuple[Record, ...]) -> list[Record]:
    """Two-hop records of which each has the bridge and answer of the next person."""
    following = records[1:] + records[:1]
    return [
        dataclasses.replace(x, bridge=y.bridge, answer=y.answer)
        for x, y in zip(records, following, strict=True)
    ]


def ask(this: Setting) -> pd.DataFrame:
    """One line a person: what is answered right, a column for each way of asking."""
    group, asked = this.group, this.asked
    who = answer.speaker(this, Arm.BASE, Method.NONE)
    key = asked.keys[Split.TWO_HOP].answer
    false = misled(group.two_hop)
    told = [asked.names.index(record.answer[0]) for record in false]

    def chosen(texts: list[str]):
        length = questions.rounded(max(len(this.codec.prompt(x)) for x in texts))
        prompts = questions.prompts(this.codec, texts, length)
        return metrics.predict(answer.rank(this, who, prompts, group.size))

    direct = chosen([phrases.held_out(r)[0] for r in group.two_hop])
    by_false = chosen([phrases.in_context(r) for r in false])
    written = answer.written(this, who)[0]["correct"].to_numpy()
    hops = (answer.right(this, who, split) for split in (Split.HOP1, Split.HOP2))
    both = [phrases.in_context(r, i % 2 == 1) for i, r in enumerate(group.two_hop)]
    values = (
        *hops,
        direct == key,
        chosen([phrases.after_first(r) for r in group.two_hop]) == key,
        chosen(both) == key,
        by_false == key,
        by_false == told,
        written,
        metrics.chance(direct, key, key * 0),
    )
    frame = pd.DataFrame(dict(zip(COLUMNS, values, strict=True))).astype(float)
    first = [r.prompt[0] for r in group.two_hop]
    ends = {"head": first, "bridge": [r.bridge for r in group.two_hop]}
    return pd.DataFrame(ends | {"tail": [r.answer[0] for r in group.two_hop]}).join(
        frame
    )


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
    parts: list[pd.DataFrame] = []
    given.out.mkdir(parents=True, exist_ok=True)
    for pair, group in zip(given.pairs, groups, strict=True):
        ready = resources.setting(loaded, config, [group], group, 0, {})
        parts.append(ask(ready).assign(pair=pair))
        seconds = time.monotonic() - started
        print(f"{pair}: {seconds:.0f} s so far", flush=True)
        frame = pd.concat(parts, ignore_index=True)
        write_text(given.out / "hops.csv", frame.to_csv(index=False))
        write_text(given.out / "hops.md", table(frame))
    print(table(frame))


if __name__ == "__main__":
    main()
