"""Do gates, verdicts and predictions say what the results say?"""

from jaxlora.report import outcome


def test_gates_show_the_worst_value_and_mark_failures(results):
    worse = {**results["gates"][0], "value": 0.5, "passed": False}
    results["gates"].append(worse)
    grid = outcome.gate_grid(results)
    assert grid.header == ("gate", "needs", "seed 0", "seed 1", "seed 2")
    lines = {line[0]: line[1:] for line in grid.body}
    assert lines["one-hop recall"] == (">= 0.99", "0.500 failed", "0.999", "0.998")
    assert lines["held-out two-hop"] == (">= 0.95", "0.985", "0.984", "0.983")
    assert lines["steps"] == ("", "2000", "2500", "3000")


def test_a_gate_that_was_not_measured_is_no_number(results):
    results["gates"] = [
        {"seed": 0, "gate": "copy", "value": None, "threshold": 0.9, "passed": False}
    ]
    assert outcome.gate_grid(results).body == (
        ("copy", ">= 0.9", "not measured failed"),
    )


def test_verdicts_stand_by_library_and_cell_with_their_cause(results):
    grid = outcome.verdict_grid(results)
    assert grid.header == ("", "R-II", "R-OI", "R-IO", "R-OO", "H-OO", "F-OO")
    lines = {line[0]: line[1:] for line in grid.body}
    assert lines["2-combination (mean)"][:3] == (
        "preserved",
        "inconclusive",
        "no transfer\nfine-tuning",
    )
    assert set(lines["2-combination (sum)"]) == {"degrades\ncombination"}
    del results["verdicts"][0]
    assert outcome.verdict_grid(results).body[-1][1] == "–"


def test_reasons_are_complete(results):
    body = outcome.reason_grid(results).body
    assert len(body) == len(results["verdicts"])
    assert body[1] == (
        *("R-II", "2-combination", "sum", "degrades", "combination"),
        "upper bound of hop 1 is 0.76 < 0.90",
    )


def test_predictions_have_three_outcomes_and_their_hash(results):
    grid = outcome.prediction_grid(results)
    assert [line[1] for line in grid.body] == ["held", "held", "failed", "not measured"]
    assert grid.body[2][2] == "0.50 [0.43, 0.57]"
    assert "sha256:9f2c41d07ab3" in grid.note
    assert "fedcba98" in grid.note


def test_headline_names_every_cell_once_and_explains_a_word_once(results):
    first, second, third = outcome.headline(results)
    assert first == (
        "2-combination (mean): preserved in R-II (what the base could do survives the "
        "combination); no transfer in R-IO, R-OO, H-OO and F-OO (not clearly above "
        "chance); inconclusive in R-OI (the interval decides nothing)."
    )
    assert second.startswith("3-combination (mean): retrieves in R-II, R-OI")
    assert third.startswith("3-combination, A->C of others (mean)")
    assert "(not clearly" not in third
