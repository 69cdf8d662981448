"""The words of a results table: every value that a row may hold, in one file.

A row is one measurement: ``study, seed, familiarity, knows, library, method, split,
metric, value, n, lo, hi, condition``. Nothing that varies between two runs of one
config (times, paths) may enter a row.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from jaxlora.tasks.two_hop.cells import Cell as Cell

COLUMNS = (
    "study",
    "seed",
    "familiarity",
    "knows",
    "library",
    "method",
    "split",
    "metric",
    "value",
    "n",
    "lo",
    "hi",
    "condition",
)


class Library(StrEnum):
    """Which adapters take part."""

    BASE = "base"
    HOP1 = "A->B"
    HOP2 = "B->C"
    TARGET = "A->C"
    TARGET_OTHERS = "A->C of others"
    PAIR = "2-combination"
    TRIPLE = "3-combination"
    TRIPLE_OTHERS = "3-combination, A->C of others"
    IDENTITY = "2-combination + identity rows"
    COUNTERFACTUAL1 = "counterfactual hop 1"
    COUNTERFACTUAL2 = "counterfactual hop 2"
    SHUFFLED = "shuffled answers"
    RANDOM = "random"
    PERMUTED = "permuted"
    JOINT = "joint"
    FULL = "full fine-tuning"
    DOCUMENT = "one document"


class Method(StrEnum):
    """How the adapters of a library are used; ``NONE`` for at most one adapter.

    Every merge of ``merge.names()`` and every route of ``route.names()`` is here.
    """

    NONE = "none"
    MEAN = "mean"
    SUM = "sum"
    FACTOR_MEAN = "factor-mean"
    ARROW = "arrow"
    UNIFORM = "uniform"
    ORACLE = "oracle"
    RANDOM_ARROW = "random-arrow"
    ARROW_COSINE = "arrow-cosine"
    TOP_1 = "top-1"
    SMILE = "smile"
    SPECTR = "spectr"
    GENKNOWSUB = "genknowsub"
    AVERAGE_ACTIVATION = "average-activation"
    PHATGOOSE = "phatgoose"
    LINEAR = "linear"
    SMEAR = "smear"
    LORA_FLOW = "lora-flow"
    RETRIEVAL = "retrieval"
    ARROW_PEFT = "arrow[peft]"
    ARROW_MTTL = "arrow[mttl]"
    ARROW_GENKNOWSUB = "arrow[genknowsub]"
    ARROW_PHATGOOSE = "arrow[phatgoose]"
    GENKNOWSUB_PEFT = "genknowsub[peft]"
    SVD = "svd"
    PRUNE = "prune"
    TIES = "ties"
    KNOTS_TIES = "knots-ties"
    DELTA_TIES = "delta-ties"
    FACTOR_TIES = "factor-ties"
    DARE = "dare"
    DARE_TIES = "dare-ties"
    DELLA = "della"
    BREADCRUMBS = "breadcrumbs"
    SCE = "sce"
    MODEL_STOCK = "model-stock"
    SLERP = "slerp"
    KARCHER = "karcher"
    TSV = "tsv"
    ISO_C = "iso-c"
    WUDI = "wudi"
    WUDI_ADAM = "wudi-adam"
    REGMEAN = "regmean"
    FISHER = "fisher"
    CAT = "cat"
    LORAHUB = "lorahub"
    RANDOM_MEAN = "random-mean"
    RANDOM_SUM = "random-sum"
    PERMUTED_MEAN = "permuted-mean"
    SCALE_ONLY = "scale-only"
    CAT_PEFT = "cat[peft]"
    LINEAR_PEFT = "linear[peft]"
    SVD_PEFT = "svd[peft]"
    TIES_PEFT = "ties[peft]"
    TIES_SVD_PEFT = "ties_svd[peft]"
    DARE_LINEAR_PEFT = "dare_linear[peft]"
    DARE_TIES_PEFT = "dare_ties[peft]"
    DARE_LINEAR_SVD_PEFT = "dare_linear_svd[peft]"
    DARE_TIES_SVD_PEFT = "dare_ties_svd[peft]"
    MAGNITUDE_PRUNE_PEFT = "magnitude_prune[peft]"
    MAGNITUDE_PRUNE_SVD_PEFT = "magnitude_prune_svd[peft]"
    TIES_MERGEKIT = "ties[mergekit]"
    DARE_MERGEKIT = "dare[mergekit]"
    DARE_TIES_MERGEKIT = "dare_ties[mergekit]"
    DELLA_MERGEKIT = "della[mergekit]"
    BREADCRUMBS_MERGEKIT = "breadcrumbs[mergekit]"
    SCE_MERGEKIT = "sce[mergekit]"
    TIES_ORIGINAL = "ties[original]"
    TIES_FUSION_BENCH = "ties[fusion_bench]"
    TIES_KNOTS = "ties[knots]"
    MEAN_MTTL = "mean[mttl]"
    TIES_MTTL = "ties[mttl]"
    WUDI_FUSION_BENCH = "wudi[fusion_bench]"
    LORAHUB_ORIGINAL = "lorahub[original]"


USUAL = (
    Method.MEAN,
    Method.SUM,
    Method.FACTOR_MEAN,
    Method.ARROW,
    Method.UNIFORM,
    Method.ORACLE,
)
"""The methods of a study that names none; tables have a line for each of them."""


class Split(StrEnum):
    """What is asked."""

    HOP1 = "hop 1"
    HOP2 = "hop 2"
    TWO_HOP = "two-hop"
    WRITTEN = "two-hop, written bridge"
    WRITTEN_BRIDGE = "the written bridge itself"
    CONTEXT = "two-hop, facts in context"
    OWN = "own facts"
    FAMILIAR_ONE_HOP = "familiar one-hop"
    FAMILIAR_TWO_HOP = "familiar two-hop"
    FAMILIAR_WRITTEN = "familiar, written bridge"
    FAMILIAR_MISLED = "familiar, another bridge given"
    FAMILIAR_DOCUMENT = "familiar, one document"
    RANDOM_CONTEXT = "random facts in context"
    COPY = "copy"


class Metric(StrEnum):
    """What is measured; shares and accuracies are in [0, 1], losses in nats."""

    ACCURACY = "accuracy"
    RANK = "rank"
    LOSS = "loss"
    LOSS_GAP = "loss minus shuffled"
    CHANCE = "chance"
    ONE_OF_N = "1/N"
    MAJORITY = "majority answer"
    COUNTERFACTUAL = "counterfactual accuracy"
    BRIDGE = "error: bridge"
    RELATION2 = "error: r2 of A"
    OLD = "error: old answer"
    OTHER = "error: other"
    DIFFERENCE = "paired difference"
    STEPS = "steps"
    PHI = "phi"
    PASSED = "gate passed"
    AVAILABLE = "control available"
    ROUTE_WEIGHT = "route: weight of A->B"
    ROUTE_ENTROPY = "route: entropy"
    ROUTE_AGREEMENT = "route: token's own expert"
    ROUTE_CERTAINTY = "route: right where sure"


ERROR_METRICS = (Metric.BRIDGE, Metric.RELATION2, Metric.OLD, Metric.OTHER)
SINGLE = (Library.HOP1, Library.HOP2, Library.TARGET, Library.TARGET_OTHERS)
NEGATIVE = (
    Library.BASE,
    *SINGLE[:2],
    Library.RANDOM,
    Library.PERMUTED,
    Library.SHUFFLED,
)
POSITIVE = (Library.JOINT, Library.FULL, Library.TARGET, Library.DOCUMENT)


def row(
    *,
    study: str,
    seed: int | str,
    cell: Cell | None,
    library: Library,
    method: Method,
    split: Split,
    metric: Metric,
    value: float | None,
    n: int,
    lo: float | None = None,
    hi: float | None = None,
    condition: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns one row with exactly the keys of ``COLUMNS``.

    Args:
      study: name of the study.
      seed: seed of the base, or ``"all"`` for a value pooled over seeds.
      cell: ``None`` for measurements of the base that belong to no cell.
      library: adapters that take part.
      method: how they are used.
      split: what is asked.
      metric: what is measured.
      value: the measurement; ``None`` where a control could not run.
      n: number of items behind it.
      lo: lower end of the 95% interval.
      hi: upper end.
      condition: whatever else varies, written as JSON with sorted keys.
    """
    return {
        "study": study,
        "seed": seed,
        "familiarity": cell.familiarity if cell else "",
        "knows": cell.knows if cell else "",
        "library": Library(library).value,
        "method": Method(method).value,
        "split": Split(split).value,
        "metric": Metric(metric).value,
        "value": value,
        "n": n,
        "lo": lo,
        "hi": hi,
        "condition": json.dumps(dict(condition or {}), sort_keys=True),
    }
