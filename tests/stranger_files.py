"""Files of strangers: good ones with a few mutations, made from a number alone."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import load_file, save_file

DATA = Path(__file__).parent / "data"
NUMBERS = [0, -1, 1, 3, 10**6, 2**31, 2**63, 2**64, 10**13, 10**19, 10**40, 10**400]
NUMBERS += [0.5, 1e38, 1e300, float("nan"), float("inf"), True, False, None, "8"]
DOUBLED = "{% set n = namespace(x=(1,)) %}{% for i in range(60) %}"
DOUBLED += "{% set n.x = (n.x, n.x) %}{% endfor %}"
PATTERNS = ["(?:a){4000000000}", "(?:(?:a{9999}){9999}){9999}", "q_proj{s<=1:[a-z]}"]
PATTERNS += [
    "[[:alpha:]]+_proj",
    "(a+)+$",
    "(.*)*.*.*.*.*!",
    "(?i)[\x00-\U0010ffff]" * 9,
]
PATTERNS += [
    "((((",
    "[a-z&&[^b]]",
    r"(\w+\.?)+!",
    r"\p{L}+",
    "(?e)q",
    "x" * 5000,
    "a)(b",
]
TEXTS = [
    "",
    "\x1b[2J\x1b]0;x\x07",
    "=1+1",
    "\ud800",
    "\u202e",
    "é" * 3000,
    "a\nb",
    "../x",
]
ODD = [*NUMBERS, *PATTERNS, *TEXTS, [], {}, [[]], [1], {"a": 1}, {"": {}}]
SNIPPETS = [
    DOUBLED + "{{ n.x|string }}",
    DOUBLED + "{{ n.x|indent }}",
    DOUBLED + "{{ n }}",
    DOUBLED + "{{ [n.x]|map('string')|list }}",
    DOUBLED + "{{ [n.x]|map('upper')|list }}",
    DOUBLED + "{{ {'a': n.x}|tojson }}",
    "{% for i in range(9999) %}{% set a = range(99999)|sort %}{% endfor %}",
    "{% for i in range(9999) %}{{ range(99999)|list|max }}{% endfor %}",
    "{{ ('a' * 9999999)|replace('a', 'b' * 999) }}",
    "{{ range(10**9)|list }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ raise_exception('\x1b[31m') }}",
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{{ messages[0]['role']|upper }}",
    "{% if messages %}{{ bos_token }}{% endif %}",
    "{{ undefined_name.x }}",
    "{{ messages[9] }}",
    "{{" + "(" * 999,
    "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(99) }}",
    "{{ (1).__class__ }}{{ 9 ** 9 ** 9 }}",
    "{{ 'a'|center(999999999) }}",
    "{% set x = 'ab' * 99999 %}{{ x.split('a')|join(x) }}",
    "{{ messages|map(attribute='content')|unique|sort|join(',') }}",
]


def mutated(value, rng: random.Random, times: int):
    """A JSON value in which some places hold something else."""
    for _ in range(times):
        at = value
        while isinstance(at, dict | list) and len(at):
            keys = list(at) if isinstance(at, dict) else range(len(at))
            key = rng.choice(list(keys))
            if (
                rng.random() < 0.45
                or not isinstance(at[key], dict | list)
                or not at[key]
            ):
                _change(at, key, rng)
                break
            at = at[key]
    return value


def _change(at, key, rng):
    kind = rng.random()
    if kind < 0.1:
        del at[key]
    elif kind < 0.2 and isinstance(at, dict):
        at[rng.choice(PATTERNS)] = at[key]
    else:
        at[key] = rng.choice(ODD)


def text_of(value, rng: random.Random) -> str:
    """JSON, at times damaged."""
    text = json.dumps(value)
    kind = rng.random()
    if kind < 0.04:
        return text[: rng.randrange(len(text))]
    if kind < 0.07:
        return "[" * 100_000
    if kind < 0.1:
        return text[:-1] + f", {text[1:]}" if text[:1] == "{" else text + text
    if kind < 0.13:
        at = rng.randrange(len(text))
        return text[:at] + chr(rng.randrange(1, 300)) + text[at + 1 :]
    return text


def _rewrite(path: Path, rng: random.Random, times: int = 2) -> None:
    if path.is_file():
        value = mutated(json.loads(path.read_text()), rng, rng.randint(1, times))
        path.write_text(text_of(value, rng), errors="surrogatepass")


def _flip(path: Path, rng: random.Random) -> None:
    """Mutates a safetensors header or its length, or cuts the file."""
    whole = bytearray(path.read_bytes())
    size = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(rng.randint(1, 3)):
        whole[rng.randrange(size)] = rng.randrange(256)
    path.write_bytes(whole[: rng.choice([len(whole), len(whole), size, 7])])


def _resaved(path: Path, change: Callable[[dict], dict]) -> None:
    save_file(change(load_file(path)), path, {"format": "pt"})


def spelling(folder: Path, rng: random.Random) -> None:
    """A PEFT adapter whose tensors are named as a random class and wrappers do."""
    name = rng.choice(["plain", "pattern", "rslora"])
    shutil.copytree(DATA / "hf" / "llama" / name, folder)
    outer = rng.choice(CLASSES)
    wrappers = "".join(rng.choices(WRAPPERS, k=rng.randint(0, 3)))
    inside = rng.choice(["", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
    place = rng.choice([".self_attn.", ".mlp.", ".0.", ".weight"])
    before = rng.random() < 0.5

    def key(old: str) -> str:
        rest = old.removeprefix("base_model.model.model.")
        rest = rest.replace(place, f".{inside}{place[1:]}", 1) if inside else rest
        peft = "base_model.model." * rng.choice([1, 1, 2])
        return (
            f"{wrappers}{peft}{outer}{rest}"
            if before
            else (f"{peft}{wrappers}{outer}{rest}")
        )

    rng_state = rng.getstate()

    def renamed(values: dict) -> dict:
        out = {}
        for old, x in values.items():
            rng.setstate(rng_state)  # one spelling in one file
            out[key(old)] = x
        return out

    _resaved(folder / "adapter_model.safetensors", renamed)
    (folder / "source.txt").write_text(name)


CLASSES = ("model.", "", "model.language_model.", "language_model.model.", "llm.model.")
WRAPPERS = ("_orig_mod.", "module.", "_forward_module.", "_fsdp_wrapped_module.")


def _odd_tensors(values: dict, rng: random.Random) -> dict:
    """Tensors that are there twice, under odd names, of odd types, or of a stranger."""
    keys = sorted(values)
    key = rng.choice(keys)
    odd = rng.choice([".alpha", ".lora_magnitude_vector", ".lora_C.weight", ".bias"])
    changes = [
        lambda x: x | {f"_orig_mod.{key}": x[key]},
        lambda x: x | {key.replace("layers", "language_model.layers"): x[key]},
        lambda x: x | {key.rpartition(".lora_")[0] + odd: x[key]},
        lambda x: {k.replace(".lora_A.", ".lora_a."): v for k, v in x.items()},
        lambda x: {k: v.astype("float64") for k, v in x.items()},
        lambda x: x | {key: x[key].astype("int8")},
        lambda x: x | {key: x[key] * float("nan")},
        lambda x: x | {"model.visual.blocks.0.attn.qkv." + key[-13:]: x[key]},
        lambda x: {"x" * rng.randint(1, 300) + "." + k: v for k, v in x.items()},
        lambda x: x | {"x.position_ids": x[key].astype("int64")},
        lambda x: x | {key.replace("weight", "base_layer.weight"): x[key]},
        lambda x: {k: v for k, v in x.items() if k != key},
    ]
    return rng.choice(changes)(values)


def adapter(folder: Path, rng: random.Random) -> None:
    """A PEFT adapter."""
    shutil.copytree(DATA / "hf" / "llama" / rng.choice(["plain", "pattern"]), folder)
    kind = rng.random()
    path = folder / "adapter_model.safetensors"
    if kind < 0.6:
        _rewrite(folder / "adapter_config.json", rng, 3)
    elif kind < 0.8:
        _flip(path, rng)
    else:
        _resaved(path, lambda values: _odd_tensors(values, rng))


def base(folder: Path, rng: random.Random) -> None:
    """A checkpoint of a language model."""
    family = rng.choice(["llama", "qwen2", "qwen3", "gemma2", "gemma3_text"])
    shutil.copytree(DATA / "hf" / family / "base", folder)
    kind, path = rng.random(), folder / "model.safetensors"
    if kind < 0.6:
        _rewrite(folder / "config.json", rng, 2)
    elif kind < 0.75:
        _flip(path, rng)
    elif kind < 0.9:
        _resaved(path, lambda values: _odd_tensors(values, rng))
    else:
        names = rng.sample(
            ["a", "model.safetensors", "model-00001-of-00002.safetensors"], 2
        )
        places = {name: rng.choice(names) for name in load_file(path)}
        text = text_of({"metadata": {}, "weight_map": places}, rng)
        index = folder / "model.safetensors.index.json"
        index.write_text(text, errors="surrogatepass")
        if rng.random() < 0.7:
            path.rename(
                folder / rng.choice([*names, "pytorch_model.bin", "b.safetensors"])
            )


def tokenizer(folder: Path, rng: random.Random) -> None:
    """A tokenizer and its special tokens."""
    shutil.copytree(DATA / "tokenizer" / rng.choice(["plain", "chatml"]), folder)
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    if rng.random() < 0.3:
        raw["normalizer"] = rng.choice(NORMALIZERS)
    if rng.random() < 0.2:
        raw["pre_tokenizer"] = rng.choice(CUTTERS)
    if rng.random() < 0.5:
        raw = mutated(raw, rng, 2)
    path.write_text(text_of(raw, rng), errors="surrogatepass")
    others = ("tokenizer_config", "special_tokens_map", "generation_config", "config")
    _rewrite(folder / f"{rng.choice(others)}.json", rng)


def _replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


NORMALIZERS = [
    {"type": "Sequence", "normalizers": [_replace({"String": "l"}, "l" * 99)] * 9},
    {"type": "Sequence", "normalizers": [_replace({"Regex": "."}, "aa")] * 60},
    _replace({"Regex": "(a+)+$"}, ""),
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Prepend", "prepend": "a" * 10**6},
    {"type": "Lowercase"},
]
CUTTERS = [
    {
        "type": "Split",
        "pattern": {"Regex": regex},
        "behavior": "Isolated",
        "invert": False,
    }
    for regex in ("(a|aa)+$", r"(\w+\s?)+!", "(?:a{9999}){9999}", "[", r"\w+")
]


def template(folder: Path, rng: random.Random) -> None:
    """A chat template."""
    folder.mkdir()
    source = "".join(rng.choices(SNIPPETS, k=rng.randint(1, 3)))
    if rng.random() < 0.3:
        at = rng.randrange(len(source))
        source = (
            source[:at] + rng.choice(["{%", "}}", "'", "\x00", ""]) + source[at + 1 :]
        )
    (folder / "chat_template.jinja").write_text(source)


PREDICTION = {"cell": "R-OI", "library": "2-combination", "method": "mean"}
PREDICTION |= {"claim": "reported", "statement": "x", "condition": {"coverage": 1.0}}
GOOD = {
    "predictions": [PREDICTION],
    "results": {"study": "two-hop", "config": {"seeds": 2, "world": {"people": 9}}},
    "study": {"study": "two-hop", "config": {"seeds": 2, "world": {"people": 9}}},
    "library": {"version": 1, "base": None, "experts": []},
    "tokens": [[1, 2, 3], [4, 5, 6]],
    "rows": {"prompt": "1 + 1", "answer": "2"},
    "block": {"notes": {"a": 1}, "items": {"columns": [], "index": [], "data": []}},
    "index": {"metadata": {}, "weight_map": {"a": "model-1.safetensors"}},
}


def data(folder: Path, rng: random.Random) -> None:
    """Any JSON that we read: the name of the file says which."""
    folder.mkdir()
    name = rng.choice(list(GOOD))
    value = mutated([json.loads(json.dumps(GOOD[name]))], rng, rng.randint(0, 3))
    text = text_of(value[0] if value else None, rng)
    (folder / f"{name}.json").write_text(text, errors="surrogatepass")


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "adapter": adapter,
    "spelling": spelling,
    "base": base,
    "tokenizer": tokenizer,
    "template": template,
    "data": data,
}
"""By name, what writes a folder."""
