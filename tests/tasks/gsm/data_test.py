"""Every record of a user's GSM8K and GSM-Symbolic; skipped without JAXLORA_DATA.

Counts are those of the published files. Four templates contradict themselves: their
solutions end in another number than their answers, at all values.
"""

import numpy as np
import pytest

from jaxlora.tasks import gsm
from jaxlora.tasks.gsm import formats, straight_line, symbolic, template, templates

CONTRADICTIONS = {
    "symbolic": {"0062.json"},
    "p1": {"0074.json", "0089.json"},
    "p2": {"0026.json"},
}


@pytest.mark.parametrize(
    ("name", "records", "annotations", "programs", "negative"),
    [("train", 7473, 23716, 7001, 3), ("test", 1319, 4282, 1207, 2)],
)
def test_gsm8k(data, name, records, annotations, programs, negative):
    problems = list(gsm.read(data / "gsm8k" / f"{name}.jsonl"))
    assert len(problems) == records
    assert sum(len(x.annotations) for x in problems) == annotations
    assert sum(x.answer < 0 for x in problems) == negative
    assert sum(map(_has_program, problems)) == programs
    for problem in problems:
        assert formats.unmarkup(formats.markup(problem)) == formats.annotated(problem)


def test_p2_is_fifty_test_sets_that_are_refused_as_training_data(data):
    sets = gsm.sets(data / "gsm_symbolic" / "GSM_p2.jsonl")
    assert [len(x) for x in sets.values()] == [50] * 50
    every = [x for y in sets.values() for x in y]
    assert sum(x.problem.answer != int(x.problem.answer) for x in every) > 0
    right = gsm.spread([x.template < 25 for x in every], [x.instance for x in every])
    assert (right.mean, right.deviation) == (0.5, 0.0)
    with pytest.raises(ValueError, match="canary"):
        gsm.example(every[0].problem, "plain")
    originals = list(gsm.read(data / "gsm8k" / "test.jsonl"))
    first = next(symbolic.read(data / "gsm_symbolic" / "GSM_p2.jsonl"))
    assert first.original < len(originals)


@pytest.mark.parametrize(
    ("kind", "count", "defaults"),
    [("symbolic", 100, 90), ("p1", 100, 83), ("p2", 50, 38)],
)
def test_templates_render_and_agree(data, kind, count, defaults):
    every = list(template.read(data / "gsm_symbolic" / "templates" / kind))
    assert len(every) == count
    for parsed in every:
        drawn = templates.instances(parsed, np.random.default_rng(0), 2)
        if parsed.where[-9:] in CONTRADICTIONS[kind]:
            with pytest.raises(ValueError, match="contradicts itself"):
                next(drawn)
        else:
            assert len(list(drawn)) == 2
    assert sum(templates.defaults(x) is not None for x in every) == defaults


def test_with_its_defaults_a_template_is_the_problem_of_gsm8k(data):
    originals = list(gsm.read(data / "gsm8k" / "test.jsonl"))
    for parsed in template.read(data / "gsm_symbolic" / "templates" / "symbolic"):
        entries = templates.defaults(parsed)
        if entries is not None:
            rendered = templates.render(parsed, entries)
            assert rendered.answer == originals[parsed.original].answer, parsed.where


def _has_program(problem):
    try:
        straight_line.program(problem)
    except ValueError:
        return False
    return True
