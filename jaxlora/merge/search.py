"""Weights that are found on the target task without gradients: LoraHub.

One weight for each expert (Huang et al., LoraHub, arXiv 2307.13269), by CMA-ES (Hansen,
arXiv 1604.00772) from evosax. The authors sum a and b apart, so that a weight acts by
its square and loses its sign; what is found here may be used in any merge.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Search(NamedTuple):
    """What :func:`search_weights` found."""

    weights: jax.Array
    """The best candidate ever seen, [E]; zeros if no loss was finite."""
    loss: jax.Array
    """Its loss without the penalty; inf if no loss was finite."""
    history: jax.Array
    """The lowest objective so far after each generation, penalty included, [G]."""


def search_weights(
    losses: Callable[[jax.Array], ArrayLike],
    library_size: int,
    *,
    key: jax.Array,
    budget: int = 40,
    low: float = -1.5,
    high: float = 1.5,
    penalty: float = 0.05,
    population: int = 8,
) -> Search:
    """Searches one weight for each expert by CMA-ES, with no gradients.

    Minimises ``losses(w) + penalty * mean |w|`` over the box. The first candidate is
    w = 0, the base itself, so that the best is never worse than the base. A loss
    of nan counts as infinite, and candidates are clipped to the box before they are
    judged and before the search learns from them.

    Args:
      losses: ``losses(weights [P, E]) -> [P]``, a whole generation at once, always of
        the same shape: one forward, vmapped over merges. Jit it; it is called as it is,
        so that it may also leave JAX, for example to generate and score text.
      library_size: E.
      key: the same key gives the same search.
      budget: candidates in all; ``budget // population`` generations are evaluated.
      low: of the box, at most 0.
      high: of the box, at least 0.
      penalty: of the mean absolute weight.
      population: candidates a generation, P.

    Raises:
      ValueError: if the arguments leave nothing to search, or losses are not [P].

    >>> def squares(weights):
    ...     return jnp.sum((weights - 0.5) ** 2, axis=-1)
    >>> search = search_weights(squares, 2, key=jax.random.key(0), budget=80)
    >>> bool(search.loss < 0.02), search.history.shape
    (True, (10,))
    """
    _check_search(library_size, budget, low, high, population)
    begin, ask, learn = _steps(population, library_size)
    first_key, *keys = jax.random.split(key, budget // population + 1)
    state, history = begin(first_key, low, high), []
    for step_key in keys:
        candidates, state = ask(state, step_key)
        values = _as_losses(losses(candidates), population)
        state = learn(state, candidates, values, penalty, step_key)
        history.append(state.lowest)
    return Search(state.best, state.loss, jnp.stack(history))


def _check_search(
    size: int, budget: int, low: float, high: float, population: int
) -> None:
    if size < 1 or population < 4 or budget < population:
        raise ValueError(
            f"Got a library of {size} experts, a budget of {budget} candidates and a "
            f"population of {population}, expected at least 1 expert, a population of "
            f"at least 4, and a budget for one generation of it."
        )
    if not (low <= 0 <= high and low < high):
        raise ValueError(
            f"The box is [{low}, {high}], expected it to hold 0, where the search "
            f"starts, and more than 0."
        )


def _as_losses(values: ArrayLike, population: int) -> jax.Array:
    losses = jnp.asarray(values, jnp.float32)
    if losses.shape != (population,):
        raise ValueError(
            f"losses(weights) returned the shape {losses.shape}, expected "
            f"({population},): one loss for each row of the weights [P, E]."
        )
    return jnp.where(jnp.isnan(losses), jnp.inf, losses)


class _State(NamedTuple):
    strategy: Any
    params: Any
    low: jax.Array
    high: jax.Array
    best: jax.Array
    loss: jax.Array
    lowest: jax.Array


@functools.lru_cache(maxsize=32)
def _steps(population: int, size: int) -> tuple[Callable[..., Any], ...]:
    # Kept, so that a second search of the same sizes compiles nothing.
    from evosax.algorithms import CMA_ES  # half a second, for those who search

    with jax.ensure_compile_time_eval(), _permissive():
        strategy = CMA_ES(population_size=population, solution=jnp.zeros(size))

    def begin(key, low, high):
        first, worst = jnp.zeros(size, jnp.float32), jnp.asarray(jnp.inf, jnp.float32)
        with _permissive():
            # A quarter of the box: two standard deviations reach from the middle to its
            # edges.
            params = strategy.default_params.replace(std_init=(high - low) / 4)
            state = strategy.init(key, first, params)
        return _State(state, params, low, high, first, worst, worst)

    def ask(state, key):
        with _permissive():
            drawn, asked = strategy.ask(key, state.strategy, state.params)
        clipped = jnp.clip(drawn, state.low, state.high)
        # The first candidate ever is w = 0: the search never ends below the base.
        early = asked.generation_counter == 0
        candidates = clipped.at[0].set(jnp.where(early, 0.0, clipped[0]))
        return candidates, state._replace(strategy=asked)

    def learn(state, candidates, losses, penalty, key):
        objective = losses + penalty * jnp.mean(jnp.abs(candidates), axis=-1)
        with _permissive():
            learned, _ = strategy.tell(
                key, candidates, objective, state.strategy, state.params
            )
        # The best ever seen is kept, whatever the search does later.
        i = jnp.argmin(objective)
        better = objective[i] < state.lowest
        return state._replace(
            strategy=learned,
            best=jnp.where(better, candidates[i], state.best),
            loss=jnp.where(better, losses[i], state.loss),
            lowest=jnp.where(better, objective[i], state.lowest),
        )

    return jax.jit(begin), jax.jit(ask), jax.jit(learn)


@contextlib.contextmanager
def _permissive() -> Iterator[None]:
    """For evosax, which promotes types and ranks implicitly."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
