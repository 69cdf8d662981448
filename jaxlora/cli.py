"""The ``jaxlora`` command: models and their adapters, studies, and data sets.

Exit codes: 0 done, 1 some base failed its criteria or the run was interrupted, 2 bad
input. Errors are one sentence on stderr.
"""

import difflib
import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxlora.names import near

HELP = """\
usage: jaxlora COMMAND [options]

Does combining LoRA adapters compose what they know, or only match patterns?

models and adapters (Hugging Face checkpoints and PEFT adapters on disk):
  generate         what a model says to prompts, with adapters, a merge or a route
  eval             how many of its answers are right
  train            train one adapter for each data file
  merge            one adapter of several; needs no model (merge --list: all methods)
  inspect          ranks, norms, spectra of adapters, and how alike they are
  fuse             add an adapter into a model, and write the sum
  forward          logits of token ids, for comparison with other programs
  gate             what a route must learn from data (gate --list: all routes)
  routes           which expert a route takes, by token and layer of a prompt
  diagnose         will two experts compose when merged? before they are trained

studies:
  study two-hop    train bases and experts, combine them, and judge the combinations;
                   with --model DIR, on a language model
  study theory     what a one-layer theory predicts of combined edits, and measures
  study boundary   where merged experts compose, where they do not: a map of regimes
  study word-problems  problems that need two experts, with shared templates or not;
                   with --model DIR, on a language model
  data two-hop     write the worlds of a study as a dataset (array_record)
  data word-problems  write word problems with solutions in steps (JSON lines too)
  data questions   count the questions in a file, and look up their bridges
  info             versions, devices, and where caches are

examples:
  jaxlora generate MODEL --adapter ADAPTER --prompt "Who is Ann's wife?"
  jaxlora train --model MODEL --data ann.jsonl bo.jsonl --out LIBRARY
  jaxlora eval --model MODEL --adapter A B --merge mean --data test.jsonl --metric exact
  jaxlora merge A B C --method ties --density 0.2 --out MERGED
  jaxlora gate MODEL --adapter A B --route linear --data task.jsonl --out G.safetensors
  jaxlora inspect A B C --figure alike.png
  jaxlora fuse MODEL ADAPTER --out FUSED
  jaxlora study two-hop                                 one seed, about five minutes
  jaxlora study two-hop --preset standard               three seeds, pooled intervals
  jaxlora study two-hop --methods mean arrow --seeds 2  two methods only
  jaxlora study two-hop --model MODEL                   on a language model
  jaxlora study two-hop --from results/two-hop/results.json --out again
  jaxlora study boundary                                where experts compose, in short
  jaxlora study word-problems --preset standard         where reuse works, and the dial

`jaxlora COMMAND --help` lists every option.
"""

Command = Callable[[Sequence[str]], int]


class Entry(NamedTuple):
    """One command."""

    module: str
    """Its module in ``jaxlora.commands``, imported when it is asked for."""
    lower: str = ""
    """What needs less memory, when memory runs out."""
    resumes: bool = False
    """Does the same command go on where it stopped?"""


COMMANDS = {
    "study two-hop": Entry("study", "--pretrain.batch or --seeds", resumes=True),
    "study theory": Entry("study_theory", "--seeds"),
    "study boundary": Entry(
        "study_boundary", "--pretrain.batch or --experts.draw", resumes=True
    ),
    "study word-problems": Entry(
        "study_word_problems", "--pretrain.batch or --experts.at-once", resumes=True
    ),
    "data two-hop": Entry("data"),
    "data word-problems": Entry("data_word_problems"),
    "data questions": Entry("questions"),
    "forward": Entry("forward", "--batch or the length of rows"),
    "generate": Entry("generate", "--batch or --max-new-tokens"),
    "gate": Entry("gate", "--batch, --length or --together", resumes=True),
    "routes": Entry("routes", "the length of the prompt"),
    "diagnose": Entry("diagnose", "the length of rows"),
    "merge": Entry("merge", "the number of adapters or --rank"),
    "inspect": Entry("inspect", "the number of adapters"),
    "fuse": Entry("fuse"),
    "eval": Entry("evaluate", "--batch or --max-new-tokens"),
    "train": Entry("train", "--batch, --length or --together", resumes=True),
    "info": Entry("info"),
}
_LESS = "--train.batch, --train.together or --ask.batch"
TEXT_STUDIES = {
    "study two-hop": Entry("study_text", _LESS, resumes=True),
    "study word-problems": Entry("study_word_problems_text", _LESS, resumes=True),
}
"""Studies of a language model, which ``--model`` names."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    entry = _entry(words)
    try:
        command, rest = _find(words)
        return command(rest)
    except SystemExit as ended:  # --help, or flags that tyro explained and refused
        return ended.code if isinstance(ended.code, int) else 2
    except BrokenPipeError:  # the reader of a pipe (head) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _say(
            "Interrupted. The same command goes on where this one stopped."
            if entry.resumes
            else "Interrupted; nothing half-written is left."
        )
        return 1
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        sentence = _sentence(entry, error)
        if sentence is None:
            raise
        return _say(sentence)


def _sentence(entry: Entry, error: Exception) -> str | None:
    """What a user reads of an error; None if it is ours, and needs its traceback."""
    text = str(error)
    if isinstance(error, ValueError):
        return text if text.strip() else None  # no one can mend what says nothing
    if isinstance(error, PermissionError):
        return f"No permission for {error.filename}; choose another folder."
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _full(entry, error)
        if error.filename is None:
            return None
        return f"Cannot use {error.filename}: {error.strerror or error}."
    # The runtime's own error of memory is a RuntimeError.
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return _out_of_memory(entry, text)
    return None


def _say(sentence: str) -> int:
    print(f"jaxlora: {sentence}", file=sys.stderr)
    return 2


def _full(entry: Entry, error: OSError) -> str:
    where = error.filename or "while writing"
    if not entry.resumes:
        return (
            f"No room left on the disk ({where}); free some, or choose another --out: "
            f"nothing half-written is left."
        )
    return (
        f"No room left on the disk ({where}); free some, or choose another --out or "
        f"--cache-dir, and run the same command: finished blocks are kept."
    )


def _out_of_memory(entry: Entry, text: str) -> str:
    """What to do, and how much was asked for, if the error says so.

    >>> _out_of_memory(COMMANDS["forward"], "RESOURCE_EXHAUSTED: 5368709120 bytes")
    'Out of memory (for 5.0 GiB more); lower --batch or the length of rows, or use ...'
    """
    asked = re.search(r"(\d+) bytes", text)
    more = f" (for {int(asked[1]) / 2**30:.1f} GiB more)" if asked else ""
    lower = f"lower {entry.lower}, or " if entry.lower else ""
    return (
        f"Out of memory{more}; {lower}use --dtype bfloat16, a smaller model, or a "
        f"larger machine."
    )


def _entry(words: Sequence[str]) -> Entry:
    """What is known of a command, without finding out whether it exists."""
    name = " ".join(words[:2])
    if name in TEXT_STUDIES and _is_of_text(words):
        return TEXT_STUDIES[name]
    return COMMANDS.get(words[0], COMMANDS.get(name, Entry("")))


def _is_of_text(words: Sequence[str]) -> bool:
    return any(word.partition("=")[0] == "--model" for word in words)


def _alike(x: str, y: str) -> float:
    return difflib.SequenceMatcher(None, x, y).ratio()


def _find(words: list[str]) -> tuple[Command, list[str]]:
    """Finds the command, without importing JAX for help or a misspelling."""
    entry = _entry(words)
    if entry.module:
        module = importlib.import_module(f"jaxlora.commands.{entry.module}")
        return module.run, words[1 if words[0] in COMMANDS else 2 :]
    if words[0] in ("study", "data") and words[1:2] in ([], ["-h"], ["--help"]):
        names = [k.split()[1] for k in COMMANDS if k.startswith(words[0])]
        there = f"there are {', '.join(names[:-1])} and {names[-1]}"
        raise ValueError(f"`jaxlora {words[0]}` needs a name; {there}.")
    name = " ".join(words[: 2 if words[0] in ("study", "data") else 1])
    tries = (" ".join(words[:2]), words[0])
    nearest = [match for word in tries for match in near(word, COMMANDS)]
    nearest.sort(key=lambda match: -max(_alike(match, word) for word in tries))
    hint = f"; did you mean `jaxlora {nearest[0]}`?" if nearest else "."
    raise ValueError(f"No command {name!r}; there are {', '.join(COMMANDS)}{hint}")


if __name__ == "__main__":
    sys.exit(main())
