"""Do criteria, verdicts and predictions say what the results say?"""

from jaxlora.evaluate.verdict import Label
from jaxlora.report import outcome


def test_criteria_show_the_worst_value_and_mark_failures(results):
    worse = {**results["criteria"][0], "value": 0.5, "passed": False}
    results["criteria"].append(worse)
    grid = outcome.criteria_grid(results)
    assert grid.header == ("criterion", "needs", "seed 0", "seed 1", "seed 2")
    lines = {line[0]: line[1:] for line in grid.body}
    assert lines["one-hop recall"] == (">= 0.99", "0.500 failed", "0.999", "0.998")
    assert lines["held-out two-hop"] == (">= 0.95", "0.985", "0.984", "0.983")


def test_a_criterion_that_was_not_measured_is_no_number(results):
    results["criteria"] = [
        {
            "seed": 0,
            "criterion": "copy",
            "value": None,
            "threshold": 0.9,
            "passed": False,
        }
    ]
    assert outcome.criteria_grid(results).body == (
        ("Base",),
        ("copy", ">= 0.9", "not measured failed"),
    )


def test_criteria_stand_under_what_they_decide(results):
    grid = outcome.criteria_grid(results)
    assert [line[0] for line in grid.body] == [
        *("Base", "one-hop recall", "held-out two-hop", "copy", "steps"),
        *("Experts", "experts' own facts", "steps"),
        *("Extra formats", "facts in context"),
    ]
    assert grid.body[6] == ("experts' own facts", ">= 0.99", "1.000", "0.999", "0.998")
    assert grid.body[4][2:] == ("2000", "2500", "3000")
    assert grid.body[7][2:] == ("9000",) * 3
    words = ("leaves its seed out;", "verdicts on its library", "no seed is left")
    assert all(word in grid.note for word in words)
    results["criteria"] = [g for g in results["criteria"] if g["required"]]
    assert "format" not in outcome.criteria_grid(results).note


def test_criteria_of_several_coverages_show_the_worst_and_say_so(results):
    assert "coverage" not in outcome.criteria_grid(results).note
    low = [
        {**g, "coverage": 0.0, "value": g["value"] - 0.3} for g in results["criteria"]
    ]
    results["criteria"] = [{**g, "coverage": 1.0} for g in results["criteria"]] + low
    grid = outcome.criteria_grid(results)
    assert grid.body[1][2] == "0.700"
    assert "worst of all coverages" in grid.note


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


def swept(results):
    """The verdicts of the run at coverage 1, and others at 0."""
    low = [
        {**v, "coverage": 0.0, "label": "invalid", "cause": "base"}
        for v in results["verdicts"]
    ]
    high = [{**v, "coverage": 1.0} for v in results["verdicts"]]
    return {**results, "verdicts": high + low}


def test_of_several_coverages_the_highest_counts_and_is_named(results):
    alone, both = outcome.verdict_grid(results), outcome.verdict_grid(swept(results))
    assert both.body == alone.body
    assert "Coverage 1, the highest of 2." in both.note
    assert "overage" not in alone.note
    first, *others = outcome.headline(swept(results))
    assert first.startswith("2-combination (mean) at coverage 1: preserved in R-II")
    assert all("at coverage 1: " in words for words in others)
    assert not any("invalid" in words for words in (first, *others))
    same = {**results, "verdicts": [{**v, "coverage": 1} for v in results["verdicts"]]}
    assert outcome.headline(same) == outcome.headline(results)


def test_reasons_name_the_coverage_where_there_are_several(results):
    grid = outcome.reason_grid(swept(results))
    assert grid.header[:2] == ("coverage", "cell")
    assert {line[0] for line in grid.body} == {"0", "1"}
    assert grid.body[-1][:5] == (
        *("0", "F-OO", "3-combination, A->C of others", "mean", "invalid"),
    )
    assert outcome.reason_grid(results).header[0] == "cell"


def test_cause_none_is_no_cause(results):
    results["verdicts"][0]["cause"] = "none"
    assert outcome.verdict_grid(results).body[0][1] == "preserved"
    assert outcome.reason_grid(results).body[0][4] == "–"


def test_only_committed_predictions_are_called_so(results):
    results["predictions"]["revision"] = None
    note = outcome.prediction_grid(results).note
    assert note == (
        "Of 4 claims: 2 held, 1 failed, 1 not measured. Not committed at the time of "
        "the run: digest sha256:9f2c41d07ab3."
    )
    for nothing in (None, {"digest": "4f53", "revision": None, "outcomes": []}):
        results["predictions"] = nothing
        assert outcome.prediction_grid(results).note == "There is no prediction."


def test_predictions_keep_the_numbers_and_not_the_sentence(results):
    for prediction in results["predictions"]["outcomes"]:
        prediction["detail"] = "R-OI, joint, none: predicted at least 0.9: missed."
    body = outcome.prediction_grid(results).body
    assert [line[2] for line in body] == [
        *("0.04 against 0.13", "0.94", "0.50 [0.43, 0.57]", "–")
    ]


def test_criteria_of_earlier_versions_are_read(results):
    old = [
        {("gate" if k == "criterion" else k): v for k, v in record.items()}
        for record in results.pop("criteria")
    ]
    assert outcome.criteria_grid({**results, "gates": old}).body


def test_an_outcome_of_today_is_a_word_of_its_own(results):
    """Older runs have True, False or None only."""
    results["predictions"]["outcomes"] = [
        {"statement": "x", "held": None, "outcome": word, "got": "0.50 [0.40, 0.60]"}
        for word in ("undecided", "not measured", "reported")
    ] + [{"statement": "y", "held": None}]
    words = [line[1] for line in outcome.prediction_grid(results).body]
    assert words == ["undecided", "not measured", "reported", "not measured"]


def test_remarks_stand_below_the_verdict_and_behind_its_reason(results):
    remarks = ["degrades: hop 1 0.70", "degrades: hop 2 0.60", "no headroom: 0.04"]
    verdict = {**results["verdicts"][0], "label": "composes", "remarks": remarks}
    results["verdicts"] = [verdict]
    grid = outcome.verdict_grid(results)
    assert grid.body[0][1] == "composes\ndegrades\nno headroom"
    reason = outcome.reason_grid(results).body[0][-1]
    assert reason.endswith(
        "; degrades: hop 1 0.70; degrades: hop 2 0.60; no headroom: 0.04"
    )


def test_every_label_of_today_has_a_meaning_and_older_ones_where_they_are_used(results):
    today = [str(label) for label in Label]
    assert list(outcome.meanings({})) == today
    assert set(outcome.meanings(results)) == {*today, "degrades", "inconclusive"}


def test_reports_are_no_claims_and_are_not_counted_as_held(results):
    detail = "R-OI, A->B: 0.41 [0.29, 0.54]; predicted reported with an interval: held."
    older = {"statement": "x", "held": True, "detail": detail}
    new = {"statement": "y", "held": None, "outcome": "reported"}
    undecided = {"statement": "z", "held": None, "outcome": "undecided"}
    results["predictions"]["outcomes"] = [older, new, undecided]
    grid = outcome.prediction_grid(results)
    assert [line[1] for line in grid.body] == ["reported", "reported", "undecided"]
    only = "Of 1 claims: 1 undecided; 2 more only promised a report. "
    assert grid.note.startswith(only)
    results["predictions"]["outcomes"] = [older]
    assert outcome.prediction_grid(results).note.startswith("Committed before")


def test_what_is_undecided_has_no_cause(results):
    open_ = [{**v, "cause": "fine-tuning"} for v in results["verdicts"]]
    for label in ("undecided", "inconclusive"):
        results["verdicts"] = [{**v, "label": label, "remarks": []} for v in open_]
        words = {w for line in outcome.verdict_grid(results).body for w in line[1:]}
        assert words <= {label, "–"}
        assert {line[4] for line in outcome.reason_grid(results).body} == {"–"}


def test_the_finding_comes_first(results):
    before = outcome.headline(results)
    mean = {"label": "no transfer", "value": 0.0, "lo": 0.0, "hi": 0.04, "n": 60}
    results["finding"] = mean | {"chance": 0.02, "combinations": {"mean": mean}}
    first, *others = outcome.headline(results)
    assert first.startswith("The combination does not join facts from two experts")
    assert others == before
