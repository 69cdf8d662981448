"""Where the bridge is and where the second fact is read, where it composes and not.

For each seed: a base of the map (trained, or read from the cache), the experts of three
regimes, and lens, patching and ablation of every setting below, over the people of whom
the base knows neither fact. The base on familiar held-out queries is the reference.
Writes why.csv.gz (every share), why.md (tables) and why.png.

Run: ``python experiments/boundary/why.py --cache-dir CACHE --out experiments/boundary``
with trained bases: about a minute of one core.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import why_tables

from jaxlora import lora
from jaxlora.evaluate.schema import Method
from jaxlora.models import Decoder
from jaxlora.report import figures, why_figure
from jaxlora.studies.boundary import design, donors, regimes, why, why_rows
from jaxlora.studies.boundary.config import BoundaryConfig
from jaxlora.studies.boundary.design import Point
from jaxlora.studies.boundary.donors import Donor, Query
from jaxlora.studies.boundary.regimes import Regime
from jaxlora.studies.two_hop import bases, experts, kinds
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.experts import Expert, groups

LAYERS = 4
DIRECT, ROWS, PLACED = (
    regimes.practising(0.0),
    regimes.practising(0.5),
    regimes.placed(4),
)
ROWS_FILE = "why.csv.gz"
FAMILIAR = "familiar first fact"
HOPS = (Expert.HOP1, Expert.HOP2)


class Setting(NamedTuple):
    """Experts of a regime under a merge, and how they are asked."""

    regime: Regime
    method: Method
    written: bool


SETTINGS = (
    Setting(PLACED, Method.SUM, written=False),
    Setting(DIRECT, Method.SUM, written=False),
    Setting(DIRECT, Method.MEAN, written=False),
    Setting(ROWS, Method.MEAN, written=True),
    Setting(DIRECT, Method.MEAN, written=True),
)


class Ready(NamedTuple):
    """A base with its experts."""

    base: bases.Base
    model: Decoder
    people: Sequence[Any]
    trained: dict[Any, experts.Trained]

    @property
    def cells(self) -> list[str]:
        """Of every group."""
        return [str(group.cell) for group in self.people]

    def library(self, regime: Regime) -> lora.Library:
        """A->B and B->C of every group, [G, 2, ...]."""
        named = kinds(regime.recipe(BoundaryConfig().experts))
        return donors.joined([self.trained[named[hop]].adapters for hop in HOPS])


def ready(config: BoundaryConfig, point: Point, seed: int, cache: Path) -> Ready:
    """Loads or trains a base and the experts of all settings."""
    generated = world.generate(point.world, seed)
    how = (point.model, point.pretrain, cache)
    (base,) = bases.train([seed], [generated], *how)
    people = tuple(x for x in groups(base.world) if x.cell in point.cells)
    named = [kinds(x.recipe(config.experts)) for x in (DIRECT, ROWS, PLACED)]
    every = tuple(dict.fromkeys(some[hop] for some in named for hop in HOPS))
    how = (config.lora, config.experts)
    trained = experts.train_kinds(base, people, every, how, cache)
    # Compiles sooner; the same numbers.
    model = Decoder(dataclasses.replace(base.model.config, unroll=1))
    return Ready(base, model, people, trained)


def measure(this: Ready, setting: Setting) -> Iterator[dict[str, Any]]:
    """All three measurements of one setting."""
    params, library = this.base.params, this.library(setting.regime)
    asked = [group.two_hop for group in this.people]
    right = donors.ask(asked, this.base.world.vocab, setting.written)
    adapters = why.combine(setting.method, library)
    query = why.write(this.model, params, adapters, right)
    yield from _seen(this, adapters, query, this.cells)
    for name, donor in _donors(this, adapters, library, query).items():
        yield from _patched(this, adapters, query, (name, donor), this.cells)
    every = why_rows.masks(LAYERS)
    kept = jnp.asarray(np.stack([*every.values()]))
    did = why.ablate(this.model, setting.method, params, library, right, kept)
    for record in why_rows.needs(did, list(every), this.cells):
        yield {"measure": "ablation"} | record


def reference(this: Ready, *, written: bool) -> Iterator[dict[str, Any]]:
    """Lens and patching of the base on familiar queries that it was not trained on."""
    size = (len(this.people), this.people[0].size)
    asked = donors.familiar(this.base.world.splits["held_out"], *size)
    nothing = donors.off(why.combine(Method.SUM, this.library(DIRECT)))
    right = donors.ask(asked, this.base.world.vocab, written)
    query = why.write(this.model, this.base.params, nothing, right)
    cells = ["familiar"] * len(this.people)
    yield from _seen(this, nothing, query, cells)
    for name, donor in _of_itself(this, nothing, query).items():
        yield from _patched(this, nothing, query, (name, donor), cells)


def _seen(this: Ready, adapters, query: Query, cells) -> Iterator[dict[str, Any]]:
    seen = why.lens(this.model, this.base.params, adapters, query)
    for record in why_rows.shares(seen, cells):
        yield {"measure": "lens"} | record


def _patched(
    this: Ready, adapters, query: Query, donor: tuple[str, Donor], cells
) -> Iterator[dict[str, Any]]:
    name, run = donor
    did = why.patch(this.model, this.base.params, adapters, query, run)
    used = {donors.POSITIONS[i] for i in np.flatnonzero(np.asarray(run.places) >= 0)}
    for record in why_rows.shares(did, cells, name):
        # The base knows no fact that ends in a new entity.
        known = name != FAMILIAR or record["cell"] in ("R-OO", "familiar")
        if known and record.get("position") in (None, *used):
            yield {"measure": "patch"} | record


def _of_itself(this: Ready, adapters, query: Query) -> dict[str, Donor]:
    """Donors that are runs of the model that is patched."""
    out = {
        "another person": donors.others(query, adapters),
        "bridge as subject": donors.subjects(query, adapters),
    }
    if query.written:
        right = donors.right_bridge(query)
        return out | {"right bridge": donors.same(right, adapters)}
    base = this.base
    facts = (base.world.vocab, base.world.splits["one_hop"], base.seed)
    first = donors.familiar_first(query, adapters, *facts)
    return out | {FAMILIAR: first}


def _donors(this: Ready, adapters, library, query: Query) -> dict[str, Donor]:
    """Those, and the expert alone whose fact must come first, or last."""
    wide = max(site.rank for site in lora.sites(adapters).values())
    alone = [jax.tree.map(lambda x, e=e: x[:, e], library) for e in range(2)]
    first, second = (lora.pad(x, wide) for x in alone)
    out = _of_itself(this, adapters, query)
    if query.written:
        right = donors.right_bridge(query)
        return out | {"B->C alone": donors.same(right, second)}
    return out | {"A->B alone": donors.same(query, first)}


def run(seeds: Sequence[int], cache: Path) -> pd.DataFrame:
    """Every share of all seeds."""
    config = BoundaryConfig()
    every = [x for x in design.points(config) if x.name == "map"]
    point = next(x for x in every if x.world.coverage == config.map_world.coverage)
    records: list[dict[str, Any]] = []
    for seed in seeds:
        this = ready(config, point, seed, cache)
        for written in (False, True):
            head = _head(seed, "base", "", written)
            records += [head | x for x in reference(this, written=written)]
        for setting in SETTINGS:
            head = _head(seed, setting.regime.name, setting.method, setting.written)
            records += [head | x for x in measure(this, setting)]
            print(seed, *setting[1:], setting.regime.name, flush=True)
    return pd.DataFrame(records)


def _head(seed: int, regime: str, method: str, written: bool) -> dict[str, Any]:
    asked = "written" if written else "direct"
    return {"seed": seed, "regime": regime, "method": str(method), "asked": asked}


def main() -> None:
    """Measures, writes the rows, the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[40, 41])
    given = parser.parse_args()
    rows = run(given.seeds, given.cache_dir)
    given.out.mkdir(parents=True, exist_ok=True)
    # Without the time, so that equal rows are equal bytes.
    packed = {"method": "gzip", "mtime": 0}
    rows.round(4).to_csv(given.out / ROWS_FILE, index=False, compression=packed)
    write(given.out)


def write(out: Path) -> None:
    """Tables and figure of the stored rows; what is above the tables is kept."""
    rows = pd.read_csv(out / ROWS_FILE)
    words = ["method", "cell", "donor", "position", "expert", "off"]
    rows[words] = rows[words].fillna("")
    page = out / "why.md"
    head = page.read_text().partition(why_tables.START)[0] if page.is_file() else ""
    page.write_text(head + why_tables.page(rows))
    (out / "why.png").write_bytes(figures.png(why_figure.figure(rows)))


if __name__ == "__main__":
    main()
