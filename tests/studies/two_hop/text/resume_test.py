"""Killed or stopped at random, a study on text still ends with the same rows."""

import json
import signal

import pytest

from jaxlora.studies.harness.config import plain
from killing import survive


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_ten_times_it_still_ends_the_same(tiny, folder, tmp_path, number):
    given = tmp_path / "config.json"
    given.write_text(json.dumps({"study": "two-hop-text", "config": plain(tiny)}))
    words = ["study", "two-hop", "--model", str(folder), "--config", str(given)]
    words += ["--out", "OUT/out", "--cache-dir", "OUT/cache"]
    print(survive(tmp_path / "x", words, 10, 5, ["out/results.csv"], number))
