"""A study without models, so that commands can be tested in a moment.

Bases that know nothing, and answers that are drawn from the world and the name of the
block; the study around them is the real one. Real models are in tests/studies.
"""

import functools
import json
import shlex
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from jaxlora import cli, lora, models, reuse, route
from jaxlora.evaluate.schema import Arm
from jaxlora.evaluate.scoring import Answers
from jaxlora.io import gate_file, peft_out
from jaxlora.io.peft import PeftAdapter, PeftModule
from jaxlora.studies.harness import Outcome
from jaxlora.studies.two_hop.symbols import answer, bases
from jaxlora.studies.two_hop.symbols import experts as symbol_experts
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.experts import Experts
from jaxlora.tasks.two_hop.experts import groups
from trainings import problems, write

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


def train(seeds, worlds, model, config, cache, concurrent=1, progress=lambda *_: None):
    """Bases that answer every criterion right but copying, of which they know half."""
    out = []
    for seed, world in zip(seeds, worlds, strict=True):
        measured = dict.fromkeys(bases.CRITERIA | bases.FORMATS, (1.0, 50))
        measured["copy"] = (0.5, 50)
        progress(seed, config.max_steps, measured)
        decoder = bases.vocabulary(model, world.vocab)
        out.append(Base(seed, decoder, {}, world, config.max_steps, measured))
    return out


def run(setting, library, method):
    """Answers at random, the same for the same world and block."""
    experts, asked = setting.experts, setting.asked
    name = f"{experts.base.world} {library} {method}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    V, G = len(experts.base.world.vocab.words), len(experts.groups)

    def draw(n):
        return rng.standard_normal((G, n, V))

    answers = Answers(
        draw(asked.questions.direct.shape[1]),
        rng.integers(V, size=(G, asked.people)),
        draw(asked.people),
        draw(asked.people),
    )
    own = {str(group.cell): 1.0 for group in experts.groups}
    frame = answer.collect(answers, asked, setting.old)
    return Outcome(frame, {} if library is Arm.BASE else {"own": own})


@pytest.fixture(autouse=True, scope="module")
def _no_models():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bases, "train", train)
        patched.setattr(answer, "answer", run)
        patched.setattr(
            symbol_experts,
            "train",
            lambda base, *_: Experts(base, groups(base.world), {}, {}, {}),
        )
        patched.setattr(
            symbol_experts,
            "train_kinds",
            lambda base, people, every, *_: dict.fromkeys(every),
        )
        patched.setattr(
            symbol_experts,
            "select",
            lambda base, people, names, _: Experts(base, people, {}, {}, {}),
        )
        yield


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

    Returns its one sentence.
    """
    monkeypatch.setattr(bases, "train", lambda *_: pytest.fail("it trained"))

    def run(*words):
        before = sorted(tmp_path.rglob("*"))
        assert cli.main(list(words)) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        assert sorted(tmp_path.rglob("*")) == before
        assert (said.out, said.err.count("\n")) == ("", 1)
        return said.err.strip()

    return run


@pytest.fixture(scope="session")
def hf():
    """Folder of tiny checkpoints, each with adapters on it."""
    return Path(__file__).parents[1] / "data" / "hf"


@pytest.fixture
def llama(hf):
    """The folder of the llama and its adapters."""
    return hf / "llama"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder of adapters with one group of two modules: few programs to compile."""
    folder, rng = tmp_path_factory.mktemp("small"), np.random.default_rng(0)
    for name, rank in {"plain": 6, "plain2": 8, "rslora": 6}.items():
        modules = {
            f"model.layers.{i}.self_attn.q_proj": PeftModule(
                rng.standard_normal((rank, 24), dtype=np.float32),
                rng.standard_normal((20, rank), dtype=np.float32),
                scale,
            )
            for i, scale in enumerate((0.5, 2.0))
        }
        peft_out.write(folder / name, PeftAdapter(modules=modules))
    return folder


@pytest.fixture(scope="session")
def speaking(hf, tmp_path_factory):
    """A function ``tokenizer name -> checkpoint`` of the llama with that tokenizer."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        for source in (hf / "llama" / "base", hf.parent / "tokenizer" / name):
            shutil.copytree(source, folder, dirs_exist_ok=True)
        return folder

    return functools.lru_cache(make)


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """A function ``lines -> files`` of questions for two adapters, a and b.

    Their answers are of one word, red and blue.
    """

    def write(a, b):
        folder = tmp_path_factory.mktemp("data")
        for name, word, count in (("a", "red", a), ("b", "blue", b)):
            texts = [f"Who is {name}{i}?" for i in range(count)]
            lines = [json.dumps({"prompt": x, "answer": word}) for x in texts]
            (folder / f"{name}.jsonl").write_text("\n".join([*lines, ""]))
        return [str(folder / f"{name}.jsonl") for name in "ab"]

    return write


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Two files of problems, sums and products."""
    folder = tmp_path_factory.mktemp("data")
    sums = write(folder / "sums.jsonl", problems("+", "figs", lambda a, b: a + b))
    parts = problems("*", "boxes", lambda a, b: a * b, 40)
    return sums, write(folder / "products.train.jsonl", parts)


@pytest.fixture(scope="session")
def shown():
    """A function that returns the commands a description shows, as words."""

    def read(description):
        text = description.partition("examples:")[2].replace("\\\n", " ")
        return [shlex.split(x)[1:] for x in text.splitlines() if x.strip()]

    return read


@pytest.fixture(scope="session")
def gate(hf, tmp_path_factory):
    """A gate of the route ``linear`` for the llama's adapters plain and plain2."""
    folders = [hf / "llama" / name for name in ("plain", "plain2")]
    found = reuse.load(hf / "llama" / "base", folders, route="uniform")
    library = found.library
    keys = {
        name: np.random.default_rng(0).standard_normal(w.a.shape[:-1])
        for name, w in lora.sites(library).items()
    }
    routed = models.Decoder(found.model.config, route.preset("linear"))
    state = models.gate_state(routed, library, data=keys)
    about = gate_file.About(
        route="linear",
        experts=("plain", "plain2"),
        base="llama",
        base_fingerprint=gate_file.fingerprint(found.base),
    )
    path = tmp_path_factory.mktemp("gate") / "gate.safetensors"
    gate_file.save(path, state, about)
    return path
