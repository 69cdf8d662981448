"""Meshes and multi-device helpers."""

from jaxlora.parallel.mesh import mesh as mesh
from jaxlora.parallel.mesh import shard_experts as shard_experts
