"""Page and tables of the theory study: what was predicted beside what was measured."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlora.files import write_whole
from jaxlora.report import svg
from jaxlora.report.figures import png
from jaxlora.report.grid import Grid
from jaxlora.report.templates import template
from jaxlora.report.theory_figures import FIGURES, Outcome
from jaxlora.theory import CLAIMS

WORDS = {True: "held", False: "failed", None: "–"}


def save(results: Mapping[str, Any], out: str | os.PathLike[str]) -> list[Path]:
    """Writes every figure, each whole or not at all, and returns their paths.

    Args:
      results: of the theory study, as in results.json.
      out: the folder of the run.
    """
    images = {name: png(make(results)) for name, make in FIGURES.items()}
    return [write_whole(Path(out) / name, data) for name, data in images.items()]


def claim_grid(results: Mapping[str, Any]) -> Grid:
    """Returns one line a claim: how many predictions held, and the one furthest off.

    Args:
      results: of the theory study, as in results.json.
    """
    body = []
    for claim in CLAIMS:
        mine = [x for x in results["outcomes"] if x["claim"] == claim.name]
        if mine:
            # The prediction that is furthest off says more than a mean error.
            worst = max(mine, key=lambda x: abs(x["value"] - x["predicted"]))
            held = f"{sum(x['held'] for x in mine)} of {len(mine)}"
            far = f"{worst['item']}: {worst['predicted']:.3f}, got {worst['value']:.3f}"
            body.append((claim.name, claim.statement, held, far))
    header = ("claim", "statement", "held", "furthest from its prediction")
    return Grid("Claims", header, tuple(body))


def outcome_grid(results: Mapping[str, Any]) -> Grid:
    """Returns one line a prediction.

    Args:
      results: of the theory study, as in results.json.
    """
    header = ("asked", "sizes", "predicted", "interval", "measured", "n", "outcome")
    return Grid("Every prediction", header, tuple(_lines(results["outcomes"])))


def decoder_grid(results: Mapping[str, Any]) -> Grid:
    """Returns one line for each thing that was asked of trained decoders.

    Args:
      results: of the theory study, as in results.json.
    """
    body = tuple(_lines(results["decoder"]))
    header = ("asked", "sizes", "predicted", "interval", "measured", "n", "outcome")
    bases = next((x["bases"] for x in results["decoder"]), [])
    note = "; ".join([*(f"base: {name}" for name in bases), *results["decoder_notes"]])
    return Grid("Trained decoders", header, body, note)


def _lines(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    claim = ""
    for x in outcomes:
        if x["claim"] != claim:
            claim = x["claim"]
            yield (claim,)
        sizes = {k: v for k, v in x.get("condition", {}).items() if k != "program"}
        words = ", ".join(f"{k} {v:g}" for k, v in sizes.items() if v)
        if x["value"] is None:
            yield (x["item"], words, "–", "–", "unavailable", "–", "–")
            continue
        spread = f"{x['value']:.3f} [{x['value_lo']:.2f}, {x['value_hi']:.2f}]"
        known = x["predicted"] is not None
        wanted = f"{x['predicted']:.3f}" if known else "–"
        ends = f"{x['lo']:.2f} to {x['hi']:.2f}" if known else "–"
        outcome = WORDS[x["held"]]
        yield (x["item"], words, wanted, ends, spread, str(x["n"]), outcome)


def headline(results: Mapping[str, Any]) -> str:
    """Returns the outcome in two sentences, that on interior predictions first.

    Args:
      results: of the theory study, as in results.json; those of earlier versions do not
        tell interior predictions apart.

    >>> inside = {"count": 2, "held": 2, "mean_error": 0.0171}
    >>> headline({"held": 9, "judged": 9, "interior": inside})
    'Small models and the formulas of the theory agree: 2 of 2 predictions between ...'
    """
    every = f"{results['held']} of {results['judged']}"
    agree = "agree" if results["held"] == results["judged"] else "do not all agree"
    first = f"Small models and the formulas of the theory {agree}:"
    inside = results.get("interior", {"count": 0})
    if not inside["count"]:
        return f"{first} {every} predictions held."
    return (
        f"{first} {inside['held']} of {inside['count']} predictions between 0.1 and "
        f"0.9 held, mean error {inside['mean_error']:.3f}. With those near 0 and 1, "
        f"many of them identities: {every}."
    )


def write(results: Mapping[str, Any], out: str | os.PathLike[str]) -> Path:
    """Writes report.html, whole or not at all, and returns its path.

    Args:
      results: of the theory study, as in results.json.
      out: the folder of the run.
    """
    charts = {name: make(results) for name, make in FIGURES.items()}
    page = template("theory.html.jinja").render(
        headline=headline(results),
        failed=[
            x for x in [*results["outcomes"], *results["decoder"]] if x["held"] is False
        ],
        claims=claim_grid(results),
        texts=CLAIMS,
        outcomes=outcome_grid(results),
        decoder=decoder_grid(results),
        figures=svg.pictures(charts),
        results=results,
        config=json.dumps(results["config"], indent=2, sort_keys=True),
    )
    return write_whole(Path(out) / "report.html", page.encode("utf-8"))
