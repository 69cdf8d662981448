"""Every preset, ours and the peers', against a closed form in NumPy's float64.

An entry-wise method is a row of ``FORMS``: coordinates, what is zeroed, who
agrees, and what the sum is divided by. The interpreter below knows nothing of ours.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora import lora, merge, testing
from jaxlora.merge import controls, sparse
from jaxlora.testing import libraries

MIXED = np.asarray([0.5, -0.25, 1.5])
REL = 1e-5


def form(space, final, **more):
    return {"space": space, "final": final, "rank": None} | more


TIES = {"trim": 0.2, "signs": "weighted"}
PEFT = {"signs": "values"}
ROOT = "factor-root"
MODEL = {"scope": "model", "signs": "values"}
FORMS = {
    "mean": form("delta", "mean"),
    "sum": form("delta", "sum"),
    "factor-mean": form("factor", "mean"),
    "svd": form("delta", "sum", rank=2),
    "prune": form("core", "mean", trim=0.2),
    "ties": form("core", "weights", **TIES),
    "knots-ties": form("knots", "weights", **TIES),
    "delta-ties": form("delta", "weights", **TIES),
    "factor-ties": form("factor", "weights", **TIES),
    "dare": form("core", "mean", drop=0.5),
    "dare-ties": form("core", "weights", drop=0.5, signs="weighted"),
    "della": form("core", "weights", drop=0.5, spread=0.15, signs="weighted"),
    "breadcrumbs": form("core", "mean", trim=0.9, outliers=0.01),
    "sce": form("core", "weights", variance=0.1, energy=True, signs="values"),
    "cat[peft]": form("delta", "sum"),
    "linear[peft]": form(ROOT, "sum"),
    "svd[peft]": form("delta", "sum", rank=2),
    "ties[peft]": form(ROOT, "count", trim=0.5, **PEFT),
    "ties_svd[peft]": form("delta", "count", trim=0.5, rank=2, **PEFT),
    "dare_linear[peft]": form(ROOT, "sum", drop=0.5),
    "dare_ties[peft]": form(ROOT, "count", drop=0.5, **PEFT),
    "dare_linear_svd[peft]": form("delta", "sum", drop=0.5, rank=2),
    "dare_ties_svd[peft]": form("delta", "count", drop=0.5, rank=2, **PEFT),
    "magnitude_prune[peft]": form(ROOT, "sum", trim=0.5),
    "magnitude_prune_svd[peft]": form("delta", "sum", trim=0.5, rank=2),
    "ties[mergekit]": form("delta", "weights", trim=1.0, signs="weighted"),
    "dare[mergekit]": form("delta", "sum", drop=0.5, norm=True),
    "dare_ties[mergekit]": form("delta", "sum", drop=0.5, norm=True, signs="weighted"),
    "della[mergekit]": form(
        "delta", "sum", drop=0.5, spread=0.15, norm=True, signs="weighted"
    ),
    "breadcrumbs[mergekit]": form("delta", "sum", trim=0.9, outliers=0.01),
    "sce[mergekit]": form("delta", "weights", variance=1.0, energy=True, **PEFT),
    "ties[original]": form("delta", "count", trim=0.2, zero="majority", **MODEL),
    "ties[fusion_bench]": form("delta", "sum", trim=0.2, zero="majority", **MODEL),
    "ties[knots]": form("knots", "count", trim=1.0, zero="majority", **MODEL),
    "mean[mttl]": form("factor-raw", "mean"),
    "ties[mttl]": form("factor-raw", "count", trim=0.2, zero="none", **MODEL),
}
"""Fields are the defaults, stated once more."""

EXTRA = {
    ("ties[peft]", "by", "frequency"): FORMS["ties[peft]"] | {"by": "frequency"},
    ("ties", "scope", "model"): FORMS["ties"] | {"scope": "model"},
    ("ties[mergekit]", "density", 0.3): FORMS["ties[mergekit]"] | {"trim": 0.3},
    ("sce[mergekit]", "density", 0.3): FORMS["sce[mergekit]"] | {"variance": 0.3},
    ("breadcrumbs", "outliers", 0.3): FORMS["breadcrumbs"] | {"outliers": 0.3},
}


def uniform(shape):
    """The same numbers for every layer and site of a shape."""
    return np.random.default_rng(0).random(shape)


# Coordinates. A leaf is a dict with x [E, M, N], live, w [E] and the way back.


def enter(space, a, b, s, w):
    e, d, r = a.shape
    f = b.shape[-1]
    delta = s[:, None, None] * (a @ b)
    every = np.ones((e, 1, 1), bool)
    if space == "delta":
        return {"": leaf(delta, every, w)}, lambda x: x[""]
    if space.startswith("factor"):
        used = (a != 0).any(1) | (b != 0).any(2)
        wa = wb = w
        back = 1.0
        if space == "factor":
            b = s[:, None, None] * b
        elif space == "factor-raw":
            back = s[0]
        else:
            wb = np.sqrt(np.abs(w * s))
            wa = np.sign(w * s) * wb
        parts = {
            "a": leaf(a, used[:, None, :], wa),
            "b": leaf(b, used[:, :, None], wb),
        }
        return parts, lambda x: back * (x["a"] @ x["b"])
    if space == "knots":
        _, sigma, vt = np.linalg.svd(delta.reshape(-1, f), full_matrices=False)
        vt = vt[: min(f, e * min(d, r))]
        live = (sigma[: len(vt)] > 1e-6 * sigma[0])[None, None, :]
        return {"": leaf(delta @ vt.T * live, live, w)}, lambda x: x[""] @ vt
    u, sigma, vt = np.linalg.svd(delta, full_matrices=False)
    root = np.sqrt(np.where(sigma > 1e-6 * sigma[:, :1], sigma, 0))[:, None, :r]
    left, live_in = span(np.concatenate(list(u[..., :r] * root), 1), e * r)
    right, live_out = span(np.concatenate(list(vt.mT[..., :r] * root), 1), e * r)
    live = live_in[None, :, None] & live_out[None, None, :]
    core = left.T @ delta @ right * live
    return {"": leaf(core, live, w)}, lambda x: left @ x[""] @ right.T


def span(columns, rank):
    u, sigma, _ = np.linalg.svd(columns, full_matrices=True)
    k = min(len(u), rank)
    live = np.zeros(k, bool)
    live[: len(sigma)] = sigma[:k] > 1e-6 * sigma[0]
    return u[:, :k], live


def leaf(x, live, w):
    return {"x": x, "live": np.broadcast_to(live, x.shape), "w": w}


# Steps.


def largest(x, live, share):
    """Which of the live entries are among the int(share * N) largest."""
    size = np.where(live, np.abs(x), -1.0).ravel()
    count = int(share * live.sum() + 1e-9)
    keep = np.zeros(size.shape, bool)
    keep[np.argsort(-size, kind="stable")[:count]] = True
    return keep.reshape(x.shape)


def trimmed(leaves, spec):
    out, share = spec.get("outliers", 0.0), spec["trim"]
    experts = range(len(leaves[0]["x"]))
    groups = [leaves] if spec.get("scope") == "model" else [[view] for view in leaves]
    for group in groups:
        for e in experts:
            x = np.concatenate([view["x"][e].ravel() for view in group])
            live = np.concatenate([view["live"][e].ravel() for view in group])
            n = live.sum()
            keep = int(share * n + 1e-9)
            skip = min(int(out * n + 1e-9), n - keep)
            order = np.argsort(-np.where(live, np.abs(x), -1.0), kind="stable")
            mask = np.zeros(len(x), bool)
            mask[order[skip : skip + keep]] = True
            parts = np.split(x * mask, np.cumsum([view["x"][e].size for view in group]))
            for view, part in zip(group, parts, strict=False):
                view["x"][e] = part.reshape(view["x"][e].shape)


def dropped(view, spec):
    x, live = view["x"], view["live"]
    chance = np.full(x.shape, spec["drop"])
    if spread := spec.get("spread"):
        for e, n in np.ndindex(x.shape[0], x.shape[2]):
            inputs = np.flatnonzero(live[e, :, n])
            order = np.argsort(np.argsort(np.abs(x[e, inputs, n])))
            steps = order / max(len(inputs) - 1, 1)
            chance[e, inputs, n] += spread * (2 * steps - 1)
    kept = np.where(uniform(x.shape) < chance, x, 0)
    if spec.get("norm"):
        sums = [np.abs(v).sum((1, 2), keepdims=True) for v in (x, kept)]
        view["x"] = kept * sums[0] / sums[1]
    else:
        view["x"] = kept / chance


def varying(view, spec):
    variance = view["x"].var(0)
    if spec["variance"] < 1:
        differ = variance > 1e-14
        keep = largest(variance, differ, spec["variance"])
        view["x"] = view["x"] * keep[None]


def weighed(view):
    energy = view["w"] * (view["x"] ** 2).sum((1, 2))
    view["w"] = energy / energy.sum()


def agreed(leaves, spec):
    zero = spec.get("zero", "positive")
    votes, signs = [], []
    for view in leaves:
        mass = view["x"] * (
            view["w"][:, None, None] if spec["signs"] != "values" else 1
        )
        signs.append(np.sign(mass))
        votes.append((signs[-1] if spec.get("by") else mass).sum(0))
    total = sum(np.sign(vote).sum() for vote in votes)
    tie = {"positive": 1, "none": 0, "majority": 1 if total >= 0 else -1}[zero]
    for view, vote, sign in zip(leaves, votes, signs, strict=True):
        elected = np.where(vote == 0, tie, np.sign(vote))
        view["x"] = view["x"] * (sign * elected > 0)


def reduced(view, final):
    x, w = view["x"], view["w"][:, None, None]
    there = {"weights": w, "count": 1.0}.get(final)
    total = (w * x).sum(0)
    if final == "sum":
        return total
    if final == "mean":
        return total / w.sum()
    divisor = np.where(x != 0, there, 0).sum(0)
    return np.divide(total, divisor, where=divisor != 0, out=np.zeros_like(total))


def reference(spec, library, weights):
    entered = {}
    for name, site in lora.sites(library).items():
        a, b, s = (np.asarray(v, np.float64) for v in (site.a, site.b, site.scale))
        for layer in range(a.shape[1]):
            chosen = a[:, layer], b[:, layer], s[:, layer]
            entered[name, layer] = enter(spec["space"], *chosen, np.float64(weights))
    leaves = [view for parts, _ in entered.values() for view in parts.values()]
    if "trim" in spec:
        trimmed(leaves, spec)
    for view in leaves:
        if "drop" in spec:
            dropped(view, spec)
        if "variance" in spec:
            varying(view, spec)
        if "energy" in spec:
            weighed(view)
    if "signs" in spec:
        groups = [leaves] if spec.get("scope") == "model" else [[o] for o in leaves]
        for group in groups:
            agreed(group, spec)
    out = {}
    for (name, _), (parts, back) in entered.items():
        merged = back({part: reduced(o, spec["final"]) for part, o in parts.items()})
        if spec["rank"]:
            u, s, vt = np.linalg.svd(merged, full_matrices=False)
            merged = (u * s)[:, : spec["rank"]] @ vt[: spec["rank"]]
        out.setdefault(name, []).append(merged)
    return {name: np.stack(layers) for name, layers in out.items()}


def library_for(spec):
    if spec.get("scope") != "model":
        return testing.small_library(3, sites=1)
    sites = [testing.small_library(i, sites=1)["k_proj"] for i in (3, 4)]
    return dict(zip(("k_proj", "q_proj"), sites, strict=True))


@pytest.fixture
def given_masks(monkeypatch):
    def draw(key, chance, x):
        assert key is not None
        shapes = {name: values.shape for name, values in x.values.items()}
        return {
            n: jnp.asarray(uniform(s), jnp.float32) < chance[n]
            for n, s in shapes.items()
        }

    monkeypatch.setattr(sparse, "draw", draw)


CASES = {(name, None, None): spec for name, spec in FORMS.items()} | EXTRA


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: "-".join(map(str, filter(None, c)))
)
def test_equals_the_closed_form(case, given_masks):
    name, field, value = case
    spec = CASES[case]
    method = merge.preset(name, **({field: value} if field else {}))
    library = library_for(spec)
    with jax.disable_jit():
        got = libraries.deltas(method(library, MIXED, key=jax.random.key(0)))
    assert libraries.distance(got, reference(spec, library, MIXED)) < REL


@pytest.mark.parametrize("name", ["random-mean", "random-sum", "permuted-mean"])
def test_controls_merge_another_library(name):
    library, key = testing.small_library(3, sites=1), jax.random.key(5)
    control = controls.permute_sites if "permuted" in name else controls.random_like
    other = control(jax.random.fold_in(key, 0), library)
    got = libraries.deltas(merge.preset(name)(library, MIXED, key=key))
    want = reference(FORMS[name.split("-")[1]], other, MIXED)
    assert libraries.distance(got, want) < REL


def test_scale_only_is_one_expert_at_its_share():
    library = testing.small_library(3)
    got = libraries.deltas(merge.preset("scale-only", expert=2)(library, MIXED))
    want = {n: 1.5 / 1.75 * x[2] for n, x in libraries.deltas(library).items()}
    assert libraries.distance(got, want) < REL


LEARNED = {"cat": "delta", "lorahub": "delta", "lorahub[original]": "factor"}


@pytest.mark.parametrize("name", LEARNED)
def test_learned_scalars_multiply_the_weights(name):
    library = testing.small_library(3, sites=1)
    scalars = np.random.default_rng(0).uniform(-1, 1, (3, 2))
    data = {"k_proj": {"kernel": jnp.asarray(scalars, jnp.float32)}}
    got = libraries.deltas(merge.preset(name)(library, MIXED, data=data))
    for layer in range(2):
        view = jax.tree.map(lambda x, i=layer: x[:, i : i + 1], library)
        spec = form(LEARNED[name], "sum")
        want = reference(spec, view, MIXED * scalars[:, layer])
        row = {n: x[layer : layer + 1] for n, x in got.items()}
        assert libraries.distance(row, want) < REL


ON_DELTAS = (
    "model-stock",
    "slerp",
    "karcher",
    "tsv",
    "iso-c",
    "wudi",
    "regmean",
    "fisher",
)
"""Their reductions are tested by themselves; here, that they are what is run."""


@pytest.mark.parametrize("name", [*ON_DELTAS, "wudi-adam", "wudi[fusion_bench]"])
def test_is_its_reduction_on_dense_deltas(name):
    fields = (
        {"steps": 5, "learning_rate": 0.01}
        if "steps" in merge.describe(name).fields
        else {}
    )
    if name == "wudi-adam":
        fields["space"] = "delta"  # Adam sees coordinates
    library = testing.small_library(3, sites=1)
    weights = np.asarray([0.5, 1.5, 0.0 if name == "slerp" else 0.25], np.float32)
    method = merge.preset(name, **fields)
    data = libraries.data_for(method, None, library)
    with jax.disable_jit():
        got = libraries.deltas(method(library, weights, data=data or None))
    dense = jnp.asarray(libraries.deltas(library)["k_proj/kernel"], jnp.float32)
    dense = dense * (weights != 0).astype(np.float32)[:, None, None, None]
    chosen = data.get("k_proj/kernel")
    with jax.disable_jit():
        layers = [
            method.reduction.leaf(
                dense[:, i],
                jnp.asarray(weights),
                None,
                None if chosen is None else chosen[:, i],
            )
            for i in range(2)
        ]
    assert libraries.distance(got, {"k_proj/kernel": np.stack(layers)}) < 5e-5


def test_every_preset_has_a_closed_form():
    controls_ = {"random-mean", "random-sum", "permuted-mean", "scale-only"}
    steps = {"wudi-adam", "wudi[fusion_bench]"}
    placed = {"placed-sum", "placed-both"}  # see layers_test.py
    have = FORMS.keys() | LEARNED.keys() | set(ON_DELTAS) | controls_ | steps | placed
    assert have == set(merge.names())
