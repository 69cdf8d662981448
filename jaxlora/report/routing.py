"""What a gate chose: a small table by layer and token."""

import json

import pandas as pd

from jaxlora.evaluate.schema import Cell, Library, Method, Metric
from jaxlora.report import readings
from jaxlora.report.grid import Grid

TOKENS = ("subject", "relation", "last")


def routing_grid(rows: pd.DataFrame, cell: Cell = Cell.R_OO) -> Grid:
    """Returns Arrow's weight of the A->B expert on the two-hop prompt, by token.

    Args:
      rows: as ``schema.COLUMNS``.
      cell: the cell whose people are asked.
    """
    frame = readings.at(rows)
    frame = frame[
        (frame["seed"] == "all")
        & (frame["cell"] == cell.value)
        & (frame["library"] == Library.PAIR.value)
        & (frame["method"] == Method.ARROW.value)
    ]
    found = {}
    for row in frame[frame["metric"].str.startswith("route: ")].itertuples():
        where = json.loads(str(row.condition))
        found[row.metric, where["layer"], where["token"]] = readings.to_reading(row)
    layers = sorted({layer for _, layer, _ in found})

    def words(metric: Metric, layer: int, token: str) -> str:
        reading = found.get((metric.value, layer, token))
        return "–" if reading is None else reading.text()

    body = [
        (
            f"layer {layer}",
            *(words(Metric.ROUTE_WEIGHT, layer, token) for token in TOKENS),
            words(Metric.ROUTE_ENTROPY, layer, "last"),
            words(Metric.ROUTE_AGREEMENT, layer, "relation"),
            words(Metric.ROUTE_AGREEMENT, layer, "last"),
        )
        for layer in layers
    ]
    return Grid(
        f"What Arrow chooses in {cell.value}",
        (
            "",
            "weight of A->B at the subject",
            "at the relation",
            "at the last token",
            "entropy there",
            "relation to its expert",
            "last token to its expert",
        ),
        tuple(body),
        "Means over sites and people. The last two columns: how often the expert of "
        "the largest weight is the token's own, A->B at the relation and B->C at the "
        "last token; 0.5 is a coin.",
        numeric=True,
    )
