"""Merges that PEFT made, loaded and ran: ours have the same logits."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlora import lora, merge, models
from jaxlora.models import adapters, pretrained
from jaxlora.reuse import libraries

FAMILY = Path(__file__).parents[1] / "data" / "hf" / "llama"
REFERENCE = json.loads((FAMILY / "reference.json").read_text())
LOGITS = load_file(FAMILY / "reference.safetensors")
run = jax.jit(models.apply, static_argnums=0)


@pytest.fixture(scope="module")
def loaded():
    model, base = pretrained.load(FAMILY / "base")
    return model, base, jnp.asarray(REFERENCE["input_ids"])


@pytest.mark.parametrize("name", REFERENCE["merges"])
def test_merged_logits(name, loaded):
    model, base, tokens = loaded
    stored = REFERENCE["merges"][name]
    fields = {"density": stored["density"]} if "density" in stored else {}
    if stored.get("majority_sign_method") == "frequency":
        fields["by"] = "frequency"
    method = merge.preset(f"{stored['combination_type']}[peft]", **fields)
    parts = [adapters.load(FAMILY / a, base) for a in stored["adapters"]]
    library = lora.stack(libraries.same_sites(parts))
    merge_it = jax.jit(method, static_argnames="rank")
    weights = jnp.asarray(stored["weights"])
    merged = merge_it(library, weights, rank=stored.get("svd_rank"))
    if name == "linear_rslora_first":
        # PEFT's result inherits use_rslora from its first adapter, and is scaled again.
        merged = lora.lora_map(lambda w: w.replace(scale=w.scale * 8**0.5), merged)
    got = run(model, base, tokens, adapter=merged)
    want = LOGITS[name]
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.abs(want - LOGITS["base"]).max() > 1e-2
