"""Where numbers come from, also on systems that are not Linux."""

import importlib.util
import json
import math
import os
import sys

import jax

from jaxlora.studies.harness import provenance, results


def test_the_device_counts_the_cores_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert jax.devices()[0].platform == "cpu"
    assert provenance.device().startswith("CPU, 3 cores, ")


def test_without_affinity_the_device_counts_all_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert provenance.device().startswith("CPU, 7 cores, ")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert provenance.device().startswith("CPU, unknown cores, ")


def test_peak_memory_is_in_gib_and_never_falls():
    before = provenance.peak_memory_gib()
    assert 0.01 < before < 1000
    assert provenance.peak_memory_gib() >= before


def test_without_resource_peak_memory_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    spec = importlib.util.spec_from_file_location("fresh", provenance.__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    found = fresh.peak_memory_gib()
    assert math.isnan(found)
    written = results.to_json({"peak_memory_gib": round(found, 2)})
    assert json.loads(written) == {"peak_memory_gib": None}
