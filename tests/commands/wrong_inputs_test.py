"""Whatever a person gets wrong: one sentence about it, exit 2, and nothing written.

The command lines are data, in `wrong_inputs.toml`, each with a word that its sentence
must hold; what they read is made by `wrong_room`.
"""

import math
import os
import pathlib
import shlex
import subprocess
import sys
import tomllib

import pytest

import wrong_room
from jaxlora import cli
from jaxlora.commands import bars

CORPUS = tomllib.loads(
    (pathlib.Path(__file__).parent / "wrong_inputs.toml").read_text(encoding="utf-8")
)
FILES = CORPUS.pop("files")
LINES = [(line, word) for lines in CORPUS.values() for line, word in lines.items()]
BY_PROCESS = (
    "mrege A B --method mean --out M",
    "data questions questions/key.jsonl",
    "study two-hop --preset qick",
    "merge A adapter_cut --method mean --out M",
)
"""Some that a process of its own is asked, too."""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = tmp_path_factory.mktemp("room")
    wrong_room.make(room, FILES)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(room)
        patched.setenv("XDG_CACHE_HOME", str(room / "cache"))
        patched.setenv("MPLCONFIGDIR", str(room.parent))
        patched.setattr(bars, "EVERY", math.inf)
        yield room


def tree(room):
    """Every path with its size and the time of its last change."""
    out = {}
    for folder, folders, files in os.walk(room):
        # Python itself keeps the bytecode of a merge of a user's module.
        folders[:] = [name for name in folders if name != "__pycache__"]
        for path in (os.path.join(folder, name) for name in (*folders, *files)):
            seen = os.stat(path)
            out[path] = seen.st_size, seen.st_mtime_ns
    return out


def faults(code, out, err, word):
    """What is wrong with an answer, in words."""
    wanted = {
        "exit 2": code == 2,
        "nothing on stdout": out == "",
        "one line on stderr": err.count("\n") == 1 and err.startswith("jaxlora: "),
        "a sentence": err.strip().endswith((".", "?")),
        "no traceback": "Traceback" not in err,
        f"the word {word!r}": word in err,
    }
    return [name for name, fine in wanted.items() if not fine]


@pytest.mark.parametrize(("line", "word"), LINES, ids=[line for line, _ in LINES])
def test_a_wrong_input_is_one_sentence_and_writes_nothing(room, capsys, line, word):
    before = tree(room)
    code = cli.main(shlex.split(line))
    said = capsys.readouterr()
    assert faults(code, said.out, said.err, word) == [], said.err
    assert tree(room) == before


@pytest.mark.parametrize("line", BY_PROCESS)
def test_a_process_of_its_own_says_the_same(room, line):
    before, code = tree(room), "import sys; from jaxlora.cli import main; "
    command = [sys.executable, "-W", "error", "-c", f"{code}sys.exit(main())"]
    done = subprocess.run(
        [*command, *shlex.split(line)],
        capture_output=True,
        text=True,
        cwd=room,
        env=os.environ | {"MPLCONFIGDIR": str(room.parent)},
    )
    word = dict(LINES)[line]
    assert faults(done.returncode, done.stdout, done.stderr, word) == [], done.stderr
    assert tree(room) == before


def test_the_corpus_is_large():
    assert len(LINES) >= 200


def test_an_answer_that_is_no_sentence_is_a_fault():
    assert faults(2, "", "jaxlora: No room.\n", "room") == []
    assert faults(1, "x", "No\nroom\n", "merge") == [
        "exit 2",
        "nothing on stdout",
        "one line on stderr",
        "a sentence",
        "the word 'merge'",
    ]
