"""What a reused model computes of token ids: logits, and what its route chooses.

In float32 all products have full precision, so that other programs can be compared.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import models, parallel
from jaxlora import tree as named
from jaxlora.parallel import processes
from jaxlora.reuse.reuse import Reuse


def logits(
    reuse: Reuse,
    tokens: np.ndarray,
    batch: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[np.ndarray]:
    """Yields logits [N, T, V] of some rows after another.

    Args:
      reuse: the model and what it runs with.
      tokens: ids [B, T].
      batch: N, rows at once; the last part may have fewer.
      progress: called with the number of rows that are done.

    Raises:
      ValueError: if some are no numbers.
    """
    call = jax.jit(models.apply, static_argnums=0)
    size = parallel.filled(min(batch, len(tokens)), reuse.mesh)
    extras = reuse.arguments()
    with jax.default_matmul_precision(_precision(reuse)):
        for start in range(0, len(tokens), size):
            used = min(size, len(tokens) - start)
            # The last batch is filled up with its last row: one shape to compile.
            rows = np.minimum(np.arange(start, start + size), len(tokens) - 1)
            part = reuse.rows(tokens[rows].astype(np.int32))
            with parallel.using(reuse.mesh):
                out = call(reuse.model, reuse.base, part, **extras)
            logits = processes.host(out)[:used]
            check_finite(np.isfinite(logits).all(axis=(1, 2)))
            yield logits
            progress(start + used)


def check_finite(finite: np.ndarray) -> None:
    """Refuses scores of tokens that are no numbers.

    Args:
      finite: [B], are all scores of a row?

    Raises:
      ValueError: if those of a row are not.

    >>> check_finite(np.asarray([True, True]))
    """
    odd = np.flatnonzero(~finite)
    if odd.size:
        raise ValueError(
            f"The model's scores of tokens are NaN or infinite in {odd.size} of "
            f"{finite.size} rows: the base, or the update of an adapter (its scale, or "
            f"the weight it has in a merge), is too large to compute with."
        )


def routed(
    reuse: Reuse, ids: Sequence[int]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Runs one prompt, and returns what the route chose.

    Args:
      reuse: a model with a route.
      ids: T token ids.

    Returns:
      Weights {site: [L, T, E]}, and where scores were no numbers, {place: [L, T]}.
    """
    call = jax.jit(models.routes, static_argnums=0)
    tokens = jnp.asarray([ids], jnp.int32)
    with jax.default_matmul_precision(_precision(reuse)), parallel.using(reuse.mesh):
        both = call(reuse.model, reuse.base, tokens, **reuse.arguments())
    weights, strayed = (
        {name: leaf[:, 0] for name, leaf in named.flatten(part).items()}
        for part in processes.host(both)
    )
    return weights, strayed


def _precision(reuse: Reuse) -> str | None:
    return "highest" if reuse.model.config.dtype == "float32" else None
