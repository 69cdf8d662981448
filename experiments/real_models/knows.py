"""What does a model know? Every relation of our facts, ranked in several phrasings.

    python experiments/real_models/knows.py MODEL --out experiments/real_models/NAME

Each fact is asked in its three held-out phrasings; the answer is the most likely of all
tails that the relation has. Writes knows.csv (one line a fact and phrasing), knows.md
(a table with 95% Wilson intervals) and says what a guess would score: the share of the
commonest tail, for many countries speak Spanish.
"""

import argparse
import time
from pathlib import Path

import pandas as pd

from jaxlora.evaluate import metrics
from jaxlora.evaluate.statistics import wilson
from jaxlora.files import write_text
from jaxlora.models import pretrained
from jaxlora.models.padding import pad_left
from jaxlora.reuse import Reuse
from jaxlora.studies.two_hop.text import codec, score
from jaxlora.studies.two_hop.text.codec import PromptCodec
from jaxlora.studies.two_hop.text.questions import rounded
from jaxlora.studies.two_hop.text.score import Prompts
from jaxlora.tasks.facts import world
from jaxlora.tasks.two_hop import facts as chains
from jaxlora.tasks.two_hop import phrases
from jaxlora.tasks.two_hop.facts import Fact
from jaxlora.tasks.two_hop.records import Record

BATCH, CANDIDATES = 16, 0


def asked(fact: Fact) -> list[str]:
    """The held-out phrasings of a fact."""
    prompt = (fact.head, fact.relation)
    return phrases.held_out(Record(kind="one_hop", prompt=prompt, answer=(fact.tail,)))


def relation(who: Reuse, prompts: PromptCodec, name: str) -> pd.DataFrame:
    """One line a fact and phrasing: is it right, and the log-probability margin."""
    every = world.facts(name)
    tails = sorted({fact.tail for fact in every})
    ids = [prompts.answer(tail) for tail in tails]
    answers = score.right(ids, max(map(len, ids)), prompts.pad)
    texts = [text for fact in every for text in asked(fact)]
    tokens = [prompts.prompt(text) for text in texts]
    padded = Prompts(*pad_left(tokens, prompts.pad, rounded(max(map(len, tokens)))))
    options = {"shared": prompts.opening}
    scores = score.ranking(who, padded, answers, BATCH, CANDIDATES, **options)
    chosen = metrics.predict(scores)
    lines = [(fact, i) for fact in every for i in range(len(asked(fact)))]
    frame = pd.DataFrame([(*fact, i) for fact, i in lines])
    frame.columns = ["head", "relation", "tail", "phrasing"]
    frame["answer"] = [tails[i] for i in chosen]
    frame["right"] = frame["answer"] == frame["tail"]
    mean = scores.reshape(len(every), -1, len(tails)).mean(1)
    best = [tails[i] for i in metrics.predict(mean)]
    hits = [answer == fact.tail for answer, fact in zip(best, every, strict=True)]
    each = [hit for hit, fact in zip(hits, every, strict=True) for _ in asked(fact)]
    return frame.assign(together=each)


def table(frame: pd.DataFrame) -> str:
    """Markdown: accuracy by relation and phrasing, all together, and a guess."""
    out = [
        "| relation | facts | answers | phrasing 1 | 2 | 3 | together | a guess |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, part in frame.groupby("relation", sort=False):
        first = part[part["phrasing"] == 0]
        n = len(first)
        guess = chains.majority(list(first["tail"])).share
        hits = [part[part["phrasing"] == i]["right"].sum() for i in range(3)]
        cells = [interval(int(x), n) for x in (*hits, first["together"].sum())]
        tails = first["tail"].nunique()
        out.append(f"| {name} | {n} | {tails} | {' | '.join(cells)} | {guess:.2f} |")
    return "\n".join(out) + "\n"


def interval(hits: int, n: int) -> str:
    """A share with its 95% Wilson interval."""
    share = wilson(hits, n)
    return f"{hits / n:.2f} [{share.lo:.2f}, {share.hi:.2f}]"


def main() -> None:
    """Asks every relation, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--relations", nargs="*", default=world.RELATIONS)
    given = parser.parse_args()
    started = time.monotonic()
    model, base = pretrained.load(given.model)
    prompts, who = codec.load(given.model, chat=True), Reuse(model, base)
    parts: list[pd.DataFrame] = []
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.relations:
        parts.append(relation(who, prompts, name))
        seconds = time.monotonic() - started
        share = parts[-1]["together"].mean()
        print(f"{name}: {share:.2f} together, {seconds:.0f} s so far", flush=True)
        frame = pd.concat(parts, ignore_index=True)
        write_text(given.out / "knows.csv", frame.to_csv(index=False))
        write_text(given.out / "knows.md", table(frame))
    print(table(frame))


if __name__ == "__main__":
    main()
