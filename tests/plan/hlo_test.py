"""Programs as XLA writes them: who talks to whom, how often, and how much."""

import pathlib

import numpy as np
import pytest

from jaxlora.plan import hlo

MESH = {"expert": 2, "data": 1, "fsdp": 4, "tensor": 1}
PROGRAM = pathlib.Path(__file__).parents[1] / "data" / "plan_program.txt"
LOOPED = PROGRAM.read_text()
WAYS = {
    "listed": "replica_groups={{0,1,2,3},{4,5,6,7}}",
    "counted": "replica_groups=[2,4]<=[8]",
    "turned": "replica_groups=[2,4]<=[4,2]T(1,0)",
    "mesh": "replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}",
    "mesh turned": "replica_groups=mesh['axis_0'=4,'axis_1'=2], "
    "device_ids=([2,4]T(1,0)) {'axis_0'}",
    "part of an axis": "replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}",
}


@pytest.mark.parametrize("way", WAYS)
def test_groups_are_read_however_they_are_written(way):
    want = {"turned": ("expert", "fsdp")}.get(way, ("fsdp",))
    text = LOOPED.replace("GROUPS", WAYS[way]).replace("TRIPS", "")
    first = hlo.collectives(text, MESH)[0]
    assert (first.axes, first.group) == (want, 4)


@pytest.mark.parametrize(
    "trips", ["", ', backend_config={"known_trip_count":{"n":"7"}}']
)
def test_a_loop_counts_its_trips_and_a_copy_counts_once(trips):
    text = LOOPED.replace("GROUPS", WAYS["listed"]).replace("TRIPS", trips)
    every = hlo.collectives(text, MESH)
    assert [(x.kind, x.times) for x in every] == [
        ("all-gather", 7 if trips else 28),
        ("all-reduce", 1),
        ("all-to-all", 1),
        ("collective-permute", 1),
        ("all-gather", 1),
        ("reduce-scatter", 1),
    ]
    assert every[0].name == "jit(f)/layers/q_proj"
    assert every[2].axes == ("expert",)


def test_bytes_are_those_that_a_device_receives():
    text = LOOPED.replace("GROUPS", WAYS["listed"]).replace("TRIPS", "")
    received = [x.received for x in hlo.collectives(text, MESH)]
    assert received == [
        28 * 4 * 8 * 2 * 3 / 4,
        2 * (6 + 1) * 4 * 3 / 4,
        6 * 4 / 2,
        5 * 4,
        8 * 4 * 3 / 4,
        3 * 4 * 3,
    ]


def test_axes_are_those_along_which_a_group_differs():
    groups = np.array([[0, 1, 4, 5], [2, 3, 6, 7]])
    sizes = {"expert": 2, "data": 2, "fsdp": 2}
    assert hlo.axes_of(groups, sizes) == ("expert", "fsdp")
