"""``jaxlora routes``: which expert a route takes, by token and layer of a prompt."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from jaxlora import reuse
from jaxlora.commands import bars, flags, loading, printing, route_tables
from jaxlora.commands.flags import Combine, Combining, Dtype, Model, Words, outputs
from jaxlora.commands.printing import line
from jaxlora.io import collection_about
from jaxlora.models.config import DecoderConfig
from jaxlora.report import formats, route_map, route_numbers
from jaxlora.report.route_numbers import Panels
from jaxlora.reuse import Reuse, calls, decode
from jaxlora.strangers.text import cells
from jaxlora.tasks import prompts, token_ids

PROG = "jaxlora routes"
DESCRIPTION = """\
Shows which expert a route takes at which token and layer of one prompt.

A prompt goes through the chat template of the tokenizer, if it has one, as in
`jaxlora generate`; FILE.json holds token ids [B][T], as for `jaxlora forward`, for
models without a tokenizer. The table has a cell for each token and layer: the number
of the expert with the largest mean weight over all sites, and that weight; `=` is two
or more of equal weight. Layers share a column where the terminal is too narrow.
Entropies are in nats, means of each site's own; from 0, sure, to ln of the number of
experts, no preference.

examples:
  jaxlora routes MODEL --adapter A B --route arrow --prompt "Who is Ann's wife?"
  jaxlora routes MODEL --adapter A B C --route arrow --route-top-k 2 \\
      --prompt "Who is Ann's wife?" --figure routes.svg --table routes.csv
  jaxlora routes MODEL --adapter A B --route uniform --tokens ids.json \\
      --panels part --figure routes.png
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Shows which expert a route takes."""

    model: Model
    prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """The prompt."""
    tokens: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Or token ids, [B][T]."""
    row: int = 0
    """Which row of the token ids."""
    chat: bool = True
    """Use the chat template, if there is one."""
    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw the map, as .png, .svg or .pdf."""
    panels: Panels = "mean"
    """Of the figure: the mean of all sites, or one map for each part or each site."""
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write every weight, as .csv, .json or .md: a row for each layer, site, token and
    expert."""
    force: flags.Force = False
    combine: Combine = dataclasses.field(default_factory=Combining)
    seed: int = 0
    """Of a route that draws."""
    dtype: Dtype = "auto"
    tokenizer: Words = None


def run(arguments: Sequence[str]) -> int:
    """Reads, routes, shows and writes."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    _check(given)
    combining = given.combine.routing()
    experts = collection_about.names(given.combine.adapters)
    row = _row(given)
    outputs.check_files(given.force, given.figure, given.table)
    formats.check(given.figure, formats.FIGURES, "figure")
    formats.check(given.table, formats.TABLES, "table")
    reused = loading.load(
        given.model, given.combine.adapter, given.dtype, seed=given.seed, **combining
    )
    ids, texts = _prompt(given, reused, row)
    with bars.bar("routing"):
        sites, strayed = calls.routed(reused, ids)
    console = printing.console()
    route_tables.show(console, route_numbers.measure(sites), texts, experts, len(sites))
    route_tables.odd(console, strayed)
    route: Any = reused.model.route
    few = "" if route.top_k is None else f", top {route.top_k}"
    title = f"Experts by token and layer: {combining['route']}{few}"
    _write(console, given, (sites, texts, experts), title)
    return 0


def _write(console: Console, given: Arguments, shown: Any, title: str) -> None:
    """Writes what is asked for of (weights by site, texts of tokens, experts)."""
    if given.table is not None:
        rows = route_numbers.rows(*shown)
        formats.tabulate(cells(rows), given.table)
        line(console, f"{given.table}: {len(rows)} weights")
    if given.figure is not None:
        chart = route_map.chart(*shown, panels=given.panels, title=title)
        formats.draw(chart, given.figure)
        line(console, f"{given.figure}: the map")


def _check(given: Arguments) -> None:
    if given.combine.merge is not None:
        raise ValueError(
            f"Got the merge {given.combine.merge!r}, which leaves one adapter, and "
            f"nothing to choose; expected --route NAME."
        )
    if given.combine.route is None and given.combine.gate is None:
        raise ValueError(
            f"Got no --route NAME and no --gate FILE, expected one of them, whose "
            f"choices are shown; there are {', '.join(reuse.route_names())}."
        )
    if (given.prompt is None) == (given.tokens is None):
        raise ValueError(
            f"Got {'no' if given.prompt is None else 'both'} --prompt TEXT and "
            f"{'no ' * (given.prompt is None)}--tokens FILE, expected one of them."
        )
    if given.prompt is not None and not given.prompt.strip():
        raise ValueError("The prompt is empty, expected some text.")


def _row(given: Arguments) -> list[int] | None:
    if given.tokens is None:
        return None
    rows = token_ids.read(given.tokens)
    if not 0 <= given.row < len(rows):
        raise ValueError(
            f"--row is {given.row}, but {given.tokens} has the rows 0 to "
            f"{len(rows) - 1}."
        )
    return rows[given.row].tolist()


def _prompt(
    given: Arguments, reused: Reuse, row: list[int] | None
) -> tuple[list[int], list[str]]:
    """Token ids, and the text of each; ids stand for themselves without a tokenizer."""
    tokenizer = None
    if row is None or (given.model / "tokenizer.json").exists():
        words = {"tokenizer": given.tokenizer, "chat": given.chat}
        tokenizer = loading.words(given.model, reused, given.combine.adapter, **words)
    if tokenizer is not None and row is None:
        row = decode.encode(prompts.plain(given.prompt or ""), tokenizer)
    ids = row or []
    _check_ids(given, ids, reused.model.config)
    return ids, tokenizer.pieces(ids) if tokenizer else list(map(str, ids))


def _check_ids(given: Arguments, ids: list[int], config: DecoderConfig) -> None:
    if given.tokens is not None and max(ids) >= config.vocab_size:
        raise ValueError(
            f"{given.tokens}: row {given.row} has the token id {max(ids)}, but the "
            f"model has 0 to {config.vocab_size - 1}; were they made by another "
            f"tokenizer?"
        )
    if len(ids) > config.max_length:
        raise ValueError(
            f"The prompt has {len(ids)} tokens, but the model's context is "
            f"{config.max_length}; shorten it."
        )
    if given.figure is not None and len(ids) > route_map.LONGEST:
        raise ValueError(
            f"The prompt has {len(ids)} tokens, and a figure shows at most "
            f"{route_map.LONGEST}; shorten it, or leave out --figure."
        )
