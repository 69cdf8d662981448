"""Writes tiny checkpoints in 4 and 8 bits; needs torch and bitsandbytes, on a CPU.

The base is that of ``tests/data/families/mistral_plain``. What bitsandbytes makes of
the packed weights again is stored beside them.
"""

import json
import pathlib
import shutil

import bitsandbytes.functional as bits
import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
BASE = HERE.parent / "families" / "mistral_plain" / "base"
FOUR = {"load_in_4bit": True, "quant_method": "bitsandbytes"}
KINDS = {
    "nf4_double": FOUR | {"bnb_4bit_quant_type": "nf4"},
    "fp4": FOUR | {"bnb_4bit_quant_type": "fp4"},
    "int8": {"load_in_8bit": True, "quant_method": "bitsandbytes"},
}


def of_four(name, weight, kind):
    """Packed tensors of a linear layer, and what they stand for."""
    packed, state = bits.quantize_4bit(
        weight.bfloat16(),
        quant_type=kind[:3],
        compress_statistics=kind.endswith("double"),
        blocksize=64,
    )
    beside = {f"{name}.{x}": v for x, v in state.as_dict(packed=True).items()}
    # On a CPU rows shorter than a block get a wrong one's scale in 0.50: rows of 64.
    state.shape = torch.Size((weight.numel() // 64, 64))
    values = bits.dequantize_4bit(packed, state).reshape(weight.shape)
    return {name: packed} | beside, values


def of_eight(name, weight, _):
    """As :func:`of_four`, for int8."""
    rows, most, _ = bits.int8_vectorwise_quant(weight.half())
    module = name.removesuffix(".weight")
    beside = {f"{module}.SCB": most.float()}
    beside[f"{module}.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    return {name: rows} | beside, bits.int8_vectorwise_dequant(rows, most.float())


def main():
    """Writes a folder for each kind."""
    raw = json.loads((BASE / "config.json").read_text())
    for kind, fields in KINDS.items():
        out = HERE / kind
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        stored, stands_for = {}, {}
        for name, weight in load_file(BASE / "model.safetensors").items():
            if not name.endswith("_proj.weight"):
                stored[name] = weight
                continue
            quantise = of_eight if kind == "int8" else of_four
            packed, stands_for[name] = quantise(name, weight, kind)
            stored |= packed
        save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
        save_file(stands_for, out / "expected.safetensors")
        text = json.dumps(raw | {"quantization_config": fields}, indent=1)
        (out / "config.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
