"""What a study cannot decide is said before it trains, with the number it needs."""

import dataclasses

from jaxlora.evaluate.verdict import Thresholds
from jaxlora.studies.two_hop import deciding as shared
from jaxlora.studies.two_hop.symbols import deciding
from jaxlora.studies.two_hop.symbols.config import PRESETS, TwoHopConfig
from jaxlora.studies.two_hop.text import deciding as text
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.experts import groups


def test_cells_of_one_size_share_a_sentence_and_others_have_their_own():
    sizes = {"R-OO": 21, "H-OO": 21, "F-OO": 5, "R-II": 63}
    several, one = shared.warnings(sizes, Thresholds(), 3)
    assert several.startswith("Each of R-OO, H-OO has 21 questions")
    assert one.startswith("F-OO has 5 questions")
    assert all(x.endswith("at least 35 are needed.") for x in (several, one))


def test_sizes_are_the_people_whom_the_world_has():
    config = TwoHopConfig(seeds=2)
    people = groups(world.generate(config.world, 0))
    for cell, n in deciding.sizes(config).items():
        assert n == 2 * sum(g.size for g in people if g.cell == cell)


def test_a_facts_file_counts_its_people():
    config = PRESETS["quick"]
    people = world.generate(TwoHopConfig().world, 0).splits["people"]
    mine = tuple(r for r in people if r.cell == "F-OO" and r.pair == 0)
    sizes = deciding.sizes(config, mine)
    assert sizes["F-OO"] == 7
    (sentence,) = deciding.warnings(config, mine)
    assert sentence.startswith("F-OO has 7 questions")
    assert not deciding.warnings(config)


def test_more_seeds_are_more_people():
    few, enough = (TwoHopConfig(seeds=n) for n in (1, 2))
    assert deciding.warnings(few)
    assert not deciding.warnings(enough)


def test_studies_on_text_are_warned_too():
    usual = TextConfig(model="m")
    assert text.sizes(usual, None) == {"F-OO": 40, "H-OO": 40}
    assert not text.warnings(usual)
    (sentence,) = text.warnings(dataclasses.replace(usual, people=6))
    assert sentence.startswith("Each of F-OO, H-OO has 12 questions")
