"""How many facts an expert holds, and what the placed sum composes of them.

Not registered before: it was asked when the placed sum came out at 0.3 with 7 people a
library and at 0.1 with 16. The people of a headline library are cut into libraries of
half and a quarter of them; base, people and questions stay the same. An
expert of few facts also guesses right more often, so every number stands beside the
second expert alone. Run, after ``jaxlora study boundary --preset standard``:

    python experiments/boundary/library_size.py --out experiments/boundary
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from jaxlora.evaluate import statistics
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.report.grid import Grid, markdown_table
from jaxlora.studies import two_hop
from jaxlora.studies.boundary import design, regimes
from jaxlora.studies.boundary.config import PRESETS, BoundaryConfig
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.experts import Group, groups

PARTS = (1, 2, 4)
ASKED = {
    "placed, asked directly": (regimes.placed(4), Method.SUM, Split.TWO_HOP),
    "both practise, bridge written": (regimes.both(), Method.MEAN, Split.WRITTEN),
}
ARMS = {
    "combination": Arm.PAIR,
    "B->C alone": Arm.HOP2,
    "follows a counterfactual B->C": Arm.COUNTERFACTUAL2,
}


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/jaxlora"))
    parser.add_argument("--out", type=Path, default=Path("experiments/boundary"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[30, 31, 32, 33])
    given = parser.parse_args()
    config = PRESETS["standard"]
    lines = [x for s in given.seeds for x in of_base(config, s, given.cache_dir)]
    frame = pd.DataFrame(lines)
    frame.to_csv(given.out / "library_size.csv", index=False)
    (given.out / "library_size.md").write_text(report(frame))


def of_base(config: BoundaryConfig, seed: int, cache: Path) -> Iterator[dict]:
    """A line for each person, arm, regime and size of library.

    Args:
      config: of the study.
      seed: of the base.
      cache: folder of bases and experts.
    """
    point = design.points(config)[0]
    people = world.generate(point.world, seed)
    how = (point.model, point.pretrain, cache)
    (base,) = two_hop.bases.train([seed], [people], *how)
    uncut = [x for x in groups(people) if x.cell in design.NEW]
    for parts in PARTS:
        some = tuple(part for group in uncut for part in cut(group, parts))
        for name, (regime, method, split) in ASKED.items():
            ask = asker(config, base, some, regime, cache / f"sizes/{parts}")
            for arm_name, arm in ARMS.items():
                frame = ask(arm, Method.NONE if arm is Arm.HOP2 else method)
                frame = frame[frame["split"] == str(split)]
                moved = arm is Arm.COUNTERFACTUAL2
                hits = frame["counterfactual" if moved else "correct"]
                where = {"seed": seed, "asked": name, "arm": arm_name}
                # Every part of a group is a library of its own, in every cell.
                names = frame["cell"] + frame["pair"].astype(str)
                more = zip(pd.factorize(names)[0], hits, frame["chance"], strict=True)
                for library, hit, chance in more:
                    line = {"people": some[0].size, "library": library}
                    yield where | line | {"chance": chance, "hit": int(hit)}


def cut(group: Group, parts: int) -> Iterator[Group]:
    """A library's people as several libraries; their numbers tell them apart.

    Args:
      group: the people.
      parts: how many libraries.
    """
    n = group.size // parts
    for i in range(parts):
        some = slice(i * n, (i + 1) * n)
        fields = {x: getattr(group, x)[some] for x in ("hop1", "hop2", "two_hop")}
        yield dataclasses.replace(group, pair=group.pair * 100 + i, **fields)


def asker(
    config: BoundaryConfig, base, some: tuple[Group, ...], regime, cache: Path
) -> Callable[[Arm, Method], pd.DataFrame]:
    """Trains the experts of all libraries; returns what asks their combinations.

    Args:
      config: of the study.
      base: a trained base.
      some: the people of each library.
      regime: rows and layers.
      cache: folder of experts.
    """
    recipe = regime.recipe(config.experts)
    needed = {x for arm in ARMS.values() for x in two_hop.arms.judged(arm)}
    names = {n: k for n, k in two_hop.kinds(recipe).items() if n in needed}
    how = (tuple(names.values()), (config.lora, recipe), cache)
    trained = two_hop.experts.train_kinds(base, some, *how)
    chosen = two_hop.experts.select(base, some, names, trained)
    # Familiar questions are drawn by the number of a pair: those of the world.
    plain = tuple(dataclasses.replace(x, pair=x.pair // 100) for x in some)
    asked = two_hop.questions.ask(base, plain, config.retention_items)
    asked = dataclasses.replace(asked, groups=some)
    study = two_hop.TwoHopConfig(experts=recipe)
    setting = two_hop.answer.Setting(study, chosen, asked)
    alone = two_hop.answer.answer(setting, Arm.BASE, Method.NONE).items
    ready = setting._replace(old=two_hop.items.old_answers(alone))
    return lambda arm, method: two_hop.answer.answer(ready, arm, method).items


def report(frame: pd.DataFrame) -> str:
    """The table as Markdown.

    Args:
      frame: all lines.
    """
    header = ("asked", "facts an expert", *ARMS, "chance", "people")
    body = []
    for (asked, size), part in frame.groupby(["asked", "people"], sort=False):
        cells = [interval(part[part["arm"] == arm]) for arm in ARMS]
        main = part[part["arm"] == "combination"]
        chance = f"{main['chance'].mean():.2f}"
        body.append((asked, str(size), *cells, chance, str(len(main))))
    grid = Grid("Facts an expert holds", header, tuple(body), numeric=True)
    title = "# How many facts an expert holds\n\nNot registered before; see the script."
    return f"{title}\n\n{markdown_table(grid)}\n"


def interval(part: pd.DataFrame) -> str:
    """A share with its interval over seeds, libraries and people.

    Args:
      part: lines of one arm.
    """
    seeds = [x for _, x in part.groupby("seed")]
    values = [x["hit"].to_numpy(float) for x in seeds]
    libraries = [x["library"].to_numpy() for x in seeds]
    rng = np.random.default_rng(0)
    x = statistics.bootstrap(values, rng, libraries=libraries)
    return f"{x.value:.2f} [{x.lo:.2f}, {x.hi:.2f}]"


if __name__ == "__main__":
    main()
