"""The table of what Arrow chose: every number lands at its layer and token."""

import pandas as pd
import pytest

from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split, row
from jaxlora.evaluate.statistics import Interval
from jaxlora.report import draw, routing


def chosen(layer, token, metric, value, seed="all", library=Arm.PAIR, **changes):
    fields = {"cell": Cell.R_OO, "method": Method.ARROW, "split": Split.TWO_HOP}
    fields["where"] = (("layer", layer), ("token", token))
    address = Address(arm=library, metric=metric, coverage=1.0, **fields | changes)
    interval = Interval(value, value - 0.1, value + 0.1, 21)
    return {"study": "two-hop", **row(seed, address, interval)}


def test_every_number_lands_at_its_layer_and_token():
    rows = [
        chosen(0, "subject", Metric.ROUTE_WEIGHT, 0.2),
        chosen(1, "subject", Metric.ROUTE_WEIGHT, 0.3),
        chosen(1, "last", Metric.ROUTE_WEIGHT, 0.4),
        chosen(1, "bridge", Metric.ROUTE_WEIGHT, 0.5),
        chosen(1, "last", Metric.ROUTE_ENTROPY, 0.6),
        chosen(1, "relation", Metric.ROUTE_AGREEMENT, 0.7),
        chosen(1, "last", Metric.ROUTE_AGREEMENT, 0.8),
        # None of these belong into the table.
        chosen(1, "last", Metric.ROUTE_WEIGHT, 0.9, seed=0),
        chosen(1, "last", Metric.ROUTE_WEIGHT, 0.9, library=Arm.RANDOM),
        chosen(1, "last", Metric.ROUTE_WEIGHT, 0.9, cell=Cell.F_OO),
    ]
    grid = routing.routing_grid(pd.DataFrame(rows))
    assert [line[0] for line in grid.body] == ["layer 0", "layer 1"]
    values = [word.split(" ")[0] for word in grid.body[1][1:]]
    assert values == ["0.30", "–", "0.40", "0.50", "0.60", "0.70", "0.80"]
    assert grid.body[0][1].startswith("0.20 [0.10, 0.30]")


def test_routes_have_a_line_and_a_panel_each():
    rows = [
        chosen(layer, token, Metric.ROUTE_WEIGHT, 0.25, method=method)
        for layer in (0, 1)
        for token in routing.TOKENS
        for method in (Method.ARROW, Method.SPECTR)
    ]
    rows += [
        chosen(0, "last", Metric.ROUTE_ENTROPY, 0.2, method=Method.SPECTR),
        chosen(1, "last", Metric.ROUTE_ENTROPY, 0.4, method=Method.SPECTR),
        chosen(0, "bridge", Metric.ROUTE_AGREEMENT, 1.0, method=Method.SPECTR),
        chosen(
            0,
            "last",
            Metric.ROUTE_CERTAINTY,
            0.75,
            method=Method.SPECTR,
            where=(),
        ),
    ]
    frame = pd.DataFrame(rows)
    arrow, spectr = routing.routers_grid(frame).body
    assert arrow == ("arrow", "–", "–", "–", "–", "–", "–")
    assert spectr[:6] == ("spectr", "–", "0.30", "–", "–", "1.00")
    assert spectr[6].startswith("0.75 [0.65, 0.85]")
    panels = [a for a in routing.figure(frame).axes if a.images]
    assert [a.get_title() for a in panels] == ["arrow", "spectr"]
    assert (panels[0].images[0].get_array() == 0.25).all()
    assert panels[0].images[0].get_array().shape == (2, 4)


def test_no_routes_no_figure():
    with pytest.raises(draw.NothingToShowError):
        routing.figure(pd.DataFrame([chosen(0, "last", Metric.ACCURACY, 0.5)]))


def test_rows_without_routes_give_an_empty_table():
    made = chosen(0, "last", Metric.ACCURACY, 0.5)
    assert routing.routing_grid(pd.DataFrame([made])).body == ()
