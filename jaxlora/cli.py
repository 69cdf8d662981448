"""The ``jaxlora`` command: studies, data sets and where things are.

Exit codes: 0 done, 1 some base failed its gates or the run was interrupted, 2 bad
input. Errors are one sentence on stderr.
"""

import difflib
import errno
import sys
from collections.abc import Callable, Sequence

HELP = """\
usage: jaxlora COMMAND [options]

Does combining LoRA adapters compose what they know, or only match patterns?

commands:
  study two-hop    train bases and experts, combine them, and judge the combinations
  data two-hop     write the worlds of a study as a dataset (array_record)
  data questions   count the questions in a file, and look up their bridges
  info             versions, devices, and where caches are

examples:
  jaxlora study two-hop                                 one seed, about five minutes
  jaxlora study two-hop --preset standard               three seeds, pooled intervals
  jaxlora study two-hop --methods mean arrow --seeds 2  two methods only
  jaxlora study two-hop --facts people.jsonl            your own people
  jaxlora study two-hop --from results/two-hop/results.json --out again
  jaxlora data questions questions.jsonl                what can they measure?

`jaxlora COMMAND --help` lists every option.
"""

Command = Callable[[Sequence[str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    try:
        command, rest = _find(words)
        return command(rest)
    except SystemExit as ended:  # --help, or flags that tyro explained and refused
        return ended.code if isinstance(ended.code, int) else 2
    except ValueError as error:
        if not str(error).strip():  # ours: no one can mend what says nothing
            raise
        return _say(str(error))
    except PermissionError as error:
        return _say(f"No permission for {error.filename}; choose another folder.")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            if error.filename is None:
                raise
            return _say(f"Cannot use {error.filename}: {error.strerror or error}.")
        return _say(
            f"No room left on the disk ({error.filename or 'while writing'}); free "
            f"some, or choose another --out or --cache-dir, and run the same command: "
            f"finished blocks are kept."
        )
    except KeyboardInterrupt:
        _say("Interrupted. The same command goes on where this one stopped.")
        return 1


def _say(sentence: str) -> int:
    print(f"jaxlora: {sentence}", file=sys.stderr)
    return 2


def _find(words: list[str]) -> tuple[Command, list[str]]:
    """Finds the command, without importing JAX for help or a misspelling."""
    known = ("study two-hop", "data two-hop", "data questions", "info")
    if words[0] == "info":
        from jaxlora.commands import info

        return info.run, words[1:]
    name = " ".join(words[:2])
    if name == "study two-hop":
        from jaxlora.commands import study

        return study.run, words[2:]
    if name == "data two-hop":
        from jaxlora.commands import data

        return data.run, words[2:]
    if name == "data questions":
        from jaxlora.commands import questions

        return questions.run, words[2:]
    if words[0] in ("study", "data") and words[1:2] in ([], ["-h"], ["--help"]):
        names = [k.split()[1] for k in known if k.startswith(words[0])]
        there = f"there {'are' if names[1:] else 'is'} {' and '.join(names)}"
        raise ValueError(f"`jaxlora {words[0]}` needs a name; {there}.")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean `jaxlora {near[0]}`?" if near else "."
    raise ValueError(f"No command {name!r}; there are {', '.join(known)}{hint}")


if __name__ == "__main__":
    sys.exit(main())
