"""``jaxlora routes``: which expert a route takes, by token and layer of a prompt."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from jaxlora import files, models, reuse, tree
from jaxlora.commands import (
    bars,
    flags,
    loading,
    printing,
    route_tables,
)
from jaxlora.commands.flags import Combine, Combining, Dtype, Model
from jaxlora.commands.forward import read_tokens
from jaxlora.commands.printing import line
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.report import route_map, route_numbers
from jaxlora.report.figures import png
from jaxlora.report.route_numbers import Panels
from jaxlora.reuse import Reuse, decode
from jaxlora.tasks.text import Record

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
  jaxlora routes MODEL --adapter A B C --route arrow --top-k 2 \\
      --prompt "Who is Ann's wife?" --out routes.png --csv routes.csv
  jaxlora routes MODEL --adapter A B --route uniform --tokens ids.json --panels part \\
      --out routes.png
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
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Draw the map."""
    panels: Panels = "mean"
    """Of the figure: the mean of all sites, or one map for each part or each site."""
    csv: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """Write every weight: a row for each layer, site, token and expert."""
    combine: Combine = dataclasses.field(default_factory=Combining)
    route_temperature: flags.RouteTemperature = None
    seed: int = 0
    """Of a route that draws."""
    dtype: Dtype = "auto"


class Prompt(NamedTuple):
    """One sequence of tokens."""

    ids: list[int]
    texts: list[str]
    """What each token stands for."""


def run(arguments: Sequence[str]) -> int:
    """Reads, routes, shows and writes."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    combining = _combining(given)
    experts = loading.names(given.combine.adapter)
    row = _row(given)
    for path in filter(None, (given.out, given.csv)):
        flags.check_out(path)
    reused = loading.load(
        given.model, given.combine.adapter, given.dtype, seed=given.seed, **combining
    )
    prompt = _prompt(given, reused, row)
    sites, strayed = routed(reused, prompt.ids)
    measured = route_numbers.measure(sites)
    console = printing.console()
    route_tables.load(console, measured, experts)
    route_tables.grid(console, measured, prompt.texts)
    route_tables.summary(console, measured, sites)
    route_tables.odd(console, strayed)
    route: Any = reused.model.route
    few = "" if route.top_k is None else f", top {route.top_k}"
    title = f"Experts by token and layer: {combining['route']}{few}"
    _write(console, given, sites, prompt, experts, title)
    return 0


def routed(
    reused: Reuse, ids: Sequence[int]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Runs one prompt, and returns what the route chose.

    Args:
      reused: a model with a route.
      ids: T token ids.

    Returns:
      Weights {site: [L, T, E]}, and where scores were no numbers, {place: [L, T]}.
    """
    call = jax.jit(models.routes, static_argnums=0)
    tokens = jnp.asarray([ids], jnp.int32)
    precision = "highest" if reused.model.config.dtype == "float32" else None
    with bars.bar("routing"), jax.default_matmul_precision(precision):
        both = call(reused.model, reused.base, tokens, **reused.arguments())
        weights, strayed = (
            {name: np.asarray(leaf[:, 0]) for name, leaf in tree.flatten(part).items()}
            for part in both
        )
    return weights, strayed


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text of each token: what it adds to the text of those before it.

    A token that ends in the middle of a character adds what the next one completes.

    Args:
      tokenizer: of the model.
      ids: token ids.
    """
    out, before = [], ""
    for end in range(1, len(ids) + 1):
        now = tokenizer.decode(ids[:end], skip_special=False)
        start = before.rstrip("\ufffd")
        alone = tokenizer.decode(ids[end - 1 : end], skip_special=False)
        out.append(now[len(start) :] if now.startswith(start) else alone)
        before = now
    return out


def _combining(given: Arguments) -> dict[str, Any]:
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
            f"Got {'neither' if given.prompt is None else 'both'} --prompt TEXT and "
            f"--tokens FILE, expected one of them."
        )
    if given.prompt is not None and not given.prompt.strip():
        raise ValueError("The prompt is empty, expected some text.")
    return given.combine.routing(given.route_temperature)


def _row(given: Arguments) -> list[int] | None:
    if given.tokens is None:
        return None
    rows = read_tokens(given.tokens)
    if not 0 <= given.row < len(rows):
        raise ValueError(
            f"--row is {given.row}, but {given.tokens} has the rows 0 to "
            f"{len(rows) - 1}."
        )
    return rows[given.row].tolist()


def _prompt(given: Arguments, reused: Reuse, row: list[int] | None) -> Prompt:
    vocabulary = reused.model.config.vocab_size
    tokenizer = None
    # Without a prompt, a tokenizer only names the tokens; there may be none.
    if row is None or (given.model / "tokenizer.json").exists():
        tokenizer = loading.load_tokenizer(given.model, reused, chat=given.chat)
    if tokenizer is not None and row is None:
        turn = {"role": "user", "content": given.prompt or ""}
        row = decode.encode(Record(messages=(turn,), glue=""), tokenizer)
    elif row is not None and max(row) >= vocabulary:
        raise ValueError(
            f"{given.tokens}: row {given.row} has the token id {max(row)}, but the "
            f"model has 0 to {vocabulary - 1}; were they made by another tokenizer?"
        )
    ids = row or []
    _check_length(given, len(ids), reused.model.config.max_length)
    return Prompt(ids, pieces(tokenizer, ids) if tokenizer else list(map(str, ids)))


def _check_length(given: Arguments, length: int, context: int) -> None:
    if length > context:
        raise ValueError(
            f"The prompt has {length} tokens, but the model's context is {context}; "
            f"shorten it."
        )
    if given.out is not None and length > route_map.LONGEST:
        raise ValueError(
            f"The prompt has {length} tokens, and a figure shows at most "
            f"{route_map.LONGEST}; shorten it, or leave out --out."
        )


def _write(
    console: Console,
    given: Arguments,
    sites: Mapping[str, np.ndarray],
    prompt: Prompt,
    experts: Sequence[str],
    title: str,
) -> None:
    shown = sites, prompt.texts, experts
    if given.csv is not None:
        rows = route_numbers.rows(*shown)
        files.write_text(given.csv, rows.to_csv(index=False))
        line(console, f"{given.csv}: {len(rows)} weights")
    if given.out is not None:
        chart = route_map.chart(*shown, panels=given.panels, title=title)
        files.write_whole(given.out, png(chart))
        line(console, f"{given.out}: the map")
