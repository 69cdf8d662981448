"""``tokenizer.model`` of SentencePiece as a tokenizer of Hugging Face's library.

The file is a message of Google's protobuf: pieces with scores and types, how a text is
normalized, and which of two models it is. BPE merges follow from the scores, the best
first. For the limited process alone: merges of a large vocabulary take memory.

https://github.com/google/sentencepiece (src/sentencepiece_model.proto)
"""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

SPACE = "▁"
NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6
"""Types of pieces."""
_BPE = 2
_FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Piece": {"piece": (1, "string"), "score": (2, "float"), "type": (3, "int32")},
    "Trainer": {
        "model_type": (3, "int32"),
        "byte_fallback": (35, "bool"),
        "unk_id": (40, "int32"),
        "bos_id": (41, "int32"),
        "eos_id": (42, "int32"),
        "pad_id": (43, "int32"),
    },
    "Normalizer": {
        "precompiled_charsmap": (2, "bytes"),
        "add_dummy_prefix": (3, "bool"),
        "remove_extra_whitespaces": (4, "bool"),
        "escape_whitespaces": (5, "bool"),
    },
}
_IDS = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
"""Of special pieces, where the file does not say; -1 is none."""


def load(
    path: str, bos: bool | None = None, eos: bool = False, legacy: bool = True
) -> tokenizers.Tokenizer:
    """Reads a model.

    Args:
      path: of the file.
      bos: put the bos before a text? None does so if there is one.
      eos: put the eos after it?
      legacy: does a space also go before what follows a special token, as the first
        Llama tokenizers of Hugging Face had it?

    Raises:
      ValueError: if it is no model of BPE or unigrams, or contradicts itself.
    """
    model = _parsed(Path(path).read_bytes())
    pieces = [
        (piece.piece, piece.score, piece.type or NORMAL) for piece in model.pieces
    ]
    tokens = [token for token, _, _ in pieces]
    if not tokens or len(set(tokens)) != len(tokens):
        raise ValueError("its pieces are none, or hold one twice")
    backend = tokenizers.Tokenizer(_model(model, pieces))
    _normalize(backend, model.normalizer_spec, legacy)
    special = [t for t, _, kind in pieces if kind in (CONTROL, UNKNOWN)]
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in special])
    defined = [t for t, _, kind in pieces if kind == USER]
    backend.add_tokens([AddedToken(t, normalized=False) for t in defined])
    ends = named(model, tokens)
    first = ends.get("bos_token") if bos in (None, True) else None
    frame(backend, first, ends.get("eos_token") if eos else None)
    return backend


def special(path: str) -> dict[str, str]:
    """Returns the special tokens that a model names: bos_token and so on.

    Args:
      path: of the file.
    """
    model = _parsed(Path(path).read_bytes())
    return named(model, [piece.piece for piece in model.pieces])


def named(model: Any, tokens: Sequence[str]) -> dict[str, str]:
    """Special tokens by the names that Hugging Face has for them."""
    spec = model.trainer_spec
    ids = {x: getattr(spec, x) if spec.HasField(x) else i for x, i in _IDS.items()}
    return {
        f"{name.removesuffix('_id')}_token": tokens[i]
        for name, i in ids.items()
        if 0 <= i < len(tokens)
    }


def bpe(
    tokens: Sequence[str],
    scores: Sequence[float],
    kinds: Sequence[int],
    *,
    byte_fallback: bool = True,
) -> models.BPE:
    """Returns the BPE of a vocabulary with scores.

    Args:
      tokens: pieces.
      scores: of each.
      kinds: type of each.
      byte_fallback: are characters without a piece written as bytes?
    """
    unknown = [t for t, k in zip(tokens, kinds, strict=True) if k == UNKNOWN]
    return models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=merges(tokens, scores, kinds),
        unk_token=unknown[0] if unknown else None,
        fuse_unk=True,
        byte_fallback=byte_fallback,
    )


def merges(
    tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """Every split of a token into two others; the best-scored token is merged first.

    Args:
      tokens: pieces.
      scores: of each.
      kinds: type of each.
    """
    plain = {
        token: i
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind not in (CONTROL, BYTE, UNKNOWN)
    }
    out = []
    for token, i in plain.items():
        splits = ((token[:at], token[at:]) for at in range(1, len(token)))
        pairs = [pair for pair in splits if pair[0] in plain and pair[1] in plain]
        pairs.sort(key=lambda pair: (plain[pair[0]], plain[pair[1]]))
        out += [(-scores[i], pair) for pair in pairs]
    out.sort(key=lambda scored: scored[0])  # stable: of one token, in that order
    return [pair for _, pair in out]


def frame(backend: tokenizers.Tokenizer, first: str | None, last: str | None) -> None:
    """Puts tokens around a text.

    Args:
      backend: a tokenizer.
      first: before it, or None.
      last: after it, or None.
    """
    if first is None and last is None:
        return
    words = [*([first] if first else []), "$A", *([last] if last else [])]
    ids = {t: backend.token_to_id(t) for t in (first, last) if t is not None}
    backend.post_processor = processors.TemplateProcessing(
        single=words,
        pair=[*words, *(f"{w}:1" if w != "$A" else "$B:1" for w in words)],
        special_tokens=list(ids.items()),
    )


def _model(model: Any, pieces: Sequence[tuple[str, float, int]]) -> Any:
    fallback = model.trainer_spec.byte_fallback
    kind = model.trainer_spec.model_type or 1
    if kind == _BPE:
        tokens, scores, kinds = zip(*pieces, strict=True)
        return bpe(tokens, scores, kinds, byte_fallback=fallback)
    if kind == 1:
        unknown = model.trainer_spec.unk_id
        vocab = [(token, score) for token, score, _ in pieces]
        return models.Unigram(vocab, unk_id=unknown, byte_fallback=fallback)
    raise ValueError(f"its model is of type {kind}, expected unigrams (1) or BPE (2)")


def _normalize(backend: tokenizers.Tokenizer, spec: Any, legacy: bool) -> None:
    """What is done to a text before, and undone after."""
    prefix = not spec.HasField("add_dummy_prefix") or spec.add_dummy_prefix
    narrow = not spec.HasField("remove_extra_whitespaces")
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if narrow or spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if prefix and not legacy:
        first = {"prepend_scheme": "first", "split": False}
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, **first)
    else:
        steps.append(normalizers.Replace(" ", SPACE))
    if prefix and legacy:
        steps.append(normalizers.Prepend(SPACE))
    backend.normalizer = normalizers.Sequence(steps)
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    undo = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*undo, *strip])


def _parsed(content: bytes) -> Any:
    from google.protobuf.message import DecodeError

    if re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", content):
        raise ValueError(
            "it is a list of ranks, as tiktoken has it, and none of SentencePiece; the "
            "tokenizer.json of the model is read"
        )
    message = _message()()
    try:
        message.ParseFromString(content)
    except DecodeError:
        raise ValueError("it is no message of SentencePiece") from None
    return message


@functools.cache
def _message() -> Any:
    """The class of a model: of its fields only those that are read here."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model.proto", package="jaxlora.spm")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            described.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_OPTIONAL,
                type=getattr(kinds, f"TYPE_{kind.upper()}"),
            )
    outer = file.message_type.add(name="Model")
    parts = (("pieces", 1, "Piece", kinds.LABEL_REPEATED),)
    parts += (("trainer_spec", 2, "Trainer", kinds.LABEL_OPTIONAL),)
    parts += (("normalizer_spec", 3, "Normalizer", kinds.LABEL_OPTIONAL),)
    for name, number, part, label in parts:
        outer.field.add(
            name=name,
            number=number,
            label=label,
            type=kinds.TYPE_MESSAGE,
            type_name=f".jaxlora.spm.{part}",
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    described = pool.FindMessageTypeByName("jaxlora.spm.Model")
    return message_factory.GetMessageClass(described)
