"""What an adapter of PEFT is made of: updates, and what stands beside them."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class PeftModule:
    """The update ``scale * b @ a`` of one linear layer, or of a transposed table."""

    a: np.ndarray
    """[R, D], float32 or bfloat16; [R, V] for an embedding."""
    b: np.ndarray
    """[F, R]; [D, R] for an embedding."""
    scale: float
    """Unitless."""
    embedding: bool = False
    """Is it the update of an embedding? In our layout, where kernels are [in, out],
    both kinds are ``scale * a.T @ b.T``."""
    magnitude: np.ndarray | None = None
    """[F], the norms that DoRA gives the rows of W + s b a; or None."""
    start: str | None = None
    """What it began with, as in :class:`Header`."""
    bias: np.ndarray | None = None
    """[F], of which ``scale * bias`` is added to the layer's output; or None."""


class Rows(NamedTuple):
    """Rows of an embedding that an adapter replaces."""

    ids: tuple[int, ...]
    """Of N tokens."""
    values: np.ndarray
    """[N, D]."""


class Parameter(NamedTuple):
    """A bare parameter (target_parameters), as it is written."""

    name: str
    """Such as ``model.layers.0.mlp.experts.down_proj``."""
    count: int
    """X, how many updates the tensors hold, one after another."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftAdapter:
    """Updates by module path, such as ``model.layers.0.self_attn.q_proj``."""

    modules: Mapping[str, PeftModule]
    """At least one."""
    base_name: str | None = None
    """What the config says of the model that the adapter is for."""
    replaced: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Tensors that replace those of the base, by name: ``lm_head.weight``."""
    rows: Mapping[str, Rows] = dataclasses.field(default_factory=dict)
    """Rows that replace those of an embedding, by its module path."""
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    """Those of ``modules`` that are written as of bare parameters, by path."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known of a module before its values are read."""

    rank: int
    """R."""
    d: int
    """Features in; V of an embedding."""
    f: int
    """Features out; D of an embedding."""
    scale: float
    """Unitless."""
    embedding: bool
    """Is it an embedding?"""
    dtype: np.dtype
    """The type that both factors have once read; float32 if they differ."""
    keys: tuple[str, str]
    """Tensors of a and b."""
    beside: tuple[str | None, str | None] = (None, None)
    """Tensors of the magnitude and of the bias."""
    start: str | None = None
    """Which factors the training began with and took out of the base's weight, as
    init_lora_weights says: ``pissa`` or ``olora``; None if it took none."""
    vector: bool = False
    """Is b stored alone, as [F], and a the number 1?"""
    parameter: bool = False
    """Is it of a bare parameter (:mod:`jaxlora.io.peft_parameters`)?"""
