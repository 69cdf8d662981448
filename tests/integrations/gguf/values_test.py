"""Dequantised values against references written from ggml's description of blocks."""

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from jaxlora.integrations.gguf import values  # noqa: E402
from jaxlora.integrations.gguf.header import Block  # noqa: E402

Kind = gguf.GGMLQuantizationType


def half(block, at):
    return float(block[at : at + 2].view(np.float16)[0])


def scales_of_k(block):
    """Eight scales and eight minima of 6 bits, in 12 bytes."""
    scales, minima = [], []
    for j in range(8):
        if j < 4:
            scales.append(block[j] & 63)
            minima.append(block[j + 4] & 63)
        else:
            scales.append((block[j + 4] & 15) | (block[j - 4] >> 6) << 4)
            minima.append((block[j + 4] >> 4) | (block[j] >> 6) << 4)
    return scales, minima


def q4_k(block):
    d, low = half(block, 0), half(block, 2)
    scales, minima = scales_of_k([int(b) for b in block[4:16]])
    out, nibbles = [], block[16:]
    for j in range(8):
        part = nibbles[j // 2 * 32 : j // 2 * 32 + 32]
        quants = part >> 4 if j % 2 else part & 15
        out += [d * scales[j] * int(q) - low * minima[j] for q in quants]
    return out


def q5_k(block):
    d, low = half(block, 0), half(block, 2)
    scales, minima = scales_of_k([int(b) for b in block[4:16]])
    high, nibbles, out = block[16:48], block[48:], []
    for j in range(8):
        part = nibbles[j // 2 * 32 : j // 2 * 32 + 32]
        quants = part >> 4 if j % 2 else part & 15
        bits = high >> j & 1
        out += [
            d * scales[j] * (int(q) + 16 * int(bit)) - low * minima[j]
            for q, bit in zip(quants, bits, strict=True)
        ]
    return out


def q6_k(block):
    low, high = block[:128], block[128:192]
    scales, d = block[192:208].view(np.int8), half(block, 208)
    out = np.zeros(256)
    for part in range(2):
        ql, qh = low[64 * part :][:64], high[32 * part :][:32]
        for i in range(32):
            quants = (
                (ql[i] & 15) | (qh[i] & 3) << 4,
                (ql[i + 32] & 15) | (qh[i] >> 2 & 3) << 4,
                (ql[i] >> 4) | (qh[i] >> 4 & 3) << 4,
                (ql[i + 32] >> 4) | (qh[i] >> 6 & 3) << 4,
            )
            for row, q in enumerate(quants):
                scale = int(scales[8 * part + 2 * row + i // 16])
                out[128 * part + 32 * row + i] = d * scale * (int(q) - 32)
    return out


@pytest.mark.parametrize(
    ("kind", "reference", "size", "halves"),
    [
        (Kind.Q4_K, q4_k, 144, (0, 2)),
        (Kind.Q5_K, q5_k, 176, (0, 2)),
        (Kind.Q6_K, q6_k, 210, (208,)),
    ],
)
def test_k_quants(kind, reference, size, halves, tmp_path):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (6, size), dtype=np.uint8)
    for at in halves:
        blocks[:, at : at + 2] = (
            rng.normal(size=(6, 1)).astype(np.float16).view(np.uint8)
        )
    path = tmp_path / "values"
    path.write_bytes(b"before" + blocks.tobytes())
    model = values.Model({}, {"x": Block((3, 512), kind.value, 6)}, {"x": path})
    expected = np.asarray([reference(block) for block in blocks]).reshape(3, 512)
    np.testing.assert_allclose(model.read("x"), expected, rtol=1e-5, atol=1e-5)
