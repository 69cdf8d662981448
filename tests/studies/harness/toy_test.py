"""The proof of the harness: a whole study in 60 lines, run, killed, resumed, judged."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxlora import locks
from jaxlora.evaluate.predictions import Claim, Prediction
from jaxlora.evaluate.schema import COLUMNS, Address, Arm, Method, Metric, Split
from jaxlora.report.grid import Grid, markdown_table
from jaxlora.studies import harness
from jaxlora.studies.harness import Criterion, Outcome, Results, Run, Study, results
from jaxlora.studies.harness.samples import Intervals, add, per_seed, pooled
from jaxlora.studies.harness.share import Share, join

ARMS, LEAST = (Arm.BASE, Arm.HOP1, Arm.PAIR), 0.2
HOW = Intervals(confidence=0.95, resamples=50)


@dataclasses.dataclass(frozen=True)
class Toy:
    """Coins of three kinds: does a pair fall on heads more often than the base?"""

    seeds: int = 2
    people: int = 8
    pause: float = 0.0


def answer(config: Toy, seed: int, arm: Arm) -> Outcome:
    """One block: a coin a person."""
    time.sleep(config.pause)
    rng = np.random.default_rng([seed, ARMS.index(arm)])
    heads = rng.random(config.people) < 0.3 + 0.3 * ARMS.index(arm)
    return Outcome(pd.DataFrame({"correct": heads.astype(int)}), {"drawn": seed})


def address(arm: Arm) -> Address:
    return Address(
        cell=None,
        arm=arm,
        method=Method.NONE,
        split=Split.OWN,
        metric=Metric.ACCURACY,
    )


def work(this: Run[Toy]) -> Results:
    config, samples, rows, criteria, failed = this.config, {}, [], [], []
    seeds = this.share.of(range(config.seeds))
    for seed in seeds:
        for i, arm in enumerate(ARMS):
            this.progress("questions", i, len(ARMS), f"seed {seed}: {arm}")
            path = this.out / "blocks" / f"{seed}-{i}.json"
            make = lambda seed=seed, arm=arm: answer(config, seed, arm)  # noqa: E731
            block = harness.ask(this, path, ["correct"], make)
            add(samples, address(arm), seed, block.items["correct"])
        share = samples[address(Arm.BASE)][seed].values.mean()
        criterion = Criterion("some heads", share, config.people, LEAST)
        criteria.append(criterion.record(seed=seed))
        rows += criterion.rows(seed, address(Arm.BASE))
        failed += [] if criterion.passed else [seed]
    if not this.share.complete:
        return Results(pd.DataFrame(), {}, [])
    rows += per_seed(samples, range(config.seeds), HOW.confidence)
    both = list(pooled(samples, range(config.seeds), HOW))
    summary = {"criteria": criteria}
    summary["predictions"] = results.checked(CLAIMS, both, this.study.revision)
    return Results(results.table("toy", rows + both), summary | this.origin, failed)


CLAIMS = [
    Prediction(
        cell=None,
        library=arm,
        method=Method.NONE,
        claim=Claim.VALUE_AT_LEAST,
        bound=bound,
        statement="mostly heads",
        split=Split.OWN,
    )
    for arm, bound in (
        (Arm.BASE, 0.99),
        (Arm.BASE, 0.5),
        (Arm.PAIR, 0.2),
        (Arm.JOINT, 0.5),
    )
]


def run(root: Path, progress=lambda *_: None, part=Share(), **config) -> Results:  # noqa: B008
    study = Study(name="toy", config=Toy(**config), code="v1", free=("pause",))
    return harness.run(study, root / "out", root / "cache", work, progress, part)


def csv(root: Path) -> bytes:
    return (root / "out" / "results.csv").read_bytes()


def test_it_runs_and_reports(tmp_path):
    ended = run(tmp_path)
    assert tuple(ended.rows.columns) == COLUMNS
    assert csv(tmp_path).decode() == ended.rows.to_csv(index=False)
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(stored["criteria"]) == 2
    assert stored["timings"]["blocks_resumed"] == 0
    words = [x["detail"].rsplit(": ")[-1] for x in stored["predictions"]["outcomes"]]
    assert words == ["failed.", "undecided.", "held.", "not measured."]
    told = [(x["outcome"], x["held"]) for x in stored["predictions"]["outcomes"]]
    assert told == [
        ("failed", False),
        ("undecided", None),
        ("held", True),
        ("not measured", None),
    ]
    body = tuple((x["statement"], x["got"]) for x in stored["predictions"]["outcomes"])
    page = markdown_table(Grid("Predictions", ("claim", "got"), body))
    assert page.count("mostly heads") == 4


def test_cut_anywhere_it_goes_on_and_ends_the_same(tmp_path):
    run(tmp_path / "whole")
    for stop in range(1, 6):

        def cut(_, i, n, text, stop=stop):
            if text.startswith(f"seed {stop // 3}") and i == stop % 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as stopped:
            run(tmp_path / "cut", cut)
        assert stopped.value.__notes__ == [f"saved are {stop} blocks of answers"]
        assert len(list((tmp_path / "cut/out/blocks").iterdir())) == stop
    ended = run(tmp_path / "cut")
    assert ended.summary["timings"]["blocks_resumed"] == 5
    assert csv(tmp_path / "cut") == csv(tmp_path / "whole")


@pytest.mark.parametrize("lost", [False, True])
def test_shares_that_are_joined_end_as_one_run_does(tmp_path, lost):
    """And what a share lacks is made when they are joined."""
    run(tmp_path / "whole", seeds=5)
    parts = [tmp_path / f"part{i}" for i in range(2)]
    for i, root in enumerate(parts):
        run(root, part=Share(i, 2), seeds=5)
        assert not (root / "out" / "results.csv").exists()
    if lost:
        (parts[1] / "out" / "blocks" / "3-1.json").unlink()
    join([root / "out" for root in parts], tmp_path / "joined" / "out")
    ended = run(tmp_path / "joined", seeds=5)
    assert ended.summary["timings"]["blocks_resumed"] == 15 - lost
    assert csv(tmp_path / "joined") == csv(tmp_path / "whole")


def test_stopped_before_anything_is_saved_it_says_nothing_of_it(tmp_path):
    def cut(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        run(tmp_path, cut)
    assert not hasattr(stopped.value, "__notes__")


def test_another_configuration_does_not_mix(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="people is 8 there and 9 here"):
        run(tmp_path, people=9)
    assert run(tmp_path, pause=0.01).summary["timings"]["blocks_resumed"] == 6


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_the_same(tmp_path):
    run(tmp_path / "whole")
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import toy_test as t; "
    )
    code += "t.run(pathlib.Path(sys.argv[2]), pause=0.5)"
    folder, root = Path(__file__).parent, tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(root)])
    while len(list((root / "out" / "blocks").glob("*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = run(root)
    assert 2 <= ended.summary["timings"]["blocks_resumed"] < 6
    assert csv(root) == csv(tmp_path / "whole")


def test_two_runs_do_not_share_an_output_folder(tmp_path):
    with (
        locks.folder(tmp_path / "out"),
        pytest.raises(locks.BusyError, match="process"),
    ):
        run(tmp_path)
    run(tmp_path)


def test_damaged_and_swapped_blocks_are_asked_again(tmp_path, capsys):
    whole = run(tmp_path)
    blocks = sorted((tmp_path / "out" / "blocks").iterdir())
    swapped = blocks[1].read_bytes()
    blocks[2].write_bytes(swapped)
    blocks[3].write_bytes(blocks[3].read_bytes().replace(b"1", b"0", 1))
    capsys.readouterr()
    again = run(tmp_path)
    assert again.summary["timings"]["blocks_resumed"] == 4
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all("is not what was written" in line for line in said)
    pd.testing.assert_frame_equal(again.rows, whole.rows)
