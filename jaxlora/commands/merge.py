"""``jaxlora merge``: one PEFT adapter of several, with no base model at hand."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from jaxlora.commands import bars, flags, merge_tables
from jaxlora.commands.flags import merge_fields, parsing
from jaxlora.io import collection, collection_data, files
from jaxlora.io.collection import Collection
from jaxlora.merge import Fidelity, Merge, groups
from jaxlora.report import fidelity as report

PROG = "jaxlora merge"
DESCRIPTION = """\
Makes one adapter of several, and writes it as a PEFT folder of scale 1.

No base model is needed; adapters may differ in rank, alpha and modules. Weights are as
the method takes them: `sum` adds each adapter times its weight, `mean` divides by their
sum. `--list` shows every method, `--list NAME` its fields and where it is from.

fields, of the methods that have them:
  --density D           share of entries that is kept
  --by {mass,frequency} elect signs by the sum of entries, or by their number
  --space SPACE         coordinates: factor, factor-root, factor-raw, delta, knots, core
  --scope {leaf,model}  rank entries of one kernel, or of the whole model
  --spread S            how far chances of keeping an entry differ (DELLA)
  --outliers SHARE      share of the largest entries that is dropped (Breadcrumbs)
  --steps N             steps of Adam (WUDI)
  --learning-rate X     of these steps
  --expert I            the adapter that a control keeps, from 0

A method of your own is `module:attribute`: a jaxlora.merge.chain(...), or a function of
fields that returns one; modules of the current folder can be imported.

examples:
  jaxlora merge A B C --method mean --out MERGED
  jaxlora merge A B --method sum --weights 1 -0.5 --out MERGED
  jaxlora merge A B C --method ties --density 0.2 --rank 16 --out MERGED
  jaxlora merge A B C --method dare --density 0.5 --seed 1 --out MERGED --report REPORT
  jaxlora merge A B --method ties_svd[peft] --by frequency --out MERGED
  jaxlora merge --list
  jaxlora merge --list ties
"""
FIGURE, TABLE = "fidelity.png", "fidelity.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Makes one adapter of several."""

    adapters: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="ADAPTER...")
    ] = ()
    """Folders of PEFT adapters."""
    method: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """How they become one; `jaxlora merge --list` shows every name."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """New folder for the merged adapter."""
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="W...")] = ()
    """A number for each adapter, of any sign; 0 leaves one out, default 1."""
    rank: Annotated[int | None, tyro.conf.arg(metavar="R")] = None
    """Rank of the result, the best approximation; default: what the method gives."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """For methods that draw; the same seed gives the same bytes."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FILE.safetensors")] = None
    """What a method must see: an array [adapters, ...] for each module."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Compare with the exact sum, group by group: a table, and files in this folder;
    takes longer than most merges."""
    list: bool = False
    """Show every method; with a name after it, its fields."""


def run(arguments: Sequence[str]) -> int:
    """Reads, merges, writes, and says what came out."""
    if "--list" in arguments:
        return _list([word for word in arguments if word != "--list"])
    given, merge = _parse(arguments)
    weights = _check(given, merge)
    with bars.bar("merging") as tell:
        found = collection.read(
            given.adapters,
            names=names(given.adapters),
            tell=lambda done, total: tell("reading", done, total),
        )
        for line in notes(found):
            print(f"jaxlora: {line}", file=sys.stderr)
        data = (
            None if given.data is None else collection_data.read_data(given.data, found)
        )
        made = groups.merge_groups(
            merge,
            found.library,
            weights,
            seed=given.seed,
            rank=given.rank,
            data=data,
            progress=tell,
        )
        tell(f"writing {given.out}", 0, 1)
        collection.write(given.out, made, found)
        totals = groups.totals(made, found.library, weights)
    console = merge_tables.console()
    merge_tables.summary(console, given.out, given.method, found, weights, totals)
    if given.report is not None:
        with bars.bar("measuring") as tell:
            fidelity = groups.measure(made, found.library, weights, tell)
        _report(console, given.report, fidelity, found.names)
    return 0


def names(folders: Sequence[Path]) -> list[str]:
    """Names adapters by the ends of their paths, as short as tells them apart.

    Raises:
      ValueError: if a folder is given twice.

    >>> names([Path("/runs/1/final"), Path("/runs/2/final")])
    ['1/final', '2/final']
    """
    paths = [folder.resolve() for folder in folders]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise ValueError(
                f"Adapter {folders[i]} is given twice; to count it double, leave one "
                f"out and give the other twice the weight (--weights)."
            )
    deepest = max((len(path.parts) for path in paths), default=0)
    for depth in range(1, deepest + 1):
        found = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(found)) == len(found):
            return found
    return [str(path) for path in paths]


def notes(found: Collection) -> list[str]:
    """What a user should know of the adapters that is no error, a line each."""
    lines = []
    bases = dict(zip(found.names, found.base_names, strict=True))
    if len({base for base in bases.values() if base}) > 1:
        said = ", ".join(f"{name}: {base}" for name, base in bases.items())
        lines.append(
            f"The adapters name different bases ({said}); their shapes agree, but "
            f"what is made of them means something on one base only."
        )
    if found.copies:
        lines.append(
            f"Copies of base weights that PEFT saved along are left out: "
            f"{', '.join(found.copies[:4])}."
        )
    return lines


def _parse(arguments: Sequence[str]) -> tuple[Arguments, Merge]:
    known = parsing.names(Arguments)
    wants_help = {"-h", "--help"} & set(arguments)
    if not wants_help and not parsing.value_of("--method", arguments):
        raise ValueError(
            f"Got no --method, expected one, as in `{PROG} A B --method ties --out "
            f"DIR`; `{PROG} --list` shows every name."
        )
    words, fields = (
        (list(arguments), {})
        if wants_help
        else merge_fields.split(arguments, known, PROG)
    )
    given = flags.parse(Arguments, PROG, words, description=DESCRIPTION)
    return given, merge_fields.make(given.method, fields)


def _check(given: Arguments, merge: Merge) -> list[float]:
    """Refuses what needs no look at the adapters; returns the weights."""
    count = len(given.adapters)
    if not count:
        raise ValueError(
            f"Got no adapter to merge; the command is `{PROG} ADAPTER... --method "
            f"{given.method} --out DIR`."
        )
    names(given.adapters)
    weights = list(given.weights) or [1.0] * count
    if len(weights) != count:
        raise ValueError(
            f"Got {len(weights)} weights for {count} adapters, expected one for each, "
            f"in the same order."
        )
    if not all(map(math.isfinite, weights)):
        raise ValueError(
            f"Weights are {weights}, expected finite numbers; the weight 0 leaves an "
            f"adapter out."
        )
    if not any(weights):
        raise ValueError(
            f"All {count} weights are 0, which leaves every adapter out; expected at "
            f"least one other number."
        )
    merge.reduction.check(np.asarray(weights))
    if given.rank is not None:
        flags.at_least(1, given, "rank")
    flags.at_least(0, given, "seed")
    if merge.data != "free" and given.data is None:
        raise ValueError(
            f"The merge {given.method!r} needs data, and got none; --data names a "
            f"safetensors file with an array [adapters, ...] for each module "
            f"(`{PROG} --list {given.method}` says what of)."
        )
    if merge.data == "free" and given.data is not None:
        raise ValueError(
            f"The merge {given.method!r} sees no data, but got --data {given.data}; "
            f"leave it out."
        )
    flags.check_new_folder(given.out)
    if given.report is not None:
        flags.check_out(given.report / FIGURE)
    return weights


def _list(words: Sequence[str]) -> int:
    odd = [word for word in words if word.startswith("-") and word not in ("-h",)]
    if odd:
        raise ValueError(
            f"`{PROG} --list` takes names of methods only, got {odd[0]}; as in "
            f"`{PROG} --list ties`."
        )
    console = merge_tables.console()
    if not words:
        merge_tables.every(console)
    for name in words:
        merge_tables.one(console, name, merge_fields.fields(name))
    return 0


def _report(
    console: Console, folder: Path, found: Fidelity, experts: Sequence[str]
) -> None:
    table = report.table(found, experts)
    files.write_text(folder / TABLE, table.to_csv())
    report.figure(found, folder / FIGURE, experts)
    merge_tables.fidelity(console, table)
    merge_tables.line(console, f"{folder}: {TABLE}, {FIGURE}")
