"""Signals at random moments: exit codes, what is said, and whether a run ends the same.

    python experiments/benchmarks/signals.py MODEL DATA.jsonl... --moments 40
    python experiments/benchmarks/signals.py --moments 20      (a tiny two-hop study)

A training, or a study, is started again and again with the same --out, and gets SIGINT
or SIGTERM at a random moment of each start, until it ends; its adapters and losses, or
its rows, are compared, byte by byte, with those of a run that was left alone. Then the
next one begins.
"""

import argparse
import collections
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
FLAGS = """
--length 96 --batch 4 --rank 4 --learning-rate 1e-2 --warmup 0 --epochs 96
""".split()  # noqa: SIM905
LATE = 5.0
"""Seconds that a process may still need to end when its work is done."""
STUDY = """
study two-hop --world.entities 16 --world.relations 6 --world.pairs 1 --world.people 3
--world.context-rows 8 --methods mean --retention-items 8 --resamples 50
--model.hidden-size 16 --model.num-layers 2 --model.num-heads 2 --model.num-kv-heads 2
--model.head-dim 8 --model.mlp-size 32 --model.max-length 9 --model.unroll 1
--pretrain.batch 16 --pretrain.extra-batch 8 --pretrain.warmup 5 --pretrain.chunk 20
--pretrain.max-steps 200 --pretrain.format-steps 200 --pretrain.min-one-hop 0
--pretrain.min-two-hop 0 --pretrain.min-copy 0 --pretrain.min-format 0 --lora.rank 2
--lora.targets layers/attn/[qv]_proj/kernel --experts.steps 5 --experts.full-steps 2
--experts.min-own 0
""".split()  # noqa: SIM905
SAVED = re.compile(r"Stopped: update (\d+) of \d+ is saved")


class Start(NamedTuple):
    """One start of a command, which got a signal if it lived that long."""

    wait: float
    """Seconds until the signal."""
    code: int
    said: str
    seconds: float
    """From the signal to the end."""

    def kind(self) -> str:
        """What is said, in few words."""
        if self.code == 0:
            return "ended before"
        if "before anything was begun" in self.said:
            return "import: nothing begun"
        if SAVED.search(self.said):
            return "an update is saved"
        if "Stopped: saved are" in self.said:
            return "base, experts or blocks are saved"
        if "earlier start" in self.said:
            return "loading: an earlier start's update is kept"
        return "loading: nothing saved" if "nothing was saved" in self.said else "other"


def start(command: Sequence[str], number: int, wait: float) -> Start:
    """Starts a command, and sends it a signal.

    Args:
      command: the words.
      number: of the signal.
      wait: seconds before.
    """
    # In the background of a shell SIGINT is ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = child.communicate(timeout=wait)
        return Start(wait, child.returncode, said, 0.0)
    except subprocess.TimeoutExpired:
        began = time.monotonic()
        child.send_signal(number)
        said, _ = child.communicate()
        return Start(wait, child.returncode, said, time.monotonic() - began)


def wrong(this: Start, number: int, out: Path) -> str:
    """What is wrong with a start; empty if nothing is.

    Args:
      this: the start.
      number: of its signal.
      out: folder of the library.
    """
    if this.code not in (0, CODES[signal.Signals(number)]):
        return f"exit code {this.code}"
    if "Traceback" in this.said or "Segmentation" in this.said:
        return "a traceback"
    heard = "Stopping after the step" in this.said or this.seconds < LATE
    if this.code == 0 and not heard:
        return "the signal was swallowed"
    if this.code and (saved := SAVED.search(this.said)):
        steps = [x.name for x in (out / ".checkpoint").iterdir() if x.name.isdigit()]
        # The last chunk of updates may be longer than what is left of them.
        if not steps or max(map(int, steps)) < int(saved[1]):
            return f"said to be saved: {saved[1]}, on the disk: {steps}"
    if this.code and this.kind() == "other":
        return f"said: {this.said[-200:]}"
    return ""


def left_over(folder: Path) -> list[str]:
    """Temporary files below a folder."""
    names = [str(x.relative_to(folder)) for x in folder.rglob("*")]
    return [x for x in names if x.endswith(".tmp") or "orbax-checkpoint-tmp" in x]


def files(out: Path) -> dict[str, bytes]:
    """What must be equal: adapters and losses."""
    every = [*out.glob("*/*.safetensors"), *out.glob("losses.csv")]
    every += out.glob("results.csv")
    return {str(path.relative_to(out)): path.read_bytes() for path in every}


def placed(command: Sequence[str], out: Path) -> list[str]:
    """A command with its folders; a study's cache is fresh for each run."""
    cache = ["--cache-dir", str(out.with_name(f"{out.name}-cache"))]
    return [*command, "--out", str(out), *cache * ("study" in command)]


def storm(
    command: Sequence[str], folder: Path, number: int, moments: int, until: float = 1.0
) -> tuple[list[Start], list[str], int]:
    """Sends a command a signal at many moments.

    Args:
      command: the words but --out.
      folder: for its outputs.
      number: of the signal.
      moments: how many.
      until: share of the time that a run takes, after which there is none.

    Returns:
      Starts, what was wrong, and how many runs ended, each compared.
    """
    for name in ("cold", "whole"):  # the second finds its programs in JAX's cache
        began = time.monotonic()
        subprocess.run(
            placed(command, folder / name),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    lasts, rng = time.monotonic() - began, random.Random(0)
    places = [until * (i + rng.random()) / moments for i in range(moments)]
    rng.shuffle(places)
    expected, out = files(folder / "whole"), folder / "cut"
    starts, bad, ended = list[Start](), list[str](), 0
    while len(starts) < moments or out.exists():
        more = len(starts) < moments
        # Spread evenly over the time, in no order.
        wait = 0.1 + lasts * places.pop() if more else 24 * 3600.0
        this = start(placed(command, out), number, wait)
        if text := wrong(this, number, out):
            bad.append(f"at {wait:.2f} s: {text}")
        starts += [this] * more
        if this.code == 0:
            ended += 1
            bad += ["not bit-equal"] * (files(out) != expected)
            bad += left_over(out)
            shutil.rmtree(out)
            shutil.rmtree(out.with_name("cut-cache"), ignore_errors=True)
        elif not out.exists() and not more:
            break
    return starts, bad, ended


def main() -> None:
    """Prints a table for each signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("data", nargs="*")
    parser.add_argument("--moments", type=int, default=40)
    parser.add_argument("--signals", nargs="+", default=[x.name for x in CODES])
    given = parser.parse_args()
    words = STUDY
    if given.model:
        words = ["train", "--model", given.model, "--data", *given.data, *FLAGS]
    command = [sys.executable, "-m", "jaxlora.cli", *words]
    print("| signal | what was said | moments | exit codes | seconds to the end |")
    print("|---|---|--:|---|--:|")
    for number in (signal.Signals[name] for name in given.signals):
        with tempfile.TemporaryDirectory() as folder:
            starts, bad, ended = storm(command, Path(folder), number, given.moments)
        kinds = collections.defaultdict(list)
        for this in starts:
            kinds[this.kind()].append(this)
        for kind, some in sorted(kinds.items()):
            codes = ", ".join(map(str, sorted({x.code for x in some})))
            most = max(x.seconds for x in some)
            print(f"| {number.name} | {kind} | {len(some)} | {codes} | <= {most:.1f} |")
        print(f"| {number.name} | runs that ended, bit-equal | {ended} | 0 | |")
        print(f"\nwrong: {bad or 'nothing'}\n", flush=True)


if __name__ == "__main__":
    main()
