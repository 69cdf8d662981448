"""Malformed adapters: each is read as what it says, or refused in one clear sentence.

Every case is a valid tiny adapter with one to three mutations: bytes, lengths, fields,
tensors, names, files. A case is made from its number alone, so that a failure is run
again by that number.
"""

import json
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from jaxlora.io import collection, peft

CASES, MORE = 600, 5000
MEMORY = 2**24

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ODD = [None, True, False, 0, -1, 1, 3, 2**31, 2**63, 2**64, 10**30, 1.5, 1e38, 1e300]
ODD += [
    float("nan"),
    float("inf"),
    "",
    "LORA",
    "8",
    "..",
    "/etc/passwd",
    "../x",
    "\x00",
]
ODD += [
    "(a+)+$",
    "(((",
    ".*" * 50,
    "[",
    "é",
    "\ud800",
    "x" * 3000,
    [],
    [[]],
    [1],
    ["q"],
]
ODD += [
    ["q", None],
    {},
    {"q": 0},
    {"q": 2},
    {"(a|a)*b": 3},
    {".*": 10**9},
    {"": {}},
    [{}],
]
SIZES = [0, 1, 2, 3, 5, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, -1, 1.0, True]
SIZES += [None, "4", [4]]
LENGTHS = [0, 1, 7, 2**23, 2**24, 2**31, 4 * 2**30, 2**63, 2**64 - 1]
FIELDS = ["r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "bias"]
FIELDS += [
    "use_rslora",
    "peft_type",
    "layers_to_transform",
    "layers_pattern",
    "use_dora",
]
FIELDS += [
    "exclude_modules",
    "base_model_name_or_path",
    "init_lora_weights",
    "revision",
]
NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "/etc",
    "a\nb",
    "\x00",
    "é",
    "q",
    "lora_A.weight",
    "x" * 1500,
]
NAMES += ["__metadata__", "base_model.model.lora_A.weight", "layers.0.q.lora_C.weight"]
NAMES += [
    "layers.0.q.lora_A.bias",
    "layers.0.q.lora_magnitude_vector",
    "lm_head.weight",
]
NAMES += ["layers.0.q.base_layer.weight", "layers.1.q.lora_B.other.weight"]


class Made:
    """An adapter that is not written yet: config, header and data."""

    def __init__(self, rng):
        self.rng = rng
        self.config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}
        self.config |= {"target_modules": ["q", "wte"], "rank_pattern": {}}
        self.header, self.length, self.raw = {}, None, None
        self.data = b""
        for path in ("layers.0.q", "layers.1.q"):
            self.add(f"base_model.model.{path}.lora_A.weight", (2, 3))
            self.add(f"base_model.model.{path}.lora_B.weight", (4, 2))
        self.add("base_model.model.wte.lora_embedding_A", (2, 5))
        self.add("base_model.model.wte.lora_embedding_B", (3, 2))
        self.tail, self.files = b"", {}

    def add(self, name, shape):
        values = self.rng.standard_normal(shape).astype(np.float32).tobytes()
        start = len(self.data)
        self.data += values
        offsets = [start, start + len(values)]
        self.header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}

    def pick(self, options):
        return options[self.rng.integers(len(options))]

    def bytes(self):
        text = self.raw or json.dumps(self.header).encode("utf-8", "surrogatepass")
        length = len(text) if self.length is None else self.length
        return struct.pack("<Q", length) + text + self.data + self.tail

    def write(self, folder):
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(self.bytes())
        (folder / CONFIG).write_text(json.dumps(self.config))
        for name, data in self.files.items():
            if data is None:
                (folder / name).unlink(missing_ok=True)
            else:
                (folder / name).write_bytes(data)


def field(made):
    made.config[made.pick(FIELDS)] = made.pick(ODD)


def no_field(made):
    made.config.pop(made.pick(list(made.config)), None)


def config_bytes(made):
    text = bytearray(json.dumps(made.config).encode())
    text[made.rng.integers(len(text))] = made.rng.integers(256)
    made.files[CONFIG] = bytes(text)


def config_text(made):
    text = json.dumps(made.config).encode()
    number = made.pick([b"1e400", b"NaN", b"-0", b"9" * 5000, b"1e-400", b"[" * 2000])
    odd = [b"", b"null", b"[]", b"{" * 5000, b"\xff\xfe", text + text, text[:-1]]
    odd += [text.replace(b": 4", b": " + number), text.replace(b"}", b', "r": 2}')]
    made.files[CONFIG] = made.pick(odd)


def length(made):
    made.length = made.pick([*LENGTHS, int(made.rng.integers(2000))])


def header_byte(made):
    text = bytearray(made.raw or json.dumps(made.header).encode("utf-8", "replace"))
    text[made.rng.integers(len(text))] = made.rng.integers(256)
    made.raw = bytes(text)


def header_text(made):
    text = json.dumps(made.header).encode("utf-8", "replace")
    twice = b"{" + text[1:-1] + b", " + text[1:]
    odd = [b"", b"[]", b"null", b"[" * 50_000, b"{}", twice, text + b"x", text[:-9]]
    made.raw = made.pick([*odd, text.replace(b"q", b"\xff"), text + b" " * 9])


def tensor(made):
    return made.header[made.pick(list(made.header))]


def shape(made):
    sizes = [made.pick(SIZES) for _ in range(made.rng.integers(4))]
    tensor(made)["shape"] = made.pick([sizes, made.pick(ODD), [1] * 99])


def one_size(made):
    found = list(tensor(made)["shape"])
    found[made.rng.integers(2)] = made.pick(SIZES)
    tensor(made)["shape"] = found


def turned(made):
    entry = tensor(made)
    entry["shape"] = list(entry["shape"])[::-1]


def offsets(made):
    entry = tensor(made)
    start, end = entry["data_offsets"]
    moved = [[start + 4, end + 4], [0, end], [end, start], [start, 2**63], [start]]
    moved += [[start, end + 4], [-4, 4], [0, 0], made.pick(ODD), [made.pick(SIZES)] * 2]
    entry["data_offsets"] = made.pick(moved)


def dtype(made):
    kinds = [
        "F16",
        "BF16",
        "I8",
        "F64",
        "F8_E4M3",
        "I32",
        "f32",
        "",
        "BOOL",
        "U64",
        "C64",
    ]
    tensor(made)["dtype"] = made.pick([*kinds, *ODD])


def half(made):
    """A type of the right size: the numbers are nonsense, but may be finite."""
    entry = tensor(made)
    entry["dtype"] = made.pick(["F16", "BF16"])
    entry["shape"] = [entry["shape"][0], entry["shape"][1] * 2]


def entry(made):
    made.header[made.pick(list(made.header))] = made.pick(ODD)


def metadata(made):
    made.header["__metadata__"] = made.pick([{"a": "b"}, {"a": 1}, *ODD])


def rename(made):
    old = made.pick(list(made.header))
    parts = old.split(".")
    parts[made.rng.integers(len(parts))] = made.pick(
        ["", "lora_A", "lora_B", "q", "x", "7"]
    )
    made.header[made.pick([*NAMES, ".".join(parts)])] = made.header.pop(old)


def drop(made):
    del made.header[made.pick(list(made.header))]


def again(made):
    made.header[made.pick(NAMES)] = dict(tensor(made))


def extra(made):
    made.add(made.pick(NAMES), (2, 3))


def values(made):
    data = bytearray(made.data)
    at = 4 * made.rng.integers(len(data) // 4)
    odd = [np.nan, np.inf, -np.inf, 3e38, 1e-45, 0.0]
    data[at : at + 4] = np.float32(made.pick(odd)).tobytes()
    made.data = bytes(data)


def cut(made):
    made.data = made.data[: made.rng.integers(len(made.data))]


def longer(made):
    made.tail = bytes(int(made.rng.integers(1, 99)))


def whole_file(made):
    found = made.bytes()
    at = made.rng.integers(len(found))
    odd = [b"", found[:at], b"\x80\x04.", b"PK\x03\x04", found[at:], found[::-1]]
    odd += [
        b"version https://git-lfs.github.com/spec/v1\n",
        found + found,
        b"\xff" * 64,
    ]
    made.files[WEIGHTS] = made.pick(odd)


def missing(made):
    made.files[made.pick([WEIGHTS, CONFIG])] = None
    made.files["adapter_model.bin"] = b"\x80\x04."


def none(made):
    """No mutation."""


MUTATIONS = (field, field, no_field, config_bytes, config_text, length, header_byte)
MUTATIONS += (header_text, shape, one_size, turned, offsets, dtype, half, entry, rename)
MUTATIONS += (
    metadata,
    drop,
    again,
    extra,
    values,
    cut,
    longer,
    whole_file,
    missing,
    none,
)


def make(case, folder):
    rng = np.random.default_rng(case)
    made = Made(rng)
    chosen = [MUTATIONS[case % len(MUTATIONS)]]
    chosen += [made.pick(MUTATIONS) for _ in range(rng.choice(3, p=[0.7, 0.2, 0.1]))]
    for mutation in chosen:
        try:
            mutation(made)
        except (TypeError, IndexError, ValueError, KeyError, AttributeError):
            continue  # an earlier mutation left nothing to mutate
    made.write(folder)
    return [mutation.__name__ for mutation in chosen]


def consistent(folder, adapter):
    """What was read is what the config says, by reading it in the plainest way."""
    raw = json.loads((folder / CONFIG).read_text())
    assert raw["peft_type"] == "LORA"
    ranks, alphas = (raw.get(f"{x}_pattern") or {} for x in ("rank", "alpha"))
    for path, module in adapter.modules.items():
        assert module.a.shape[0] == module.b.shape[1] > 0
        for x in (module.a, module.b):
            assert np.isfinite(x.astype(np.float32)).all()
        rank, alpha = (
            next(
                (v for k, v in given.items() if re.match(rf"(.*\.)?({k})$", path)), own
            )
            for given, own in (
                (ranks, raw.get("r", 8)),
                (alphas, raw.get("lora_alpha", 8)),
            )
        )
        assert module.a.shape[0] == rank
        expected = alpha / (rank**0.5 if raw.get("use_rslora") else rank)
        assert module.scale == pytest.approx(expected)
        assert abs(module.scale) < 1e39
    with safe_open(folder / WEIGHTS, framework="numpy") as file:  # no laxer than it
        assert len(list(file.keys())) >= 2 * len(adapter.modules)


def check(case, folder):
    """Returns whether the adapter was read."""
    mutations = make(case, folder)
    before = {path.name: path.stat().st_size for path in folder.iterdir()}
    where = f"case {case}: {mutations}"
    tracemalloc.reset_peak()
    try:
        adapter = peft.read(folder)
        read = collection.read([folder]) if case % 20 == 0 else None
    except ValueError as error:
        refused(str(error), folder, where)
        adapter = read = None
    assert tracemalloc.get_traced_memory()[1] < MEMORY, where
    after = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert after == before, where
    if adapter is None:
        return False
    consistent(folder, adapter)
    if read is not None:
        paths = {path for paths in read.modules.values() for path in paths}
        assert paths == adapter.modules.keys(), where
    return True


def refused(message, folder, where):
    assert str(folder) in message, (where, message)
    assert message.isprintable(), (where, message)
    assert message.endswith("."), (where, message)
    assert len(message.replace(str(folder), "")) < 3000, (where, message)


def run(cases, folder: Path):
    tracemalloc.start()
    try:
        return sum(check(case, folder / str(case)) for case in cases)
    finally:
        tracemalloc.stop()


def test_malformed_adapters_are_refused_in_a_sentence(tmp_path):
    read = run(range(CASES), tmp_path)
    assert 0.05 * CASES < read < 0.5 * CASES  # most are refused, and some are not


@pytest.mark.slow
def test_more_malformed_adapters(tmp_path):
    read = run(range(CASES, CASES + MORE), tmp_path)
    assert 0.05 * MORE < read < 0.5 * MORE
