"""Configuration of the two-hop study on text models: every field is a flag."""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

from jaxlora import merge, route
from jaxlora.evaluate.schema import USUAL, Method
from jaxlora.lora import LoraConfig
from jaxlora.parallel import written
from jaxlora.studies.harness.config import at_least, distinct, share
from jaxlora.studies.two_hop.config import CommonConfig, check_top_k
from jaxlora.tasks.two_hop import people
from jaxlora.tasks.two_hop.people import LEAST, PAIRS
from jaxlora.tasks.two_hop.text_forms import TextForm
from jaxlora.train.training import Training

STUDY = "two-hop-text"
# How a study is run, not what it finds: they may differ when a run is resumed.
# A model may have moved: its bytes count.
FREE = ("model", "mesh", "train.together", "ask.batch", "ask.candidates_at_once")
DATA = {"own": "statistics of each expert's own data", "target": "solved target tasks"}
SEES = {name: merge.preset(name).data for name in merge.names()}
SEES |= {name: route.describe(name).data for name in route.names()}
# The oracle names an expert for every token; in free text no token has one. Gates and
# merges that see data would need texts that this study has not.
METHODS = tuple(name for name, data in SEES.items() if data == "free")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Training):
    """How experts are trained: as by the train command, with this study's numbers."""

    steps: int = 400
    """Updates of every expert."""
    length: int = 256
    """Tokens of a packed row."""
    warmup: float = 20
    """Share of the updates in which the rate rises; from 1 on, their number."""

    RENAMED: ClassVar = {"at_once": "together"}

    def __post_init__(self):
        super().__post_init__()
        at_least(self, 1, "steps")
        if self.seed:
            raise ValueError(
                f"train.seed is {self.seed}, expected 0: experts have the study's "
                f"seeds, see first_seed and seeds."
            )
        if self.epochs != Training.epochs:
            raise ValueError(
                f"train.epochs is {self.epochs}, expected {Training.epochs}, as it is "
                f"not used: experts take train.steps updates; set these instead."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskConfig:
    """How a model is asked: by ranking candidate answers, and by generation."""

    score: Literal["sum", "mean"] = "sum"
    """Log-probability of an answer, over all of its tokens or per token."""
    phrasings: int = 0
    """Held-out phrasings of a question, over which scores are averaged; 0 for all."""
    batch: int = 16
    """Prompts asked at once."""
    candidates_at_once: int = 128
    """Candidate answers scored at once for each prompt; fewer need less memory."""
    generate: bool = True
    """Also decode greedily, and compare the text with the answer."""
    new_tokens: int = 16
    """Tokens of a generated answer."""
    written: bool = True
    """Also ask for the bridge to be written first (chain of thought)."""
    written_tokens: int = 64
    """Tokens of a generated answer with its bridge."""

    def __post_init__(self):
        at_least(self, 1, "batch", "candidates_at_once", "new_tokens", "written_tokens")
        at_least(self, 0, "phrasings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriteriaConfig:
    """What base and experts must be able to do, or nothing follows."""

    min_own: float = 0.9
    """Every expert: accuracy on its own facts, asked in held-out phrasings."""
    min_context: float = 0.8
    """Base: two-hop accuracy with both facts in the prompt."""
    min_two_hop: float = 0.5
    """Base: two-hop accuracy over facts it knows; needs a file of real facts."""

    def __post_init__(self):
        share(self, "min_own", "min_context", "min_two_hop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(CommonConfig):
    """Does combining an A→B and a B→C expert of a language model answer A→C?"""

    model: str = ""
    """Folder of a Hugging Face checkpoint, with its tokenizer."""
    tokenizer: str = ""
    """Folder of tokenizer and chat template; if not given, what the adapters bring, or
    else the model's."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the base's parameters and activations; adapters are float32."""
    mesh: str = ""
    """Devices along data, fsdp, tensor and expert, as in fsdp=2,data=2; one if none."""
    adapter: tuple[str, ...] = ()
    """Folders of PEFT adapters to evaluate; nothing is trained. Needs --facts."""
    hop1: str = ""
    """Which of them holds the first hop; by default the one that answers it best."""
    hop2: str = ""
    """Which of them holds the second hop."""
    target: str = ""
    """Which of them was trained on the two-hop questions, if any."""
    facts: Path | None = None
    """JSONL of {"head", "relation", "tail"}, or of {"question", "answer", "bridge"}."""
    real: tuple[str, ...] = ()
    """Pairs of relations of the real facts that come along, as 'located in/capital':
    cities, countries, authors and books. Each seed takes one chain a bridge."""
    familiarity: Literal["R", "H", "F"] = "R"
    """Who the facts are about: R real (what the base knows is measured), H, F new."""
    cells: tuple[str, ...] = ("F-OO", "H-OO")
    """Generated people: F-OO all invented, H-OO real places. Facts add cells of R."""
    people: int = 20
    """Generated people in a cell and relation pair, or real ones in a pair."""
    pairs: int = 2
    """Relation pairs of generated people; each is a library of its own."""
    seeds: int = 1
    """Sets of people and experts, all on one base."""
    phrasings: int = 0
    """Training phrasings of each fact; 0 for all."""
    form: TextForm = "questions"
    """How experts read facts: questions, documents that say each in several sentences,
    or written (questions, and two-hop answers with their bridge)."""
    chat: bool = True
    """Ask in the model's chat template, if it has one; else as plain text."""
    methods: tuple[str, ...] = tuple(str(m) for m in USUAL if m is not Method.ORACLE)
    """Ways to combine a library; ``all`` for every merge and route without data."""
    extra: bool = True
    """Also ask arms that no verdict rests on, and every control of its single hops."""
    routers: tuple[str, ...] = ()
    """Routes to add to the methods; ``all`` for every route without data."""
    lora: LoraConfig = dataclasses.field(
        default_factory=lambda: LoraConfig(rank=16, alpha=32.0)
    )
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    ask: AskConfig = dataclasses.field(default_factory=AskConfig)
    criteria: CriteriaConfig = dataclasses.field(default_factory=CriteriaConfig)

    RENAMED: ClassVar = {"gates": "criteria"}

    def __post_init__(self):
        super().__post_init__()
        at_least(self, 0, "phrasings")
        written.sizes(self.mesh)
        _data_free(self.all_methods)
        distinct("methods", self.all_methods, METHODS)
        distinct("cells", self.cells, tuple(map(str, people.GENERATED)))
        if not self.all_methods:
            raise ValueError(
                f"methods is empty, expected one at least, as in {METHODS[0]!r}."
            )
        if self.people < LEAST or not 1 <= self.pairs <= len(PAIRS):
            raise ValueError(
                f"people is {self.people} and pairs {self.pairs}, expected at least "
                f"{LEAST} people (answers are deranged) and 1 to {len(PAIRS)} pairs."
            )
        check_top_k(self)
        self._check_real()
        self._check_adapters()

    def _check_real(self) -> None:
        distinct("real", self.real, tuple(people.REAL))
        if self.real and self.facts is not None:
            raise ValueError(
                f"Got real {', '.join(self.real)} and facts {self.facts}, expected one "
                f"of them: the pairs of both would have the same numbers."
            )

    def _check_adapters(self) -> None:
        roles = {n: getattr(self, n) for n in ("hop1", "hop2", "target")}
        for name, folder in roles.items():
            if folder and folder not in self.adapter:
                raise ValueError(
                    f"{name} is {folder!r}, which is none of the adapters "
                    f"({', '.join(self.adapter) or 'there are none'})."
                )
        given = [folder for folder in roles.values() if folder]
        if len(set(given)) < len(given):
            raise ValueError(
                f"One adapter has two roles ({', '.join(given)}); an expert on both "
                f"hops is found by what it answers, without a flag."
            )
        if self.adapter and (self.facts is None or len(self.adapter) < 2):
            raise ValueError(
                f"Got {len(self.adapter)} adapters and facts {self.facts}, expected "
                f"at least 2 adapters, and a file of the facts that they hold."
            )
        nobody = self.facts is None and not (self.real or self.cells)
        if not self.adapter and nobody:
            raise ValueError("Got no cells and no facts, so there is nobody to ask.")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seeds; adapters that exist are asked once."""
        return super().numbers[:1] if self.adapter else super().numbers


def _data_free(methods: tuple[str, ...]) -> None:
    for name in methods:
        kind = "merge" if name in merge.names() else "route"
        sees = SEES.get(name)
        if sees in DATA:
            raise ValueError(
                f"The {kind} {name!r} sees {DATA[sees]}, which this study does not "
                f"collect; `jaxlora study two-hop` without a model runs it, and "
                f"{', '.join(map(repr, METHODS[:3]))} and others need no data."
            )
