"""What is asked of a tokenizer, within the limited process that holds it."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, Tokenizer

from jaxlora.strangers import sentencepiece
from jaxlora.strangers.messages import digits
from jaxlora.strangers.text import line

MOST = 50
"""Tokens of a character: it may become 18 others, and each of them four bytes."""

FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
"""Of an added token: how it is looked for."""


def load(path: str, added: Sequence[Mapping[str, Any]] = (), **frame: Any) -> Tokenizer:
    """Reads a tokenizer.json, without padding or truncation, or a tokenizer.model.

    Args:
      path: of the file.
      added: tokens that other files name, each with its content, id (or none) and
        flags; those that it lacks are added.
      **frame: bos, eos and legacy of :func:`.sentencepiece.load`; a tokenizer.json
        says such things itself.

    Raises:
      ValueError: if it is none, or there is a gap before the id of a token.
    """
    try:
        if path.endswith(".model"):
            loaded = sentencepiece.load(path, **frame)
        else:
            loaded = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(line(error)) from None
    _add(loaded, added)
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def _add(tokenizer: Tokenizer, added: Sequence[Mapping[str, Any]]) -> None:
    for token in added:
        content, index = token["content"], token["id"]
        if tokenizer.token_to_id(content) is not None:
            continue
        following = max(tokenizer.get_vocab().values(), default=-1) + 1
        if index is not None and index < following:
            continue  # another token has it, and the vocabulary is right
        if index is not None and index > following:
            raise ValueError(
                f"the token {line(content, 40)!r} should have the id {index}, and "
                f"would have {following}"
            )
        flags = {name: bool(token.get(name)) for name in FLAGS}
        special = bool(token.get("special"))
        tokenizer.add_tokens([AddedToken(content, special=special, **flags)])


def facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns what is asked of every tokenizer: its special ids, size and unknown.

    Args:
      tokenizer: as :func:`load` gives it.
    """
    added = tokenizer.get_added_tokens_decoder()
    unknown = getattr(tokenizer.model, "unk_token", None)
    return {
        "size": max(tokenizer.get_vocab().values(), default=-1) + 1,
        "special": [i for i, token in added.items() if token.special],
        "added": list(added),
        "unk_token": unknown if isinstance(unknown, str) else None,
    }


def encode(tokenizer: Tokenizer, text: str, special: bool) -> tuple[str, str]:
    """Returns ids, and characters [start, stop) of each, both by :func:`.digits`.

    Args:
      tokenizer: as :func:`load` gives it.
      text: to be encoded.
      special: add what stands around a text?

    Raises:
      ValueError: if it cannot, or there are very many tokens.
    """
    encoded = _plain(tokenizer.encode, text, add_special_tokens=special)
    if len(encoded.ids) > MOST * (len(text) + MOST):
        raise ValueError(
            f"it makes {len(encoded.ids)} tokens of {len(text)} characters"
        )
    ends = itertools.chain.from_iterable(encoded.offsets)
    return digits(encoded.ids), digits(ends)


def decode(tokenizer: Tokenizer, rows: Sequence[Sequence[int]], skip: bool) -> list:
    """Returns the text of each row of ids.

    Args:
      tokenizer: as :func:`load` gives it.
      rows: of ids.
      skip: leave special tokens out?
    """
    return [_plain(tokenizer.decode, row, skip_special_tokens=skip) for row in rows]


def _plain(method: Callable[..., Any], *given: Any, **how: Any) -> Any:
    try:
        return method(*given, **how)
    except Exception as error:  # a missing unk, for one, is a plain Exception
        raise ValueError(line(error)) from None


METHODS: Mapping[str, Callable[..., Any]] = {
    "encode": encode,
    "decode": decode,
    "vocab": lambda tokenizer: tokenizer.get_vocab(),
    "id": lambda tokenizer, token: tokenizer.token_to_id(token),
    "token": lambda tokenizer, index: tokenizer.id_to_token(index),
}
"""What can be called, by name."""
