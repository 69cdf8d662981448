"""Text to token ids, the same way in training and in every question."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxlora.models import padding
from jaxlora.models import tokenizer as tokenizers
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import packing, text
from jaxlora.tasks.packing import Rows

SAMPLE = "A"
"""An answer that stands for any, where only the prompt is wanted."""


@dataclasses.dataclass(frozen=True)
class PromptCodec:
    """Between questions in words and token ids."""

    tokenizer: Tokenizer
    """Without a chat template for plain text."""

    @property
    def stop(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return self.tokenizer.end_ids

    @property
    def pad(self) -> int:
        """Token that fills rows."""
        return self.tokenizer.pad_id

    @functools.cached_property
    def opening(self) -> int:
        """How many tokens every prompt begins with: a chat's system turn, say."""
        # A token on the border may join what follows it, so letters differ in kind.
        asked = [self.prompt(text) for text in ("A", "7", "?", "(", "é")]
        alike = [len(set(column)) == 1 for column in zip(*asked, strict=False)]
        return alike.index(False) if False in alike else len(alike) - 1

    def prompt(self, question: str) -> list[int]:
        """Returns the tokens before an answer, as they are in training."""
        return self._split(question, SAMPLE)[0]

    def answer(self, answer: str, question: str = "?") -> list[int]:
        """Returns the tokens of an answer and of its end."""
        return self._split(question, answer)[1]

    def padded(
        self, questions: Sequence[str], length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns prompts [N, length], padded on the left, and their mask."""
        ids = [self.prompt(question) for question in questions]
        return padding.pad_left(ids, self.pad, length)

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of generated tokens."""
        return self.tokenizer.decode(ids)

    def rows(
        self, texts: Iterable[dict[str, str]], length: int, seed: int, shared: int = 0
    ) -> Rows:
        """Returns training texts as packed rows [N, length]; weights mark answers.

        Args:
          texts: fields of each, such as prompt and answer.
          length: tokens of a row.
          seed: of the order of the rows.
          shared: tokens that all texts begin with, once in a row; see ``opening``.

        Raises:
          ValueError: if a text is longer than a row: a study may not drop a fact.
        """
        records = [text.record(fields, "a training text") for fields in texts]
        encoded = text.encode(records, self.tokenizer, length)
        if encoded.too_long:
            raise ValueError(
                f"{encoded.too_long} training texts are longer than {length} tokens; "
                f"raise train.length."
            )
        return packing.pack(encoded.examples, length, seed, shared=shared)

    def check(self, question: str, answers: Sequence[str]) -> None:
        """Refuses a tokenizer that joins the end of a prompt with an answer.

        Args:
          question: any.
          answers: all candidates.

        Raises:
          ValueError: with the answer; ranking reads prompt and answer apart.
        """
        alone = self.prompt(question)
        for answer in answers:
            before, after = self._split(question, answer)
            if before != alone or after != self.answer(answer):
                raise ValueError(
                    f"The tokenizer reads the end of the prompt {question!r} together "
                    f"with the answer {answer!r}, and ranking needs them apart; try "
                    f"--no-chat, or --chat."
                )

    def _split(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        record = text.record({"prompt": question, "answer": answer}, "a question")
        ids, learnt = text.encode_one(record, self.tokenizer)
        places = np.flatnonzero(learnt)
        first, last = int(places[0]), int(places[-1])
        return ids[:first].tolist(), ids[first : last + 1].tolist()


def load(folder: str | Path, chat: bool, rest: str | Path | None = None) -> PromptCodec:
    """Reads the tokenizer of a checkpoint.

    Args:
      folder: of the checkpoint, or of a tokenizer.
      chat: use its chat template, if it has one?
      rest: a folder with what the first lacks.

    Raises:
      ValueError: if the folder has no tokenizer that can be read.
    """
    known = tokenizers.load(folder, rest)
    return PromptCodec(
        known if chat else dataclasses.replace(known, chat_template=None)
    )
