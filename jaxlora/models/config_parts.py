"""Parts of a :class:`DecoderConfig`: rope scaling, a delta rule, kinds of layers."""

import dataclasses
from typing import Literal, NamedTuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts beyond the trained length.

    ``linear`` divides all of them by ``factor`` (Gemma 3). ``llama3`` divides the slow
    ones, keeps the fast ones, and goes smoothly between (Llama 3.1 and later); so does
    ``yarn`` (arXiv 2309.00071), by another ramp. ``dynamic`` raises theta as soon as a
    sequence is longer than the trained length. ``longrope`` divides each frequency by a
    factor of its own, one for short and one for long sequences (Phi-3, arXiv
    2402.13753). How long a sequence is: :func:`jaxlora.models.view.view_of`.
    """

    kind: Literal["linear", "llama3", "yarn", "dynamic", "longrope"]
    """The rule."""
    factor: float
    """Positive, unitless; longrope uses those of each frequency instead."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original_length / this are divided by factor."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_length / this are kept."""
    original_length: int = 8192
    """Tokens of the context before the stretch; linear does not ask."""
    beta_fast: float = 32.0
    """yarn: frequencies of more turns than this in the trained length are kept."""
    beta_slow: float = 1.0
    """yarn: those of fewer turns than this are divided by factor."""
    truncate: bool = True
    """yarn: the ramp between them begins and ends at a whole channel."""
    short_factors: tuple[float, ...] = ()
    """longrope: divisors for sequences up to original_length, one a frequency."""
    long_factors: tuple[float, ...] = ()
    """longrope: divisors for longer ones."""
    attention_factor: float = 1.0
    """yarn, longrope: factor on rotated queries, and on keys."""

    def __post_init__(self):
        if self.factor <= 0:
            raise ValueError(f"factor is {self.factor}, expected a positive number.")
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor is {self.high_freq_factor}, expected more than "
                f"low_freq_factor, {self.low_freq_factor}."
            )
        short, long = len(self.short_factors), len(self.long_factors)
        if (self.kind == "longrope") != bool(short) or short != long:
            raise ValueError(
                f"rope scaling {self.kind!r} has {short} short and {long} long "
                f"factors, expected one of each a frequency for longrope, and none "
                f"otherwise."
            )

    @property
    def by_length(self) -> bool:
        """Do the frequencies depend on how long a sequence is?"""
        return self.kind in ("dynamic", "longrope")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeltaConfig:
    """Shapes of a gated delta rule, :mod:`jaxlora.models.delta`."""

    key_heads: int
    """Heads of queries and keys."""
    value_heads: int
    """Heads of values; a multiple of key_heads, each of which serves several."""
    key_dim: int
    """Width of a head of queries or keys."""
    value_dim: int
    """Width of a head of values."""
    taps: int
    """W, inputs that a channel of the convolution sees, the token's own included."""
    fused: bool = False
    """One kernel makes queries, keys, values and gates, a key head's side by side, and
    one makes rates and decays (Qwen3-Next)."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            size = getattr(self, field.name)
            if isinstance(size, bool):
                continue
            if not 1 <= size <= 2**16:  # some times that of any model
                raise ValueError(f"{field.name} is {size}, expected 1 to {2**16}.")
        if self.value_heads % self.key_heads:
            raise ValueError(
                f"value_heads is {self.value_heads} and key_heads {self.key_heads}: "
                f"every key head must serve as many value heads."
            )

    @property
    def keys(self) -> int:
        """Channels of all keys, and of all queries."""
        return self.key_heads * self.key_dim

    @property
    def values(self) -> int:
        """Channels of all values."""
        return self.value_heads * self.value_dim

    @property
    def channels(self) -> int:
        """Channels of queries, keys and values together."""
        return 2 * self.keys + self.values


class Kind(NamedTuple):
    """What tells the layers of a decoder apart."""

    delta: bool = False
    """A gated delta rule in the place of attention."""
    dense: bool = False
    """A single MLP, in a decoder whose other layers have several."""
