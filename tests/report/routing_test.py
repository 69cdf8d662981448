"""The table of what Arrow chose: every number lands at its layer and token."""

import pandas as pd

from jaxlora.evaluate.schema import Cell, Library, Method, Metric, Split, row
from jaxlora.report import routing


def chosen(layer: int, token: str, metric: Metric, value: float, **other):
    made = {
        "study": "two-hop",
        "seed": "all",
        "cell": Cell.R_OO,
        "library": Library.PAIR,
        "method": Method.ARROW,
        "split": Split.TWO_HOP,
        "metric": metric,
        "value": value,
        "n": 21,
        "lo": value - 0.1,
        "hi": value + 0.1,
        "condition": {"coverage": 1.0, "layer": layer, "token": token},
    }
    return row(**(made | other))


def test_every_number_lands_at_its_layer_and_token():
    rows = [
        chosen(0, "subject", Metric.ROUTE_WEIGHT, 0.2),
        chosen(1, "subject", Metric.ROUTE_WEIGHT, 0.3),
        chosen(1, "last", Metric.ROUTE_WEIGHT, 0.4),
        chosen(1, "last", Metric.ROUTE_ENTROPY, 0.6),
        chosen(1, "relation", Metric.ROUTE_AGREEMENT, 0.7),
        chosen(1, "last", Metric.ROUTE_AGREEMENT, 0.8),
        # None of these belong into the table.
        chosen(1, "last", Metric.ROUTE_WEIGHT, 0.9, seed=0),
        chosen(1, "last", Metric.ROUTE_WEIGHT, 0.9, library=Library.RANDOM),
        chosen(1, "last", Metric.ROUTE_WEIGHT, 0.9, cell=Cell.F_OO),
    ]
    grid = routing.routing_grid(pd.DataFrame(rows))
    assert [line[0] for line in grid.body] == ["layer 0", "layer 1"]
    values = [word.split(" ")[0] for word in grid.body[1][1:]]
    assert values == ["0.30", "–", "0.40", "0.60", "0.70", "0.80"]
    assert grid.body[0][1].startswith("0.20 [0.10, 0.30]")


def test_rows_without_routes_give_an_empty_table():
    made = chosen(0, "last", Metric.ACCURACY, 0.5)
    assert routing.routing_grid(pd.DataFrame([made])).body == ()
