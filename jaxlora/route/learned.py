"""Gates that need data: keys that were measured, trained, or are stored examples.

Phatgoose: Muqeeth et al. (arXiv 2402.05859). SMEAR: Muqeeth et al. (arXiv 2306.03745).
LoRA-Flow: Wang et al. (ACL 2024). Average activation and retrieval by example are the
baselines of the first. How keys are trained is the trainer's business; here they are
arrays, given as data or started at random.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxlora.lora import LoraWeight
from jaxlora.route.deltas import Per
from jaxlora.route.gate import LAWS, Gate
from jaxlora.spectrum import matmul

EPS = 1e-5


def standard(x: jax.Array) -> jax.Array:
    """Layer norm without weights over the last axis: mean 0, variance 1.

    >>> standard(jnp.array([[1.0, 3.0]])).round(3).tolist()
    [[-1.0, 1.0]]
    """
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPS)


@dataclasses.dataclass(frozen=True)
class Linear(Gate):
    """``g_e . x``, with a key g_e for every expert.

    Keys are the data of ``init``, or start at ``start`` to be trained.
    """

    start: Literal["zeros", "normal"] = "zeros"
    """Keys without data: zeros, or draws of variance 1/D."""
    standard: bool = False
    """Compare with the key after layer norm, as Phatgoose and SMEAR do."""
    data: ClassVar[str] = "target"

    def keys(self, weight: LoraWeight, key: jax.Array, data: Any) -> Any:
        """Keys [E, L, D]."""
        shape = weight.a.shape[:-1]
        if data is None and self.start == "zeros":
            return jnp.zeros(shape, jnp.float32)
        if data is None:
            return jax.random.normal(key, shape) * shape[-1] ** -0.5
        return _shaped(self, data, shape)

    def score(self, keys: Any, x: jax.Array) -> jax.Array:
        """Products [N, E] of x [N, D] and the keys [E, D]."""
        return matmul(x, (standard(keys) if self.standard else keys).T)

    def width(self, keys: Any) -> int | None:
        """D."""
        return keys.shape[-1]


@dataclasses.dataclass(frozen=True)
class ExpertKeys(Linear):
    """A linear gate whose keys come from each expert's own data, and need be given."""

    data: ClassVar[str] = "own"


@dataclasses.dataclass(frozen=True)
class Mean(ExpertKeys):
    """``p_e . x``, p_e the direction of the mean input of expert e on its own data."""

    def keys(self, weight: LoraWeight, key: jax.Array, data: Any) -> Any:
        """Unit keys [E, L, D] from mean inputs of that shape."""
        del key
        if data is None:
            raise ValueError(
                "Average activation got no data, expected the mean input of every "
                "expert on its own examples, {site: [E, L, D]}; "
                "models.statistics.mean_inputs measures them."
            )
        data = _shaped(self, data, weight.a.shape[:-1])
        # A mean input of zero has no direction: its key stays zero.
        norm = jnp.linalg.norm(data, axis=-1, keepdims=True)
        return data / jnp.where(norm > 0, norm, 1.0)


@dataclasses.dataclass(frozen=True)
class Flow(Gate):
    """``softmax(W x) + b`` once a layer, shared by all its sites."""

    data: ClassVar[str] = "target"
    laws: ClassVar[frozenset[str]] = frozenset(LAWS) - {"identity"}
    per: Per = dataclasses.field(default="layer", kw_only=True)

    def keys(self, weight: LoraWeight, key: jax.Array, data: Any) -> Any:
        """``{"kernel": W [E, L, D], "bias": b [E, L]}``, zeros without data."""
        del key
        shape = weight.a.shape[:-1]
        if data is None:
            return {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[:-1])}
        return {
            "kernel": _shaped(self, data["kernel"], shape),
            "bias": _shaped(self, data["bias"], shape[:-1]),
        }

    def score(self, keys: Any, x: jax.Array) -> jax.Array:
        """Products [N, E]."""
        return matmul(x, keys["kernel"].T)

    def finish(self, keys: Any, weights: jax.Array) -> jax.Array:
        """Adds the bias, which may be negative, to the experts that are kept."""
        return jnp.where(weights > 0, weights + keys["bias"][None, :], 0.0)

    def width(self, keys: Any) -> int | None:
        """D."""
        return keys["kernel"].shape[-1]


@dataclasses.dataclass(frozen=True)
class Nearest(Gate):
    """``max_m cos(x, k_em)``: the stored example of each expert that is nearest.

    The input is the mean embedding of the sequence so far; so are the examples.
    """

    data: ClassVar[str] = "own"
    supports: ClassVar[tuple[Per, ...]] = ("model",)
    per: Per = dataclasses.field(default="model", kw_only=True)

    def keys(self, weight: LoraWeight, key: jax.Array, data: Any) -> Any:
        """Unit keys [E, M, D] from the embeddings of M examples of every expert."""
        del key
        if data is None:
            raise ValueError(
                "Retrieval got no data, expected embeddings of examples of every "
                "expert, {'router': [E, M, D]}; models.statistics.embeddings makes "
                "them."
            )
        experts, width = weight.a.shape[0], weight.a.shape[-2]
        data = _shaped(self, data, (experts, data.shape[1], width))
        norm = jnp.linalg.norm(data, axis=-1, keepdims=True)
        return data / jnp.where(norm > 0, norm, 1.0)

    def score(self, keys: Any, x: jax.Array) -> jax.Array:
        """The largest cosine of x [N, D] and the examples, [N, E]."""
        e, m, d = keys.shape
        square = jnp.sum(x * x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.where(square == 0, 1.0, square))
        cosines = matmul(x, keys.reshape(e * m, d).T)
        return jnp.max(cosines.reshape(-1, e, m), axis=-1)

    def width(self, keys: Any) -> int | None:
        """D."""
        return keys.shape[-1]


def _shaped(gate: Gate, data: Any, shape: tuple[int, ...]) -> jax.Array:
    data = jnp.asarray(data, jnp.float32)
    if data.shape != shape:
        raise ValueError(
            f"{gate!r} got data of shape {data.shape}, expected {shape}: were they "
            f"made for another library or base?"
        )
    return data


linear = Linear()
"""Keys are trained on the target task."""
