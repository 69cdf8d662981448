"""A configuration survives JSON, and what cannot run is refused in one sentence."""

import dataclasses
import json
import pathlib

import pytest

from jaxlora import merge
from jaxlora.evaluate import predictions
from jaxlora.studies.harness.config import flat, plain, read
from jaxlora.studies.two_hop import config as common
from jaxlora.studies.two_hop.text.config import (
    FREE,
    METHODS,
    STUDY,
    TextConfig,
    TrainConfig,
)

EXPERIMENTS = pathlib.Path(__file__).parents[4] / "experiments" / "two_hop_text"


def test_methods_are_those_that_free_text_allows():
    assert {"mean", "sum", "factor-mean", "arrow", "uniform"} <= set(METHODS)
    assert "oracle" not in METHODS
    assert {"ties", "dare", "delta-ties", "ties[peft]"} <= set(METHODS)
    sees = {name: merge.preset(name).data for name in merge.names()}
    assert {name for name in merge.names() if name not in METHODS} == {
        name for name, data in sees.items() if data != "free"
    }
    usual = {"mean", "sum", "factor-mean", "arrow", "uniform"}
    assert set(TextConfig().methods) == usual


def test_a_config_is_read_back_from_json_and_from_results(tmp_path):
    made = TextConfig(model="m", people=5, facts=pathlib.Path("f.jsonl"))
    options = plain(made)
    (tmp_path / "options.json").write_text(json.dumps(options))
    results = {"study": STUDY, "config": options}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert read(TextConfig, tmp_path / "options.json", STUDY) == made
    assert read(TextConfig, tmp_path / "results.json", STUDY) == made


def test_files_with_the_names_of_earlier_versions_are_read(tmp_path):
    old = {"gates": {"min_own": 0.5}, "thresholds": {"level": 0.9}}
    old["train"] = {"at_once": 2, "steps": 9}
    (tmp_path / "options.json").write_text(json.dumps(old))
    config = read(TextConfig, tmp_path / "options.json", STUDY)
    assert (config.criteria.min_own, config.thresholds.confidence) == (0.5, 0.9)
    assert (config.train.together, config.train.steps) == (2, 9)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.json")), ids=str)
def test_experiments_are_configurations(path):
    found = read(TextConfig, path, STUDY)
    assert found.seeds >= 3
    assert found.people >= 20
    assert (EXPERIMENTS / "shapes" / path.stem / "config.json").is_file()


def test_there_are_experiments_for_the_models_of_the_paper_and_more():
    names = {path.stem for path in EXPERIMENTS.glob("*.json")}
    assert {"qwen2.5-3b-instruct", "qwen2.5-7b-instruct"} <= names
    assert {"qwen2.5-14b-instruct", "deepseek-r1-distill-qwen-7b"} <= names


def test_the_predictions_of_the_package_are_readable():
    found = predictions.load(common.predictions("text"))
    assert {str(p.cell) for p in found} == {"F-OO", "H-OO"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"methods": ("meen",)}, "'meen'; there are .*did you mean 'mean'"),
        ({"methods": ()}, "methods is empty"),
        ({"routers": ("oracle",)}, "methods has 'oracle'; there are"),
        ({"routers": ("phatgoose",)}, "'phatgoose' sees statistics"),
        ({"methods": ("regmean",)}, "'regmean' sees statistics of each expert's own"),
        ({"methods": ("cat",)}, "'cat' sees solved target tasks, .*'mean', 'sum'"),
        ({"methods": ("mean", "mean")}, "'mean' twice"),
        ({"cells": ("R-OO",)}, "cells has 'R-OO'; there are F-OO, H-OO"),
        ({"people": 2}, "people is 2 and pairs 2, expected at least 3 people"),
        ({"pairs": 3}, "pairs 3"),
        ({"seeds": 0}, "seeds is 0"),
        ({"arrow_top_k": 3}, "arrow_top_k is 3"),
        ({"adapter": ("a", "b")}, "2 adapters and facts None"),
        ({"adapter": ("a",), "facts": "f"}, "1 adapters and facts f"),
        ({"hop1": "x"}, "hop1 is 'x', which is none of the adapters"),
        (
            {"adapter": ("a", "b"), "facts": "f", "hop1": "a", "hop2": "a"},
            "One adapter has two roles",
        ),
        ({"cells": ()}, "no cells and no facts"),
    ],
)
def test_refuses(fields, said):
    with pytest.raises(ValueError, match=said):
        TextConfig(**fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no options"),
        ('{"study": "two-hop", "config": {}}', "is of the study 'two-hop'"),
        ('{"peopel": 3}', "did you mean people"),
        ('{"lora": {"rank": "x"}}', "lora.rank is 'x', expected int"),
    ],
)
def test_refuses_files(tmp_path, text, said):
    (tmp_path / "options.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read(TextConfig, tmp_path / "options.json", STUDY)


def test_adapters_are_asked_once():
    made = TextConfig(seeds=3, adapter=("a", "b"), facts=pathlib.Path("f"))
    assert made.numbers == (0,)
    assert dataclasses.replace(made, adapter=()).numbers == (0, 1, 2)


def test_fields_that_may_differ_when_a_run_goes_on_exist():
    assert set(FREE) <= set(flat(plain(TextConfig())))


def test_a_group_of_options_keeps_the_defaults_of_the_study(tmp_path):
    (tmp_path / "options.json").write_text('{"train": {"batch": 4}}')
    train = read(TextConfig, tmp_path / "options.json", STUDY).train
    assert (train.batch, train.steps, train.length, train.warmup) == (4, 400, 256, 20)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"seed": 3}, "train.seed is 3"),
        ({"epochs": 5.0}, "train.epochs is 5.0, expected 3.0"),
    ],
)
def test_training_that_a_study_does_not_do_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**fields)
