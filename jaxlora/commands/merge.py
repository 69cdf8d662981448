"""``jaxlora merge``: one PEFT adapter of several, with no base model at hand."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

import jax
import numpy as np
import tyro
from rich.console import Console

from jaxlora import files
from jaxlora.commands import (
    bars,
    flags,
    merge_mesh,
    merge_sentence,
    merge_tables,
    printing,
    talk,
)
from jaxlora.commands.flags import merge_fields, outputs, parsing
from jaxlora.commands.flags.mesh import MeshSizes
from jaxlora.io import (
    adapter_folders,
    collection,
    collection_about,
    collection_base,
    collection_beside,
    collection_data,
    collection_out,
    origin,
)
from jaxlora.io.collection import Collection
from jaxlora.io.collection_base import GAIN, Plain
from jaxlora.io.collection_beside import Beside
from jaxlora.lora import LoraWeight
from jaxlora.merge import Fidelity, Merge, fidelity, groups
from jaxlora.parallel import processes
from jaxlora.report import fidelity as report
from jaxlora.strangers.text import cells

Merges: TypeAlias = Iterator[tuple[str, LoraWeight, LoraWeight]]
"""Groups, their experts and their merge."""

PROG = "jaxlora merge"
DESCRIPTION = """\
Makes one adapter of several, and writes it as a PEFT folder of scale 1.

No base model is needed; adapters may differ in rank, alpha and modules. Weights are as
the method takes them: `sum` adds each adapter times its weight, `mean` divides by their
sum. `--list` says which to try first, and when; with `--all` it shows every method,
with a name its fields and where it is from.

Biases (lora_bias) are merged as updates are. Magnitudes (DoRA) are averaged by weight,
unless --base says of what: then DoRA is merged in delta space, exactly, as DoRA, or as
plain LoRA of --rank R. Factors taken out of the base (PiSSA, OLoRA) need --base.
Tensors that adapters replace (modules_to_save, tokens) must be equal, or --average.

In memory is one group of modules at a time, such as q_proj of every layer; methods that
draw, or that rank entries of the whole model, hold all adapters and the result.
Over a mesh each device has some adapters, and then all of them at some layers.

fields, of the methods that have them:
  --density D           share of entries that is kept
  --by {mass,frequency} elect signs by the sum of entries, or by their number
  --space SPACE         factor, factor-root, factor-raw, delta, knots or core
  --scope {leaf,model}  rank entries of one kernel, or of the whole model
  --spread S            how far chances of keeping an entry differ (DELLA)
  --outliers SHARE      share of largest entries that go (Breadcrumbs)
  --steps N             steps of Adam (WUDI)
  --learning-rate X     of these steps
  --expert I            the adapter that a control keeps, from 0
  --layers X...         of each adapter: 0,2-3, low, high, all (placed-sum)
  --ends SHARE          share of layers summed at each end (placed-both)

A method of your own is `module:attribute`: a jaxlora.merge.chain(...), or a function of
fields that returns one; modules of the current folder can be imported.

examples:
  jaxlora merge A B C --method mean --out MERGED
  jaxlora merge A B --method sum --weights 1 -0.5 --out MERGED
  jaxlora merge A B C --method ties --density 0.2 --rank 16 --out MERGED
  jaxlora merge A B C --method dare --density 0.5 --out MERGED --report REPORT
  jaxlora merge A B --method ties_svd[peft] --by frequency --out MERGED
  jaxlora merge DORA LORA --method mean --base MODEL --out MERGED
  jaxlora merge A B --method placed-sum --layers low 1 --out MERGED
  jaxlora merge LIBRARY --method ties --mesh expert=8 --out MERGED
  jaxlora merge --list
  jaxlora merge --list --all
  jaxlora merge --list ties
"""
FIGURE, TABLE = "fidelity.png", "fidelity.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Makes one adapter of several."""

    adapters: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="ADAPTER...")
    ] = ()
    """Folders of PEFT adapters, or of libraries of several."""
    method: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """How they become one; `jaxlora merge --list` says which, and when."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """New folder for the merged adapter."""
    force: flags.Force = False
    weights: Annotated[tuple[float, ...], tyro.conf.arg(metavar="W...")] = ()
    """A number for each adapter, of any sign; 0 leaves one out, default 1."""
    rank: Annotated[int | None, tyro.conf.arg(metavar="R")] = None
    """Rank of the result, the best approximation; default: what the method gives."""
    base: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None
    """The base of the adapters, for DoRA in delta space, PiSSA and OLoRA."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """For methods that draw; the same seed gives the same bytes."""
    statistics: Annotated[Path | None, tyro.conf.arg(metavar="FILE.safetensors")] = None
    """What a method must see: an array [adapters, ...] for each module."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Compare with the exact sum, group by group: a table, and files in this folder;
    takes longer than most merges."""
    mesh: MeshSizes = ""
    average: tyro.conf.FlagCreatePairsOff[bool] = False
    """Average replaced tensors (modules_to_save, tokens) that differ; else refuse."""
    list: bool = False
    """Show which methods to try first, and when; with a name after it, its fields."""
    all: bool = False
    """With --list: show every method, controls and other programs' forms too."""


def run(arguments: Sequence[str]) -> int:
    """Reads, merges, writes, and says what came out."""
    if "--list" in arguments:
        words = [word for word in arguments if word != "--list"]
        return merge_tables.listed(words, PROG)
    given, merge = _parse(arguments)
    folders = adapter_folders.expand(given.adapters)
    names, weights = _check(given, folders, merge)
    where = merge_mesh.run_on(given.mesh, given.method, len(folders))
    printing.say(adapter_folders.notes(given.adapters))
    with bars.bar("merging") as move:
        library = collection.open_folders(folders, names=names, base=given.base)
        printing.say(collection_about.notes(library))
        beside, notes = collection_beside.of_merge(
            names, library.files, weights, average=given.average
        )
        printing.say(notes)
        printing.say(collection_base.notes(library.files))
        if given.base is not None:
            bases = dict(zip(names, library.base_names, strict=True))
            printing.say(adapter_folders.other_bases(bases, given.base))
        plain = collection_base.plain(library.modules, given.rank)
        for base in sorted({name for name in library.base_names if name}):
            printing.say(origin.notes(base))
        if merge.by_layer:
            merge = merge.at(collection_about.places(library))
        data = None
        if given.statistics is not None:
            data = collection_data.read_data(given.statistics, library)
        source = groups.Source(library.library, library.shapes, data)
        # Gains and updates are of one rank together only once they are one delta.
        rank = None if plain else given.rank
        chosen = {"seed": given.seed, "rank": rank, "run": where}
        merges = groups.each(merge, source, weights, **chosen, progress=move)
        if not talk.current().writes:  # of many processes the first one does
            return merge_mesh.followed(merges)
        grams, parts = _write(given, _Inputs(library, weights, beside, plain), merges)
        processes.meet()
    console = printing.console()
    updates = [gram for site, gram in grams.items() if GAIN not in site]
    totals = groups.sum_up(updates, weights)
    merge_tables.summary(console, given.out, given.method, library, weights, totals)
    if plain is not None:
        printing.say([plain.sentence()])
    printing.say(merge_sentence.nothing(library, weights, grams))
    printing.say(merge_sentence.too_large(weights, totals))
    if given.report is not None:
        _report(console, given.report, groups.together(parts), library.names)
    return 0


class _Inputs(NamedTuple):
    """What is merged."""

    library: Collection
    weights: Sequence[float]
    beside: Beside
    """What the merge has beside its updates."""
    plain: Plain | None
    """Whether it takes magnitudes into updates of a rank."""


def _write(
    given: Arguments, inputs: _Inputs, merges: Merges
) -> tuple[dict[str, np.ndarray], list[Fidelity]]:
    """Writes and measures one group after the other; keeps numbers, no factors."""
    grams, parts = {}, []
    library, weights, beside, plain = inputs
    with (
        outputs.replaced(given.out) as new,
        collection_out.writing(new, library, beside, plain) as write_site,
    ):
        for name, group, merged in merges:
            write_site(name, merged)
            grams[name] = groups.products(merged, group, weights)
            if given.report is not None:
                part = fidelity({name: merged}, {name: group}, weights)
                parts.append(jax.block_until_ready(part))
            del group, merged  # before the next group is read
    return grams, parts


def _report(
    console: Console, folder: Path, measured: Fidelity, experts: Sequence[str]
) -> None:
    table = report.table(measured, experts)
    files.write_text(folder / TABLE, cells(table).to_csv())
    report.figure(measured, folder / FIGURE, experts)
    merge_tables.fidelity(console, table)
    printing.line(console, f"{folder}: {TABLE}, {FIGURE}")


def _parse(arguments: Sequence[str]) -> tuple[Arguments, Merge]:
    words, fields = list(arguments), {}
    if not {"-h", "--help"} & set(arguments):
        if not parsing.value_of("--method", arguments):
            raise ValueError(
                f"Got no --method, expected one, as in `{PROG} A B --method ties --out "
                f"DIR`; `{PROG} --list` says which, and when."
            )
        words, fields = merge_fields.split(words, parsing.names(Arguments), PROG)
    given = flags.parse(Arguments, PROG, words, description=DESCRIPTION)
    return given, merge_fields.make(given.method, fields)


def _check(
    given: Arguments, folders: Sequence[Path], merge: Merge
) -> tuple[list[str], list[float]]:
    """Refuses what needs no look at adapters; returns their names and weights."""
    count = len(folders)
    if given.all:
        raise ValueError(f"--all belongs to a list, as in `{PROG} --list --all`.")
    if not count:
        raise ValueError(
            f"Got no adapter to merge; the command is `{PROG} ADAPTER... --method "
            f"{given.method} --out DIR`."
        )
    names = collection_about.names(folders)
    weights = list(given.weights) or [1.0] * count
    groups.check_weights(merge, weights, count)
    if given.rank is not None:
        flags.at_least(1, given, "rank")
    flags.at_least(0, given, "seed")
    if merge.data != "free" and given.statistics is None:
        raise ValueError(
            f"The merge {given.method!r} needs data, and got none; --statistics names "
            f"a safetensors file with an array [adapters, ...] for each module "
            f"(`{PROG} --list {given.method}` says what of)."
        )
    if merge.data == "free" and given.statistics is not None:
        raise ValueError(
            f"The merge {given.method!r} sees no data, but got --statistics "
            f"{given.statistics}; leave it out."
        )
    processes.agreed(lambda: _check_outputs(given))
    return names, weights


def _check_outputs(given: Arguments) -> None:
    outputs.check_folder(given.force, given.out, outputs.ADAPTER)
    if given.report is not None:
        written = (given.report / name for name in (TABLE, FIGURE))
        outputs.check_files(given.force, *written)
