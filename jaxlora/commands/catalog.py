"""The commands there are: what each is for, and where its code is. Imports nothing."""

from typing import NamedTuple

HELP = """\
usage: jaxlora COMMAND [options]

Does combining LoRA adapters compose what they know, or only match patterns?

models and adapters (Hugging Face checkpoints and PEFT adapters on disk):
  generate         what a model says to prompts, with adapters, a merge or a route
  eval             how many of its answers are right
  train            train one adapter for each data file
  merge            one adapter of several; needs no model (merge --list: which, when)
  inspect          ranks, norms, spectra of adapters, and how alike they are
  fuse             add an adapter into a model, and write the sum
  import           write a model from a GGUF file as a checkpoint
  forward          logits of token ids, for comparison with other programs
  gate             what a route must learn from data (gate --list: all routes)
  routes           which expert a route takes, by token and layer of a prompt
  diagnose         will two experts compose when merged? before they are trained

studies:
  study two-hop    train bases and experts, combine them, and judge the combinations:
                   about five minutes; with --model DIR, on a language model
  study theory     what a one-layer theory predicts of combined edits, and measures
  study boundary   where merged experts compose, where they do not: a map of regimes
  study word-problems  problems that need two experts, with shared templates or not;
                   with --model DIR, on a language model
  report           join the shares of a study that several machines did
  data two-hop     write the worlds of a study as a dataset (array_record)
  data word-problems  write word problems with solutions in steps (JSON lines too)
  data questions   count the questions in a file, and look up their bridges
  plan train       memory, traffic and time of a step of training, for TPUs or GPUs that
                   need not be here
  plan route       the same of prompts with a routed library
  plan merge       the same of merging one
  plan study       the same of a study of a language model
  info             versions, devices, and where caches are
  completion       bash or zsh: a script that completes commands and flags

`jaxlora --version` prints the version.

examples:
  jaxlora generate MODEL --adapter ADAPTER --prompt "Who is Ann's wife?"
  jaxlora train --model MODEL --data ann.jsonl bo.jsonl --out LIBRARY
  jaxlora eval --model MODEL --adapter A B --merge mean --data test.jsonl --metric exact
  jaxlora merge A B C --method ties --density 0.2 --out MERGED
  jaxlora gate MODEL --adapter A B --route linear --data task.jsonl --out G.safetensors
  jaxlora inspect A B C --figure alike.png
  jaxlora plan train --model qwen2.5-7b --topology v5e:4x4
  jaxlora fuse MODEL ADAPTER --out FUSED
  jaxlora import MODEL.gguf --out MODEL
  jaxlora study two-hop                                 one seed, about five minutes
  jaxlora study two-hop --preset standard               three seeds, pooled intervals
  jaxlora study two-hop --methods mean arrow --seeds 2  two methods only
  jaxlora study two-hop --model MODEL                   on a language model
  jaxlora study two-hop --from results/two-hop/results.json --out again
  jaxlora study boundary                                where experts compose, in short
  jaxlora study word-problems --preset standard         where reuse works, and the dial

`jaxlora COMMAND --help` lists every option.
"""


class Entry(NamedTuple):
    """One command."""

    module: str
    """Its module in ``jaxlora.commands``, imported when it is asked for."""
    lower: str = ""
    """What needs less memory, when memory runs out."""
    resumes: bool = False
    """Does the same command go on where it stopped?"""
    many: bool = False
    """May it be several processes, on a mesh over all their devices?"""
    polls: bool = True
    """If so: does it look out for a signal to any of them, and save?"""


COMMANDS = {
    "study two-hop": Entry("study", "--pretrain.batch or --seeds", resumes=True),
    "study theory": Entry("study_theory", "--seeds"),
    "study boundary": Entry(
        "study_boundary", "--pretrain.batch or --experts.draw", resumes=True
    ),
    "study word-problems": Entry(
        "study_word_problems", "--pretrain.batch or --experts.at-once", resumes=True
    ),
    "report": Entry("report", "--pretrain.batch or --seeds", resumes=True),
    "data two-hop": Entry("data"),
    "data word-problems": Entry("data_word_problems"),
    "data questions": Entry("questions"),
    "forward": Entry("forward", "--batch or the length of rows", many=True),
    "generate": Entry("generate", "--batch or --max-new-tokens", many=True),
    "gate": Entry("gate", "--batch, --length or --together", resumes=True, many=True),
    "routes": Entry("routes", "the length of the prompt"),
    "diagnose": Entry("diagnose", "the length of rows"),
    "merge": Entry("merge", "the number of adapters or --rank", many=True),
    "inspect": Entry("inspect", "the number of adapters"),
    "fuse": Entry("fuse", many=True),
    "eval": Entry("evaluate", "--batch or --max-new-tokens", many=True),
    "train": Entry("train", "--batch, --length or --together", resumes=True, many=True),
    "import": Entry("import_gguf"),
    "plan train": Entry("plan_train"),
    "plan route": Entry("plan_route"),
    "plan merge": Entry("plan_merge"),
    "plan study": Entry("plan_study"),
    "info": Entry("info"),
    "completion": Entry("completion"),
}
_LESS = "--train.batch, --train.together or --ask.batch"
TEXT_STUDIES = {
    "study two-hop": Entry("study_text", _LESS, resumes=True, many=True, polls=False),
    "study word-problems": Entry(
        "study_word_problems_text", _LESS, resumes=True, many=True, polls=False
    ),
}
"""Studies of a language model, which ``--model`` names."""
LIGHT = {
    "merge --list": Entry("merge_choice"),
    "merge --list --all": Entry("merge_choice"),
    "merge --all --list": Entry("merge_choice"),
}
"""Words, all that there are, which are answered without JAX."""
SHELLS = ("bash", "zsh")
GROUPS = ("study", "data", "plan")
"""First words of commands of two."""


def named(words: list[str]) -> str:
    """The command that words begin with; empty if there is none.

    >>> named(["study", "two-hop", "--seeds", "2"]), named(["merge", "A"]), named(["x"])
    ('study two-hop', 'merge', '')
    """
    tries = " ".join(words[:2]), " ".join(words[:1])
    return next((name for name in tries if name in COMMANDS), "")


def members(group: str) -> list[str]:
    """The names after ``study`` or ``data``.

    >>> members("data")
    ['two-hop', 'word-problems', 'questions']
    """
    pairs = [name.split() for name in COMMANDS]
    return [pair[1] for pair in pairs if len(pair) == 2 and pair[0] == group]


def group_help(group: str) -> str:
    """What ``jaxlora study --help`` says: the lines of ``HELP`` on that group."""
    lines: list[str] = []
    inside = False
    for line in HELP.splitlines():
        inside = line.startswith(f"  {group} ") or (
            inside and line.startswith(" " * 19)
        )
        lines += [line] * inside
    head = f"usage: jaxlora {group} NAME [options]"
    return "\n".join([head, "", *lines, "", HELP.splitlines()[-1], ""])
