"""What a plan is for: the shapes of a program, without any array.

A model is a folder's config.json, of which no weights are read, or one of ``MODELS``.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from jaxlora import lora, models, route
from jaxlora.io import tensors
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig, RopeScaling, architectures, kernels
from jaxlora.names import unknown
from jaxlora.train import packed
from jaxlora.train.training import Training, faster
from jaxlora.tree import Tree

_QWEN: dict[str, Any] = {
    "mlp": "gated",
    "activation": "silu",
    "positions": "rope",
    "rope_theta": 1e6,
    "attention_bias": True,
    "head_dim": 128,
    "max_length": 32768,
}


def _qwen(width: int, layers: int, heads: tuple[int, int], mlp: int, vocabulary: int):
    return DecoderConfig(
        hidden_size=width,
        num_layers=layers,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        mlp_size=mlp,
        vocab_size=vocabulary,
        tie_head=width < 2048,
        **_QWEN,
    )


MODELS: Mapping[str, DecoderConfig] = {
    "qwen2.5-1.5b": _qwen(1536, 28, (12, 2), 8960, 151936),
    "qwen2.5-7b": _qwen(3584, 28, (28, 4), 18944, 152064),
    "qwen2.5-14b": _qwen(5120, 48, (40, 8), 13824, 152064),
    "llama-3.1-8b": DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        mlp_size=14336,
        vocab_size=128256,
        mlp="gated",
        activation="silu",
        positions="rope",
        rope_theta=5e5,
        rope_scaling=RopeScaling(kind="llama3", factor=8.0),
        max_length=131072,
    ),
    "small": DecoderConfig(),
}
"""Shapes by name, as their config.json has them; ``small`` is the studies' own base."""

Task = Literal["train", "route", "merge"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """One program: a step of training, a routed prompt, or a merge."""

    task: Task = "train"
    config: DecoderConfig
    """With its types; the kernel of attention is that of the platform."""
    experts: int = 1
    """E."""
    lora: LoraConfig = dataclasses.field(default_factory=lambda: LoraConfig(rank=16))
    batch: int = 8
    """Rows of a microbatch of one expert; of prompts, for a route."""
    length: int = 512
    """Tokens of a row."""
    accumulate: int = 1
    together: int = 0
    """Experts that train at once; 0 for all."""
    method: str = ""
    """Of a route or a merge, by its name."""

    @property
    def at_once(self) -> int:
        """Experts that train at once."""
        return min(self.together or self.experts, self.experts)

    @property
    def training(self) -> Training:
        """Numbers that shape the program."""
        return Training(batch=self.batch, length=self.length, steps=1)

    def on(self, platform: str) -> "Work":
        """The same work with the kernel and the loops of a platform.

        Args:
          platform: ``cpu``, ``gpu`` or ``tpu``.
        """
        config = faster(self.config, "on" if self.config.remat else "off", platform)
        # A program for this machine does not change with how it was planned.
        return dataclasses.replace(self, config=kernels.on(config, platform, 9.0))


class Shapes(NamedTuple):
    """Abstract arrays of a program."""

    base: Tree
    library: Tree
    """[E, ...]."""
    opt_state: Tree
    """[E, ...]; empty if nothing is trained."""
    gate: Tree
    """[E, ...]; empty without a route."""


def model_of(name: str) -> DecoderConfig:
    """The shapes of a model.

    Args:
      name: a folder with a config.json, or a name of ``MODELS``.

    Raises:
      ValueError: if it is neither, or of no supported architecture.

    >>> model_of("Qwen2.5-7B").num_layers
    28
    """
    known = MODELS.get(Path(name).name.lower().removesuffix("-instruct"))
    if known is not None and not Path(name).is_dir():
        return known
    if not Path(name).exists() and "/" not in name:
        raise ValueError(unknown("model", name, MODELS) + " Or give a folder.")
    return architectures.from_json(tensors.read_json(Path(name) / "config.json"))


@functools.lru_cache(maxsize=64)
def shapes(work: Work) -> Shapes:
    """Abstract arrays of some work; nothing is allocated.

    Args:
      work: the program.
    """
    # Any kernel of attention will do, and some are not on this machine.
    plain = dataclasses.replace(work.config, attention="auto")
    model, key = Decoder(plain), jax.random.key(0)
    base = jax.eval_shape(lambda: models.init(key, model))
    keys = jax.eval_shape(lambda: jax.random.split(key, work.experts))
    opt = work.training.optimizer()
    start = functools.partial(packed.start, config=work.lora, opt=opt)
    with jax.numpy_dtype_promotion("standard"):
        run = jax.eval_shape(lambda b, k: start(b, keys=k), base, keys)
    state = run.opt_state if work.task == "train" else ()
    return Shapes(base, run.trained, state, _gate(work, run.trained))


def route_of(work: Work) -> Any:
    """The route of some work, fit to its experts.

    Args:
      work: of a route.

    Raises:
      ValueError: if there is no such route, or its gate is made of data.
    """
    how = route.preset(work.method or "arrow").fit(work.experts)
    if how.gate.data != "free":
        free = [n for n in route.names() if route.preset(n).gate.data == "free"]
        raise ValueError(
            f"The gate of {work.method!r} is made of data, of which a plan has none; "
            f"plan with {', '.join(free[:6])}: gates are small beside a library."
        )
    return how


def _gate(work: Work, library: Tree) -> Tree:
    if work.task != "route":
        return ()
    how, key = route_of(work), jax.random.key(0)
    width = work.config.hidden_size
    return jax.eval_shape(lambda x: how.init(x, key=key, width=width), library)


def size(tree: Tree) -> int:
    """Bytes of all arrays of a tree; shapes and types suffice.

    >>> size({"a": jax.numpy.ones((2, 3)), "b": jax.numpy.ones(4, "bfloat16")})
    32
    """
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def rank_check(work: Work) -> None:
    """Refuses what no program can have.

    Args:
      work: the program.

    Raises:
      ValueError: if the rank or the targets do not fit the model, or rows are longer
        than its context.
    """
    if work.length > work.config.max_length:
        raise ValueError(
            f"Rows have {work.length} tokens, but the model's context is "
            f"{work.config.max_length}; lower --length."
        )
    base = jax.eval_shape(lambda: models.init(jax.random.key(0), Decoder(work.config)))
    lora.adapted(base, work.lora)
