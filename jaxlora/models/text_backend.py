"""A tokenizer.json of a stranger, held by a process with little memory and time.

The library that reads it can be made to panic, to take any memory (a chain of
replacements that each double a text) or never to end (a pattern that backtracks), so
each text is encoded within limits. What harmed once is not run again.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxlora.strangers.child import MEMORY, Child, LimitError
from jaxlora.strangers.messages import undigits

MAIN, MODEL = "tokenizer.json", "tokenizer.model"
SECONDS = 1.5
"""Processor time of one request, which takes less than a millisecond."""
CHARACTERS = 100_000
"""Characters or ids of a text that add another second."""
BYTES = 2**27
"""The largest file; Gemma's has 33 MB."""
LARGEST = 2**24
"""Of token ids."""


class Encoded(NamedTuple):
    """A text as tokens."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """Characters [start, stop) of each."""


class Backend(Protocol):
    """What a tokenizer asks; of the library's ``tokenizers.Tokenizer`` as well."""

    def encode(self, sequence: str, *, add_special_tokens: bool) -> Any:
        """Returns ``ids`` and ``offsets``."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Returns a text."""

    def decode_batch(
        self, sequences: Sequence[list[int]], *, skip_special_tokens: bool
    ) -> list[str]:
        """Returns texts."""

    def get_vocab(self) -> Mapping[str, int]:
        """Returns the id of each token."""

    def id_to_token(self, id: int) -> str | None:
        """Returns a token."""


class Limited:
    """A :class:`Backend` in a limited process.

    Args:
      path: of a tokenizer.json, or of SentencePiece's tokenizer.model.
      added: tokens that other files name, as of :func:`.tokens.load`.
      **frame: of a tokenizer.model only, as of :func:`.sentencepiece.load`: bos and
        eos to be put around a text, and legacy.

    Raises:
      ValueError: if it is none, or takes more than it may.
    """

    def __init__(
        self, path: Path, added: Sequence[Mapping[str, Any]] = (), **frame: Any
    ):
        size = path.stat().st_size
        if size > BYTES:
            raise ValueError(f"{path} has {size} bytes, expected at most {BYTES}.")
        self._path, self._harm = path, ""
        model = path.suffix == ".model"  # whose merges are made here
        self._child = Child(MEMORY + (200 if model else 12) * size)
        seconds = 1 + size / 2 ** (18 if model else 22)
        where = {"path": str(path.resolve())}
        rest = {"added": list(map(dict, added)), **frame}
        facts = self._ask("load", seconds, **where, **rest)
        self.named: dict[str, str] = facts["named"]
        self.vocab_size: int = facts["size"]
        self.special_ids = frozenset(facts["special"])
        self.added_ids = frozenset(facts["added"])
        self.unk_token: str | None = facts["unk_token"]
        if not 0 < self.vocab_size <= LARGEST:
            raise ValueError(
                f"{path} has token ids up to {self.vocab_size - 1}, expected from one "
                f"token on, and ids below {LARGEST}; it is damaged."
            )

    def encode(self, sequence: str, *, add_special_tokens: bool) -> Encoded:
        """Returns ids, and the characters that each stands for."""
        ids, offsets = self._call("encode", [sequence, add_special_tokens])
        tokens, ends = list(undigits(ids)), undigits(offsets)
        # What is put around a text has ids of its own, which may be no token's.
        if (last := max(tokens, default=0)) >= self.vocab_size:
            raise ValueError(
                f"{self._path} puts the id {last} around a text, expected ids below "
                f"{self.vocab_size}, of its tokens; is it as published?"
            )
        return Encoded(tokens, list(zip(ends[::2], ends[1::2], strict=True)))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Returns the text of ids."""
        return self._call("decode", [[list(ids)], skip_special_tokens])[0]

    def decode_batch(
        self, sequences: Sequence[list[int]], *, skip_special_tokens: bool
    ) -> list[str]:
        """Returns the text of each row of ids."""
        return self._call("decode", [sequences, skip_special_tokens])

    def get_vocab(self) -> Mapping[str, int]:
        """Returns the id of each token, those that were added included."""
        return self._vocab

    @functools.cached_property
    def _vocab(self) -> dict[str, int]:
        return self._call("vocab", [])

    @functools.cached_property
    def _tokens(self) -> dict[int, str | None]:
        return {}

    def id_to_token(self, id: int) -> str | None:
        """Returns the token of an id."""
        if not 0 <= id < 2**31:
            return None
        if id not in self._tokens:
            self._tokens[id] = self._call("token", [id])
        return self._tokens[id]

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a token."""
        return self._call("id", [token])

    def _call(self, method: str, arguments: list[Any]) -> Any:
        first = arguments[0] if arguments else None
        size = len(first) if isinstance(first, str) else self.vocab_size
        if method == "decode":
            size = sum(map(len, arguments[0]))
        seconds = SECONDS + size / CHARACTERS
        return self._ask("call", seconds, method=method, arguments=arguments)

    def _ask(self, operation: str, seconds: float, **arguments: Any) -> Any:
        if self._harm:
            raise ValueError(self._harm)
        try:
            return self._child.ask(operation, seconds, **arguments)
        except LimitError as error:
            self._harm = f"{self._path} is refused: {error}; is it as published?"
            raise ValueError(self._harm) from None
        except ValueError as error:
            if operation == "load":
                raise ValueError(
                    f"{self._path} is no tokenizer ({error}); expected the file as "
                    f"published, with the files that lay beside it."
                ) from None
            raise ValueError(
                f"{self._path} cannot be used on this text ({error}); is it as "
                f"published?"
            ) from None


def unknown(backend: Any) -> str | None:
    """Returns the token that stands for text without a token, if there is one.

    Args:
      backend: of a tokenizer.
    """
    if isinstance(backend, Limited):
        return backend.unk_token
    return getattr(backend.model, "unk_token", None)
