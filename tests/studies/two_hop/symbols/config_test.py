"""Configurations: what is refused at once, and that JSON gives back the same one."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from jaxlora import merge, route
from jaxlora.studies.harness.config import flat, from_plain, plain
from jaxlora.studies.two_hop import config as common
from jaxlora.studies.two_hop.config import METHODS
from jaxlora.studies.two_hop.symbols.config import FREE, PRESETS, TwoHopConfig

CHANGED = TwoHopConfig(
    coverages=(0.0, 0.5),
    methods=("arrow", "sum"),
    facts=Path("some/facts.jsonl"),
    arrow_temperature=0.25,
    allow_ties=True,
)


@pytest.mark.parametrize("config", [*PRESETS.values(), CHANGED], ids=[*PRESETS, "own"])
def test_json_gives_back_the_same_config(config):
    found = from_plain(TwoHopConfig, json.loads(json.dumps(plain(config))))
    assert found == config
    assert plain(found) == plain(config)


def test_fields_that_json_leaves_out_have_their_defaults():
    found = from_plain(TwoHopConfig, {"seeds": 4, "world": {"people": 5}})
    assert found == TwoHopConfig(
        seeds=4, world=dataclasses.replace(TwoHopConfig().world, people=5)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": 1}, "field sedes, .*did you mean seeds"),
        ({"world": {"peple": 1}}, r"field world\.peple, .*did you mean world\.people"),
        ({"world": 3}, "world is 3, expected a group"),
        ({"seeds": "two"}, "seeds is 'two', expected int"),
        ({"seeds": 1.5}, "seeds is 1.5, expected int"),
        ({"seeds": True}, "seeds is True, expected int"),
        ({"allow_ties": 1}, "allow_ties is 1, expected bool"),
        ({"methods": "mean"}, "methods is 'mean', expected a list"),
        ({"methods": ["mean", 3]}, r"methods\[1\] is 3, expected str"),
        ({"coverages": ["a"]}, r"coverages\[0\] is 'a', expected float"),
        ({"model": {"mlp": "big"}}, "model.mlp is 'big', expected one of 'plain'"),
        ({"oracle_search": "all"}, "oracle_search is 'all', expected one of 'local'"),
        ({"facts": 3}, "facts is 3, expected a path or null"),
        ({"lora": {"targets": [1]}}, r"lora.targets\[0\] is 1, expected str"),
        ({"seeds": None}, "seeds is None, expected int"),
    ],
)
def test_json_that_does_not_fit_names_the_field(changes, message):
    values = plain(TwoHopConfig()) | changes
    with pytest.raises(ValueError, match=message):
        from_plain(TwoHopConfig, values)


def test_files_with_the_names_of_earlier_versions_are_read():
    config = from_plain(TwoHopConfig, {"thresholds": {"level": 0.9}})
    assert config.thresholds.confidence == 0.9


def test_routers_are_recorded_among_the_methods():
    config = TwoHopConfig(methods=("mean",), routers=("arrow", "top-1"))
    assert config.all_methods == ("mean", "arrow", "top-1")
    settled = common.settled(config)
    assert (settled.methods, settled.routers) == (config.all_methods, ())
    assert common.settled(settled) == settled


def test_whole_numbers_are_floats_where_floats_are_meant():
    found = from_plain(TwoHopConfig, {"coverages": [0, 1], "lora": {"alpha": 2}})
    assert [type(level) for level in found.coverages] == [float, float]
    assert type(found.lora.alpha) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("men",)}, "Unknown method 'men'.*did you mean 'mean'"),
        ({"methods": ()}, "methods is empty, expected one"),
        ({"methods": ("sum", "sum")}, "methods has 'sum' twice"),
        ({"coverages": (0.5, 0.5)}, "coverages has 0.5 twice"),
        ({"coverages": (0.5, 1.2)}, r"coverage is 1.2, .*\[0, 1\]"),
        ({"coverages": (-0.1,)}, "coverage is -0.1"),
        ({"coverages": (math.nan,)}, "coverage is nan"),
        ({"seeds": 0}, "seeds is 0, expected at least 1"),
        ({"first_seed": -1}, "first_seed is -1"),
        ({"seeds": 10**4}, "seeds is 10000, expected at most 1000"),
        ({"world": {"entities": 10**9}}, "entities is 1000000000, expected at most"),
        ({"model": {"num_layers": 10**6}}, "num_layers is 1000000, expected at most"),
        ({"resamples": 10**7}, "resamples is 10000000, expected at most 1000000"),
        ({"seeds_at_once": -1}, "seeds_at_once is -1"),
        ({"resamples": 0}, "resamples is 0"),
        ({"retention_items": 0}, "retention_items is 0"),
        ({"arrow_top_k": -1}, "arrow_top_k is -1"),
        ({"oracle_starts": -1}, "oracle_starts is -1"),
        ({"oracle_sweeps": 0}, "oracle_sweeps is 0, expected at least 1"),
        ({"arrow_temperature": 0.0}, "arrow_temperature is 0.0, .*positive"),
        ({"arrow_temperature": math.nan}, "arrow_temperature is nan"),
        ({"thresholds": {"confidence": 1.0}}, "confidence is 1.0"),
        ({"thresholds": {"alpha": 5.0}}, "alpha is 5.0"),
        ({"world": {"people": 2}}, "people is 2, expected at least 3"),
        ({"world": {"people": 11}}, "11 people .* need 44 entities"),
        ({"model": {"max_length": 8}}, "max_length is 8"),
        ({"pretrain": {"chunk": 0}}, "chunk is 0"),
        ({"pretrain": {"chunk": 15}}, "chunk is 15 and extra_every 10"),
        ({"pretrain": {"extra_every": 1}}, "extra_every 1"),
        ({"pretrain": {"warmup": 0}}, "warmup is 0"),
        ({"pretrain": {"max_steps": 0}}, "max_steps is 0"),
        ({"pretrain": {"min_copy": 1.1}}, r"min_copy is 1.1, expected a share"),
        ({"pretrain": {"learning_rate": math.inf}}, "learning_rate is inf"),
        ({"experts": {"steps": 0}}, "steps is 0"),
        ({"experts": {"learning_rate": 0.0}}, "learning_rate is 0.0"),
    ],
)
def test_what_could_not_run_is_refused_at_once(changes, message):
    default = TwoHopConfig()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(
            default,
            **{
                name: dataclasses.replace(getattr(default, name), **value)
                if isinstance(value, dict)
                else value
                for name, value in changes.items()
            },
        )


def test_methods_are_all_merges_and_gates():
    assert set(METHODS) == {*merge.names(), *route.names()}


def test_presets_are_what_the_readme_says():
    assert [(p.seeds, len(p.all_coverages)) for p in PRESETS.values()] == [
        (1, 1),
        (3, 1),
        (5, 5),
    ]
    # Seeds 0 to 10 and 43 to 45 were seen: none of them tests a prediction.
    assert PRESETS["standard"].first_seed == 46


def test_coverages_are_the_sweep_or_the_one_of_the_world():
    assert TwoHopConfig(coverages=(0.25, 1.0)).all_coverages == (0.25, 1.0)
    world = dataclasses.replace(TwoHopConfig().world, coverage=0.5)
    assert TwoHopConfig(world=world).all_coverages == (0.5,)


def test_predictions_of_the_package_can_be_read():
    from jaxlora.evaluate import predictions

    assert predictions.load(common.predictions(""))


def test_fields_that_may_differ_when_a_run_goes_on_exist():
    assert set(FREE) <= set(flat(plain(TwoHopConfig())))
