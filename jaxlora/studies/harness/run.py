"""One run of a study: claim the folder, do the work, time it, write the results."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Generic, TypeVar

from jaxlora import files, locks
from jaxlora.io import trust
from jaxlora.parallel import processes
from jaxlora.studies.harness import provenance, results, store
from jaxlora.studies.harness.config import flat, plain
from jaxlora.studies.harness.results import Results
from jaxlora.studies.harness.share import Share
from jaxlora.studies.harness.store import Outcome

C = TypeVar("C")
Progress = Callable[[str, int, int, str], None]
"""``progress(stage, done, total, text)``."""
TRAINED = {"pretrain": "base: step", "experts": "experts:"}
"""Stages whose work is kept, in words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(Generic[C]):
    """What a run is: two that agree in all of this may share an output folder."""

    name: str
    config: C
    """Everything that decides the results, a frozen dataclass."""
    code: str
    """Hash of the modules that decide a row."""
    predictions: str = ""
    """Hash of the predictions, which may not change once a block is known."""
    revision: str | None = None
    """The commit in which the predictions were written down."""
    model: str = ""
    """Hash of the bytes of the checkpoint and adapters, if there are any."""
    people: Sequence[Any] = ()
    """Records of a user's facts, if there are any."""
    free: Sequence[str] = ()
    """Dotted fields of the config that say how it is run, not what comes out."""

    def identity(self) -> dict[str, Any]:
        """What two runs must share to share a folder, as ``study.json`` holds it."""
        return {
            "study": self.name,
            "config": plain(self.config),
            "people": store.digest(self.people),
            "predictions": self.predictions,
            "model": self.model,
            "code": self.code,
        }

    def key(self) -> str:
        """A hash of what decides the results, which every block carries."""
        identity = self.identity()
        fields = flat(identity["config"])
        decisive = {x: y for x, y in fields.items() if x not in self.free}
        return trust.json_hash(identity | {"config": decisive})

    def claim(self, out: Path) -> None:
        """Makes ``out`` the folder of this study, or refuses it with a ValueError."""
        self.check(out)
        store.claim(out, self.identity())

    def check(self, out: Path) -> None:
        """As :meth:`claim`, and leaves no trace, not that of a lock either."""
        store.check(
            out,
            self.identity(),
            kind=type(self.config),
            free=self.free,
            facts=getattr(self.config, "facts", None),
        )


@dataclasses.dataclass
class Clock:
    """Seconds spent in each stage, compilation apart, and how much was resumed."""

    compiled: provenance.Seconds
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    resumed: int = 0
    """Blocks that were read and not made."""
    blocks: int = 0
    """Blocks that are stored, read or made."""

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Adds the time of a block of code to a stage.

        A stage inside another one is taken from the outer one: an expert that is
        trained because a question needs it counts as training.
        """
        start, before = time.monotonic() - self.compiled.seconds, self._spent()
        try:
            yield
        finally:
            spent = time.monotonic() - self.compiled.seconds - start
            spent -= self._spent() - before
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def _spent(self) -> float:
        return sum(self.seconds.values())


@dataclasses.dataclass(frozen=True)
class Run(Generic[C]):
    """A study at work in its folder."""

    study: Study[C]
    out: Path
    """Folder of this study and configuration."""
    cache: Path
    """Folder of trained bases and experts, shared between studies."""
    progress: Progress
    clock: Clock
    origin: dict[str, Any]
    """Versions, device and revision of the code."""
    share: Share = dataclasses.field(default_factory=Share)
    """Of the study's cells; anything but all of them is not summed up."""

    def key(self, path: Path) -> str:
        """The key of a file of the run: of the study and its place in the folder."""
        return f"{self.study.key()}/{path.relative_to(self.out).as_posix()}"

    @property
    def config(self) -> C:
        """The study's configuration."""
        return self.study.config


def run(
    study: Study[C],
    out: Path,
    cache: Path,
    work: Callable[[Run[C]], Results],
    progress: Progress = lambda *_: None,
    share: Share = Share(),  # noqa: B008
) -> Results:
    """Runs, or goes on with, a study; writes results.csv and results.json.

    Args:
      study: its name, configuration and hashes.
      out: folder of this study and configuration.
      cache: folder of trained bases and experts, shared between studies.
      work: asks everything, block by block with :func:`ask`, and sums it up.
      progress: called as the study moves on.
      share: of the study's cells; of a part, only the blocks are written.

    Raises:
      ValueError: if ``out`` holds something else.
    """
    odd = processes.agreed(lambda: _odd(study, out))
    if odd:
        raise store.OccupiedError(odd)
    with locks.folder(out) if processes.first() else nullcontext():
        ended = _run(study, out, cache, work, progress, share)
        processes.meet()
        return ended


def _odd(study: Study, out: Path) -> str:
    try:
        study.check(out)
    except store.OccupiedError as error:
        return str(error)
    return ""


def _run(study: Study[C], out: Path, cache: Path, work, progress, share) -> Results:
    started = time.monotonic()
    if processes.first():
        study.claim(out)
        for folder in (out, *(path for path in out.rglob("*") if path.is_dir())):
            files.sweep(folder)
    cache.mkdir(parents=True, exist_ok=True)
    # Asked now: what runs is the code of now, whatever is edited meanwhile.
    origin = provenance.here()
    with provenance.compile_time() as compiled:
        clock, kept = Clock(compiled), _Kept(progress)
        with kept.noted(clock):
            ended = work(Run(study, out, cache, kept, clock, origin, share))
    total = time.monotonic() - started
    seconds = clock.seconds | {"compile": compiled.seconds, "total": total}
    timings: dict[str, float] = {f"{k}_s": round(s, 1) for k, s in seconds.items()}
    timings["peak_memory_gib"] = round(provenance.peak_memory_gib(), 2)
    timings["blocks_resumed"] = clock.resumed
    ended.summary["timings"] = timings
    if not share.complete or not processes.first():
        return ended
    results.write_rows(out, ended.rows)
    results.write_summary(out, ended.summary)
    return ended


def ask(
    this: Run, path: Path, columns: Sequence[str], make: Callable[[], Outcome]
) -> Outcome:
    """Reads a block that is finished, or makes and stores it.

    Args:
      this: the run.
      path: file of the block, below the run's folder.
      columns: of its items.
      make: what asks the questions of the block.
    """
    key = this.key(path)
    outcome = store.load(path, columns, key)
    if outcome is not None:
        this.clock.resumed += 1
        this.clock.blocks += 1
        return outcome
    with this.clock.time("evaluate"):
        outcome = make()
    store.save(path, outcome, key)
    # What is stored is what counts: a resumed run must see the same numbers.
    stored = store.load(path, columns, key)
    assert stored is not None, path
    this.clock.blocks += 1
    return stored


class _Kept:
    """A progress that remembers what is saved whenever a stage reports it."""

    def __init__(self, progress: Progress):
        self._progress, self._last = progress, dict[str, str]()

    def __call__(self, stage: str, done: int, total: int, text: str) -> None:
        # Bases and experts are cached before they are reported, or when it stops them.
        if stage in TRAINED and done:
            self._last[stage] = f"{TRAINED[stage]} {done} of {total} ({text})"
        self._progress(stage, done, total, text)

    @contextmanager
    def noted(self, clock: Clock) -> Iterator[None]:
        """Notes on an interruption what is saved."""
        try:
            yield
        except KeyboardInterrupt as stop:
            notes = [*self._last.values()]
            if clock.blocks:
                notes.append(f"{clock.blocks} blocks of answers")
            if notes:
                stop.add_note(f"saved are {', '.join(notes)}")
            raise
