"""What does each merge of eight real adapters keep of each task?

    python experiments/real_models/retention.py MODEL --out experiments/real_models/NAME

Trains an adapter a task (adapter_tasks.py), merges all eight without data, and asks
each task of the base, of its own adapter and of every merge. An answer is right if
each of its tokens is the model's first choice after those before it: then, and only
then, greedy generation writes it. Writes retention.csv (a line a question and arm),
retention.md (accuracy, and what is kept of the own adapter's) and generations.md.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from adapter_tasks import TASKS, rows
from knows import interval

from jaxlora import lora, merge, models
from jaxlora.files import write_text
from jaxlora.lora import Adapter, LoraConfig
from jaxlora.models import Decoder, Inputs, pretrained
from jaxlora.models.padding import pad_left
from jaxlora.reuse import Reuse
from jaxlora.studies.two_hop.text import codec as codecs
from jaxlora.studies.two_hop.text import score
from jaxlora.studies.two_hop.text.codec import PromptCodec
from jaxlora.studies.two_hop.text.score import Prompts
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed
from jaxlora.train.training import Training
from jaxlora.tree import Tree

LENGTH = 256
MERGES = ("mean", "sum", "ties", "dare", "factor-mean", "svd", "tsv", "iso-c")
BASE, OWN = "base", "own adapter"


def train(model: Decoder, base: Tree, data: list[Rows], how: Training) -> list[Adapter]:
    """An adapter for each data set, one after another in one program."""
    opt, n = how.optimizer(), len(data)
    keys = jax.random.split(jax.random.key(how.seed), n)
    begin = jax.jit(packed.start, static_argnums=(1, 2))
    run = begin(base, LoraConfig(rank=16, alpha=32.0), opt, keys)
    most = max(int((x.weights > 0).sum(1).max()) for x in data)
    program = packed.Program(model, opt, 1, most=most)
    plan, named = how.plan([how.steps] * n), dict(zip(TASKS, data, strict=True))
    for start in range(0, how.steps, 10):
        part = range(start, min(start + 10, how.steps))
        batch = packed.batches(named, how, part)
        run, report = packed.updates(program, base, run, plan, batch)
        print(f"{part.stop} of {how.steps}: loss {report.loss[:, -1]}", flush=True)
    return lora.unstack(run.trained)


@partial(jax.jit, static_argnums=(0, 4))
def wrong_tokens(model: Decoder, base: Tree, adapter: Adapter, data: Rows, most: int):
    """Which answer tokens, ``most`` a row, are not the first choice? [N, T]."""

    def row(x: Rows):
        inputs = Inputs(
            x.tokens[None], segments=x.segments[None], positions=x.positions[None]
        )
        states = models.hidden(model, base, inputs, adapter=adapter)[0]
        weights, places = jax.lax.top_k(x.weights, most)
        chosen = models.unembed(model, base, states[places]).argmax(-1)
        wrong = (chosen != x.targets[places]) & (weights > 0)
        return jnp.zeros(x.weights.shape, bool).at[places].set(wrong)

    return jax.lax.map(row, data)


def right(model: Decoder, base: Tree, adapter: Adapter, data: Rows) -> list[bool]:
    """Which examples are answered right, token by token."""
    device = Rows(*map(jnp.asarray, data))
    most = int((data.weights > 0).sum(axis=1).max())
    wrong = np.asarray(wrong_tokens(model, base, adapter, device, most))
    return [
        not wrong[i][data.segments[i] == k].any()
        for i in range(len(wrong))
        for k in range(1, int(data.segments[i].max()) + 1)
    ]


def generate(who: Reuse, prompts: PromptCodec, text: str) -> str:
    """The greedy answer to one prompt."""
    ids, mask = pad_left([prompts.prompt(text)], prompts.pad, 64)
    out = score.text(who, Prompts(ids, mask), 1, 24, prompts.stop, prompts.pad)
    return prompts.text(out[0]).strip()


def table(frame: pd.DataFrame) -> str:
    """Markdown: accuracy by task and arm, and the share of the own adapter's."""
    arms = list(dict.fromkeys(frame["arm"]))
    out = [f"| task | {' | '.join(arms)} |", f"|:--|{'--:|' * len(arms)}"]
    for task, part in frame.groupby("task", sort=False):
        hits = [part[part["arm"] == arm]["right"] for arm in arms]
        cells = [interval(int(x.sum()), len(x)) for x in hits]
        out.append(f"| {task} | {' | '.join(cells)} |")
    shares = [kept(frame, arm) for arm in arms]
    cells = [f"**{x:.2f} [{lo:.2f}, {hi:.2f}]**" for x, lo, hi in shares]
    out.append(f"| **kept of the own adapters** | {' | '.join(cells)} |")
    return "\n".join(out) + "\n"


def kept(frame: pd.DataFrame, arm: str, draws: int = 2000) -> tuple[float, ...]:
    """Mean accuracy over tasks as a share of the own adapters', 95% over tasks."""
    means = frame.groupby(["arm", "task"])["right"].mean().unstack()
    mine, own = means.loc[arm].to_numpy(), means.loc[OWN].to_numpy()
    some = np.random.default_rng(0).integers(0, len(own), (draws, len(own)))
    shares = mine[some].mean(1) / own[some].mean(1)
    return (mine.mean() / own.mean(), *np.quantile(shares, (0.025, 0.975)))


def main() -> None:
    """Trains, merges, asks, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--merges", nargs="*", default=MERGES)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    model, base = pretrained.load(given.model)
    prompts = codecs.load(given.model, chat=True)
    sets = {name: rows(name, given.seed) for name in TASKS}
    shared = (LENGTH, 0, prompts.opening)
    training = [prompts.rows(some, *shared) for some, _ in sets.values()]
    tests = {name: prompts.rows(some, *shared) for name, (_, some) in sets.items()}
    how = Training(
        steps=given.steps, length=LENGTH, batch=1, learning_rate=1e-3, warmup=3
    )
    own = train(model, base, training, how)
    trained = time.monotonic() - started
    library, key = lora.stack(own), jax.random.key(given.seed)
    most = 16 * len(own)
    nothing = jax.tree.map(jnp.zeros_like, own[0])
    arms = {BASE: nothing}
    for name in given.merges:
        arms[name] = jax.jit(merge.preset(name))(library, key=key)
    lines, examples = [], []
    for i, (task, data) in enumerate(tests.items()):
        question = sets[task][1][0]
        example = []
        for arm, adapter in {OWN: own[i], **arms}.items():
            padded = lora.pad(adapter, most)
            hits = right(model, base, padded, data)
            lines += [{"task": task, "arm": arm, "right": int(hit)} for hit in hits]
            if arm in (BASE, OWN, "mean", "sum"):
                text = generate(Reuse(model, base, padded), prompts, question["prompt"])
                example.append(f"- {arm}: {text}")
        head = f"**{question['prompt']}** (right: {question['answer']})"
        examples.append("\n".join([head, "", *example]))
        print(f"{task}: {time.monotonic() - started:.0f} s so far", flush=True)
        frame = pd.DataFrame(lines)
        write_text(given.out / "retention.csv", frame.to_csv(index=False))
    seconds = time.monotonic() - started
    note = f"\nTrained in {trained:.0f} s, all in {seconds:.0f} s.\n"
    write_text(given.out / "retention.md", table(frame) + note)
    write_text(given.out / "generations.md", "\n\n".join(examples) + "\n")
    print(table(frame) + note)


if __name__ == "__main__":
    main()
