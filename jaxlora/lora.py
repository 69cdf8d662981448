"""LoRA parameter trees: an adapter mirrors the base and touches only its kernels.

An *adapter* is a nested dictionary with a :class:`LoraWeight` where ``base`` has an
adapted kernel, and nothing elsewhere. A *library* is several adapters stacked on a
leading expert axis E. Kernels are ``[..., D, F]``; the leading axes (L, where layers
are scanned) carry over to the adapter.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685).
Kalajdzievski, A Rank Stabilization Scaling Factor (arXiv 2312.03732), for rsLoRA.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxlora import tree as named
from jaxlora.tree import Tree

Adapter: TypeAlias = Any
Library: TypeAlias = Any

_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_THEIRS = {"self_attn": "attn"}
ALL_LINEAR = (r"(layers|memory)/.*_proj/kernel",)
"""Every linear layer of a decoder; a memory is an MLP that its layers share."""


@struct.dataclass
class LoraWeight:
    """One low-rank update of one kernel: ``delta = scale * a @ b``.

    Shapes: ``a`` [..., D, R], ``b`` [..., R, F], ``scale`` [...], where the leading
    axes are those of the kernel, after E in a library. ``scale`` is a leaf so that it
    survives stacking, padding, sharding and export; it is never trained.
    """

    a: jax.Array
    b: jax.Array
    scale: jax.Array

    @property
    def rank(self) -> int:
        """R, padding included."""
        return self.a.shape[-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """How adapters are made.

    ``scale = alpha / rank``, or ``alpha / sqrt(rank)`` with ``use_rslora``.
    """

    rank: int = 8
    """Rank R of every adapted kernel, 1 <= R <= min(D, F)."""
    alpha: float = 16.0
    """Positive, unitless."""
    use_rslora: bool = False
    """Divide alpha by the square root of the rank, not by the rank."""
    targets: tuple[str, ...] = ALL_LINEAR
    """Regular expressions on full kernel names; each must match a kernel."""
    dtype: str = "float32"
    """Type of a and b. The base may be bfloat16 and its adapters float32."""

    @property
    def scale(self) -> float:
        """The one place where alpha and rank become a scale."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


def is_lora(leaf: Any) -> bool:
    """``is_leaf`` for trees whose leaves are :class:`LoraWeight`.

    Args:
      leaf: any node of a tree.
    """
    return isinstance(leaf, LoraWeight)


def lora_map(fn: Any, adapter: Adapter, *rest: Tree) -> Tree:
    """``jax.tree.map`` with :class:`LoraWeight` as the leaf.

    Args:
      fn: called with the ``LoraWeight`` of each site, one from each tree.
      adapter: an adapter or a library.
      *rest: trees of the same sites.
    """
    return jax.tree.map(fn, adapter, *rest, is_leaf=is_lora)


def sites(adapter: Adapter) -> dict[str, LoraWeight]:
    """Returns ``{kernel name: LoraWeight}``.

    Args:
      adapter: an adapter or a library.

    >>> base = {"q_proj": {"kernel": jnp.ones((4, 6))}}
    >>> adapter = init(jax.random.key(0), base, LoraConfig(rank=2, targets=(".*",)))
    >>> {name: w.a.shape for name, w in sites(adapter).items()}
    {'q_proj/kernel': (4, 2)}
    """
    return named.flatten(adapter, is_lora)


def targets(base: Tree, patterns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns ``{pattern: kernels it claims}``; its lengths are the counts to report.

    Args:
      base: params; arrays, or shapes of arrays.
      patterns: regular expressions that match whole paths of kernels.

    Raises:
      ValueError: if the base holds no bare params or no kernel, or a pattern matches no
        kernel (a leaf called ``kernel``).
    """
    named.check_bare(base)
    kernels = [name for name in named.flatten(base) if name.endswith("kernel")]
    if not kernels:
        raise ValueError(
            f"The base has no kernel to adapt, expected a leaf called 'kernel' in "
            f"params; it has {', '.join(map(repr, named.flatten(base))) or 'no leaf'}."
        )
    if isinstance(patterns, str):  # refused there, with the reason
        return named.match(patterns, kernels)
    return named.match([_pattern(x, kernels) for x in patterns], kernels)


def _pattern(given: str, kernels: Sequence[str]) -> str:
    """A target of PEFT as a pattern: a name such as q_proj, or all-linear."""
    if given == "all-linear":
        return ALL_LINEAR[0]
    if not _NAME.fullmatch(given) or given in kernels:
        return given
    path = "/".join(_THEIRS.get(part, part) for part in given.split("."))
    pattern = f"(?:.*/)?{path}/kernel"
    # What matches nothing is said in the words that were given.
    return pattern if any(re.fullmatch(pattern, x) for x in kernels) else given


def init(key: jax.Array, base: Tree, config: LoraConfig) -> Adapter:
    """Returns a fresh adapter: ``a ~ N(0, 1/D)``, ``b = 0``, so that ``delta = 0``.

    Args:
      key: PRNG key; each site folds in its own number.
      base: params tree; kernels are [..., D, F].
      config: rank, scale, targets and dtype.

    Raises:
      ValueError: if the rank is below 1 or above min(D, F) of a targeted kernel, or a
        pattern matches nothing.

    >>> base = {"q_proj": {"kernel": jnp.ones((4, 6))}}
    >>> adapter = init(jax.random.key(0), base, LoraConfig(rank=2, targets=(".*",)))
    >>> bool((fuse(base, adapter)["q_proj"]["kernel"] == 1).all())
    True
    """
    kernels = adapted(base, config)
    return named.unflatten(
        {
            name: _init_site(jax.random.fold_in(key, i), kernel, config)
            for i, (name, kernel) in enumerate(kernels.items())
        }
    )


def adapted(base: Tree, config: LoraConfig) -> dict[str, Any]:
    """Returns ``{name: kernel}`` of what is adapted, sorted; needs shapes only.

    Args:
      base: params; arrays, or shapes of arrays.
      config: rank, scale and targets.

    Raises:
      ValueError: as :func:`init`.
    """
    if not math.isfinite(config.alpha) or config.alpha <= 0:
        raise ValueError(f"alpha is {config.alpha}, expected a positive number.")
    claimed = targets(base, config.targets)
    chosen = sorted(name for names in claimed.values() for name in names)
    flat = named.flatten(base)
    for name in chosen:
        *_, d, f = flat[name].shape
        if not 1 <= config.rank <= min(d, f):
            raise ValueError(
                f"LoRA rank is {config.rank}, expected 1 to {min(d, f)}: the kernel "
                f"{name!r} is {d} x {f}, and a higher rank adds nothing to it."
            )
    return {name: flat[name] for name in chosen}


def _init_site(key: jax.Array, kernel: Any, config: LoraConfig) -> LoraWeight:
    *lead, d, f = kernel.shape
    dtype = jnp.dtype(config.dtype)
    # 1 / D keeps the variance of x a at that of x, whatever the width.
    noise = jax.random.normal(key, (*lead, d, config.rank), dtype)
    return LoraWeight(
        a=noise * jnp.asarray(d**-0.5, dtype),
        b=jnp.zeros((*lead, config.rank, f), dtype),
        scale=jnp.full(tuple(lead), config.scale, jnp.float32),
    )


def confine(adapter: Adapter, layers: jax.Array) -> Adapter:
    """Sets ``a`` and ``b`` of all other layers to 0, so that they stay there.

    Where both factors are 0 so are their gradients: what trains is the rest.

    Args:
      adapter: sites [L, D, R] of stacked layers.
      layers: bool [L], those that are kept.

    Raises:
      ValueError: if a site has no axis of L layers.

    >>> site = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 3)), jnp.ones(2))
    >>> confine({"kernel": site}, jnp.array([True, False]))["kernel"].a[:, 0, 0]
    Array([1., 0.], dtype=float32)
    """

    def site(x: LoraWeight) -> LoraWeight:
        if x.a.ndim != 3 or len(x.a) != len(layers):
            raise ValueError(
                f"A site has a of shape {x.a.shape}, expected [{len(layers)}, D, R]: "
                f"only what stands in layers can be confined to some of them."
            )
        kept = layers[:, None, None]
        a, b = x.a * kept.astype(x.a.dtype), x.b * kept.astype(x.b.dtype)
        return LoraWeight(a, b, x.scale)

    return lora_map(site, adapter)


def delta(weight: LoraWeight) -> jax.Array:
    """Returns ``scale * a @ b``, [..., D, F], computed and returned in float32.

    Args:
      weight: a [..., D, R], b [..., R, F], scale [...].

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray(0.5))
    >>> delta(w).tolist()
    [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """
    a, b = weight.a.astype(jnp.float32), weight.b.astype(jnp.float32)
    product = jnp.matmul(a, b, precision="highest")
    return weight.scale.astype(jnp.float32)[..., None, None] * product


def computed(weight: LoraWeight, dtype: Any) -> LoraWeight:
    """Returns factors in the type that they are computed with, beside activations.

    How an adapter is stored saves memory, and never costs precision: factors are
    widened to the type of the activations. Wider ones stay as they are.

    Args:
      weight: a [..., D, R], b [..., R, F], of one type.
      dtype: of the activations.

    >>> a, b = jnp.ones((2, 1), jnp.bfloat16), jnp.ones((1, 3), jnp.bfloat16)
    >>> w = LoraWeight(a, b, jnp.asarray(1.0))
    >>> computed(w, jnp.float32).a.dtype, computed(w, jnp.bfloat16).b.dtype
    (dtype('float32'), dtype(bfloat16))
    """
    if jnp.dtype(dtype).itemsize <= weight.a.dtype.itemsize:
        return weight
    return LoraWeight(weight.a.astype(dtype), weight.b.astype(dtype), weight.scale)


def fuse(base: Tree, adapter: Adapter) -> Tree:
    """Adds every delta into its kernel; the sum is rounded once, to the kernel's dtype.

    Args:
      base: params.
      adapter: a single adapter of sites of the base.

    Raises:
      ValueError: if the adapter names a kernel that the base lacks, or shapes differ.
    """
    check(base, adapter)
    adapted = sites(adapter)

    def add(name: str, leaf: jax.Array) -> jax.Array:
        return fuse_kernel(leaf, adapted[name]) if name in adapted else leaf

    return named.map_named(add, base)


@jax.jit
def fuse_kernel(kernel: jax.Array, weight: LoraWeight) -> jax.Array:
    """Adds a delta into one kernel, as :func:`fuse` does.

    Args:
      kernel: [..., D, F].
      weight: a [..., D, R], b [..., R, F], scale [...].

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray(0.5))
    >>> fuse_kernel(jnp.ones((2, 3)), w).tolist()
    [[1.5, 1.5, 1.5], [1.5, 1.5, 1.5]]
    """
    if kernel.ndim > 2:  # one layer after another: float32 copies are of one layer
        return jax.lax.map(lambda pair: fuse_kernel(*pair), (kernel, weight))
    return (kernel.astype(jnp.float32) + delta(weight)).astype(kernel.dtype)


def check(base: Tree, adapter: Adapter, experts: int | None = None) -> None:
    """Refuses an adapter (or library of ``experts``) that does not fit ``base``.

    Flax ignores a variable at a path that no module reads, so a misspelt path would
    be a silent no-op; this is where it becomes an error.

    Args:
      base: params; arrays, or shapes of arrays.
      adapter: an adapter, or a library of ``experts``.
      experts: E of a library; None for a single adapter.

    Raises:
      ValueError: naming the site, what it got and what it expected.
    """
    kernels = named.flatten(base)
    adapted = sites(adapter)
    if not adapted:
        raise ValueError("The adapter is empty: it adapts no kernel of the base.")
    for name, weight in adapted.items():
        if not is_lora(weight):
            raise ValueError(
                f"Adapter leaf {name!r} is a {type(weight).__name__}, expected a "
                f"LoraWeight."
            )
        if name not in kernels:
            raise ValueError(
                f"The adapter has a site {name!r} that the base lacks; the base has "
                f"{', '.join(repr(k) for k in kernels if k.endswith('kernel'))}."
            )
        # A bias or an embedding has a path too, but no delta a @ b.
        shape = tuple(kernels[name].shape)
        if len(shape) < 2 or name.split("/")[-1] != "kernel":
            raise ValueError(
                f"Site {name!r} has the shape {shape} in the base, expected a kernel "
                f"[..., D, F]; only kernels take an adapter."
            )
        check_shapes(name, weight, shape, experts)


def check_shapes(
    name: str,
    weight: LoraWeight,
    kernel: tuple[int, ...],
    experts: int | None = None,
) -> None:
    """Refuses an update that has another shape than what it is added to.

    Args:
      name: of the site.
      weight: one update, or those of ``experts``.
      kernel: shape [..., D, F] of what it is added to.
      experts: E of a library; None for a single adapter.

    Raises:
      ValueError: naming the site, what it got and what it expected.
    """
    lead = () if experts is None else (experts,)
    *axes, d, f = kernel
    expected = (
        (*lead, *axes, d, weight.rank),
        (*lead, *axes, weight.rank, f),
        (*lead, *axes),
    )
    got = (weight.a.shape, weight.b.shape, jnp.shape(weight.scale))
    if got != expected:
        raise ValueError(
            f"Site {name!r} has a, b, scale of shapes {got}, expected {expected} for "
            f"a kernel of shape {kernel}"
            + ("." if experts is None else f" and {experts} experts.")
        )


def stack(adapters: Sequence[Adapter]) -> Library:
    """Stacks adapters on a new leading axis E, padded with zeros to a common rank.

    Args:
      adapters: E of them, of the same sites; ranks are padded to the largest.

    Raises:
      ValueError: if there is none, or two adapt different sites.
    """
    if not adapters:
        raise ValueError("Cannot stack an empty sequence of adapters.")
    if isinstance(adapters, Mapping):
        raise ValueError(
            f"Got one tree with {', '.join(map(repr, adapters))} to stack, expected a "
            f"list of adapters: [adapter] is one."
        )
    first = set(sites(adapters[0]))
    for i, adapter in enumerate(adapters):
        if set(sites(adapter)) != first:
            odd = sorted(set(sites(adapter)) ^ first)
            raise ValueError(
                f"Adapter {i} adapts other sites than adapter 0; they differ in "
                f"{', '.join(odd[:4])}."
            )
    rank = max(w.rank for adapter in adapters for w in sites(adapter).values())
    # Ranks may differ; an array with an expert axis needs one rank.
    padded = [pad(adapter, rank) for adapter in adapters]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *padded)


def unstack(library: Library) -> list[Adapter]:
    """The inverse of :func:`stack`, padding kept.

    Args:
      library: leaves [E, ...].
    """
    return [
        jax.tree.map(lambda x, i=i: x[i], library) for i in range(num_experts(library))
    ]


def num_experts(library: Library) -> int:
    """Returns E, the length of the leading axis.

    Args:
      library: leaves [E, ...].

    Raises:
      ValueError: if the library is empty or its leaves disagree on E.
    """
    sizes = {jnp.shape(w.scale)[:1] for w in sites(library).values()}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        raise ValueError(
            f"Not a library: leading axes are {sorted(sizes)}, expected one common "
            f"axis of one expert or more; stack() makes a library of adapters."
        )
    return sizes.pop()[0]


def pad(adapter: Adapter, rank: int) -> Adapter:
    """Widens every site to ``rank`` with zero columns; the delta stays the same.

    Zeros add nothing, but a longer sum may be added up in another order: the delta is
    equal up to the last bits of float32.

    Args:
      adapter: an adapter or a library.
      rank: R' of the result, at least the rank of every site.

    Raises:
      ValueError: if a site already has a higher rank.

    >>> w = LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 3)), jnp.asarray(0.5))
    >>> pad({"kernel": w}, 4)["kernel"].b.shape
    (4, 3)
    """

    def widen(weight: LoraWeight) -> LoraWeight:
        extra = rank - weight.rank
        if extra < 0:
            raise ValueError(
                f"Cannot pad a site of rank {weight.rank} down to {rank}; "
                f"re-rank it by a merge with rank={rank}."
            )
        lead = [(0, 0)] * (weight.a.ndim - 2)
        # What is on the host stays there.
        xp: Any = np if isinstance(weight.a, np.ndarray) else jnp
        return LoraWeight(
            a=xp.pad(weight.a, [*lead, (0, 0), (0, extra)]),
            b=xp.pad(weight.b, [*lead, (0, extra), (0, 0)]),
            scale=weight.scale,
        )

    return lora_map(widen, adapter)


def split(adapter: Adapter) -> tuple[Tree, Tree]:
    """Returns (a and b of every site, scales): what is trained, and what never is.

    ``combine(*split(adapter))`` gives the adapter back.

    Args:
      adapter: an adapter or a library.
    """
    factors = lora_map(lambda w: {"a": w.a, "b": w.b}, adapter)
    return factors, lora_map(lambda w: w.scale, adapter)


def combine(factors: Tree, scales: Tree) -> Adapter:
    """The inverse of :func:`split`.

    Args:
      factors: ``{"a": a, "b": b}`` in the place of every site.
      scales: [...] in the place of every site.
    """
    return jax.tree.map(
        lambda scale, ab: LoraWeight(ab["a"], ab["b"], scale), scales, factors
    )


def count(adapter: Adapter) -> int:
    """Number of trainable parameters, that is of a and b (scale is never trained).

    Args:
      adapter: an adapter or a library.
    """
    return sum(w.a.size + w.b.size for w in sites(adapter).values())
