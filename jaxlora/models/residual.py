"""The residual stream of a decoder: read it, run on from it, replace parts of it.

A decoder of L layers and P passes has S = P L steps. State s is the residual stream
before step s, and state S what the final norm gets. All functions are pure, and work
under ``jit``, ``grad`` and ``vmap`` over adapters. A decoder with a route is refused.

Patching: Meng et al., Locating and Editing Factual Associations in GPT (arXiv
2202.05262); the lens: nostalgebraist, interpreting GPT: the logit lens (2020).
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxlora import periods
from jaxlora import tree as named
from jaxlora.lora import Adapter, LoraWeight, is_lora
from jaxlora.models import moe, sites
from jaxlora.models.calls import unembed
from jaxlora.models.decoder import Decoder
from jaxlora.models.inputs import Adapted, Inputs, Tokens, inputs_of
from jaxlora.models.steps import Part, embedded, final, scan, step_of
from jaxlora.models.variables import variables
from jaxlora.tree import Tree

Read = TypeVar("Read")


class Patch(NamedTuple):
    """Vectors that replace the residual stream at one step and position of each row."""

    step: jax.Array | int
    """[], 0 to S: before which step; S is before the final norm."""
    position: jax.Array | int
    """[] for the same in all rows, or [B]."""
    vectors: jax.Array
    """[B, D]."""


def trace(
    model: Decoder, params: Tree, inputs: Tokens, adapter: Adapter | None = None
) -> jax.Array:
    """Returns the residual stream before every step and after the last.

    Args:
      model: a decoder without a route.
      params: base params.
      inputs: token ids [B, T], or :class:`Inputs` with a mask, segments or positions.
      adapter: one adapter, or None.

    Returns:
      [S + 1, B, T, D], in the dtype of the activations.

    Raises:
      ValueError: if the model has a route, or the adapter does not fit.
    """
    inputs = _checked(model, params, inputs, adapter)
    step = step_of(model, params, inputs, adapter)
    start = embedded(model, params, inputs)

    def keep(x: jax.Array, part: Part) -> tuple[jax.Array, jax.Array]:
        after = step(x, part)
        return after, after

    _, states = scan(model, params, adapter, keep, start)
    return jnp.concatenate([start[None], states])


def resume(
    model: Decoder,
    params: Tree,
    inputs: Tokens,
    hidden: jax.Array,
    step: jax.Array | int,
    adapter: Adapter | None = None,
) -> jax.Array:
    """Runs the steps from ``step`` on, and the final norm.

    Args:
      model: a decoder without a route.
      params: base params.
      inputs: what the residual stream is of; the tokens themselves are not read.
      hidden: state ``step`` of the residual stream, [B, T, D].
      step: [], 0 to S; it may be traced. S is the final norm alone.
      adapter: one adapter, or None.

    Returns:
      Final hidden states [B, T, D], for :func:`jaxlora.models.unembed`.

    Raises:
      ValueError: as :func:`trace`; also if there is no such step, or hidden has another
        shape.
    """
    inputs = _checked(model, params, inputs, adapter)
    _check_state(model, inputs, hidden, step)
    run = step_of(model, params, inputs, adapter)

    def skip(x: jax.Array, part: Part) -> jax.Array:
        del part
        return x

    def go(x: jax.Array, part: Part) -> tuple[jax.Array, None]:
        # Steps that are skipped cost nothing, unless ``step`` is under vmap.
        return jax.lax.cond(part.place.index >= step, run, skip, x, part), None

    x = hidden.astype(jnp.dtype(model.config.dtype))
    return final(model, params, scan(model, params, adapter, go, x)[0])


def patched(
    model: Decoder,
    params: Tree,
    inputs: Tokens,
    patch: Patch,
    adapter: Adapter | None = None,
) -> jax.Array:
    """Runs the model with its residual stream replaced at one step and position.

    Args:
      model: a decoder without a route.
      params: base params.
      inputs: token ids [B, T], or :class:`Inputs` with a mask, segments or positions.
      patch: what is replaced, where; all of it may be traced.
      adapter: one adapter, or None.

    Returns:
      Final hidden states [B, T, D], for :func:`jaxlora.models.unembed`.

    Raises:
      ValueError: as :func:`resume`.
    """
    states = trace(model, params, inputs, adapter)
    _check_state(model, inputs_of(inputs), states[0], patch.step)
    state = _replaced(states[patch.step], patch.position, patch.vectors)
    return resume(model, params, inputs, state, patch.step, adapter)


def sweep(
    model: Decoder,
    params: Tree,
    inputs: Tokens,
    source: jax.Array,
    read: Callable[[jax.Array], Read],
    adapter: Adapter | None = None,
) -> Read:
    """Patches every step and position from another run, in one compiled program.

    One step after another, all positions of it at once: memory is that of T runs.

    Args:
      model: a decoder without a route.
      params: base params.
      inputs: token ids [B, T], or :class:`Inputs` with a mask, segments or positions.
      source: states [S + 1, B, T, D] that are put in, :func:`trace` of the other run;
        vectors for cell (s, t) are ``source[s, :, t]``.
      read: of the final hidden states [B, T, D] of a run, what is kept: an array, or a
        tree of them.
      adapter: one adapter, or None.

    Returns:
      What ``read`` keeps, each array with leading axes [S + 1, T].

    Raises:
      ValueError: as :func:`resume`.
    """
    states = trace(model, params, inputs, adapter)
    if source.shape != states.shape:
        raise ValueError(
            f"The source has shape {source.shape}, expected [S + 1, B, T, D] = "
            f"{states.shape}, the trace of a run of as many tokens."
        )

    def all_positions(cell):
        step, state, other = cell

        def single(position: jax.Array) -> Read:
            x = _replaced(state, position, other[:, position])
            return read(resume(model, params, inputs, x, step, adapter))

        return jax.vmap(single)(jnp.arange(state.shape[1]))

    return jax.lax.map(all_positions, (jnp.arange(len(states)), states, source))


def lens(model: Decoder, params: Tree, hidden: jax.Array) -> jax.Array:
    """Logit lens: the final norm and the head, applied to any state.

    Args:
      model: a decoder.
      params: base params.
      hidden: residual streams [..., D]; of a large vocabulary, of few positions.

    Returns:
      [..., V], float32; of the last state they are the model's logits.
    """
    return unembed(model, params, final(model, params, hidden))


def ablate(adapter: Adapter, kept: jax.Array) -> Adapter:
    """Switches layers of an adapter off: their scales become 0.

    Args:
      adapter: an adapter or a library; scales are [..., L], or [..., L, X] of the
        MLPs of a layer.
      kept: [L], 1 (or true) for layers that stay, 0 for those that go.

    Raises:
      ValueError: if ``kept`` is not [L], or a site lies in no layer.

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 3)), jnp.ones(2))
    >>> adapter = {"layers": {"mlp": {"up_proj": {"kernel": w}}}}
    >>> low = ablate(adapter, jnp.array([True, False]))
    >>> low["layers"]["mlp"]["up_proj"]["kernel"].scale.tolist()
    [1.0, 0.0]
    """

    def mask(site: str, weight: LoraWeight) -> LoraWeight:
        if not site.startswith("layers/"):
            raise ValueError(
                f"Site {site!r} lies in no layer, so none of it can be switched off; "
                f"ablate an adapter of sites under 'layers/' only."
            )
        scale, (plain, first) = weight.scale, periods.split(site)
        mlps = int(sites.beside(plain, sites.KERNEL) in moe.STACKED)  # [..., L, X]
        layers = scale.shape[scale.ndim - 1 - mlps : scale.ndim - mlps]
        # Of layers of several kinds a site has each P-th, L / P of them.
        period = 1 if first is None else max(1, kept.size // layers[0])
        mine = kept[first or 0 :: period]
        if mine.shape != layers or kept.ndim != 1 or kept.size % layers[0]:
            expected = layers if first is None else f"a multiple of {layers[0]}"
            raise ValueError(
                f"The mask has shape {kept.shape}, expected [L] = {expected}, an entry "
                f"for each layer of {site!r}."
            )
        off = mine.astype(scale.dtype).reshape(*layers, *(1,) * mlps)
        off = jnp.broadcast_to(off, scale.shape)
        return LoraWeight(weight.a, weight.b, scale * off)

    return named.map_named(mask, adapter, is_leaf=is_lora)


def _replaced(state: jax.Array, position, vectors: jax.Array) -> jax.Array:
    rows = jnp.arange(state.shape[0])
    where = jnp.broadcast_to(position, rows.shape)
    return state.at[rows, where].set(vectors.astype(state.dtype))


def _checked(model: Decoder, params: Tree, inputs: Tokens, adapter) -> Inputs:
    if model.route is not None:
        raise ValueError(
            "The model has a route, whose residual stream is not read here; give a "
            "decoder without one, and experts as adapters, under vmap for all of them."
        )
    inputs = inputs_of(inputs)
    sites.check_layers(adapter, "the residual stream")
    variables(model, params, inputs.tokens, Adapted(adapter))
    return inputs


def _check_state(model: Decoder, inputs: Inputs, hidden: jax.Array, step) -> None:
    steps = model.config.passes * model.config.num_layers
    if isinstance(step, int) and not 0 <= step <= steps:
        raise ValueError(
            f"step is {step}, expected 0 to {steps}: the model has {steps} steps, and "
            f"{steps} is the state before the final norm."
        )
    expected = (*inputs.tokens.shape, model.config.hidden_size)
    if hidden.shape != expected:
        raise ValueError(
            f"hidden has shape {hidden.shape}, expected [B, T, D] = {expected}, the "
            f"residual stream of these tokens at one step."
        )
