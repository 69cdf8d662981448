"""Small data sets: each of E experts, gates or copies sees all its rows at every step.

One program trains them all: a scan of steps, vmapped over the data sets. The result of
each depends on its rows and key alone: what one gets for E = 1 is what one gets at
E = 64. The leading axis may be sharded: the inputs' sharding decides, the code does
not change.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxlora import lora
from jaxlora.lora import Adapter, Library, LoraConfig
from jaxlora.models import Decoder
from jaxlora.train.step import ADAPTER, BASE, GATE, Batch, Fit, Part, mean, step, sums
from jaxlora.tree import Tree


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def fit_experts(
    model: Decoder,
    opt: optax.GradientTransformation,
    config: LoraConfig,
    steps: int,
    pad: int,
    base: Tree,
    rows: Batch,
    keys: jax.Array,
) -> tuple[Library, jax.Array]:
    """Trains one LoRA per data set, all at once.

    Args:
      model: a decoder without a route.
      opt: an optax optimizer, the same object in every call.
      config: rank, scale and targets of every expert.
      steps: full-batch steps.
      pad: id of the padding token.
      base: frozen params tree.
      rows: one data set an expert, [E, N, T]; unused rows have weights 0.
      keys: [E] PRNG keys of the initialisations.

    Returns:
      A library [E, ...] and the last losses [E] in nats.
    """

    def expert(key: jax.Array, batch: Batch) -> tuple[Adapter, jax.Array]:
        adapter = lora.init(key, base, config)
        fit = functools.partial(_fit, model, opt, steps, pad, ADAPTER)
        return fit(adapter, {"base": base}, batch)

    return jax.vmap(expert)(keys, rows)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def fit_gates(
    model: Decoder,
    opt: optax.GradientTransformation,
    steps: int,
    pad: int,
    base: Tree,
    libraries: Library,
    states: Tree,
    rows: Batch,
) -> tuple[Tree, jax.Array]:
    """Trains the keys of one gate for each library; all else is frozen.

    A gate that learns on the target task is one of E experts; Phatgoose's (arXiv
    2402.05859) are E gates, each of a library of one expert, on that expert's rows.

    Args:
      model: a decoder with a route.
      opt: an optax optimizer, the same object in every call.
      steps: full-batch steps.
      pad: id of the padding token.
      base: frozen params tree.
      libraries: [G, E, ...], frozen.
      states: of the route, one for each library, [G, ...].
      rows: one data set a gate, [G, N, T]; unused rows have weights 0.

    Returns:
      States [G, ...] with trained keys, and the last losses [G] in nats.
    """

    def gate(library: Library, state: Tree, batch: Batch) -> tuple[Tree, jax.Array]:
        fit = functools.partial(_fit, model, opt, steps, pad, GATE)
        return fit(state, {"base": base, "library": library}, batch)

    return jax.vmap(gate)(libraries, states, rows)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def finetune(
    model: Decoder,
    opt: optax.GradientTransformation,
    steps: int,
    pad: int,
    base: Tree,
    rows: Batch,
) -> tuple[Tree, jax.Array]:
    """Full fine-tuning of a copy of the base per data set: the ceiling for LoRA.

    Args:
      model: a decoder without a route.
      opt: an optax optimizer, the same object in every call.
      steps: full-batch steps.
      pad: id of the padding token.
      base: the params every copy starts from.
      rows: one data set a copy, [E, N, T]; unused rows have weights 0.

    Returns:
      Params with a leading axis E, and the last losses [E] in nats.
    """

    def copy(batch: Batch) -> tuple[Tree, jax.Array]:
        return _fit(model, opt, steps, pad, BASE, base, {}, batch)

    return jax.vmap(copy)(rows)


def _fit(
    model: Decoder,
    opt: optax.GradientTransformation,
    steps: int,
    pad: int,
    part: Part,
    start: Tree,
    held: dict[str, Tree],
    batch: Batch,
) -> tuple[Tree, jax.Array]:
    """Returns what was trained by ``steps`` steps on one batch, and the last loss."""
    free, fixed = part.split(start)
    gradient = jax.value_and_grad(mean(sums(model, part, fixed, held, pad)))

    def body(fit: Fit, _: None) -> tuple[Fit, jax.Array]:
        return step(gradient, opt, fit, batch)

    end, losses = jax.lax.scan(body, Fit(free, opt.init(free)), length=steps)
    return part.join(end.params, fixed), jnp.asarray(losses[-1])
