"""The same experts, trained by two processes of four devices each."""

import os
import socket
import subprocess
import sys

import pytest

CHILD = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import NamedSharding, PartitionSpec

jax.distributed.initialize("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
from jaxlora import parallel
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig, init
from jaxlora.train.full_batch import fit_experts
from jaxlora.train.step import Batch

assert (jax.device_count(), jax.local_device_count()) == (8, 4)
config = DecoderConfig(vocab_size=9, hidden_size=8, num_layers=2, num_heads=2,
                       num_kv_heads=2, head_dim=4, mlp_size=8, max_length=3)
model, opt, lora = Decoder(config), optax.adam(1e-2), LoraConfig(rank=2)
base = jax.jit(init, static_argnums=1)(jax.random.key(0), model)
rows = np.random.default_rng(0).integers(1, 9, (2, 8, 3, 3)).astype(np.int32)
rows = Batch(*map(jnp.asarray, (*rows, np.ones((8, 3, 3), np.float32))))
keys = jax.random.split(jax.random.key(1), 8)
alone, _ = fit_experts(model, opt, lora, 5, 0, base, rows, keys)

mesh = parallel.mesh(expert=-1)
cut = parallel.shard_experts((rows, keys), mesh)
whole = jax.device_put(base, NamedSharding(mesh, PartitionSpec()))
both, _ = fit_experts(model, opt, lora, 5, 0, whole, *cut)
for got, want in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
    assert not got.is_fully_addressable or got.ndim == 2  # scales may be whole
    for shard in got.addressable_shards:
        np.testing.assert_allclose(shard.data, want[shard.index], atol=1e-4)
print("same library")
"""


@pytest.mark.slow
def test_two_processes_train_the_same_library():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-c", CHILD, port]
    children = [
        subprocess.Popen(
            [*run, str(i)],
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in range(2)
    ]
    try:
        outputs = [child.communicate(timeout=400)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    for output in outputs:
        assert "same library" in output, output
