"""Meshes, and what lies where on them; see README.md beside this file."""

from jaxlora.parallel.merging import merged as merged
from jaxlora.parallel.mesh import BATCH as BATCH
from jaxlora.parallel.mesh import check as check
from jaxlora.parallel.mesh import filled as filled
from jaxlora.parallel.mesh import mesh as mesh
from jaxlora.parallel.mesh import mesh_of as mesh_of
from jaxlora.parallel.mesh import place as place
from jaxlora.parallel.mesh import platform_of as platform_of
from jaxlora.parallel.mesh import shard_experts as shard_experts
from jaxlora.parallel.mesh import sizes_of as sizes_of
from jaxlora.parallel.mesh import using as using
from jaxlora.parallel.rules import expert_shardings as expert_shardings
from jaxlora.parallel.rules import shardings as shardings
