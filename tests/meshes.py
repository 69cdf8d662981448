"""One training of four experts on a list of meshes, as one process or one of a pair.

``python meshes.py PORT PROCESS WANTED`` is process 0 or 1 of two, each with four
devices. It trains on every mesh of the list that two processes can share, compares what
comes out with the file WANTED of one device, and prints a line of JSON for each mesh.
"""

import dataclasses
import json
import sys
import time

import jax
import numpy as np

from decoders import TEXT, fresh
from jaxlora import parallel
from jaxlora import tree as named
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder
from jaxlora.parallel import processes
from jaxlora.tasks.packing import Rows
from jaxlora.train import packed, session
from jaxlora.train.training import Training

E, T, STEPS = 4, 8, 20
MODEL = Decoder(dataclasses.replace(TEXT, num_kv_heads=2, tie_head=False))
TRAINING = Training(steps=STEPS, learning_rate=1e-3, batch=4, together=E)
LORA = LoraConfig(rank=2, alpha=4.0)
CHUNK = 10
ATOL = 1e-5  # float32, and sums in another order

MESHES = [
    # The first has every kind of cut but that of rows over data.
    {"expert": 2, "fsdp": 2, "tensor": 2},
    {},
    {"expert": 2},
    {"data": 2},
    {"fsdp": 2},
    {"tensor": 2},
    {"expert": 4, "data": 2},
    {"expert": 4, "fsdp": 2},
    {"data": 2, "fsdp": 2},
    {"data": 4},
    {"fsdp": 2, "tensor": 2},
    {"expert": 2, "data": 2, "tensor": 2},
    {"fsdp": 4, "expert": 2},
    {"data": 2, "fsdp": 2, "tensor": 2},
]
SHARED = [sizes for sizes in MESHES if sizes]
"""Meshes that have a device in each of two processes."""


def draw(seed):
    """Rows [4, T] of one example each, its second half an answer."""
    tokens = np.random.default_rng(seed).integers(1, 13, (4, T)).astype(np.int32)
    places = np.broadcast_to(np.arange(T, dtype=np.int32), tokens.shape)
    weights = ((places >= T // 2) & (places < T - 1)).astype(np.float32)
    targets = np.roll(tokens, -1, axis=1)
    return Rows(tokens, targets, weights, np.ones_like(tokens), places.copy())


DATA = {f"expert{i}": draw(i) for i in range(E)}


def base():
    """Params of the model, the same everywhere."""
    return fresh(MODEL)


def train(
    base,
    mesh=None,
    training=TRAINING,
    folder=None,
    progress=lambda *_: None,
    data=DATA,
):
    """Trains the experts on a mesh, or on one device."""
    saved = session.Checkpoints(folder, chunk=CHUNK)
    if mesh is not None:
        base = parallel.place(base, mesh, parallel.shardings(mesh, base))
    return session.train_experts(
        MODEL,
        base,
        data,
        LORA,
        training,
        checkpoints=saved,
        mesh=mesh,
        progress=progress,
    )


def mesh_of(sizes):
    """A mesh on as many devices as it needs, the same number of every process."""
    count = int(np.prod(list(sizes.values()))) if sizes else 1
    each = jax.device_count() // processes.count()
    share = count // processes.count()
    # In the order of JAX, devices of a process lie side by side.
    devices = [x for i, x in enumerate(jax.devices()) if i % each < share]
    return parallel.mesh(**sizes, devices=devices)


def expected_shape(name, shape, sizes):
    """The shape of what a device has of a leaf of the library, by hand."""
    cut = {"fsdp": 1, "tensor": 1, "expert": 1, "data": 1} | sizes
    shape = list(shape)
    shape[0] //= cut["expert"]
    column = any(f"/{x}_proj" in name for x in ("q", "k", "v", "gate", "up"))
    if name.endswith("/a"):
        shape[2] //= cut["fsdp"] * (1 if column else cut["tensor"])
    if name.endswith("/b"):
        shape[3] //= cut["fsdp"] * (cut["tensor"] if column else 1)
    return tuple(shape)


def check_shards(library, sizes, mesh):
    """Every leaf lies on all devices of the mesh, each with its part of it."""
    for name, leaf in named.flatten(library).items():
        shape = expected_shape(name, leaf.shape, sizes)
        assert {x.data.shape for x in leaf.addressable_shards} == {shape}, name
        assert leaf.sharding.device_set == set(mesh.devices.flat)


def results(trained):
    """Losses, norms and leaves, by name, as arrays of NumPy."""
    leaves = named.flatten(trained.learned)
    leaves = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    return {"loss": trained.loss, "norm": trained.norm} | leaves


def largest(got, want):
    """The largest difference of losses and norms, and of adapters."""
    assert got.keys() == want.keys()
    apart = {name: float(np.abs(got[name] - want[name]).max()) for name in want}
    history = max(apart.pop("loss"), apart.pop("norm"))
    return history, max(apart.values())


def pair(port, process, wanted):
    """One of two processes: every mesh of the list, one after the other."""
    processes.start(processes.Group(f"localhost:{port}", 2, process), 60)
    assert (jax.process_count(), jax.device_count()) == (2, 8)
    assert len(jax.local_devices()) == 4
    want = dict(np.load(wanted))
    params, last, real = base(), [], packed.updates

    def updates(*args):
        out = real(*args)
        last[:] = [out[0].trained]
        return out

    packed.updates = updates
    for sizes in SHARED:
        begun = time.monotonic()
        mesh = mesh_of(sizes)
        assert {x.process_index for x in mesh.devices.flat} == {0, 1}
        got = results(train(params, mesh))
        check_shards(last[0], sizes, mesh)
        history, leaves = largest(got, want)
        line = {"mesh": sizes, "devices": mesh.devices.size, "history": history}
        seconds = round(time.monotonic() - begun, 1)
        print(json.dumps(line | {"adapters": leaves, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_numpy_rank_promotion", "raise")
    pair(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
