"""Text to token ids, the same way in training and in every question."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxlora.models import tokenizer as tokenizers
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import packing, text
from jaxlora.tasks.packing import Rows

SAMPLE = "A"
"""An answer that stands for any, where only the prompt is wanted."""


@dataclasses.dataclass(frozen=True)
class Talk:
    """How a model is talked to."""

    tokenizer: Tokenizer
    """Without a chat template for plain text."""

    @property
    def stop(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return self.tokenizer.eos_ids

    @property
    def pad(self) -> int:
        """Token that fills rows."""
        return self.tokenizer.pad_id

    def prompt(self, asked: str) -> list[int]:
        """Returns the tokens before an answer, as they are in training."""
        return self._split(asked, SAMPLE)[0]

    def answer(self, said: str, asked: str = "?") -> list[int]:
        """Returns the tokens of an answer and of its end."""
        return self._split(asked, said)[1]

    def padded(
        self, asked: Sequence[str], length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns prompts [N, length], padded on the left, and their mask."""
        ids = [self.prompt(question) for question in asked]
        return tokenizers.pad_left(ids, self.pad, length)

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of generated tokens."""
        return self.tokenizer.decode(ids)

    def rows(self, texts: Iterable[dict[str, str]], length: int, seed: int) -> Rows:
        """Returns training texts as packed rows [N, length]; weights mark answers.

        Raises:
          ValueError: if a text is longer than a row: a study may not drop a fact.
        """
        records = [text.record(fields, "a training text") for fields in texts]
        found = text.encode(records, self.tokenizer, length)
        if found.too_long:
            raise ValueError(
                f"{found.too_long} training texts are longer than {length} tokens; "
                f"raise train.length."
            )
        return packing.pack(found.examples, length, seed)

    def check(self, asked: str, answers: Sequence[str]) -> None:
        """Refuses a tokenizer that joins the end of a prompt with an answer.

        Raises:
          ValueError: with the answer; ranking reads prompt and answer apart.
        """
        alone = self.prompt(asked)
        for said in answers:
            before, after = self._split(asked, said)
            if before != alone or after != self.answer(said):
                raise ValueError(
                    f"The tokenizer reads the end of the prompt {asked!r} together "
                    f"with the answer {said!r}, and ranking needs them apart; try "
                    f"--no-chat, or --chat."
                )

    def _split(self, asked: str, said: str) -> tuple[list[int], list[int]]:
        record = text.record({"prompt": asked, "answer": said}, "a question")
        ids, learnt = text.encode_one(record, self.tokenizer)
        places = np.flatnonzero(learnt)
        first, last = int(places[0]), int(places[-1])
        return ids[:first].tolist(), ids[first : last + 1].tolist()


def load(folder: str | Path, chat: bool) -> Talk:
    """Reads the tokenizer of a checkpoint.

    Args:
      folder: of the checkpoint.
      chat: use its chat template, if it has one?

    Raises:
      ValueError: as :func:`jaxlora.models.tokenizer.load`.
    """
    found = tokenizers.load(folder)
    return Talk(found if chat else dataclasses.replace(found, chat_template=None))
