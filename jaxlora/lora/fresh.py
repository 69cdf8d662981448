"""How adapters are made: rank, scale, the kernels that they adapt, fresh factors.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685).
Kalajdzievski, A Rank Stabilization Scaling Factor (arXiv 2312.03732), for rsLoRA.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlora import tree as named
from jaxlora.lora.weight import Adapter, LoraWeight
from jaxlora.tree import Tree

_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_THEIRS = {
    "self_attn": "attn",
    "linear_attn": "delta",
    "shared_expert": "shared",
    "shared_expert_gate": "shared_gate",
}
ALL_LINEAR = (r"(layers|memory)/.*(_proj|/in_proj_\w+)/kernel",)
"""Every linear layer of a decoder; a memory is an MLP that its layers share."""
_GATES = re.compile(r".*/in_proj_(a|b|ba)/kernel")
"""Layers of a delta net with a feature or two for each of its heads, and no more."""


TABLE, HEAD = "embed/embedding", "head"
"""Leaves of a decoder that take an update and are no kernels; a tied head is no leaf,
but takes one all the same."""
OUTSIDE = {
    "lm_head": HEAD,
    **dict.fromkeys(("embed_tokens", "model.embed_tokens"), TABLE),
    **dict.fromkeys(("wte", "transformer.wte"), TABLE),
}
"""Names that PEFT has for them. No pattern means them: they must be named."""


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
    """Regular expressions on full kernel names, each of which must match a kernel; or
    names of PEFT, such as q_proj, lm_head and embed_tokens."""
    dtype: str = "float32"
    """Type of a and b. The base may be bfloat16 and its adapters float32."""

    @property
    def scale(self) -> float:
        """The one place where alpha and rank become a scale."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


def targets(base: Tree, patterns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns ``{pattern: kernels it claims}``; its lengths are the counts to report.

    Args:
      base: params; arrays, or shapes of arrays.
      patterns: regular expressions that match whole paths of kernels, or names of PEFT;
        ``lm_head`` and ``embed_tokens`` are head and table of a decoder.

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
    table = any(name == TABLE for name in named.flatten(base))
    outside = {x: (OUTSIDE[x],) for x in patterns if x in OUTSIDE and table}
    rest = [_pattern(x, kernels) for x in patterns if x not in outside]
    return (named.match(rest, kernels) if rest else {}) | outside


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

    Of the table it is ``a = 0`` and ``b ~ N(0, 1)``, as in PEFT.

    Args:
      key: PRNG key; each site folds in its own number.
      base: params tree; kernels are [..., D, F].
      config: rank, scale, targets and dtype.

    Raises:
      ValueError: if the rank is below 1 or above min(D, F) of a targeted kernel, or a
        pattern matches nothing.

    >>> base = {"q_proj": {"kernel": jnp.ones((4, 6))}}
    >>> adapter = init(jax.random.key(0), base, LoraConfig(rank=2, targets=(".*",)))
    >>> bool((adapter["q_proj"]["kernel"].b == 0).all())
    True
    """
    kernels = adapted(base, config)
    return named.unflatten(
        {
            name: _init_site(jax.random.fold_in(key, i), name, kernel, config)
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
    chosen = {name for names in claimed.values() for name in names}
    # What leaves nothing is refused below.
    chosen = sorted(chosen - {*left_out(base, config)} or chosen)
    flat = named.flatten(base)
    if HEAD in chosen and HEAD not in flat:  # tied: it is the table, turned
        table = flat[TABLE]
        flat[HEAD] = jax.ShapeDtypeStruct(table.shape[::-1], table.dtype)
    for name in chosen:
        *_, d, f = flat[name].shape
        if not 1 <= config.rank <= min(d, f):
            raise ValueError(
                f"LoRA rank is {config.rank}, expected 1 to {min(d, f)}: the kernel "
                f"{name!r} is {d} x {f}, and a higher rank adds nothing to it."
            )
    return {name: flat[name] for name in chosen}


def left_out(base: Tree, config: LoraConfig) -> tuple[str, ...]:
    """Returns kernels of "all linear layers" that are too narrow for the rank.

    They are the gates of delta nets, which have a feature or two a head: a rank that is
    meant for all other layers should not be refused for them. Named, they are refused.

    Args:
      base: params; arrays, or shapes of arrays.
      config: rank and targets.

    >>> base = {"layers": {"delta": {"in_proj_a": {"kernel": jnp.ones((8, 2))}}}}
    >>> left_out(base, LoraConfig(rank=4)), left_out(base, LoraConfig(rank=2))
    (('layers/delta/in_proj_a/kernel',), ())
    """
    claimed, flat = targets(base, config.targets), named.flatten(base)
    every = {"all-linear", *ALL_LINEAR}
    asked = {x for pattern in claimed.keys() - every for x in claimed[pattern]}
    wide = {x for pattern in claimed.keys() & every for x in claimed[pattern]}
    narrow = (x for x in wide - asked if min(flat[x].shape[-2:]) < config.rank)
    return tuple(sorted(x for x in narrow if _GATES.fullmatch(x)))


def _init_site(
    key: jax.Array, name: str, kernel: Any, config: LoraConfig
) -> LoraWeight:
    *lead, d, f = kernel.shape
    dtype = jnp.dtype(config.dtype)
    a = jnp.zeros((*lead, d, config.rank), dtype)
    b = jnp.zeros((*lead, config.rank, f), dtype)
    if name == TABLE:
        # A row is looked up, not summed: b is what each row of a chooses from.
        b = jax.random.normal(key, b.shape, dtype)
    else:
        # 1 / D keeps the variance of x a at that of x, whatever the width.
        noise = jax.random.normal(key, a.shape, dtype)
        a = noise * jnp.asarray(d**-0.5, dtype)
    scale = jnp.full(tuple(lead), config.scale, jnp.float32)
    return LoraWeight(a=a, b=b, scale=scale)
