"""A configuration survives JSON, and what cannot run is refused in one sentence."""

import pathlib

import pytest

from jaxlora import merge, route
from jaxlora.studies.harness.config import from_plain, plain, read
from jaxlora.studies.word_problems.text import design
from jaxlora.studies.word_problems.text.config import (
    METHODS,
    STUDY,
    AskConfig,
    EnglishConfig,
    ProblemsConfig,
    TrainConfig,
)

EXPERIMENTS = pathlib.Path(__file__).parents[4] / "experiments" / "word_problems_text"


def test_methods_see_no_data():
    assert {"mean", "sum", "arrow", "ties"} <= set(METHODS)
    assert all(merge.preset(x).data == "free" for x in METHODS if x in merge.names())
    assert all(route.describe(x).data == "free" for x in METHODS if x in route.names())
    assert "oracle" not in METHODS


def test_a_config_survives_json():
    config = ProblemsConfig(model="m", data="a.jsonl", tests=("b.jsonl", "english"))
    assert from_plain(ProblemsConfig, plain(config)) == config
    assert config.facts == "a.jsonl, b.jsonl"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.json")), ids=str)
def test_experiments_are_configs(path):
    config = read(ProblemsConfig, path, STUDY)
    assert config.seeds >= 3
    assert len(design.experts(config)) == 15


def test_there_are_four_experiments():
    assert len(list(EXPERIMENTS.glob("*.json"))) == 4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"formats": ("prose",)}, "formats has 'prose'; there are plain"),
        ({"formats": ()}, "expected a format at least"),
        ({"formats": ("plain", "plain")}, "'plain' twice"),
        ({"methods": ("maen",)}, "methods has 'maen'.*[Dd]id you mean.*mean"),
        ({"methods": ("lorahub",)}, "methods has 'lorahub'"),
        ({"easy": (0, 2)}, r"easy is \(0, 2\), expected its fewest and its most"),
        ({"medium": (2, 4)}, r"medium is \(2, 4\).* more than the 2 of the level"),
        ({"hard": (6, 5)}, "hard is"),
        ({"hard": (5,)}, "hard is"),
        ({"hard": (5, 9)}, "problems of our own have 1 to 8"),
        ({"data": "a.jsonl"}, "nobody is asked anything"),
        ({"tests": ("a/x.jsonl", "b/x.jsonl")}, "tests has 'x' twice"),
        ({"min_own": 1.5}, "min_own is 1.5"),
        ({"confidence": 1.0}, "confidence 1.0"),
        ({"rows": 0}, "rows is 0"),
    ],
)
def test_what_cannot_run_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        ProblemsConfig(**fields)


def test_files_may_have_more_steps_than_our_own_problems():
    ProblemsConfig(data="a.jsonl", tests=("b.jsonl",), hard=(5, 12))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TrainConfig(seed=1), "train.seed is 1"),
        (lambda: TrainConfig(epochs=1), "train.epochs is 1"),
        (lambda: TrainConfig(steps=0), "steps is 0"),
        (lambda: AskConfig(new_tokens=0), "new_tokens is 0"),
        (lambda: AskConfig(shots=-1), "shots is -1"),
        (lambda: EnglishConfig(idle=2), "idle is 2"),
    ],
)
def test_groups_refuse_too(make, words):
    with pytest.raises(ValueError, match=words):
        make()
