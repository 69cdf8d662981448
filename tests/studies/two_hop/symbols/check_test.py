"""What could only fail after training is refused before it, and nothing is written."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxlora.studies.two_hop.symbols import bases, protocol


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"rank": 17}}, "LoRA rank is 17, expected 1 to 16: the kernel"),
        ({"lora": {"targets": ("layers/nonsense",)}}, "'layers/nonsense' matches none"),
        ({"lora": {"targets": ("(",)}}, "not a regular expression"),
        ({"lora": {"alpha": -1.0}}, "alpha is -1.0"),
        ({"lora": {"dtype": "float33"}}, "lora.dtype is 'float33'"),
        ({"arrow_top_k": 3}, "arrow_top_k is 3"),
        (
            {"oracle_search": "exhaustive", "model": {"num_layers": 5}},
            r"3\^\(5 layers x 3 tokens\) = 14,348,907 routes, expected at most",
        ),
        ({"world": {"trained": 1.0}}, "no held-out query"),
        ({"world": {"context_rows": 0}}, "no made-up facts"),
        ({"data_dir": Path("nowhere")}, "nowhere has no world of coverage 1 and seed"),
        ({"facts": Path("nowhere.jsonl")}, "Cannot read nowhere.jsonl"),
    ],
)
def test_bad_input_is_refused_before_anything_happens(
    tiny, tmp_path, monkeypatch, changes, message
):
    monkeypatch.setattr(bases, "train", lambda *_: pytest.fail("trained"))
    fields = {
        name: dataclasses.replace(getattr(tiny, name), **value)
        if isinstance(value, dict)
        else value
        for name, value in changes.items()
    }
    config = dataclasses.replace(tiny, **fields)
    with pytest.raises(ValueError, match=message) as caught:
        protocol.run(config, tmp_path / "out", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("people", "cities", "message"),
    [
        (2, 2, r"own\.jsonl has 2 people .* at least 3"),
        (4, 1, r"own\.jsonl has one answer for all people .*hop2: 'city 0'"),
    ],
)
def test_facts_that_cannot_be_deranged_are_refused(
    tiny, tmp_path, people, cities, message
):
    facts = [(f"ann {i}", "wife", f"bo {i}") for i in range(people)]
    facts += [(f"bo {i}", "city", f"city {i % cities}") for i in range(people)]
    lines = (
        json.dumps(dict(zip(("head", "relation", "tail"), x, strict=True)))
        for x in facts
    )
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(lines))
    config = dataclasses.replace(tiny, facts=path, allow_ties=True)
    with pytest.raises(ValueError, match=message):
        protocol.run(config, tmp_path / "out", tmp_path / "cache")
    assert not (tmp_path / "out").exists()
