"""Killed at random, a study still ends with the rows of one that was left alone."""

import json

import pytest

from jaxlora.studies.harness.config import plain
from killing import survive


@pytest.mark.slow
def test_killed_at_random_it_still_ends_the_same(small, tmp_path):
    """SIGKILL leaves no time to tidy up: whatever is on the disk must do."""
    given = tmp_path / "config.json"
    given.write_text(json.dumps({"study": "two-hop", "config": plain(small)}))
    words = ["study", "two-hop", "--from", str(given)]
    words += ["--out", "OUT/out", "--cache-dir", "OUT/cache"]
    print(survive(tmp_path / "x", words, 10, 5, ["out/results.csv"]))
