"""The flags of a study that is too small to compose, but runs in seconds."""

import jax
import pytest

from jaxlora import cli

WORLD = """
--world.entities 16 --world.relations 6 --world.pairs 1 --world.people 3
--world.context-rows 8
"""
FLAGS = f"""
{WORLD} --methods mean --retention-items 8 --resamples 50
--model.hidden-size 16 --model.num-layers 2 --model.num-heads 2 --model.num-kv-heads 2
--model.head-dim 8 --model.mlp-size 32 --model.max-length 9 --model.unroll 1
--pretrain.batch 16 --pretrain.extra-batch 8 --pretrain.warmup 5 --pretrain.chunk 10
--pretrain.max-steps 10 --pretrain.format-steps 10 --pretrain.min-one-hop 0
--pretrain.min-two-hop 0 --pretrain.min-copy 0 --pretrain.min-format 0
--lora.rank 2 --lora.targets layers/attn/[qv]_proj/kernel
--experts.steps 5 --experts.full-steps 2 --experts.min-own 0
"""


@pytest.fixture(scope="module", autouse=True)
def _optax_promotes():
    """Optax itself mixes floats and integer counts; tests/models is strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session", autouse=True)
def _compile_quickly():
    """Most of the time here is LLVM's; the values hardly depend on it."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def flags():
    """Flags of the tiny study."""
    return FLAGS.split()


@pytest.fixture(scope="session")
def world_flags():
    """Flags of its world alone."""
    return WORLD.split()


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Runs a command that must fail before it trains or writes anything.

    Returns its words, without the frame that tyro draws around some of them.
    """
    from jaxlora.studies.two_hop import bases

    monkeypatch.setattr(bases, "train", lambda *_: pytest.fail("it trained"))

    def run(*words):
        before = sorted(tmp_path.rglob("*"))
        assert cli.main(list(words)) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        assert sorted(tmp_path.rglob("*")) == before
        return " ".join(word for word in said.err.split() if word.strip("│╭╮╰╯─"))

    return run
