"""Saves what every command makes of fixed inputs, and compares two such folders.

A refactoring must move nothing: run ``save`` on the commit before and after it, on one
machine with the same versions, then ``compare``. Everything goes through the command
line, so the same script runs on both sides.

    python experiments/benchmarks/unchanged.py save BEFORE     # about 12 minutes
    python experiments/benchmarks/unchanged.py save AFTER
    python experiments/benchmarks/unchanged.py compare BEFORE AFTER
"""

import argparse
import contextlib
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from jaxlora import merge, route
from jaxlora.cli import main

DATA = Path(__file__).parents[2] / "tests" / "data"
HF = DATA / "hf" / "llama"
PAIR = [str(HF / "plain"), str(HF / "plain2")]
FACTS = ("Where does Ann live?", "Who is Bo's wife?", "Which town has a bridge?")
RENAMED = {
    "gate passed": "criterion passed",
    r"the gate of '(.*?)' failed": r"the criterion of '\1' was not met",
    "no base passed its gates": "no base met its criteria",
    '"found": ': '"extracted": ',
}
"""Words of files that were renamed since 20bbc0b, as patterns; see CHANGELOG.md."""
TEXT_STUDY = """--dtype float32 --cells F-OO --people 4 --pairs 1 --phrasings 2
--methods mean ties arrow --resamples 50 --lora.rank 2 --train.steps 4 --train.batch 2
--train.warmup 1 --ask.phrasings 1 --ask.new-tokens 4 --ask.written-tokens 6
--gates.min-own 0 --gates.min-context 0 --gates.min-two-hop 0"""


def ran(*words: object) -> str:
    """Runs one command in this process and returns what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    if code not in (0, 1):
        raise SystemExit(f"jaxlora {' '.join(map(str, words))}: {err.getvalue()}")
    return out.getvalue()


def model_in(folder: Path) -> Path:
    """The llama fixture with a tokenizer of its vocabulary."""
    model = folder / "model"
    for source in (HF / "base", DATA / "tokenizer" / "plain"):
        shutil.copytree(source, model, dirs_exist_ok=True)
    return model


def records(folder: Path) -> list[Path]:
    """Two files of questions and answers."""
    out = []
    for i in range(2):
        lines = [
            json.dumps({"question": f"{fact} {k + i}", "answer": f"Town {k * (i + 1)}"})
            for fact in FACTS
            for k in range(6)
        ]
        out.append(folder / f"facts{i}.jsonl")
        out[-1].write_text("\n".join(lines) + "\n")
    return out


def save_merges(folder: Path) -> None:
    """Every merge of ``merge --list`` on two adapters, with seed 3."""
    (folder / "merges.txt").write_text(ran("merge", "--list"))
    for name in merge.names():
        seen = (
            []
            if merge.preset(name).data == "free"
            else ["--statistics", arrays(folder, name)]
        )
        out = folder / "merges" / name
        ran("merge", *PAIR, "--method", name, "--seed", 3, *seen, "--out", out)


def arrays(folder: Path, name: str) -> Path:
    """Random data of the shape that a merge sees, for each adapter and module."""
    library = load_file(HF / "plain" / "adapter_model.safetensors")
    rng, out = np.random.default_rng(0), {}
    for key in (key for key in library if ".lora_A." in key):
        d, f = library[key].shape[1], library[key.replace("lora_A", "lora_B")].shape[0]
        x = rng.standard_normal((2, 4 * d, d)).astype(np.float32)
        shape = {"regmean": (2, d, d), "fisher": (2, d, f)}.get(name, (2,))
        gram = np.einsum("enp,enq->epq", x, x) / x.shape[1]
        drawn = rng.random(shape).astype(np.float32)
        module = key.partition(".lora_A.")[0].removeprefix("base_model.model.")
        out[module] = gram if name == "regmean" else drawn
    save_file(out, folder / f"data-{name}.safetensors")
    return folder / f"data-{name}.safetensors"


def save_routes(folder: Path, model: Path, files: list[Path]) -> None:
    """Logits of every route on two adapters; gates are made where data are needed."""
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps([[1, 5, 7, 3, 9, 4], [2, 6, 8, 1, 3, 11]]))
    (folder / "routes").mkdir()
    (folder / "routes.txt").write_text(ran("gate", "--list"))
    for name in route.names():
        how = ["--route", name]
        data = route.describe(name).data
        if data == "labels":
            continue  # no command gives labels; tests/route hold the oracle's numbers
        if data != "free":
            gate = folder / "routes" / f"gate-{name}.safetensors"
            some = files if data == "own" else files[:1]
            ran(
                "gate", model, "--adapter", *PAIR, *how, "--data", *some, "--out", gate,
                "--steps", 6, "--length", 64, "--batch", 2,
            )  # fmt: skip
            how = ["--gate", gate]
        out = folder / "routes" / f"{name}.npy"
        ran(
            "forward",
            HF / "base",
            "--adapter",
            *PAIR,
            *how,
            "--tokens",
            tokens,
            "--out",
            out,
        )


def save_training(folder: Path, model: Path, files: list[Path]) -> None:
    """Two adapters trained, one text generated, answers counted."""
    ran(
        "train", "--model", model, "--data", *files, "--out", folder / "library",
        "--steps", 12, "--length", 64, "--batch", 2, "--accumulate", 2, "--rank", 4,
    )  # fmt: skip
    experts = [folder / "library" / path.stem for path in files]
    asked = ["--prompt", *FACTS, "--max-new-tokens", 12, "--adapter", *experts]
    for name, how in (("merge", "mean"), ("route", "arrow")):
        text = ran("generate", model, f"--{name}", how, *asked)
        (folder / f"generate-{name}.txt").write_text(text)
    text = ran(
        "generate", model, "--merge", "ties", "--temperature", 0.8, "--seed", 2, *asked
    )
    (folder / "generate-sampled.txt").write_text(text)
    answers = folder / "answers.jsonl"
    ran(
        "eval", "--model", model, "--adapter", *experts, "--merge", "mean", "--data",
        files[0], "--metric", "exact", "--max-new-tokens", 4, "--out", answers,
    )  # fmt: skip


def save_studies(folder: Path, model: Path) -> None:
    """The text study at a tiny size, the two-hop study at its quick one, the theory."""
    cache = ["--cache-dir", folder / "cache"]
    words = [*TEXT_STUDY.split(), "--out", folder / "study-text", *cache]
    ran("study", "two-hop", "--model", model, *words)
    ran("study", "two-hop", "--preset", "quick", "--out", folder / "study", *cache)
    ran("study", "theory", "--out", folder / "study-theory", *cache)
    (folder / "info.txt").write_text(ran("info"))


def save(folder: Path) -> None:
    """Fills a new folder."""
    folder.mkdir(parents=True)
    model, files = model_in(folder), records(folder)
    steps: dict[str, Callable[[], None]] = {
        "merges": lambda: save_merges(folder),
        "routes": lambda: save_routes(folder, model, files),
        "training": lambda: save_training(folder, model, files),
        "studies": lambda: save_studies(folder, model),
    }
    for name, step in steps.items():
        print(name, flush=True)
        step()


def results(folder: Path) -> Iterator[Path]:
    """The files that are compared, relative to the folder."""
    kinds = ("*.safetensors", "*.npy", "*.csv", "*.txt", "answers.jsonl")
    for path in sorted({path for kind in kinds for path in folder.rglob(kind)}):
        inner = path.relative_to(folder).parts
        if "cache" not in inner and path.name != "info.txt":
            yield path.relative_to(folder)


def content(path: Path, folder: Path) -> str:
    """The text of a file in the words of today, and without the folder's own path."""
    text = path.read_text(encoding="utf-8").replace(str(folder), "FOLDER")
    for old, new in RENAMED.items():
        text = re.sub(old, new, text)
    return text


def difference(name: Path, before: Path, after: Path) -> str:
    """How a file differs between two folders, in words; nothing if it is equal."""
    x, y = before / name, after / renamed(name)
    if not y.exists():
        return "missing"
    if x.suffix == ".npy":
        a, b = np.load(x), np.load(y)
        same = a.tobytes() == b.tobytes()
        return "" if same else f"largest difference {np.abs(a - b).max():.3g}"
    if x.suffix == ".safetensors":
        return difference_of_tensors(load_file(x), load_file(y))
    old, new = content(x, before), content(y, after)
    if old == new or x.suffix != ".csv":
        return "" if old == new else "other text"
    tables = (pd.read_csv(io.StringIO(text), dtype=str) for text in (old, new))
    return difference_of_tables(*tables)


def difference_of_tensors(x: dict, y: dict) -> str:
    """The largest difference of two files of tensors."""
    if x.keys() != y.keys():
        return f"other tensors: {sorted(x.keys() ^ y.keys())[:4]}"
    if all(x[key].tobytes() == y[key].tobytes() for key in x):
        return ""
    most = max(float(np.abs(x[key].astype(float) - y[key]).max()) for key in x)
    return f"largest difference {most:.3g}"


def renamed(name: Path) -> Path:
    """The name that a file has today."""
    return name.with_name(name.name.replace("league", "leaderboard"))


def difference_of_tables(x: pd.DataFrame, y: pd.DataFrame) -> str:
    """The columns in which two tables differ, and in how many rows."""
    if list(x.columns) != list(y.columns) or len(x) != len(y):
        return f"{len(x)} rows of {list(x.columns)}, {len(y)} of {list(y.columns)}"
    odd = (x.fillna("") != y.fillna("")).sum()
    return ", ".join(f"{name}: {n} of {len(x)}" for name, n in odd.items() if n)


def compare(before: Path, after: Path) -> int:
    """Prints what differs; returns the number of files that do."""
    names = list(results(before))
    differences = {str(name): difference(name, before, after) for name in names}
    known = set(map(renamed, names))
    differences |= {str(x): "new" for x in results(after) if renamed(x) not in known}
    for name, text in differences.items():
        if text:
            print(f"{name}: {text}")
    equal = sum(not text for text in differences.values())
    print(f"{equal} of {len(differences)} files equal, bit for bit")
    return len(differences) - equal


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("save", "compare"))
    parser.add_argument("folders", nargs="+", type=Path)
    given = parser.parse_args()
    if given.action == "save":
        save(*given.folders)
    else:
        sys.exit(min(1, compare(*given.folders)))
