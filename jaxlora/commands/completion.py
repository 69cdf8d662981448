"""``jaxlora completion``: a script of bash or zsh to complete commands and flags."""

from collections.abc import Sequence

from jaxlora.commands import pages
from jaxlora.commands.catalog import COMMANDS, SHELLS, TEXT_STUDIES, members
from jaxlora.names import hint

HELP = """\
usage: jaxlora completion SHELL

Prints a script that completes commands, flags and files; SHELL is bash or zsh.

examples:
  eval "$(jaxlora completion bash)"                    in ~/.bashrc
  eval "$(jaxlora completion zsh)"                   in ~/.zshrc, after compinit
"""
# A word that starts no flag is left to `complete -o default`, which completes files.
_SCRIPT = """\
_jaxlora() {
  local word="${COMP_WORDS[COMP_CWORD]}" line="${COMP_WORDS[*]:1}" words=""
  case "$line" in
CASES
  esac
  [[ "$word" == -* || "$words" != --* ]] || words=""
  COMPREPLY=( $(compgen -W "$words" -- "$word") )
}
complete -o default -F _jaxlora jaxlora
"""


def run(arguments: Sequence[str]) -> int:
    """Prints the script."""
    words = list(arguments)
    if {"-h", "--help"} & set(words):
        print(HELP, end="")
        return 0
    if len(words) != 1 or words[0] not in SHELLS:
        got = " ".join(words) or "no shell"
        raise ValueError(
            f"Got {got!r}, expected {' or '.join(SHELLS)}, as in `jaxlora completion "
            f"{SHELLS[0]}`{hint(got, SHELLS)}"
        )
    print(script(words[0]), end="")
    return 0


def script(shell: str) -> str:
    """The script for a shell; zsh reads that of bash.

    Args:
      shell: one of ``SHELLS``.

    >>> "two-hop" in script("bash"), "bashcompinit" in script("zsh")
    (True, True)
    """
    groups = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    cases = [_case(name, _flags(name)) for name in COMMANDS]
    cases += [_case(group, members(group)) for group in sorted(groups)]
    cases.append(_case("", sorted({name.partition(" ")[0] for name in COMMANDS})))
    before = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return before + _SCRIPT.replace("CASES", "\n".join(cases))


def _flags(name: str) -> list[str]:
    if name == "completion":
        return list(SHELLS)
    kinds = [name, name + pages.TEXT] if name in TEXT_STUDIES else [name]
    texts = [pages.file(kind).read_text(encoding="utf-8") for kind in kinds]
    return list(dict.fromkeys(flag for text in texts for flag in pages.flags(text)))


def _case(name: str, words: Sequence[str]) -> str:
    """A branch of the script.

    >>> _case("fuse", ["--help", "--out"])
    '    "fuse "*) words="--help --out" ;;'
    """
    pattern = f'"{name} "*' if name else "*"
    return f'    {pattern}) words="{" ".join(words)}" ;;'
