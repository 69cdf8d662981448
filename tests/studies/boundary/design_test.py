"""The design: what is asked of which bases, and what every row names."""

import dataclasses
import itertools

import pytest

from jaxlora.evaluate.schema import Arm, Cell, Method
from jaxlora.studies.boundary import design, protocol, regimes
from jaxlora.studies.boundary.config import AXES, PRESETS, BoundaryConfig
from jaxlora.studies.boundary.regimes import Regime
from jaxlora.studies.two_hop import PretrainConfig
from jaxlora.tasks.two_hop.practice import Practice
from jaxlora.tasks.two_hop.world import WorldConfig

STANDARD = design.points(PRESETS["full"])


def conditions(points):
    return [
        (point.world.coverage, *point.condition, *regime.condition)
        for point in points
        for regime in point.regimes
    ]


def test_no_two_regimes_share_their_rows():
    assert len(conditions(STANDARD)) == len(set(conditions(STANDARD))) > 70


def test_every_row_names_formats_rho_and_placement():
    for condition in conditions(STANDARD):
        names = {name for name, _ in condition[1:]}
        assert {"base", "base format", "rows", "rho", "placement"} <= names


def test_the_phase_diagram_is_complete():
    config = PRESETS["full"]
    points = [x for x in design.points(config) if x.name == "map"]
    got = {
        (point.world.coverage, regime.second.rho)
        for point in points
        for regime in point.regimes
        if regime.name == "direct" or regime.name.startswith("bridge rows")
    }
    assert got == set(itertools.product(config.coverages, config.rhos))


@pytest.mark.parametrize("name", [x.name for x in STANDARD])
def test_a_verdict_has_all_it_rests_on(name):
    point = next(x for x in STANDARD if x.name == name)
    for regime in point.regimes:
        plan = set(point.plan(regime))
        alone = {(arm, Method.NONE) for arm in (Arm.HOP1, Arm.HOP2, Arm.JOINT)}
        assert alone <= plan
        for method in point.methods:
            judged = method in design.PLAIN and not (point.ranked or regime.glance)
            controls = design.CONTROLS if judged else (Arm.RANDOM,)
            if point.model.shared_mlp:  # nothing of it can change its layer
                controls = set(controls) - {Arm.PERMUTED}
            assert {(arm, method) for arm in (Arm.PAIR, *controls)} <= plan
            assert ((Arm.REVERSED, method) in plan) == (judged and regime.placed)


def test_the_headline_asks_everything_of_every_cell():
    points = [x for x in STANDARD if x.name == "headline"]
    asked: set[Arm] = set()
    for point in points:
        assert set(point.cells) == set(Cell)
        assert point.world.pairs * point.world.people >= 63
        assert min(point.seeds) > 10
        asked |= {arm for regime in point.regimes for arm, _ in point.plan(regime)}
    assert {Arm.TARGET, Arm.TARGET_OTHERS, Arm.TRIPLE, Arm.REVERSED} <= asked
    assert "both practise" in {x.name for point in points for x in point.regimes}


@pytest.mark.parametrize("axis", AXES)
def test_an_axis_differs_in_one_thing(axis):
    config = BoundaryConfig(axes=(axis,))
    base = next(x for x in design.points(config) if x.name == "map")
    point = next(x for x in design.points(config) if x.name == axis)
    differ = [
        name
        for name in ("world", "model", "pretrain")
        if getattr(point, name) != getattr(base, name)
    ]
    assert len(differ) == 1
    if differ == ["model"] and axis.startswith("looped"):
        depth = point.model.num_layers * point.model.passes
        assert depth % config.model.num_layers == 0


def test_all_pairs_of_ranges():
    placements = [regime.placement for regime in regimes.grid(4)]
    assert len(set(placements)) == len(placements) == 24
    assert {"0 + 2-3", "2-3 + 0", "all + 3", "0-1 + all"} <= set(placements)


def test_layers_that_do_not_exist_are_refused():
    point = dataclasses.replace(
        STANDARD[0], regimes=(Regime(name="far", second_layers=(2, 4)),)
    )
    with pytest.raises(ValueError, match=r"layer 4, but .* have 4 layers, 0 to 3"):
        protocol.check(point)


@pytest.mark.parametrize(
    ("form", "formats", "unseen"),
    [
        ("bridge", ("written",), "misled"),
        ("document", ("written", "misled"), "document"),
        ("mixture", (), "written"),
    ],
)
def test_rows_of_a_format_that_the_base_never_sees_are_refused(form, formats, unseen):
    point = dataclasses.replace(
        STANDARD[0],
        pretrain=PretrainConfig(formats=formats),
        regimes=(Regime(name="new", second=Practice(rho=0.5, form=form)),),
    )
    with pytest.raises(ValueError, match=f"format '{unseen}'.* trained on"):
        protocol.check(point)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rhos": (0.5, 1.2)}, "rhos has 1.2, expected shares"),
        ({"coverages": (0.5, 0.5)}, "coverages has 0.5 twice"),
        ({"coverages": (0.01,)}, "leaves no covered fact; use 0, or at least"),
        ({"axes": ("9 layers",)}, "axes has '9 layers'; there are no formats"),
        ({"methods": ("maen",)}, "did you mean 'mean'"),
        ({"seeds": 0, "map_seeds": 0}, "nothing to ask"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        BoundaryConfig(**fields)


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan")])
def test_rho_is_a_share(value):
    with pytest.raises(ValueError, match="rho is"):
        Practice(rho=value)


def test_presets_leave_a_covered_fact():
    for config in PRESETS.values():
        assert isinstance(config.map_world, WorldConfig)
        for point in design.points(config):
            protocol.check(point)
