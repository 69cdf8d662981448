"""Weights that are found by a loss on the target task: CAT and LoraHub.

- :func:`learn_scales` trains one scalar for each expert, site and layer by gradients
  (CAT; Prabhakar et al., LoRA Soups, arXiv 2410.13025).
- :func:`search_weights` finds one weight for each expert without gradients (Huang et
  al., LoraHub, arXiv 2307.13269), by CMA-ES (Hansen, arXiv 1604.00772) from evosax.

Both only choose coefficients; the merge is the exact weighted sum of deltas. Their code
differs: LoraHub's sums a and b apart, so that a weight acts by its square and loses its
sign, and LoRA Soups' starts at random scalars.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.lora import Library, LoraWeight
from jaxlora.merge.linear import Data, Reduction, absent_removed, column, concatenate


@dataclasses.dataclass(frozen=True)
class ScaledSum(Reduction):
    """The exact ``sum_e w_e c_e delta_e`` for scalars c_e given as data, [E, ...]."""

    data: ClassVar[Data] = "target"

    def leaf(self, values, weights, key, data):
        """The sum of values, each times its weight and its scalar."""
        del key
        return jnp.tensordot(weights * _given(data), values, 1)

    def factors(self, experts, weights, data):
        """The exact sum, of rank E * R."""
        scales = _given(data)
        present = absent_removed(experts, weights)
        return concatenate(present, column(weights, scales.ndim - 1) * scales)


def scaled_sum() -> Reduction:
    """Coefficients ``w_e c_e``, with the c of :func:`learn_scales` as the merge's data.

    Weights of 1, the default, give the sum that was trained; 0 leaves an expert out.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 4)), jnp.ones(2))
    >>> sum_of = scaled_sum().factors(w, jnp.ones(2), jnp.asarray([0.25, 0.5]))
    >>> float(lora.delta(sum_of)[0, 0])
    0.75
    """
    return ScaledSum()


def learn_scales(
    loss: Callable[..., jax.Array],
    library: Library,
    *,
    steps: int,
    learning_rate: float,
    key: jax.Array | None = None,
    softmax: bool = True,
) -> dict[str, jax.Array]:
    """Trains one scalar for each expert, site and layer, and nothing else, by Adam.

    ``adapter = sum_e c_e delta_e``, exact, with c the softmax over experts of what is
    trained, or c itself. It starts at the mean, ``c_e = 1 / E``.

    The steps are one ``lax.scan``, compiled at each call; a caller that repeats it for
    other data does so once, with ``jax.jit`` around a function that takes the data and
    calls this one.

    Args:
      loss: ``loss(adapter) -> scalar``, or with a key ``loss(adapter, key_t)``, where
        key_t is new at each step: to draw the examples of a batch.
      library: leaves [E, ..., D, R].
      steps: of Adam, at least 1.
      learning_rate: of Adam; positive.
      key: see ``loss``.
      softmax: keep scalars positive and of sum 1, as the paper does; without it they
        are free, also to be negative.

    Returns:
      ``{site: c [E, ...]}`` in float32, the data of :func:`scaled_sum`.

    Raises:
      ValueError: if the steps or the learning rate are out of range. Outside jit also
        if training diverged to numbers that are not finite.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 4)), jnp.arange(2.0))
    >>> def far_from_one(adapter):
    ...     return jnp.mean((lora.delta(adapter["kernel"]) - 1) ** 2)
    >>> found = learn_scales(
    ...     far_from_one, {"kernel": w}, steps=50, learning_rate=0.1, softmax=False
    ... )
    >>> found["kernel"].round(1).tolist()
    [0.5, 1.0]
    """
    if steps < 1 or not learning_rate > 0:
        raise ValueError(
            f"Scalars are to be trained for {steps} steps at a learning rate of "
            f"{learning_rate}, expected at least 1 step and a positive rate."
        )
    experts = lora.num_experts(library)
    start = 0.0 if softmax else 1 / experts
    initial = {
        name: jnp.full(w.scale.shape, start, jnp.float32)
        for name, w in lora.sites(library).items()
    }

    def scales(trained):
        return jax.tree.map(lambda c: jax.nn.softmax(c, 0) if softmax else c, trained)

    def objective(trained, library, step_key):
        adapter = _exact_sum(library, scales(trained))
        return loss(adapter) if step_key is None else loss(adapter, step_key)

    keys = None if key is None else jax.random.split(key, steps)
    optimizer = optax.adam(learning_rate)
    train = jax.jit(functools.partial(_train, objective, optimizer, steps))
    found = scales(train(initial, library, keys))
    _check_finite(found, learning_rate)
    return found


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
    w = 0, the base itself, so that what is found is never worse than the base. A loss
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
    >>> found = search_weights(squares, 2, key=jax.random.key(0), budget=80)
    >>> bool(found.loss < 0.02), found.history.shape
    (True, (10,))
    """
    _check_search(library_size, budget, low, high, population)
    begin, ask, tell = _steps(population, library_size)
    first_key, *keys = jax.random.split(key, budget // population + 1)
    state, history = begin(first_key, low, high), []
    for step_key in keys:
        candidates, state = ask(state, step_key)
        found = _as_losses(losses(candidates), population)
        state = tell(state, candidates, found, penalty, step_key)
        history.append(state.lowest)
    return Search(state.best, state.loss, jnp.stack(history))


def _given(data: jax.Array | None) -> jax.Array:
    if data is None:
        raise ValueError(
            "A scaled sum got no scalars: pass data={site: [E, ...]}, for example "
            "what learn_scales() returns."
        )
    return jnp.asarray(data, jnp.float32)


def _exact_sum(library: Library, scales: dict[str, jax.Array]) -> Any:
    def one(name: str, weight: LoraWeight) -> LoraWeight:
        return concatenate(weight, scales[name])

    return named.map_named(one, library, is_leaf=lora.is_lora)


def _train(objective, optimizer, steps, initial, library, keys):
    def step(carry, step_key):
        trained, state = carry
        gradient = jax.grad(objective)(trained, library, step_key)
        with jax.numpy_dtype_promotion("standard"):  # optax counts in int32
            updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(trained, updates), state), None

    carry = (initial, optimizer.init(initial))
    return jax.lax.scan(step, carry, keys, length=steps)[0][0]


def _check_finite(found: dict[str, jax.Array], learning_rate: float) -> None:
    for name, scales in found.items():
        if isinstance(scales, jax.core.Tracer):
            return
        if not bool(jnp.isfinite(scales).all()):
            raise ValueError(
                f"Scalars of site {name!r} are not finite after training at a learning "
                f"rate of {learning_rate}, expected numbers: the loss or its gradient "
                f"is not finite for some adapter on the way."
            )


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
    found = jnp.asarray(values, jnp.float32)
    if found.shape != (population,):
        raise ValueError(
            f"losses(weights) returned the shape {found.shape}, expected "
            f"({population},): one loss for each row of the weights [P, E]."
        )
    return jnp.where(jnp.isnan(found), jnp.inf, found)


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
            params = strategy.default_params.replace(std_init=(high - low) / 4)
            state = strategy.init(key, first, params)
        return _State(state, params, low, high, first, worst, worst)

    def ask(state, key):
        with _permissive():
            drawn, asked = strategy.ask(key, state.strategy, state.params)
        clipped = jnp.clip(drawn, state.low, state.high)
        early = asked.generation_counter == 0
        candidates = clipped.at[0].set(jnp.where(early, 0.0, clipped[0]))
        return candidates, state._replace(strategy=asked)

    def tell(state, candidates, found, penalty, key):
        objective = found + penalty * jnp.mean(jnp.abs(candidates), axis=-1)
        with _permissive():
            learned, _ = strategy.tell(
                key, candidates, objective, state.strategy, state.params
            )
        i = jnp.argmin(objective)
        better = objective[i] < state.lowest
        return state._replace(
            strategy=learned,
            best=jnp.where(better, candidates[i], state.best),
            loss=jnp.where(better, found[i], state.loss),
            lowest=jnp.where(better, objective[i], state.lowest),
        )

    return jax.jit(begin), jax.jit(ask), jax.jit(tell)


@contextlib.contextmanager
def _permissive() -> Iterator[None]:
    """For evosax, which promotes types and ranks implicitly."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
