"""Merges under the conventions of other software, by names such as ``ties[peft]``.

Each reproduces what the peer computes, also where that differs from the paper or from
what its name says; our own form of a method is in :mod:`jaxlora.merge.presets`.

- PEFT 0.21: weight times scale is split into roots on A and B (``factor-root``), so
  that cross terms appear; the SVD forms work on dense deltas. Its merged adapters
  inherit ``use_rslora`` from the first one and are then scaled once more, which is not
  reproduced. Its draws come from torch's global state; ours from a key.
- mergekit works on dense task vectors, tensor by tensor, with weighted signs.
- mttl works on A and B as stored, with one scale, and one threshold per expert. Its
  WUDI, which stops early and works on transposed matrices, is not reproduced.
- "original" is the code of the TIES authors: one threshold per expert over the whole
  model, no weights, and ties of signs to the majority.
"""

from collections.abc import Mapping

from jaxlora.merge.compose import LAWS, Merge, chain
from jaxlora.merge.consensus import (
    By,
    disjoint_mean,
    elect_sign,
    weigh_by_energy,
)
from jaxlora.merge.entry import Entry
from jaxlora.merge.interference import wudi_steps
from jaxlora.merge.learned import scaled_sum
from jaxlora.merge.linear import Reduction, weighted_mean, weighted_sum
from jaxlora.merge.sparse import (
    drop,
    drop_by_rank,
    select_by_variance,
    trim,
    trim_outliers,
)

FACTORS = frozenset(LAWS) - {"gauge", "linearity", "identity"}
"""What methods on a and b apart keep; below density 1 they lose the identity."""

DENSE = frozenset(LAWS) - {"linearity", "identity"}
RERANKED = DENSE - {"padding"}
"""The rank of the result is that of the padded experts."""

_FACTOR_ROOT, _PEFT = "factor-root", "PEFT 0.21, add_weighted_adapter"


def _cat() -> Merge:
    return chain(weighted_sum(), space="delta", laws=LAWS)


def _linear() -> Merge:
    laws = FACTORS | {"identity"}
    return chain(weighted_sum(), space=_FACTOR_ROOT, laws=laws)


def _svd() -> Merge:
    laws = RERANKED | {"identity"}
    return chain(weighted_sum(), space="delta", laws=laws, rank="experts")


def _peft_ties(density: float, by: By, space: str, laws) -> Merge:
    # The sign is elected before weighting, and the sum divided by a count.
    steps = trim(density), elect_sign(by, weighted=False), disjoint_mean("count")
    return chain(*steps, space=space, laws=laws, rank="experts")


def _ties(density: float = 0.5, by: By = "mass") -> Merge:
    return _peft_ties(density, by, _FACTOR_ROOT, _with_identity(FACTORS, density))


def _ties_svd(density: float = 0.5, by: By = "mass") -> Merge:
    return _peft_ties(density, by, "delta", _with_identity(RERANKED, density))


def _prune(density: float = 0.5) -> Merge:
    laws = _with_identity(FACTORS, density)
    return chain(trim(density), weighted_sum(), space=_FACTOR_ROOT, laws=laws)


def _prune_svd(density: float = 0.5) -> Merge:
    laws = _with_identity(RERANKED, density)
    steps = trim(density), weighted_sum()
    return chain(*steps, space="delta", laws=laws, rank="experts")


def _dare_linear(density: float = 0.5) -> Merge:
    return _dropped(weighted_sum(), density, _FACTOR_ROOT)


def _dare_linear_svd(density: float = 0.5) -> Merge:
    return _dropped(weighted_sum(), density, "delta")


def _dare_ties(density: float = 0.5, by: By = "mass") -> Merge:
    signs = elect_sign(by, weighted=False)
    return _dropped(disjoint_mean("count"), density, _FACTOR_ROOT, signs)


def _dare_ties_svd(density: float = 0.5, by: By = "mass") -> Merge:
    signs = elect_sign(by, weighted=False)
    return _dropped(disjoint_mean("count"), density, "delta", signs)


def _dropped(reduction: Reduction, density: float, space: str, *signs) -> Merge:
    laws = {"gauge"} if space == "delta" else set()
    steps = drop(density), *signs, reduction
    rank = "experts" if space == "delta" else None
    return chain(*steps, space=space, laws=laws, rank=rank)


def _with_identity(laws: frozenset[str], density: float) -> frozenset[str]:
    return laws | {"identity"} if density == 1 else laws


def _mergekit_ties(density: float = 1.0) -> Merge:
    steps = trim(density), elect_sign(), disjoint_mean()
    return chain(*steps, space="delta", laws=_with_identity(DENSE, density))


def _mergekit_dare(density: float = 0.5) -> Merge:
    steps = drop(density, "norm"), weighted_sum()
    return chain(*steps, space="delta", laws={"gauge", "padding"})


def _mergekit_dare_ties(density: float = 0.5) -> Merge:
    steps = drop(density, "norm"), elect_sign(), disjoint_mean("sum")
    return chain(*steps, space="delta", laws={"gauge", "padding"})


def _mergekit_della(density: float = 0.5, spread: float = 0.15) -> Merge:
    steps = drop_by_rank(density, spread, "norm"), elect_sign(), disjoint_mean("sum")
    return chain(*steps, space="delta", laws={"gauge", "padding"})


def _mergekit_breadcrumbs(density: float = 0.9, outliers: float = 0.01) -> Merge:
    laws = _with_identity(DENSE, density)
    steps = trim_outliers(density, outliers), weighted_sum()
    return chain(*steps, space="delta", laws=laws)


def _mergekit_sce(density: float = 1.0) -> Merge:
    steps = select_by_variance(density), weigh_by_energy()
    signs = elect_sign(weighted=False), disjoint_mean()
    laws = DENSE | {"identity"}
    return chain(*steps, *signs, space="delta", laws=laws)


def _original_ties(density: float = 0.2) -> Merge:
    steps = trim(density, "model"), elect_sign(weighted=False, zero="majority")
    laws = _with_identity(DENSE, density)
    return chain(*steps, disjoint_mean("count"), space="delta", laws=laws)


def _fusion_bench_ties(density: float = 0.2) -> Merge:
    steps = trim(density, "model"), elect_sign(weighted=False, zero="majority")
    laws = _with_identity(DENSE, density)
    return chain(*steps, disjoint_mean("sum"), space="delta", laws=laws)


def _knots_ties(density: float = 1.0) -> Merge:
    steps = trim(density, "model"), elect_sign(weighted=False, zero="majority")
    laws = _with_identity(DENSE, density)
    return chain(*steps, disjoint_mean("count"), space="knots", laws=laws)


def _mttl_mean() -> Merge:
    # Experts of unequal scale all get that of the first: no law of order.
    laws = {"identity", "zero_weight", "padding"}
    return chain(weighted_mean(), space="factor-raw", laws=laws)


def _mttl_ties(density: float = 0.2) -> Merge:
    steps = trim(density, "model"), elect_sign(weighted=False, zero="none")
    laws = _with_identity(frozenset({"zero_weight", "padding"}), density)
    return chain(*steps, disjoint_mean("count"), space="factor-raw", laws=laws)


def _fusion_bench_wudi(steps: int = 400, learning_rate: float = 1e-5) -> Merge:
    laws = DENSE | {"identity"}
    return chain(wudi_steps(steps, learning_rate), space="delta", laws=laws)


def _lorahub() -> Merge:
    laws = FACTORS
    return chain(scaled_sum(), space="factor", laws=laws)


_ORIGINAL = "prateeky2806/ties-merging"

PEERS: Mapping[str, Entry] = {
    "cat[peft]": Entry(_cat, "the exact weighted sum, concatenated", _PEFT),
    "linear[peft]": Entry(_linear, "roots of the weights on A and on B", _PEFT),
    "svd[peft]": Entry(_svd, "the sum at the experts' rank", _PEFT),
    "ties[peft]": Entry(_ties, "TIES on A and B apart, divided by a count", _PEFT),
    "ties_svd[peft]": Entry(_ties_svd, "TIES on dense deltas, re-ranked", _PEFT),
    "dare_linear[peft]": Entry(_dare_linear, "DARE on A and B apart", _PEFT),
    "dare_ties[peft]": Entry(_dare_ties, "DARE and TIES on A and B apart", _PEFT),
    "dare_linear_svd[peft]": Entry(_dare_linear_svd, "DARE, re-ranked", _PEFT),
    "dare_ties_svd[peft]": Entry(_dare_ties_svd, "DARE and TIES, re-ranked", _PEFT),
    "magnitude_prune[peft]": Entry(_prune, "largest entries of A and of B", _PEFT),
    "magnitude_prune_svd[peft]": Entry(_prune_svd, "largest entries, re-ranked", _PEFT),
    "ties[mergekit]": Entry(
        _mergekit_ties, "weighted signs, sum of weights", "mergekit"
    ),
    "dare[mergekit]": Entry(_mergekit_dare, "DARE at the same L1 norm", "mergekit"),
    "dare_ties[mergekit]": Entry(_mergekit_dare_ties, "DARE, summed", "mergekit"),
    "della[mergekit]": Entry(_mergekit_della, "DELLA, summed", "mergekit"),
    "breadcrumbs[mergekit]": Entry(_mergekit_breadcrumbs, "summed", "mergekit"),
    "sce[mergekit]": Entry(_mergekit_sce, "all entries by default", "mergekit"),
    "ties[original]": Entry(_original_ties, "one threshold for the model", _ORIGINAL),
    "ties[fusion_bench]": Entry(_fusion_bench_ties, "the same, summed", "fusion_bench"),
    "ties[knots]": Entry(_knots_ties, "TIES in KnOTS coordinates", "gstoica27/KnOTS"),
    "mean[mttl]": Entry(_mttl_mean, "A and B averaged as stored", "microsoft/mttl"),
    "ties[mttl]": Entry(_mttl_ties, "one threshold for A and B", "microsoft/mttl"),
    "wudi[fusion_bench]": Entry(_fusion_bench_wudi, "steps of Adam", "fusion_bench"),
    "lorahub[original]": Entry(_lorahub, "weights on A and on B", "sail-sg/lorahub"),
}
"""Every convention, by name."""
