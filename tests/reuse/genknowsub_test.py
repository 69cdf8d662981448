"""GenKnowSub as PEFT computes it, and Arrow's prototypes, from the same files."""

import functools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlora import models, reuse, route, tree
from jaxlora.models import adapters, pretrained

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")
SLOW = [pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES[1:]]
HF = Path(__file__).parents[1] / "data" / "hf"
RUN = jax.jit(models.apply, static_argnums=0)


@pytest.fixture(scope="module")
def read():
    @functools.cache
    def one(family):
        folder = HF / family
        model, base = pretrained.load(folder / "base")
        names = ("plain", "plain2", "rslora")
        parts = {name: adapters.load(folder / name, base) for name in names}
        return model, base, parts, json.loads((folder / "reference.json").read_text())

    return one


@pytest.mark.parametrize("family", [FAMILIES[0], *SLOW])
def test_logits_are_those_of_peft(read, family):
    model, base, parts, told = read(family)
    asked = told["arrows"]["arrow_genknowsub"]
    found = reuse.build(
        model,
        base,
        [parts[name] for name in asked["experts"]],
        route="genknowsub[peft]",
        general=[parts[name] for name in asked["general"]],
        top_k=asked["top_k"],
        temperature=asked["temperature"],
    )
    tokens = np.asarray(told["input_ids"], np.int32)
    got = RUN(found.model, base, tokens, **found.arguments())
    stored = load_file(HF / family / "reference.safetensors")
    assert np.abs(got - stored["arrow_genknowsub"]).max() <= 1e-4
    assert np.abs(got - stored["arrow"]).max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_prototypes_are_those_of_peft_up_to_sign(read, family):
    model, base, parts, _ = read(family)
    stored = load_file(HF / family / "arrow_prototypes.safetensors")
    found = reuse.build(model, base, list(parts.values()), route="arrow[peft]")
    seen = 0
    for name, state in tree.flatten(found.gate, route.is_state).items():
        site = name.split("/")[-2]
        for path, want in stored.items():
            layer = re.fullmatch(rf"model\.layers\.(\d+)\..*\.{site}", path)
            if layer:
                got = np.asarray(state.keys)[:, int(layer[1]), :, 0]
                np.testing.assert_allclose(
                    np.abs((got * want).sum(-1)), 1.0, atol=1e-5, err_msg=path
                )
                seen += 1
    assert seen == len(stored)
