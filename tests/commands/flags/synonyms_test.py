"""Words of other programs lead to ours, which exist."""

from jaxlora.commands import pages
from jaxlora.commands.flags import synonyms


def test_each_stands_for_a_flag_that_some_command_has():
    texts = [pages.file(name).read_text(encoding="utf-8") for name in pages.names()]
    ends = {flag.lstrip("-") for text in texts for flag in pages.flags(text)}
    ends |= {end.rpartition(".")[2] for end in ends}
    assert set(synonyms.SYNONYMS.values()) - {"force"} <= ends


def test_what_exists_means_itself():
    assert synonyms.meant("--merge", ["--method", "--out"]) == ["--method"]
    assert synonyms.meant("--rank", ["--lora.rank"]) == ["--lora.rank"]
    assert synonyms.meant("--zzz", ["--out"]) == []
