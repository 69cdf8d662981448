"""Merges in the form that we recommend; :mod:`jaxlora.merge.peers` has those of peers.

Entry-wise methods take a space, ``core`` by default. Weights are relative, as in a
mean, but for the sums, placed or not, SVD, TSV, Iso-C, CAT, LoraHub and the start of
WUDI by Adam, which add experts up.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxlora.merge.compose import LAWS, Merge, chain
from jaxlora.merge.consensus import (
    By,
    disjoint_mean,
    elect_sign,
    weigh_by_energy,
)
from jaxlora.merge.controls import permute_sites, random_like
from jaxlora.merge.entry import Entry
from jaxlora.merge.geodesic import karcher, model_stock, slerp
from jaxlora.merge.interference import wudi, wudi_steps
from jaxlora.merge.layers import keep_layers, sum_ends
from jaxlora.merge.learned import scaled_sum
from jaxlora.merge.linear import scale_only, weighted_mean, weighted_sum
from jaxlora.merge.moments import fisher, regmean
from jaxlora.merge.ranges import Layers
from jaxlora.merge.sparse import (
    drop,
    drop_by_rank,
    select_by_variance,
    trim,
    trim_outliers,
)
from jaxlora.merge.spectral import iso_c, tsv
from jaxlora.merge.threshold import Scope

ALL = frozenset(LAWS)
NONLINEAR = ALL - {"linearity"}
DRAWN = frozenset({"gauge"})
"""Masks belong to places: other experts, another order or padding get other masks."""


def _laws(space: str, identity: bool, drawn: bool = False) -> frozenset[str]:
    """What an entry-wise method keeps in a space."""
    laws = DRAWN if drawn else NONLINEAR - {"identity"}
    # A dense delta has no padded entries, so that masks stay where they are.
    if drawn and space == "delta":
        laws |= {"padding"}
    if space.startswith("factor"):
        laws -= {"gauge"}
    return laws | {"identity"} if identity else laws


def _svd() -> Merge:
    laws = NONLINEAR - {"padding"}
    return chain(weighted_sum(), space="delta", laws=laws, rank="experts")


def _prune(density: float = 0.2, scope: Scope = "leaf", space: str = "core") -> Merge:
    laws = _laws(space, density == 1)
    return chain(trim(density, scope), weighted_mean(), space=space, laws=laws)


def _ties(
    density: float = 0.2, by: By = "mass", scope: Scope = "leaf", space: str = "core"
) -> Merge:
    laws = _laws(space, density == 1)
    steps = trim(density, scope), elect_sign(by), disjoint_mean()
    return chain(*steps, space=space, laws=laws)


def _dare(density: float = 0.5, space: str = "core") -> Merge:
    laws = _laws(space, density == 1, drawn=density < 1)
    return chain(drop(density), weighted_mean(), space=space, laws=laws)


def _dare_ties(density: float = 0.5, by: By = "mass", space: str = "core") -> Merge:
    laws = _laws(space, density == 1, drawn=density < 1)
    steps = drop(density), elect_sign(by), disjoint_mean()
    return chain(*steps, space=space, laws=laws)


def _della(density: float = 0.5, spread: float = 0.15, space: str = "core") -> Merge:
    laws = _laws(space, False, drawn=True)
    steps = drop_by_rank(density, spread), elect_sign(), disjoint_mean()
    return chain(*steps, space=space, laws=laws)


def _breadcrumbs(
    density: float = 0.9, outliers: float = 0.01, space: str = "core"
) -> Merge:
    laws = _laws(space, density == 1)
    steps = trim_outliers(density, outliers), weighted_mean()
    return chain(*steps, space=space, laws=laws)


def _sce(density: float = 0.1, space: str = "core") -> Merge:
    laws = _laws(space, True)  # one expert does not vary, and is kept as it is
    steps = select_by_variance(density), weigh_by_energy()
    signs = elect_sign(weighted=False), disjoint_mean()
    return chain(*steps, *signs, space=space, laws=laws)


def _random(reduction: Callable[[], Any]) -> Callable[[], Merge]:
    def make() -> Merge:
        laws = {"gauge"}
        return chain(reduction(), space="delta", prepare=[random_like], laws=laws)

    return make


def _permuted() -> Merge:
    # Where a delta goes depends on its expert's place in the library.
    laws = {"gauge", "linearity", "padding"}
    return chain(weighted_mean(), space="delta", prepare=[permute_sites], laws=laws)


def _scale_only(expert: int = 0) -> Merge:
    laws = ALL - {"permutation", "zero_weight"}
    return chain(scale_only(expert), space="delta", laws=laws)


def _placed_sum(layers: Sequence[Layers] = ()) -> Merge:
    # Whose layers are whose depends on the order; so does an even split on E.
    laws = ALL - {"permutation", "zero_weight"}
    if layers:
        laws -= {"identity"}
    step = keep_layers(layers or None)
    return chain(weighted_sum(), space="delta", prepare=[step], laws=laws)


def _placed_both(ends: float = 0.25) -> Merge:
    return chain(sum_ends(ends), space="delta", laws=ALL)


def _wudi_adam(
    steps: int = 300, learning_rate: float = 1e-5, space: str = "core"
) -> Merge:
    return chain(wudi_steps(steps, learning_rate), space=space, laws=NONLINEAR)


def _in(space: str, make: Callable[..., Merge]) -> Callable[..., Merge]:
    """The same preset in another space by default."""

    def moved(**fields: Any) -> Merge:
        return make(**{"space": space} | fields)

    parameters = [
        p.replace(default=space) if name == "space" else p
        for name, p in inspect.signature(make).parameters.items()
    ]
    # fields() reads the signature: it must show the new default.
    moved.__signature__ = inspect.Signature(parameters)  # pyrefly: ignore
    return moved


METHODS: Mapping[str, Entry] = {
    "mean": Entry(
        lambda: chain(weighted_mean(), space="delta", laws=ALL),
        "the exact weighted mean of the deltas; weights are relative",
        "task arithmetic, arXiv 2212.04089",
    ),
    "sum": Entry(
        lambda: chain(weighted_sum(), space="delta", laws=ALL),
        "the exact weighted sum of the deltas; by default all in full",
        "task arithmetic, arXiv 2212.04089",
    ),
    "factor-mean": Entry(
        lambda: chain(
            weighted_mean(), space="factor", laws=ALL - {"gauge", "linearity"}
        ),
        "a and b averaged apart: cross terms, and deltas shrunk by up to 1/E",
        "arXiv 2405.11157",
    ),
    "svd": Entry(
        _svd,
        "the best approximation of the sum at the experts' rank",
        "Eckart-Young",
    ),
    "placed-sum": Entry(
        _placed_sum,
        "each expert in layers of its own, in full: the first low, the last high",
        "this project",
    ),
    "placed-both": Entry(
        _placed_both,
        "the sum in the lowest and highest layers, the mean between them",
        "this project",
    ),
    "prune": Entry(_prune, "the mean of each expert's largest entries", "TIES, step 1"),
    "ties": Entry(
        _ties,
        "trims, elects a sign for each entry, averages the experts that have it",
        "arXiv 2306.01708",
    ),
    "knots-ties": Entry(
        _in("knots", _ties),
        "TIES in KnOTS coordinates",
        "arXiv 2410.19735",
    ),
    "delta-ties": Entry(
        _in("delta", _ties), "TIES on dense deltas", "arXiv 2306.01708"
    ),
    "factor-ties": Entry(
        _in("factor", _ties), "TIES on a and b apart", "arXiv 2306.01708"
    ),
    "dare": Entry(_dare, "the mean of randomly thinned experts", "arXiv 2311.03099"),
    "dare-ties": Entry(
        _dare_ties,
        "TIES on randomly thinned experts",
        "arXiv 2311.03099",
    ),
    "della": Entry(
        _della,
        "TIES, thinned at random by magnitude",
        "arXiv 2406.11617",
    ),
    "breadcrumbs": Entry(
        _breadcrumbs,
        "the mean without each expert's smallest and very largest entries",
        "arXiv 2312.06795",
    ),
    "sce": Entry(
        _sce,
        "TIES on the entries in which experts differ most",
        "arXiv 2408.07990",
    ),
    "model-stock": Entry(
        lambda: chain(model_stock(), space="delta", laws=NONLINEAR),
        "the mean, shrunk as experts are less alike",
        "arXiv 2403.19522",
    ),
    "slerp": Entry(
        lambda: chain(slerp(), space="delta", laws=NONLINEAR),
        "along the great circle between two deltas",
        "mergekit's slerp",
    ),
    "karcher": Entry(
        lambda: chain(karcher(), space="delta", laws=NONLINEAR),
        "the mean direction on the sphere, at the mean norm",
        "Karcher, 1977",
    ),
    "tsv": Entry(
        lambda: chain(tsv(), space="core", laws=NONLINEAR),
        "singular vectors of all experts, made orthogonal",
        "arXiv 2412.00081",
    ),
    "iso-c": Entry(
        lambda: chain(iso_c(), space="core", laws=NONLINEAR - {"identity"}),
        "the sum with all its singular values made equal",
        "arXiv 2502.04959",
    ),
    "wudi": Entry(
        lambda: chain(wudi(), space="core", laws=NONLINEAR),
        "the update that interferes least with each expert's, in closed form",
        "arXiv 2503.08099",
    ),
    "wudi-adam": Entry(
        _wudi_adam, "WUDI by steps of Adam from the sum", "arXiv 2503.08099"
    ),
    "regmean": Entry(
        lambda: chain(regmean(), space="delta", laws=ALL),
        "the outputs closest to each expert's on its own inputs",
        "arXiv 2212.09849",
    ),
    "fisher": Entry(
        lambda: chain(fisher(), space="delta", laws=ALL),
        "each entry weighted by its importance to each expert",
        "arXiv 2111.09832",
    ),
    "cat": Entry(
        lambda: chain(scaled_sum(), space="delta", laws=ALL - {"identity"}),
        "one learned number for each expert, site and layer",
        "LoRA Soups, arXiv 2410.13025",
    ),
    "lorahub": Entry(
        lambda: chain(scaled_sum(), space="delta", laws=ALL - {"identity"}),
        "one number for each expert, found without gradients",
        "LoraHub, arXiv 2307.13269, on deltas",
    ),
    "random-mean": Entry(
        _random(weighted_mean),
        "control: the mean of deltas with random directions",
        "this project",
        control=True,
    ),
    "random-sum": Entry(
        _random(weighted_sum),
        "control: the sum of deltas with random directions",
        "this project",
        control=True,
    ),
    "permuted-mean": Entry(
        _permuted,
        "control: the mean of deltas moved to other layers",
        "this project",
        control=True,
    ),
    "scale-only": Entry(
        _scale_only,
        "control: one expert at its share of a mean",
        "this project",
        control=True,
    ),
}
"""Every method, by name."""
