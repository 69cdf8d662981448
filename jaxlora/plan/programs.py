"""The programs that are planned, on a mesh: those that run, with abstract arrays."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlora import merge, models, parallel
from jaxlora import tree as named
from jaxlora.models import Decoder
from jaxlora.parallel import merging
from jaxlora.plan.work import Shapes, Work, route_of, shapes
from jaxlora.tasks.packing import Rows
from jaxlora.train import feeding, packed
from jaxlora.tree import Tree


def lower(work: Work, mesh: Mesh) -> Any:
    """Traces a program for a mesh; ``.compile()`` then asks the compiler of its chips.

    Args:
      work: for the platform of the mesh, see :meth:`Work.on`.
      mesh: its devices need not be here.

    Returns:
      ``jax.stages.Lowered``.
    """
    programs = {"train": _train, "route": _route, "merge": _merge}
    given = shapes(work)  # outside of the mesh, whose devices cannot run anything
    with jax.numpy_dtype_promotion("standard"), parallel.using(mesh):
        return programs[work.task](work, given, mesh)


def _train(work: Work, given: Shapes, mesh: Mesh) -> Any:
    training = work.training
    run = packed.Run(given.library, given.opt_state, _shape((), jnp.int32))
    plan = jax.eval_shape(lambda: training.plan([1] * work.experts))
    size = (work.experts, 1, work.accumulate, work.batch, work.length)
    ints = (_shape(size, jnp.int32),) * 4
    rows = Rows(ints[0], ints[1], _shape(size, jnp.float32), *ints[2:])
    program = packed.Program(Decoder(work.config), training.optimizer(), work.at_once)
    return packed.updates.lower(
        program,
        _base(mesh, given.base),
        _experts(mesh, run),
        _experts(mesh, plan),
        _at(mesh, rows, feeding.BY_BATCH),
    )


def _route(work: Work, given: Shapes, mesh: Mesh) -> Any:
    model = Decoder(work.config, route_of(work))

    def answer(base: Tree, library: Tree, gate: Tree, tokens: jax.Array) -> jax.Array:
        x = models.hidden(model, base, tokens, library=library, gate=gate)
        return models.unembed(model, base, x[:, -1])

    tokens = _shape((work.batch, work.length), jnp.int32)
    return jax.jit(answer).lower(
        _base(mesh, given.base),
        _experts(mesh, given.library),
        _experts(mesh, given.gate),
        _at(mesh, tokens, PartitionSpec(parallel.BATCH)),
    )


def _merge(work: Work, given: Shapes, mesh: Mesh) -> Any:
    how = merge.preset(work.method or "mean")
    how = how.at(models.layer_places(work.config, given.library))

    def run(library: Tree) -> Tree:
        key = jax.random.key(0) if how.draws else None
        return merging.merged(how, library, key=key)

    # As ``merging.across`` lays it out; merges are float32 and know nothing of a base.
    where = {
        name: NamedSharding(mesh, merging.spec(mesh.shape, name, x.shape))
        for name, x in named.flatten(given.library).items()
    }
    return jax.jit(run).lower(_placed(given.library, where))


def _base(mesh: Mesh, tree: Tree) -> Tree:
    return _placed(tree, parallel.shardings(mesh, tree))


def _experts(mesh: Mesh, tree: Tree) -> Tree:
    return _placed(tree, parallel.expert_shardings(mesh, tree))


def _placed(tree: Tree, where: dict[str, NamedSharding]) -> Tree:
    return named.map_named(
        lambda name, x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where[name]),
        tree,
    )


def _at(mesh: Mesh, tree: Tree, spec: PartitionSpec) -> Tree:
    def lay(x: Any) -> jax.ShapeDtypeStruct:
        where = NamedSharding(mesh, spec if x.ndim else PartitionSpec())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return jax.tree.map(lay, tree)


def _shape(size: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(size, dtype)
