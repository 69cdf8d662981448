"""Words that are wrong before a parser reads them."""

import dataclasses
from pathlib import Path

import pytest

from jaxlora.commands.flags import Model, Several, parsing, words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Some:
    """A command."""

    model: Model
    out: Path = Path("x")
    data: Several = ()
    weights: tuple[float, ...] = ()
    name: str = ""
    chat: bool = True


def refused(*given):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - returned
        parsing.parse(Some, "jaxlora some", given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("m --out a --out b", "Got --out twice, expected it once."),
        ("m --out a --out=b", "Got --out twice, expected it once."),
        ("m --chat --no-chat", "Got both --chat and --no-chat, expected it once."),
        ("m --weights 1 --weights 2", "once, with all of its values after it."),
        ("m --weights", "Got --weights without a value; `jaxlora some --help` says"),
        ("m --weights --out b", "Got --weights without a value"),
        ("m --out", "Got --out without a value"),
        ("m --out --data d", "Got --out without a value"),
        ("m --out=", "--out is empty, expected the path of a file or folder."),
        (
            "--model m",
            "No option --model: MODEL stands without it, as in `",
        ),
        ("m --output x", "Did you mean --out?"),
        ("m --dataset x", "Did you mean --data?"),
    ],
)
def test_one_sentence_says_what_is_wrong(given, expected):
    assert expected in refused(*given.split())


def test_an_empty_word_is_no_path():
    assert refused("").startswith("Got an empty word, expected a path;")
    assert refused("m", "--out", "").startswith("--out is empty")
    assert parsing.parse(Some, "jaxlora some", ["m", "--name", ""]).name == ""


def test_what_may_repeat_or_be_empty_passes():
    known = parsing.flags(Some)
    given = ["m", "--data", "a", "--data", "b"]
    words.check(given, known, "jaxlora some", empty=False)
    words.check(["m", "--weights"], known, "jaxlora some", empty=True)
    assert parsing.parse(Some, "jaxlora some", given).data == ("a", "b")


def test_help_of_a_wrong_line_is_help(capsys):
    with pytest.raises(SystemExit):
        parsing.parse(Some, "jaxlora some", ["--weights", "--help"])
    assert "--weights" in capsys.readouterr().out
