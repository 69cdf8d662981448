"""Text to token ids and back, with the files that come with a checkpoint.

``tokenizer.json`` is the whole tokenizer (vocabulary, merges, and which special tokens
open a text), or else ``tokenizer.model`` of SentencePiece; the other files name the
special tokens and hold the chat template.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlora.io import tensors
from jaxlora.models import chat, text_files, turn_end
from jaxlora.models.text_backend import Backend
from jaxlora.models.turn_end import Mark


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tokenizer:
    """A vocabulary, its special tokens and its chat template."""

    backend: Backend
    """What ``tokenizer.json`` describes."""
    vocab_size: int
    """Largest token id + 1; a model may have more, unused, rows."""
    bos_id: int | None
    """Opens a text."""
    eos_ids: tuple[int, ...]
    """Any of them ends a text; what ends an answer as well is in ``end_ids``."""
    pad_id: int
    """Fills rows; the eos, or 0, where none is named."""
    special_ids: frozenset[int] = frozenset()
    """Tokens that are marks and not text: ends of turns, images, and so on."""
    special_tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """bos_token and so on: the text of each, as templates ask for it."""
    chat_template: str | None = None
    """Jinja source."""
    tool_template: str | None = None
    """Of conversations with tools, where it is another one."""
    rows: int | None = None
    """V of the model that reads the ids; None if it is not known."""

    @functools.cached_property
    def turn_end(self) -> str:
        """The mark that the chat template puts after an answer; empty without one."""
        return self._mark.text

    @functools.cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: every eos, and the mark of the chat template."""
        return tuple(dict.fromkeys((*self.eos_ids, *self._mark.ids)))

    @functools.cached_property
    def _mark(self) -> Mark:
        return turn_end.mark(self) if self.chat_template else Mark()

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Returns token ids.

        Args:
          text: names of special tokens in it become these tokens.
          special: add what ``tokenizer.json`` puts around a text (a bos, say)? Not
            for rendered chats, which hold it already.

        Raises:
          ValueError: if the text cannot be written as UTF-8, or needs a token for
            which the model has no row.
        """
        return self.encode_spans(text, special)[0]

    def encode_spans(
        self, text: str, special: bool = True
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Returns token ids and, for each, the characters [start, stop) it stands for.

        Those that are added around the text stand for none: start equals stop.
        """
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError(
                f"The text {text[:40]!r} holds half of a surrogate pair, expected text "
                f"that can be written as UTF-8; was it given in another encoding?"
            )
        encoded = self.backend.encode(text, add_special_tokens=special)
        beyond = [i for i in encoded.ids if self.rows is not None and i >= self.rows]
        if beyond:
            token = self.backend.id_to_token(beyond[0])
            raise ValueError(
                f"The text {text[:40]!r} holds {token!r}, token {beyond[0]}, for which "
                f"a model of vocabulary {self.rows} has no row; leave it out, or take "
                f"the tokenizer of this model."
            )
        return encoded.ids, encoded.offsets

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Returns the text of all ids; what follows an eos is the caller's to cut."""
        return self.backend.decode(
            [int(i) for i in ids], skip_special_tokens=skip_special
        )

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the text of each token: what it adds to that of those before it.

        A token that ends inside a character adds what the next one completes.

        Args:
          ids: token ids.
        """
        out, before = [], ""
        for end in range(1, len(ids) + 1):
            now = self.decode(ids[:end], skip_special=False)
            start = before.rstrip("\ufffd")
            alone = self.decode(ids[end - 1 : end], skip_special=False)
            out.append(now[len(start) :] if now.startswith(start) else alone)
            before = now
        return out

    def template(self, tools: Sequence[Mapping[str, Any]] = ()) -> str | None:
        """Returns the chat template of a conversation, if there is one.

        Args:
          tools: what its assistant may call.
        """
        if self.chat_template is None or not tools or self.tool_template is None:
            return self.chat_template
        return self.tool_template

    def render(
        self,
        messages: Sequence[chat.Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Returns a conversation as text, to be encoded with ``special=False``.

        Raises:
          ValueError: if there is no template, or as :func:`.chat.render`.
        """
        asked = [(len(messages), add_generation_prompt)]
        (text,) = self.beginnings(messages, asked, tools)
        if isinstance(text, ValueError):
            raise text
        return text

    def beginnings(
        self,
        messages: Sequence[chat.Message],
        asked: Sequence[tuple[int, bool]],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[str | ValueError]:
        """Renders beginnings of a conversation, or says why not; see :mod:`.chat`.

        Args:
          messages: turns, in order.
          asked: of each rendering, how many turns, and whether the assistant's next
            one is opened.
          tools: what the assistant may call.

        Raises:
          ValueError: if there is no template.
        """
        template = self.template(tools)
        if template is None:
            raise ValueError(
                f"The tokenizer has no chat template ({text_files.CONFIG} or "
                f"chat_template.jinja), expected one for a conversation: take that of "
                f"the instruct model, train on prompt/answer records, or set "
                f"chat_template to chat.PLAIN."
            )
        return chat.beginnings(
            template,
            messages,
            asked,
            special_tokens=self.special_tokens,
            tools=tools,
        )


def load(
    folder: str | pathlib.Path, rest: str | pathlib.Path | None = None
) -> Tokenizer:
    """Reads the tokenizer of a checkpoint folder.

    Special tokens are those of ``tokenizer_config.json``, else of
    ``special_tokens_map.json`` (which comes first if the other lists no added tokens,
    as in older folders), else the ids of ``config.json``; every eos of
    ``generation_config.json`` ends a text too.

    Args:
      folder: of a checkpoint, or of an adapter that brings files of a tokenizer.
      rest: the checkpoint, whose files are read where the folder has none.

    Raises:
      ValueError: if ``tokenizer.json`` is missing or broken, a bos or eos is not in it,
        an id is no number, or there are named chat templates and none is the default.
    """
    folder = pathlib.Path(folder).expanduser()
    files = text_files.Files(folder, None if rest is None else pathlib.Path(rest))
    backend = text_files.backend(files)
    config = files.read(text_files.CONFIG)
    named = {x: y for x, y in files.read("special_tokens_map.json").items() if y}
    last = (named, config) if "added_tokens_decoder" in config else (config, named)
    mapped = {**backend.named, **last[0], **last[1]}
    model, generation = map(files.read, ("config.json", "generation_config.json"))
    ids = text_files.special_ids(folder, backend, mapped)
    plain, tools = text_files.templates(files, config)
    eos = _ids(ids, "eos_token") + _ids(generation, "eos_token_id")
    eos = eos or _ids(model, "eos_token_id")
    bos = _ids(ids, "bos_token")
    if "bos_token" not in mapped:  # null says that there is none
        bos = _ids(model, "bos_token_id")
    pad = _ids(ids, "pad_token") or _ids(model, "pad_token_id") or eos or (0,)
    first = {"bos_token": bos[:1], "eos_token": eos[:1]}
    named = ids | {name: some[0] for name, some in first.items() if some}
    return Tokenizer(
        backend=backend,
        vocab_size=backend.vocab_size,
        bos_id=bos[0] if bos else None,
        eos_ids=tuple(dict.fromkeys(eos)),
        pad_id=pad[0],
        special_ids=backend.special_ids,
        special_tokens={k: backend.id_to_token(i) or "" for k, i in named.items()},
        chat_template=plain,
        tool_template=tools,
    )


def fitted(tokenizer: Tokenizer, vocab_size: int) -> Tokenizer:
    """Returns the tokenizer for a model of ``vocab_size`` V.

    A model may have more rows than there are tokens, and none for tokens that were
    added and that no text has (padding, images, thoughts): only a text that needs such
    a token is refused.

    Raises:
      ValueError: if a token of the vocabulary itself has no row, or no end token has
        one, or none of them is in the vocabulary.
    """
    backend = tokenizer.backend
    added = getattr(backend, "added_ids", tokenizer.special_ids)
    vocab = backend.get_vocab()
    beyond = {i: t for t, i in vocab.items() if i >= vocab_size and i not in added}
    ends = tokenizer.eos_ids
    if ends and min(ends) >= vocab_size:
        beyond |= {i: backend.id_to_token(i) or "" for i in ends}
    if beyond:
        worst = max(beyond)
        raise ValueError(
            f"{len(beyond)} tokens have no row in a model of vocabulary {vocab_size}, "
            f"the last is {beyond[worst]!r} with id {worst}; expected ids below "
            f"{vocab_size}: is this the tokenizer of another model?"
        )
    # Some lists of ends serve several tokenizers; one without a row is never drawn.
    if ends and all(backend.id_to_token(i) is None for i in ends):
        raise ValueError(
            f"The end tokens {list(ends)} of the model's configuration are not in "
            f"{text_files.MAIN}, whose ids are below {tokenizer.vocab_size}; is this "
            f"the tokenizer of another model?"
        )
    # Padding is seen by nothing, but has a row.
    pad = tokenizer.pad_id if tokenizer.pad_id < vocab_size else 0
    ends = tuple(i for i in ends if i < vocab_size)
    return dataclasses.replace(tokenizer, pad_id=pad, rows=vocab_size, eos_ids=ends)


def _ids(named: Mapping[str, Any], field: str) -> tuple[int, ...]:
    """One id, several or none; old checkpoints say -1 for none."""
    value = named.get(field)
    some = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(i) is int and i < 2**31 for i in some):
        raise ValueError(
            f"The configuration of the checkpoint has {field} {tensors.short(value)}, "
            f"expected a token id or a list of them."
        )
    return tuple(i for i in some if i >= 0)
