"""From words to flags: misspellings, old names, and sizes."""

import dataclasses

import pytest

from jaxlora.commands.flags import Model, Several, parsing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """Flags under a name."""

    rank: int = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Some:
    """A command."""

    model: Model
    data: Several = ()
    chat: bool = True
    batch: int = 1
    lora: Inner = Inner()


def parsed(*words, **more):
    return parsing.parse(Some, "jaxlora some", words, **more)


def test_flags_of_a_dataclass_and_of_those_in_it():
    assert parsing.names(Some) == [
        "--help",
        "--data",
        "--chat",
        "--no-chat",
        "--batch",
        "--lora.rank",
    ]


def test_a_flag_that_does_not_exist_names_the_nearest():
    with pytest.raises(ValueError, match=r"lists all 6\. Did you mean --batch\?"):
        parsed("m", "--bacth", "1")
    with pytest.raises(ValueError, match=r"No option --zzzz; .* lists all 6\.$"):
        parsed("m", "--zzzz")


def test_every_repeatable_flag_takes_a_list():
    assert parsed("m", "--data", "a", "b", "--batch", "2").data == ("a", "b")


def test_an_old_flag_is_accepted_and_not_shown(monkeypatch, capsys):
    aliases = {"jaxlora some": {"--microbatch": "--batch"}}
    monkeypatch.setattr(parsing, "ALIASES", aliases)
    assert parsed("m", "--microbatch", "3").batch == 3
    assert parsed("m", "--microbatch=4").batch == 4
    with pytest.raises(SystemExit):
        parsed("--help")
    assert "microbatch" not in capsys.readouterr().out


def test_sizes_are_checked_by_the_name_of_their_flag():
    parsing.at_least(1, parsed("m"), "batch")
    with pytest.raises(ValueError, match="--batch is 0, expected 1 or more"):
        parsing.at_least(1, parsed("m", "--batch", "0"), "batch")
