"""Help is tidy, and the flags that most runs need come first."""

from jaxlora.commands.flags import help_text

LONG = """\
usage: x

 options
 -----
  -h, --help
      Help.
  --out PATH
      Where to.

      One folder a run. (default: None)

 lora options
 -----
  How adapters are made.
 -----
  --lora.rank INT
      R. (default: 8)
  --lora.alpha FLOAT
      Positive.
"""


def test_common_flags_of_every_section_come_first_and_none_is_lost():
    text = help_text.common_first(LONG, ["lora.rank", "out"])
    first, _, rest = text.partition(" options\n")
    assert first.index("--lora.rank INT\n      R.") < first.index("--out PATH")
    assert "Where to.\n\n      One folder a run." in first
    assert "usage: x" in first
    assert " what most runs need\n -----\n  --lora.rank" in first
    assert "--out" not in rest
    assert "--lora.rank" not in rest
    for words in ("--help", "How adapters are made.", "--lora.alpha FLOAT"):
        assert words in rest
    assert help_text.common_first(LONG, []) == LONG


def test_defaults_that_say_nothing_are_left_out():
    text = help_text.tidy("--a {None}|PATH (default: None)\n--b (default: '')\n--c (d)")
    assert text == "--a PATH\n--b\n--c (d)\n"


def test_a_study_of_a_language_model_has_flags_of_its_own():
    symbols = help_text.common("jaxlora study two-hop", ["--model.mlp"])
    model = help_text.common("jaxlora study two-hop", ["--model"])
    assert "preset" in symbols
    assert "adapter" in model
    assert help_text.common("jaxlora train", ["--model"]) == help_text.COMMON["train"]
    assert help_text.common("jaxlora fuse", []) == ()
