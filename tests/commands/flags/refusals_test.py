"""Whatever the parser refuses, it is one sentence with a way out."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from jaxlora.commands.flags import Model, parsing, refusals


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """Flags under a name."""

    rank: int = 8
    """Of adapters."""

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}, expected at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Some:
    """A command."""

    model: Model
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """New folder."""
    shares: tuple[float, ...] = ()
    """Some ``shares``."""
    top: int | None = None
    """At most."""
    rate: float = 0.5
    chat: bool = True
    by: Literal["mass", "frequency"] = "mass"
    inner: Inner = Inner()


def parsed(*words):
    return parsing.parse(Some, "jaxlora some", words)


FINE = ["m", "--out", "x"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "Got no MODEL and no --out DIR (Folder of a Hugging Face checkpoint; New"),
        (["m"], "Got no --out DIR (New folder); `jaxlora some --help` shows how"),
        (["m", "--out"], "Got --out without a value; `jaxlora some --help` says"),
        ([*FINE, "--rate"], "Got --rate without a value"),
        (
            [*FINE, "--rate", "x"],
            "--rate is 'x', expected a number, as in `--rate 0.5`",
        ),
        ([*FINE, "--top", "2.5"], "--top is '2.5', expected a whole number, as in"),
        ([*FINE, "--inner.rank", "two"], "whole number, as in `--inner.rank 8`."),
        ([*FINE, "--shares", "half"], "--shares is 'half', expected a number"),
        ([*FINE, "--by", "mas"], "expected mass or frequency; did you mean 'mass'?"),
        ([*FINE, "--by", "zzz"], "--by is 'zzz', expected mass or frequency."),
        ([*FINE, "--inner.rank", "0"], "--inner.rank is 0, expected at least 1."),
        ([*FINE, "surplus"], "Got 'surplus', which belongs to no option; `jaxlora"),
        ([*FINE, "rate"], "lists all 9. Did you mean --rate?"),
        ([*FINE, "-x"], "No option -x; `jaxlora some --help` lists all 9."),
        ([*FINE, "--no-chat", "yes"], "Got 'yes', which belongs to no option"),
        ([*FINE, "--rat", "1"], "No option --rat; "),
    ],
)
def test_a_refusal_is_one_sentence(capsys, words, expected):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - matched below
        parsed(*words)
    text = str(refused.value)
    assert expected in text
    assert "\n" not in text
    assert text[-1] in ".?"
    assert capsys.readouterr() == ("", "")


def test_a_long_path_is_not_broken():
    path = "/".join(["folder"] * 40)
    with pytest.raises(ValueError, match=path):
        parsed(*FINE, path)


def test_the_width_of_the_terminal_is_left_alone(monkeypatch):
    for before in ("93", None):
        if before is None:
            monkeypatch.delenv("COLUMNS")
        else:
            monkeypatch.setenv("COLUMNS", before)
        parsed(*FINE)
        assert os.environ.get("COLUMNS") == before


def test_help_is_tidy(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = capsys.readouterr().out
    assert "Some `shares`." in shown
    assert "(default: )" not in shown
    assert "(default: 0.5)" in shown


def test_what_is_not_foreseen_is_a_sentence_too():
    text = "Odd\n---\n Something else\n happened.\n---\n For full helptext, run x"
    said = refusals.sentence(text, "jaxlora x", [])
    assert said == ("Something else happened; `jaxlora x --help` lists every option.")
