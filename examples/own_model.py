"""A model of your own, from training experts to merging, routing and checking them.

Four machines report 8 readings each. A network predicts what leaves a machine; each
machine has since been changed in a way of its own, and only its own rows show how.
Can four experts, each trained on one machine, serve all of them?

    python examples/own_model.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlora import lora, merge, models, route, train

MACHINES, READINGS, OUTPUTS = 4, 8, 4


class Net(nn.Module):
    """Any Linen module will do; what it multiplies by in ``nn.Dense`` is adapted."""

    @nn.compact
    def __call__(self, x):
        """Readings [..., D] to outputs [..., F]."""
        for width in (32, 32):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(OUTPUTS)(x)


NET = Net()


def rows_of(seed, count=128):
    """Rows of each machine [E, N, ...]: readings, and outputs before and since."""
    laws, draws = np.random.default_rng(0), np.random.default_rng(seed)
    before = laws.normal(size=(READINGS, OUTPUTS))
    change = laws.normal(size=(MACHINES, READINGS, OUTPUTS))
    typical = 3 * np.eye(MACHINES, READINGS)  # each machine runs at a point of its own
    x = typical[:, None] + draws.normal(size=(MACHINES, count, READINGS)) / 2
    rows = {"x": x, "before": np.sin(x @ before / 3)}
    rows["since"] = rows["before"] + np.sin(x @ change / 3)
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), rows)


def make_base(rows, steps=500):
    """Full training on what all machines did before, as you would without LoRA."""
    params, opt = NET.init(jax.random.key(0), rows["x"])["params"], optax.adam(1e-2)

    def loss(params):
        return jnp.mean(
            (NET.apply({"params": params}, rows["x"]) - rows["before"]) ** 2
        )

    def step(carry, _):
        params, state = carry
        updates, state = opt.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])
    return run((params, opt.init(params)))[0]


def loss(base, adapter, rows):
    """Mean squared error of one expert on its rows; any scalar will do."""
    out = models.apply_with_lora(NET, {"params": base}, adapter, rows["x"])
    return jnp.mean((out - rows["since"]) ** 2)


def train_experts(base, rows):
    """One expert a machine, all in one program; base and scales are frozen."""
    targets = models.dense_kernels(NET, {"params": base}, rows["x"])
    config = lora.LoraConfig(rank=4, targets=targets)
    keys = jax.random.split(jax.random.key(1), MACHINES)
    library = train.fresh(keys, base, config)
    steps = train.Steps(600, draw=32)

    def drawn(base, adapter, rows, key):
        del key  # for dropout and the like
        return loss(base, adapter, rows)

    opt = optax.adam(3e-3)
    return train.fit(drawn, base, library, rows, opt, steps=steps, keys=keys)[0]


def gate_data(base, library, rows):
    """The mean input of each expert's own rows at each kernel, [E, D]."""

    def means(expert, rows):
        adapted = {"params": lora.fuse(base, expert)}
        inputs = models.dense_inputs(NET, adapted, rows["x"])
        return {name: x.mean(axis=-2) for name, x in inputs.items()}

    return jax.jit(jax.vmap(means))(library, rows)


def errors(base, library, rows, data):
    """Error on new rows of each machine, [E], of every way to use the library."""
    variables, x = {"params": base}, rows["x"]
    adapted = jax.jit(
        lambda adapter: models.apply_with_lora(NET, variables, adapter, x)
    )
    outputs = {"base alone": NET.apply(variables, x)}
    for i, expert in enumerate(lora.unstack(library)):
        outputs[f"expert {i}"] = adapted(expert)
    for name in ("mean", "sum", "ties"):
        outputs[name] = adapted(jax.jit(merge.preset(name))(library))
    for name in ("arrow", "average-activation"):
        way = route.preset(name, top_k=1)
        gate = jax.jit(way.init)(library, data=data)
        outputs[name] = models.apply_with_route(NET, variables, way, library, gate, x)
    return {
        name: jnp.mean((out - rows["since"]) ** 2, axis=(1, 2))
        for name, out in outputs.items()
    }


def main():
    """Prints a table: ways by machines."""
    rows, new = rows_of(seed=1), rows_of(seed=2)
    base = make_base(rows)
    library = train_experts(base, rows)
    table = errors(base, library, new, gate_data(base, library, rows))
    for name, row in table.items():
        print(f"{name:18}", *(f"{x:6.2f}" for x in row))
    return table


if __name__ == "__main__":
    main()
