"""GGUF files that lie, are cut short, or hold what no decoder of ours has."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

gguf = pytest.importorskip("gguf")
import gguf_files  # noqa: E402
from jaxlora.integrations.gguf import convert, header, rope  # noqa: E402


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return gguf_files.write(tmp_path_factory.mktemp("gguf") / "m.gguf").read_bytes()


def refusal(data, folder):
    """The sentence that a file is refused with, or None if it is read."""
    folder.mkdir(exist_ok=True)
    (folder / "m.gguf").write_bytes(data)
    out = folder / "out"
    try:
        convert.convert(folder / "m.gguf", out)
    except ValueError as error:
        return "left a folder" if out.exists() else str(error)
    for file in out.iterdir():
        file.unlink()
    out.rmdir()
    return None


def changed(tmp_path, family="llama", **fields):
    """A model with fields of its metadata replaced."""

    def change(writer):
        for name, value in fields.items():
            entry = writer.kv_data[0]
            key = next(key for key in entry if key.endswith(name))
            if value is None:
                del entry[key]
            else:
                entry[key].value = value

    return gguf_files.write(tmp_path / "c.gguf", family, change=change)


@pytest.mark.parametrize(
    ("at", "values", "sentence"),
    [
        (0, b"GGML", "begins with"),
        (4, struct.pack("<I", 1), "version is 1"),
        (4, struct.pack(">I", 3), "big-endian"),
        (8, struct.pack("<Q", 2**60), "tensors, expected at most"),
        (16, struct.pack("<Q", 2**63), "keys, expected at most"),
        (24, struct.pack("<Q", 2**50), "says it has"),
        (24, struct.pack("<Q", 2**20), "bytes, where"),
    ],
)
def test_lying_counts(at, values, sentence, sound, tmp_path):
    data = sound[:at] + values + sound[at + len(values) :]
    assert sentence in refusal(data, tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.2, 0.9, 0.999])
def test_a_file_cut_short(share, sound, tmp_path):
    assert "cut short" in refusal(sound[: int(len(sound) * share)], tmp_path)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 2**30), values=st.binary(min_size=1, max_size=9))
def test_mutated_bytes_of_the_header_never_escape(
    place, values, sound, tmp_path_factory
):
    end = sound.index(b"token_embd.weight")
    at = place % end
    data = sound[:at] + values + sound[at + len(values) :]
    refusal(data, tmp_path_factory.mktemp("mutated"))  # a sentence, or read


def test_another_architecture_is_named(tmp_path):
    path = changed(tmp_path, architecture="mamba")
    with pytest.raises(ValueError, match=r"architecture 'mamba'.*supported are llama"):
        convert.convert(path, tmp_path / "out")


def test_another_quantisation_is_named(tmp_path, monkeypatch):
    data = bytearray(gguf_files.write(tmp_path / "m.gguf").read_bytes())
    name = b"blk.0.ffn_down.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8  # its rank, and two sizes
    data[at : at + 4] = struct.pack("<I", gguf.GGMLQuantizationType.IQ2_XXS)
    assert "stored as IQ2_XXS, expected one of F32" in refusal(
        bytes(data), tmp_path / "x"
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"block_count": None}, "lacks llama.block_count"),
        ({"head_count": 3}, "heads"),
        ({"head_count": 0}, "num_attention_heads"),
        ({"ggml.model": "t5"}, "kind 't5'"),
        ({"ggml.pre": "tekken"}, "rule 'tekken', expected one of gpt-2"),
        ({"token_type": [1, 2]}, "types of tokens"),
        ({"merges": ["abc"]}, "no pair"),
        ({"merges": ["q notatoken"]}, "vocabulary makes no tokenizer"),
        ({"eos_token_id": 99_999}, "eos token has the id"),
        ({"rope.freq_base": 5000.0}, "rope_freqs are not those"),
    ],
)
def test_metadata_that_contradicts(fields, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        convert.convert(changed(tmp_path, **fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_that_does_not_match_the_tensors(tmp_path):
    path = changed(tmp_path, **{"ggml.tokens": [f"t{i}" for i in range(300)]})
    with pytest.raises(ValueError, match=r"types of tokens|300 tokens"):
        convert.convert(path, tmp_path / "out")


def test_a_tensor_that_no_decoder_has_is_named(tmp_path):
    def change(writer):
        writer.add_tensor("blk.0.ffn_gate_exps.weight", np.zeros((4, 32), np.float32))

    path = gguf_files.write(tmp_path / "m.gguf", change=change)
    with pytest.raises(ValueError, match=r"ffn_gate_exps.*mixtures"):
        convert.convert(path, tmp_path / "out")


def test_a_tensor_that_lies_outside_of_the_file(tmp_path):
    data = bytearray(gguf_files.write(tmp_path / "m.gguf").read_bytes())
    name = b"blk.0.ffn_down.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8 + 4
    data[at : at + 8] = struct.pack("<Q", 2**40)
    assert "takes the bytes" in refusal(bytes(data), tmp_path / "x")


def test_values_that_are_not_finite(tmp_path):
    def change(writer):
        writer.add_tensor("output.weight", np.full((256, 64), np.nan, np.float32))

    path = gguf_files.write(tmp_path / "m.gguf", "qwen2", change=change)
    with pytest.raises(ValueError, match=r"'output\.weight' holds NaN"):
        convert.convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_rules_of_rope_are_refused():
    with pytest.raises(ValueError, match="not those of Llama 3's rule"):
        rope.llama3(np.asarray([1.0, 2.0, 3.0, 9.0]), 10_000.0, 8)
    with pytest.raises(ValueError, match="shape"):
        rope.llama3(np.asarray([1.0, 2.0]), 10_000.0, 8)


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        header.read(tmp_path / "absent.gguf")
