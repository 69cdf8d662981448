"""What tasks of the harness ask, as our options."""

import pytest

from jaxlora.integrations.generation import settings
from jaxlora.reuse.decode import TextDecoding


def test_settings_of_tasks():
    assert settings({}) == TextDecoding(max_new_tokens=256)
    given = {"until": ["\n", ""], "max_gen_toks": 3, "max_tokens": 9}
    assert settings(given) == TextDecoding(max_new_tokens=3, until=("\n",))
    assert settings({"max_tokens": 9}).max_new_tokens == 9
    assert settings({}, 7, "x") == TextDecoding(max_new_tokens=7, thought="x")
    given = {"top_k": 5, "top_p": 0.9, "temperature": 0.7, "num_beams": 1}
    assert settings(given, 1) == TextDecoding(
        max_new_tokens=1, top_k=5, top_p=0.9, temperature=0.7
    )
    assert settings({"top_k": -1}).top_k == 0


@pytest.mark.parametrize(
    ("given", "temperature"),
    [
        ({}, 0),
        ({"do_sample": True}, 1),
        ({"do_sample": False, "temperature": 0.7}, 0),
        ({"do_sample": True, "temperature": 0.7}, 0.7),
        ({"temperature": 0.7}, 0.7),
    ],
)
def test_temperature_of_tasks(given, temperature):
    assert settings(given).temperature == temperature


def test_options_that_would_be_ignored_are_refused():
    with pytest.raises(ValueError, match=r"\{'num_beams': 4\}.*not supported"):
        settings({"num_beams": 4, "until": "x"})
