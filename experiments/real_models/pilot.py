"""Which rank and learning rate do an expert's facts need? One expert, a grid.

    python experiments/real_models/pilot.py MODEL --config FILE.json --out FOLDER

Trains the first-hop expert of the study's people (seed 0) at every rank and learning
rate, and asks it its own facts in held-out phrasings. Writes pilot.csv.
"""

import argparse
import dataclasses
import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd

from jaxlora.files import write_text
from jaxlora.lora import LoraConfig
from jaxlora.studies.harness import config as harness
from jaxlora.studies.two_hop.text import answer, experts, questions, resources
from jaxlora.studies.two_hop.text.config import STUDY, TextConfig
from jaxlora.tasks.two_hop import people
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.experts import Expert


def main() -> None:
    """Trains the grid, and writes what each expert knows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="*", default=(16,))
    parser.add_argument("--rates", type=float, nargs="*", default=(1e-3, 3e-3))
    given = parser.parse_args()
    config = harness.read(TextConfig, given.config, STUDY)
    config = dataclasses.replace(config, model=given.model)
    loaded = resources.load(config, lambda *_: None)
    (some, *_) = people.real(config.real).people
    # What the base knows of them is not asked: it changes nothing in the training.
    every = people.group(some, Cell.R_OO, 0)
    (group,) = people.sample([every], config.people, 0)
    ready = resources.setting(loaded, config, [group], group, 0, {})
    before = float(np.mean(answer.right(ready, who(ready), questions.RANKED[0])))
    start = {"rank": 0, "rate": 0.0, "updates": 0, "own": before}
    lines = [start | {"loss": np.nan, "s": 0}]
    for rank, rate in itertools.product(given.ranks, given.rates):
        started = time.monotonic()
        recipe = experts.Recipe(
            LoraConfig(rank=rank, alpha=2.0 * rank),
            dataclasses.replace(config.train, learning_rate=rate),
            config.phrasings,
            config.form,
            config.dtype,
        )
        learner = experts.Learner(loaded.model, loaded.base, loaded.codec)
        names = (Expert.HOP1,)
        trained = experts.train(
            learner, [group], 0, recipe, given.out / "cache", names=names
        )
        seconds = time.monotonic() - started
        asked = ready._replace(adapters=trained.adapters)
        own, loss = answer.own_facts(asked, *names), trained.losses[Expert.HOP1]
        numbers = {"rank": rank, "rate": rate, "updates": recipe.train.steps}
        lines.append(numbers | {"own": own, "loss": loss, "s": round(seconds)})
        print(lines[-1], flush=True)
    write_text(given.out / "pilot.csv", pd.DataFrame(lines).to_csv(index=False))


def who(ready: answer.Setting):
    """The base."""
    return answer.speaker(ready, answer.Arm.BASE, answer.Method.NONE)


if __name__ == "__main__":
    main()
