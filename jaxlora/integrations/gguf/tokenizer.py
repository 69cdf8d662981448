"""``tokenizer.json`` from the vocabulary that a GGUF file holds.

Two kinds are read. ``gpt2`` is byte-level BPE: tokens, merges, and the name of what
splits a text beforehand. ``llama`` is a SentencePiece vocabulary with scores: read as
BPE with byte fallback, whose merges follow from the scores, as in transformers.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from jaxlora.integrations.gguf.header import Metadata
from jaxlora.strangers import sentencepiece
from jaxlora.strangers.sentencepiece import SPACE

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPLITS: Mapping[str, str | None] = {
    "gpt-2": None,
    "smollm": None,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
}
"""Patterns that split a text, by ``tokenizer.ggml.pre``; None for GPT-2's."""


def files(metadata: Metadata) -> dict[str, str]:
    """Returns the tokenizer's files by name, as texts.

    Args:
      metadata: of a model.

    Raises:
      ValueError: if the vocabulary is missing, of an unknown kind, or contradicts
        itself.
    """
    tokens = _list(metadata, "tokens", str)
    if len(set(tokens)) != len(tokens):
        raise ValueError("The file's vocabulary holds a token twice; it is damaged.")
    special = _special(metadata, tokens)
    backend = _backend(metadata, tokens, special)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"} | special
    config["clean_up_tokenization_spaces"] = False
    out = {
        "tokenizer.json": backend.to_str(pretty=False),
        "tokenizer_config.json": json.dumps(config, indent=2, sort_keys=True) + "\n",
    }
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        out["chat_template.jinja"] = template
    return out


def _backend(
    metadata: Metadata, tokens: Sequence[str], special: Mapping[str, str]
) -> tokenizers.Tokenizer:
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise ValueError(
            f"The file's tokenizer is of the kind {kind!r:.40}, expected gpt2 (BPE of "
            f"bytes) or llama (SentencePiece); take the model's own checkpoint."
        )
    kinds = _kinds(metadata, len(tokens))
    build = _byte_level if kind == "gpt2" else _sentencepiece
    try:
        backend = build(metadata, tokens, kinds)
    except Exception as error:  # the library raises plain Exception
        if isinstance(error, ValueError):
            raise
        raise ValueError(
            f"The file's vocabulary makes no tokenizer ({str(error)[:200]}); it is "
            f"damaged."
        ) from None
    backend.add_special_tokens(
        [
            _added(t)
            for t, k in zip(tokens, kinds, strict=True)
            if k == sentencepiece.CONTROL
        ]
    )
    backend.add_tokens(
        [
            _added(t)
            for t, k in zip(tokens, kinds, strict=True)
            if k == sentencepiece.USER
        ]
    )
    _frame(backend, metadata, special)
    return backend


def _added(token: str) -> AddedToken:
    return AddedToken(token, normalized=False)


def _byte_level(
    metadata: Metadata, tokens: Sequence[str], kinds: Sequence[int]
) -> tokenizers.Tokenizer:
    name = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if name not in SPLITS:
        raise ValueError(
            f"The file splits texts by the rule {name!r:.40}, expected one of "
            f"{', '.join(SPLITS)}; take the tokenizer.json of the model's own "
            f"checkpoint."
        )
    pairs = [tuple(x.split(" ")) for x in _list(metadata, "merges", str)]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("The file holds a merge that is no pair; it is damaged.")
    model = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=pairs,
        fuse_unk=False,
        byte_fallback=False,
        ignore_merges=SPLITS[name] == _LLAMA3,
    )
    backend = tokenizers.Tokenizer(model)
    if SPLITS[name] == _QWEN2:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(_split(name))
    backend.decoder = decoders.ByteLevel()
    return backend


def _split(name: str) -> list[Any]:
    pattern = SPLITS[name]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if name == "smollm":
        return [pre_tokenizers.Digits(individual_digits=True), bytes_]
    if pattern is None:
        return [bytes_]
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return [split, bytes_]


def _sentencepiece(
    metadata: Metadata, tokens: Sequence[str], kinds: Sequence[int]
) -> tokenizers.Tokenizer:
    scores = _list(metadata, "scores", float)
    if len(scores) != len(tokens):
        raise ValueError(
            f"The file has {len(scores)} scores for {len(tokens)} tokens; it is "
            f"damaged."
        )
    backend = tokenizers.Tokenizer(sentencepiece.bpe(tokens, scores, kinds))
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    steps = [normalizers.Prepend(SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def _frame(
    backend: tokenizers.Tokenizer, metadata: Metadata, special: Mapping[str, str]
) -> None:
    """Puts bos and eos around a text, where the file says so."""
    llama = metadata.get("tokenizer.ggml.model") == "llama"
    ends = (("bos", llama), ("eos", False))
    first, last = (
        special.get(f"{end}_token")
        if metadata.get(f"tokenizer.ggml.add_{end}_token", default)
        else None
        for end, default in ends
    )
    sentencepiece.frame(backend, first, last)


def _special(metadata: Metadata, tokens: Sequence[str]) -> dict[str, str]:
    named = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    out = {}
    for ours, theirs in named.items():
        index = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if index is None:
            continue
        if type(index) is not int or not 0 <= index < len(tokens):
            raise ValueError(
                f"The file's {theirs} token has the id {index!r:.40}, expected one of "
                f"its {len(tokens)} tokens."
            )
        out[f"{ours}_token"] = tokens[index]
    return out


def _kinds(metadata: Metadata, n: int) -> list[int]:
    given = metadata.get("tokenizer.ggml.token_type")
    kinds = [1] * n if given is None else [int(kind) for kind in given]
    if len(kinds) != n:
        raise ValueError(
            f"The file has {len(kinds)} types of tokens for {n} tokens; it is damaged."
        )
    return kinds


def _list(metadata: Metadata, name: str, of: type) -> list[Any]:
    value = metadata.get(f"tokenizer.ggml.{name}")
    items = value if isinstance(value, list) else getattr(value, "tolist", list)()
    if not items or not all(isinstance(item, of) for item in items):
        raise ValueError(
            f"The file has no list of {name} (tokenizer.ggml.{name}), which is "
            f"expected of a model with its vocabulary."
        )
    return items
