"""Negative controls: libraries that look like a library and know nothing of it.

Each control is a transform ``(key, library) -> library``: it keeps the sites, the
shapes and the size of every delta, and destroys one thing. Use it on the library before
any merge or router, or as a step of a chain.

Swapping whole experts is no control: a mean or a sum does not see their order.
"""

import jax
import jax.numpy as jnp

from jaxlora import lora, spectrum
from jaxlora import tree as named
from jaxlora.lora import Library, LoraWeight


def random_like(key: jax.Array | None, library: Library) -> Library:
    """Keeps the singular values of every delta, and draws its directions afresh.

    ``delta' = U diag(s) V^T`` with U [D, K] and V [F, K] uniform (Haar) among matrices
    with orthonormal columns, independent for each expert, site and layer. If a
    combination does as well with these, the experts' directions did not matter.

    Args:
      key: PRNG key.
      library: leaves [E, ..., D, R]; a single adapter works too.

    Returns:
      Balanced factors of the same shapes, float32, scale 1.

    Raises:
      ValueError: if there is no key.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 5)), jnp.ones(2))
    >>> drawn = random_like(jax.random.key(0), {"kernel": w})["kernel"]
    >>> spectrum.norm(drawn).round().tolist()
    [4.0, 4.0]
    """
    if key is None:
        raise ValueError("random_like draws directions and needs a PRNG key, got None.")
    numbers = {name: i for i, name in enumerate(sorted(lora.sites(library)))}

    def draw(name: str, weight: LoraWeight) -> LoraWeight:
        key_u, key_v = jax.random.split(jax.random.fold_in(key, numbers[name]))
        _, s, _ = spectrum.svd(weight)
        d, f = weight.a.shape[-2], weight.b.shape[-1]
        root = jnp.sqrt(s)
        drawn = LoraWeight(
            a=_haar(key_u, d, s.shape) * root[..., None, :],
            b=root[..., :, None] * _haar(key_v, f, s.shape).mT,
            scale=jnp.ones(s.shape[:-1], jnp.float32),
        )
        return lora.pad(drawn, weight.rank)

    return named.map_named(draw, library, is_leaf=lora.is_lora)


def permute_sites(key: jax.Array | None, library: Library) -> Library:
    """Moves every expert's deltas to other layers of the same kind of kernel.

    Expert e is shifted by s_e layers, cyclically and at every site alike, so that no
    delta stays where it was trained: what was at layer l goes to layer (l + s_e) mod L.
    Shifts run through 1, ..., L-1 and repeat only after that: experts also lose each
    other, except where E > L-1 (with L = 2 all of them move together). Shapes, factors
    and norms are kept. If a combination does as well, the layers did not matter.

    Args:
      key: PRNG key that orders the shifts; None is the fixed order 1, 2, ...
      library: leaves [E, L, D, R] of scanned layers.

    Raises:
      ValueError: if a site has no layer axis, or a single layer.

    >>> a = jnp.arange(3.0).reshape(1, 3, 1, 1)
    >>> w = LoraWeight(a, jnp.ones((1, 3, 1, 1)), jnp.ones((1, 3)))
    >>> permute_sites(None, {"k": w})["k"].a.ravel().tolist()
    [2.0, 0.0, 1.0]
    """

    def shift(name: str, weight: LoraWeight) -> LoraWeight:
        experts, layers = _experts_and_layers(name, weight)
        order = jnp.arange(1, layers)
        if key is not None:
            order = jax.random.permutation(key, order)
        shifts = order[jnp.arange(experts) % (layers - 1)]
        return jax.vmap(lambda w, n: jax.tree.map(lambda x: jnp.roll(x, n, 0), w))(
            weight, shifts
        )

    return named.map_named(shift, library, is_leaf=lora.is_lora)


def _haar(key: jax.Array, size: int, shape: tuple[int, ...]) -> jax.Array:
    """[..., size, K] with orthonormal columns, for ``shape`` [..., K]."""
    *lead, k = shape
    q, r = spectrum.qr(jax.random.normal(key, (*lead, size, k), jnp.float32))
    # Without the sign fix the law of q depends on the QR routine (Mezzadri, 2007).
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
    return q * jnp.where(diagonal < 0, -1.0, 1.0)[..., None, :]


def _experts_and_layers(name: str, weight: LoraWeight) -> tuple[int, int]:
    if weight.a.ndim != 4:
        raise ValueError(
            f"Site {name!r} has a of shape {weight.a.shape}, expected [E, L, D, R]: "
            f"deltas are permuted along the axis of scanned layers."
        )
    experts, layers = weight.a.shape[:2]
    if layers == 1:
        raise ValueError(
            f"Site {name!r} has one layer, so its deltas have no other layer to go to; "
            f"a permuted control needs L >= 2."
        )
    return experts, layers


# What a merge asks of its parts; a function has no field to declare it in.
random_like.draws = True  # pyrefly: ignore
permute_sites.draws = True  # pyrefly: ignore
permute_sites.needs_key = False  # pyrefly: ignore
