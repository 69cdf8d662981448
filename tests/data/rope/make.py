"""Writes rotary frequencies as transformers computes them; needs it and torch."""

import json
import pathlib

import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

TRAINED = {"original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, **TRAINED}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [1.0 + 0.9 * i for i in range(8)],
}
CASES = [
    {"rope_type": "linear", "factor": 3.0},
    YARN,
    YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
    YARN | {"mscale": 0.7, "mscale_all_dim": 0.5},
    YARN | {"attention_factor": 1.25},
    {"rope_type": "dynamic", "factor": 2.0},
    LONG | {"factor": 4.0, **TRAINED},
    LONG | {"attention_factor": 0.9, **TRAINED},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        **TRAINED,
    },
]
LENGTHS = [16, 128, 129, 500]


def case(scaling: dict) -> dict:
    """Frequencies of one rule, for each length."""
    raw = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "rope_theta": 500.0,
        "rope_scaling": scaling,
    }
    fields = {key: value for key, value in raw.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(
        "llama", **json.loads(json.dumps(fields))
    )
    rule = ROPE_INIT_FUNCTIONS[scaling["rope_type"]]
    by_length = {}
    for length in LENGTHS:
        values, factor = rule(config, "cpu", seq_len=length)
        by_length[length] = values.to(torch.float64).tolist()
    return {"config": raw, "attention_factor": factor, "frequencies": by_length}


if __name__ == "__main__":
    out = pathlib.Path(__file__).with_name("reference.json")
    cases = [case(scaling) for scaling in CASES]
    out.write_text(json.dumps(cases, indent=1) + "\n")
