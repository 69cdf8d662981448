"""Synthetic but realistic rows of a two-hop study, and the results of its run."""

import copy
import math
from collections.abc import Iterator, Sequence

import pandas as pd
import pytest

import boundary_rows
import word_problem_rows as made_up
from jaxlora.evaluate.schema import Address, Arm, Cell, Method, Metric, Split, row
from jaxlora.evaluate.statistics import Interval
from jaxlora.report import page, readings, word_problems_readings
from jaxlora.studies.boundary.config import BoundaryConfig

MERGES = tuple(m for m in Method if m is not Method.NONE)
USES = (
    *((library, Method.NONE) for library in (Arm.BASE, Arm.HOP1, Arm.HOP2)),
    *((library, Method.NONE) for library in (Arm.TARGET, Arm.TARGET_OTHERS)),
    *((library, Method.NONE) for library in (Arm.JOINT, Arm.FULL)),
    *((Arm.PAIR, method) for method in MERGES),
    *((library, Method.MEAN) for library in (Arm.TRIPLE, Arm.TRIPLE_OTHERS)),
    *((library, Method.MEAN) for library in (Arm.RANDOM, Arm.PERMUTED)),
    *((library, Method.MEAN) for library in (Arm.SHUFFLED, Arm.IDENTITY)),
)
SEEDS, ITEMS = 3, 60
DAMAGE = {Method.SUM: 0.6, Method.FACTOR_MEAN: 0.4, Method.UNIFORM: 0.9}


def wilson(p: float, n: int) -> tuple[float, float]:
    z = 1.96
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def truth(cell: Cell, library: Arm, method: Method, coverage: float) -> float:
    new = {"R": 1.0, "H": 0.97, "F": 0.92}[cell.familiarity]
    base = 0.98 if cell.knows == "II" else 0.005
    two = {"II": 0.95, "OI": 0.5 * coverage, "IO": 0.02, "OO": 0.01}[cell.knows]
    if library in (Arm.PAIR, Arm.IDENTITY, Arm.JOINT, Arm.FULL):
        return two * DAMAGE.get(method, 1.0)
    if library in (Arm.TRIPLE, Arm.TARGET):
        return 0.94 * new
    if library in (Arm.TRIPLE_OTHERS, Arm.TARGET_OTHERS):
        return min(1.0, two + 0.03)
    return 0.02 if library is Arm.SHUFFLED else base


def measured(
    cell: Cell | None,
    library: Arm,
    method: Method,
    split: Split,
    metric: Metric,
    p: float | None,
    condition: dict,
) -> Iterator[dict]:
    for seed in (*range(SEEDS), "all"):
        n = ITEMS * (SEEDS if seed == "all" else 1)
        lo, hi = (None, None) if p is None else wilson(abs(p), n)
        address = Address(
            cell=cell,
            arm=library,
            method=method,
            split=split,
            metric=metric,
            where=tuple(condition.items()),
        )
        ends = (math.nan if x is None else x for x in (p, lo, hi))
        yield {"study": "two-hop", **row(seed, address, Interval(*ends, n))}


def cell_rows(cell: Cell, coverage: float) -> Iterator[dict]:
    at = {"coverage": coverage}
    for library, method in USES:
        use = (cell, library, method)
        p = truth(*use, coverage)
        kept = 1.0 if method is not Method.SUM else 0.7
        # First a subset of the items, so that taking any row of a key fails.
        subset = at | {"covered": True}
        yield from measured(*use, Split.TWO_HOP, Metric.ACCURACY, 0.77, subset)
        yield from measured(*use, Split.TWO_HOP, Metric.ACCURACY, p, at)
        yield from measured(*use, Split.HOP1, Metric.ACCURACY, kept, at)
        yield from measured(*use, Split.HOP2, Metric.ACCURACY, 0.99 * kept, at)
        yield from measured(*use, Split.TWO_HOP, Metric.CHANCE, 0.03, at)
        if library is Arm.PAIR:
            wrong = 1 - p
            for metric, share in {
                Metric.BRIDGE: 0.55,
                Metric.RELATION2: 0.1,
                Metric.OLD: 0.25,
                Metric.OTHER: 0.1,
            }.items():
                yield from measured(*use, Split.TWO_HOP, metric, share * wrong, at)
    pair = (cell, Arm.PAIR, Method.MEAN)
    yield from measured(*pair, Split.WRITTEN, Metric.ACCURACY, 0.88, at)
    base = (cell, Arm.BASE, Method.NONE)
    yield from measured(*base, Split.CONTEXT, Metric.ACCURACY, None, at)
    others = (cell, Arm.TRIPLE_OTHERS, Method.MEAN, Split.TWO_HOP)
    against = at | {"against": "2-combination"}
    yield from measured(*others, Metric.DIFFERENCE, 0.03, against)


def make_rows(coverages: Sequence[float] = (1.0,)) -> pd.DataFrame:
    rows = [r for c in coverages for cell in Cell for r in cell_rows(cell, c)]
    document = (None, Arm.DOCUMENT, Method.NONE, Split.TWO_HOP, Metric.AVAILABLE)
    rows += measured(*document, 0.0, {})
    familiar = (None, Arm.BASE, Method.NONE, Split.FAMILIAR_TWO_HOP)
    rows += measured(*familiar, Metric.ACCURACY, 0.99, {})
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    return make_rows()


@pytest.fixture(scope="session")
def wide_rows() -> pd.DataFrame:
    """Rows of five levels of coverage, made tidy once for all tests."""
    return readings.tidy(make_rows((0.0, 0.25, 0.5, 0.75, 1.0)))


def verdicts() -> list[dict]:
    labels = {"II": ("preserved", ""), "OI": ("inconclusive", "")}
    return [
        {
            "cell": cell.value,
            "library": library.value,
            "method": method.value,
            "label": label,
            "cause": cause,
            "reason": reason,
        }
        for cell in Cell
        for library, method, (label, cause), reason in (
            (
                Arm.PAIR,
                Method.MEAN,
                labels.get(cell.knows, ("no transfer", "fine-tuning")),
                "upper bound 0.04 <= chance 0.03 + 0.10, and so is the joint LoRA's",
            ),
            (
                Arm.PAIR,
                Method.SUM,
                ("degrades", "combination"),
                "upper bound of hop 1 is 0.76 < 0.90",
            ),
            (
                Arm.TRIPLE,
                Method.MEAN,
                ("retrieves", ""),
                "0.85 above every negative control, and A->C saw these people",
            ),
            (
                Arm.TRIPLE_OTHERS,
                Method.MEAN,
                labels.get(cell.knows, ("no transfer", "fine-tuning")),
                "upper bound 0.08 <= chance 0.03 + 0.10",
            ),
        )
    ]


RESULTS = {
    "study": "two-hop",
    "config": {"preset": "standard", "seeds": 3, "rank": 8, "merge": {"alpha": 16.0}},
    "versions": {"jaxlora": "0.1.0", "jax": "0.10.2", "python": "3.11.7"},
    "device": "cpu, 2 cores",
    "git_revision": "0123456789abcdef",
    "timings": {
        "total_s": 912.4,
        "compile_s": 88.1,
        "pretrain_s": 611.0,
        "experts_s": 120.7,
        "evaluate_s": 92.6,
    },
    "criteria": [
        {
            "seed": seed,
            "criterion": gate,
            "value": value - 0.001 * seed,
            "threshold": threshold,
            "passed": value - 0.001 * seed >= threshold,
            "required": required,
            "steps": 9000 if "experts" in gate else 2000 + 500 * seed,
        }
        for seed in range(SEEDS)
        for gate, value, threshold, required in (
            ("one-hop recall", 1.0, 0.99, True),
            ("held-out two-hop", 0.985, 0.95, True),
            ("facts in context", 0.41, 0.9, False),
            ("copy", 1.0, 0.99, True),
            ("experts' own facts", 1.0, 0.99, True),
        )
    ],
    "predictions": {
        "digest": "sha256:9f2c41d07ab3",
        "revision": "fedcba98",
        "outcomes": [
            {
                "statement": "R-OO: the upper bound of the 2-combination under mean is "
                "at most chance + 0.10.",
                "held": True,
                "got": "0.04 against 0.13",
            },
            {
                "statement": "3-combination on its own people: at least 0.7.",
                "held": True,
                "got": "0.94",
            },
            {
                "statement": "Joint LoRA composes in R-OI.",
                "held": False,
                "got": "0.50 [0.43, 0.57]",
            },
            {"statement": "Facts in context: at least 0.9.", "held": None, "got": ""},
        ],
    },
    "verdicts": verdicts(),
    "failed_seeds": [],
}


@pytest.fixture
def results() -> dict:
    return copy.deepcopy(RESULTS)


@pytest.fixture(scope="session")
def written(rows, tmp_path_factory) -> str:
    """The page of the synthetic run, with its figures."""
    folder = tmp_path_factory.mktemp("page")
    path = page.write(rows, copy.deepcopy(RESULTS), folder)
    assert [x.name for x in folder.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def word_problem_rows() -> pd.DataFrame:
    """Rows of a word-problem study with every axis."""
    return made_up.rows(made_up.CONFIG)


@pytest.fixture(scope="session")
def word_problem_results() -> dict:
    """Its results.json."""
    return made_up.summary(made_up.CONFIG)


@pytest.fixture(scope="session")
def book(word_problem_rows, word_problem_results):
    """What reports look up of it."""
    return word_problems_readings.book(word_problem_rows, word_problem_results)


@pytest.fixture(scope="session")
def two_hop(tmp_path_factory):
    """Folder of a boundary study."""
    folder = tmp_path_factory.mktemp("boundary")
    config = BoundaryConfig(seeds=1, map_seeds=0, methods=("mean", "sum"), ranked=())
    boundary_rows.rows(config).to_csv(folder / "results.csv.gz", index=False)
    return folder
