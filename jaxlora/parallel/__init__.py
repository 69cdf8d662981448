"""Meshes, and what lies where on them; see README.md beside this file."""

from jaxlora.parallel.mesh import mesh as mesh
from jaxlora.parallel.mesh import shard_experts as shard_experts
from jaxlora.parallel.rules import shardings as shardings
