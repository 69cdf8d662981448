"""Predicts which regime composes before any expert is trained, and scores that.

For every base of a finished ``jaxlora study boundary``, every group of people, regime,
merge and way of asking: the features of the base's tangent kernel beside the share that
the merged experts really answered. Fitted on all; scored with a cell, a way of asking
or a seed left out, and fitted on two seeds alone. Run:

    python experiments/boundary/predictor.py --results results/boundary --out DIR
"""

import argparse
import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxlora.diagnose import coefficients, predictor, symbols
from jaxlora.diagnose.features import LEAST, NAMES, Features
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.report.grid import Grid, markdown_table
from jaxlora.studies.boundary import design
from jaxlora.studies.boundary.config import BoundaryConfig
from jaxlora.studies.boundary.design import Point
from jaxlora.studies.boundary.log import Asked
from jaxlora.studies.boundary.regimes import Regime
from jaxlora.studies.harness import store
from jaxlora.studies.harness.config import from_plain
from jaxlora.studies.two_hop import bases, items
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.experts import Group, groups
from jaxlora.tasks.two_hop.practice import Practices

WEIGHTS = {Method.MEAN: 0.5, Method.SUM: 1.0}
ASKS = {"direct": Split.TWO_HOP, "written": Split.WRITTEN}


def main() -> None:
    """Writes the table, the scores and the coefficients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/jaxlora"))
    parser.add_argument("--out", type=Path, default=Path("experiments/boundary"))
    given = parser.parse_args()
    summary = json.loads((given.results / "results.json").read_text())
    config = from_plain(BoundaryConfig, summary["config"])
    table = pd.DataFrame(list(lines(config, given.results, given.cache_dir)))
    table.to_csv(given.out / "predictor.csv", index=False)
    about = {"source": "jaxlora study boundary", "revision": summary.get("revision")}
    made = coefficients.make(table, about)
    coefficients.write(given.out / "coefficients.json", made)
    (given.out / "predictor.md").write_text(report(table, made))


def lines(config: BoundaryConfig, out: Path, cache: Path) -> Iterator[dict[str, Any]]:
    """A line for each base, regime, merge, way of asking and group.

    Args:
      config: of the study.
      out: its folder, with the blocks.
      cache: its bases.
    """
    for point in design.points(config):
        if point.ranked:
            continue
        for seed in point.seeds:
            yield from of_base(config, point, seed, out, cache)


def of_base(
    config: BoundaryConfig, point: Point, seed: int, out: Path, cache: Path
) -> Iterator[dict[str, Any]]:
    """The lines of one base.

    Args:
      config: of the study.
      point: whose base.
      seed: of the base.
      out: folder with the blocks.
      cache: folder of bases.
    """
    people = world.generate(point.world, seed)
    (base,) = bases.train([seed], [people], point.model, point.pretrain, cache)
    some = tuple(group for group in groups(people) if group.cell in design.NEW)
    for regime, (ask, split) in itertools.product(point.regimes, ASKS.items()):
        unseen = ask == "written" and "written" not in point.pretrain.formats
        if regime.glance or regime.identity or unseen:
            continue
        asked = Asked(point, regime)
        blocks = {m: asked.block(seed, Arm.PAIR, m).path(out) for m in WEIGHTS}
        outcomes = {m: store.load(x, items.COLUMNS) for m, x in blocks.items()}
        if None in outcomes.values():
            continue
        plan = symbols.Plan(
            practices=Practices(regime.first, regime.second),
            layers=(regime.first_layers, regime.second_layers),
            ask=ask,
            weight=1.0,
            lora=config.lora,
        )
        given = (base.model, base.params, people, some, plan)
        features = symbols.symbol_features(*given)
        for method, weight in WEIGHTS.items():
            frame = outcomes[method].items
            frame = frame[frame["split"] == str(split)]
            where = _where(point, regime, method, seed) | {"ask": ask}
            for group, feature in zip(some, features, strict=True):
                yield where | _measured(frame, group) | weighed(feature, weight)


def weighed(feature: Features, weight: float) -> dict[str, float]:
    """The features of a sum as those of a merge that gives each expert a weight.

    Args:
      feature: of the sum.
      weight: of each expert.
    """
    least, shift = math.log10(LEAST), math.log10(weight)
    effects = ("first_effect", "second_effect")
    changed = {x: max(getattr(feature, x) + shift, least) for x in effects}
    vector = dataclasses.replace(feature, **changed).vector
    return dict(zip(NAMES, vector, strict=True))


def _measured(frame: pd.DataFrame, group: Group) -> dict[str, Any]:
    """What the people of a group answered."""
    mine = frame[(frame["cell"] == str(group.cell)) & (frame["pair"] == group.pair)]
    return {
        "cell": str(group.cell),
        "pair": group.pair,
        "composed": int(mine["correct"].sum()),
        "n": len(mine),
        "chance": float(mine["chance"].mean()),
    }


def _where(point: Point, regime: Regime, method: Method, seed: int) -> dict[str, Any]:
    return {
        "base": point.name,
        "coverage": point.world.coverage,
        "seed": seed,
        "regime": regime.name,
        "placement": regime.placement,
        "method": str(method),
    }


def report(table: pd.DataFrame, made: coefficients.Shipped) -> str:
    """Scores and worst misses as Markdown.

    Args:
      table: all lines.
      made: the fit on all of them.
    """
    out = ["# Which regime composes, predicted before an expert is trained", ""]
    out += ["Brier scores on shares of people (lower is better).", ""]
    out += ["| left out | predictor | always no transfer | training mean |"]
    out += ["|:--|--:|--:|--:|"]
    for column, score in (
        made.about["brier"] | {"all but two seeds": two(table)}
    ).items():
        numbers = (
            score[name] for name in ("predictor", "no transfer", "training mean")
        )
        out.append(f"| {column} | " + " | ".join(f"{x:.3f}" for x in numbers) + " |")
    out += ["", "## The worst misses, with their seed left out", ""]
    worst = coefficients.misses(by_regime(table), "seed")
    columns = ["base", "coverage", "seed", "regime", "placement", "method", "ask"]
    columns += ["cell", "share", "predicted", "n"]
    body = [tuple(map(str, row)) for row in worst[columns].round(2).to_numpy()]
    out.append(markdown_table(Grid("Worst misses", tuple(columns), tuple(body))))
    out += ["", "## Weights on standardised features", ""]
    named = zip(NAMES, made.coefficients.weights, strict=True)
    out += [f"- {name}: {weight:+.2f}" for name, weight in named]
    return "\n".join(out) + "\n"


def by_regime(table: pd.DataFrame) -> pd.DataFrame:
    """Lines of all pairs of a cell as one: a miss of one small group says little.

    Args:
      table: all lines.
    """
    keys = ["base", "coverage", "seed", "regime", "placement", "method", "ask", "cell"]
    how = dict.fromkeys((*NAMES, "chance"), "mean") | {
        "composed": "sum",
        "n": "sum",
    }
    return table.groupby(keys, as_index=False, sort=False).agg(how)


def two(table: pd.DataFrame) -> dict[str, float]:
    """Fitted on the first two seeds, scored on all others.

    Args:
      table: all lines.
    """
    first = sorted(set(table["seed"]))[:2]
    known = table["seed"].isin(first).to_numpy()
    x, k, n = (
        table[list(NAMES)].to_numpy(),
        *(table[c].to_numpy() for c in ("composed", "n")),
    )
    fitted = predictor.fit(x[known], k[known], n[known])
    mean = np.full((~known).sum(), k[known].sum() / n[known].sum())
    rest = (k[~known], n[~known])
    return {
        "predictor": predictor.brier(predictor.probability(fitted, x[~known]), *rest),
        "no transfer": predictor.brier(table["chance"].to_numpy()[~known], *rest),
        "training mean": predictor.brier(mean, *rest),
    }


if __name__ == "__main__":
    main()
