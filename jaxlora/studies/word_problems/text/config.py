"""Configuration of word problems on text models: every field is a flag."""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

from jaxlora import merge, route
from jaxlora.lora import LoraConfig
from jaxlora.parallel import written
from jaxlora.studies.harness.config import at_least, distinct, share
from jaxlora.tasks import gsm
from jaxlora.tasks.word_problems.records import Graph
from jaxlora.tasks.word_problems.sampling import MOST
from jaxlora.train.training import Training

STUDY = "word problems, text"
ENGLISH = "english"
"""What stands for problems of our own in place of a file."""
LEVELS = ("easy", "medium", "hard")
# A model may have moved: its bytes count.
FREE = ("model", "mesh", "train.together", "ask.batch")
"""How a study is run, not what it finds: they may differ when a run is resumed."""
# A library of two on a checkpoint: no data are collected for merges or gates.
METHODS = tuple(
    name
    for name, sees in (
        *((x, merge.preset(x).data) for x in merge.names()),
        *((x, route.describe(x).data) for x in route.names()),
    )
    if sees == "free"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Training):
    """How experts are trained: as by the train command, with this study's numbers."""

    steps: int = 300
    """Updates of every expert."""
    length: int = 1024
    """Tokens of a packed row."""
    warmup: float = 20
    """Share of the updates in which the rate rises; from 1 on, their number."""

    def __post_init__(self):
        super().__post_init__()
        at_least(self, 1, "steps")
        for name in ("seed", "epochs"):
            usual = getattr(Training, name)
            if getattr(self, name) != usual:
                raise ValueError(
                    f"train.{name} is {getattr(self, name)}, expected {usual}: experts "
                    f"have the study's seeds and take train.steps updates."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskConfig:
    """How a model is asked."""

    batch: int = 32
    """Prompts continued at once."""
    new_tokens: int = 512
    """Tokens of a solution."""
    problems: int = 200
    """Problems of each level of a test."""
    sets: int = 10
    """Parallel test sets of a file of GSM-Symbolic; 0 for all."""
    shots: int = 4
    """Worked examples in the prompt of the few-shot base; 0 to leave it out."""

    def __post_init__(self):
        at_least(self, 1, "batch", "new_tokens", "problems")
        at_least(self, 0, "sets", "shots")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnglishConfig:
    """Problems of our own, in English."""

    graph: Graph = "chains"
    """Chains, or trees with shared parts."""
    idle: float = 0.0
    """Share of the problems with a clause that does not matter."""
    limit: int = 1_000
    """Numbers are below it."""

    def __post_init__(self):
        share(self, "idle")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemsConfig:
    """Do experts on easy and on medium word problems together solve hard ones?"""

    model: str = ""
    """Folder of a Hugging Face checkpoint, with its tokenizer."""
    tokenizer: str = ""
    """Folder of tokenizer and chat template; if not given, the model's."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the base's parameters and activations; adapters are float32."""
    mesh: str = ""
    """Devices along data, fsdp, tensor and expert, as in fsdp=2,data=2; one if none."""
    data: str = ENGLISH
    """What experts learn: ``english``, or a JSON-lines file in the form of GSM8K."""
    tests: tuple[str, ...] = ()
    """What is asked: ``english``, and files in the form of GSM8K or GSM-Symbolic; by
    default english, if experts learn it."""
    formats: tuple[str, ...] = ("plain", "annotated", "python")
    """Formats of the solutions; experts are trained in each, and in each two."""
    easy: tuple[int, ...] = (1, 2)
    """Fewest and most steps (lines of the solution) of an easy problem."""
    medium: tuple[int, ...] = (3, 4)
    """Of a medium problem."""
    hard: tuple[int, ...] = (5, 6)
    """Of a hard one: what combinations of the other experts are asked."""
    rows: int = 1_000
    """Problems of each level that experts learn, at most."""
    methods: tuple[str, ...] = ("mean", "sum", "arrow")
    """Ways to combine two experts; ``all`` for every merge and route without data."""
    seeds: int = 1
    """Choices of problems, and experts trained on them, all on one base."""
    first_seed: int = 0
    """Number of the first seed."""
    chat: bool = True
    """Ask in the model's chat template, if it has one; else as plain text."""
    min_own: float = 0.5
    """Criterion of the easy and the medium expert: accuracy on their own level."""
    confidence: float = 0.95
    """Of every interval."""
    resamples: int = 2000
    """Bootstrap resamples of pooled intervals; ten times as many of differences."""
    english: EnglishConfig = dataclasses.field(default_factory=EnglishConfig)
    lora: LoraConfig = dataclasses.field(
        default_factory=lambda: LoraConfig(rank=16, alpha=32.0)
    )
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    ask: AskConfig = dataclasses.field(default_factory=AskConfig)

    RENAMED: ClassVar = {}

    def __post_init__(self):
        at_least(self, 1, "seeds", "resamples", "rows")
        at_least(self, 0, "first_seed")
        written.sizes(self.mesh)
        share(self, "min_own", "confidence")
        distinct("methods", self.methods, METHODS)
        distinct("formats", self.formats, tuple(gsm.FORMATS))
        if not self.formats or not 0 < self.confidence < 1:
            raise ValueError(
                f"formats are {self.formats} and confidence {self.confidence}, "
                f"expected a format at least ({', '.join(gsm.FORMATS)}) and a share "
                f"above 0 and below 1."
            )
        self._check_levels()
        if not self.asked:
            raise ValueError(
                f"Got {self.data} to train on and no tests, so nobody is asked "
                f"anything; --tests takes {ENGLISH} and files in the form of GSM8K or "
                f"GSM-Symbolic."
            )
        distinct("tests", [title_of(x) for x in self.asked])

    def _check_levels(self) -> None:
        before = 0
        for name, steps in self.levels.items():
            if len(steps) != 2 or not before < steps[0] <= steps[1]:
                raise ValueError(
                    f"{name} is {steps}, expected its fewest and its most steps, more "
                    f"than the {before} of the level below it."
                )
            before = steps[1]
        if ENGLISH in (self.data, *self.asked) and before > MOST:
            raise ValueError(
                f"hard has up to {before} steps, and problems of our own have 1 to "
                f"{MOST}; lower --hard, or train and test on files."
            )

    @property
    def levels(self) -> dict[str, tuple[int, ...]]:
        """Fewest and most steps by level."""
        return {name: getattr(self, name) for name in LEVELS}

    @property
    def asked(self) -> tuple[str, ...]:
        """The tests, by default english if experts learn it."""
        return self.tests or ((ENGLISH,) if self.data == ENGLISH else ())

    @property
    def facts(self) -> str:
        """The files of a user, for messages; empty without one."""
        files = (x for x in (self.data, *self.asked) if x != ENGLISH)
        return ", ".join(dict.fromkeys(files))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(self.first_seed + i for i in range(self.seeds))


def title_of(source: str) -> str:
    """What rows call a test: a file without its folder and ending.

    >>> title_of("data/GSM_p2.jsonl")
    'GSM_p2'
    """
    return Path(source).stem
