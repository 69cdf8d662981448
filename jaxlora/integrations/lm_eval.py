"""EleutherAI's evaluation harness scores any base, adapter, merge or route.

``python -m jaxlora.integrations.lm_eval`` is its command line with the model
``jaxlora`` added; from Python, import this module first. Everything is as with the
harness's own ``hf`` model: special tokens, prefixes, windows, how long prompts are cut.

Gao et al., The Language Model Evaluation Harness (doi 10.5281/zenodo.12608602).
"""

import contextlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxlora import models
from jaxlora.evaluate import likelihood
from jaxlora.integrations import arguments, generation, turns
from jaxlora.integrations.arguments import Options
from jaxlora.io import adapter_folders
from jaxlora.reuse import decode, words
from jaxlora.reuse.decode import Batching, Continuation

NAME = "jaxlora"
"""What the harness calls the model."""
MISSING = (
    "lm_eval is not installed; this module needs it: pip install 'jaxlora[lm-eval]'"
)

_log = logging.getLogger(__name__)
_HERE = importlib.util.find_spec("lm_eval") is not None
_Base: Any = object
if _HERE:
    from lm_eval.api.model import TemplateLM as _Base  # pyrefly: ignore


class JaxLora(_Base):
    """A checkpoint on disk, with its adapters, as the harness sees it."""

    def __init__(self, pretrained: str, **options: Any) -> None:
        """Reads the checkpoint.

        Args:
          pretrained: a folder in Hugging Face's format.
          **options: fields of :class:`.arguments.Options`, as ``--model_args`` and the
            harness give them.

        Raises:
          ImportError: if the harness is not installed.
          ValueError: as ``reuse.load``, or if a number is out of range.
        """
        if not _HERE:
            raise ImportError(MISSING)
        super().__init__()
        given = Options(pretrained, **options)
        self.reuse = arguments.load(given)
        asked = None if given.tokenizer is None else Path(given.tokenizer)
        folders = adapter_folders.expand(arguments.split(given.adapters))
        folder, rest, notes = words.source(Path(pretrained), folders, asked=asked)
        for note in (*self.reuse.notes, *notes):
            _log.warning(note)
        self.tokenizer = decode.load_tokenizer(folder, self.reuse, rest=rest)
        self._name = str(folder.resolve())
        most = self.reuse.model.config.max_length
        self.max_length = arguments.length(given.max_length, most)
        self.batch_size = arguments.rows(given.batch_size)
        self.max_gen_toks = int(given.max_gen_toks)
        self._truncate, self._thought = given.truncate, given.think_end_token
        self._prefix = arguments.prefix(self.tokenizer, given.prefix_token_id)
        self._key = jax.random.key(given.seed)

    @property
    def tokenizer_name(self) -> str:
        """Names prompts in the harness's cache."""
        return self._name.replace("/", "__")

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return next(iter(self.tokenizer.eos_ids), self.prefix_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context: as given, the bos, or the eos."""
        return self._prefix

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Returns token ids; None adds a bos unless the text starts with one."""
        if add_special_tokens is None:
            first = self.tokenizer.decode([self._prefix], skip_special=False)
            add_special_tokens = not string.startswith(first)
        return self.tokenizer.encode(string, special=add_special_tokens)

    def apply_chat_template(
        self,
        chat_history: Sequence[Mapping[str, str]],
        add_generation_prompt: bool = True,
    ) -> str:
        """Returns a conversation as text, its last turn open unless there is a prompt.

        See :func:`.turns.text`.
        """
        return turns.text(self.tokenizer, chat_history, closed=add_generation_prompt)

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        over = sum(len(a) + len(b) > self.max_length + 1 for a, b in pairs)
        self._say_cut(over, "contexts")
        with _bar("loglikelihood", len(pairs), disable_tqdm) as progress:
            scores = likelihood.score(pairs=pairs, progress=progress, **self._scored())
        both = zip(scores.total.tolist(), scores.greedy.tolist(), strict=True)
        answers = list(both)
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request[0], answer)
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Returns the log-likelihood of whole texts; an empty one has 0."""
        texts = [self.tok_encode(request.args[0]) for request in requests]
        held = [i for i, text in enumerate(texts) if text]
        with _bar("loglikelihood_rolling", len(held), disable_tqdm) as progress:
            scores = likelihood.rolling(
                texts=[texts[i] for i in held],
                prefix=self.prefix_token_id,
                progress=progress,
                **self._scored(),
            )
        totals = dict(zip(held, scores.total.tolist(), strict=True))
        answers = [totals.get(i, 0.0) for i in range(len(texts))]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return answers

    def generate_until(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[str]:
        """Returns one continuation for each request, up to its stop strings."""
        answers: dict[int, str] = {}
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(i)
        with _bar("generate_until", len(requests), disable_tqdm) as progress:
            for members in groups.values():
                for part in self._continue([requests[m].args for m in members]):
                    for i, (text, *_) in part.items():
                        args = requests[members[i]].args
                        self.cache_hook.add_partial("generate_until", args, text)
                        answers[members[i]] = text
                    progress(len(answers), len(requests))
        return [answers[i] for i in range(len(requests))]

    def _continue(
        self, asked: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> Iterator[dict[int, Continuation]]:
        how = generation.settings(asked[0][1], self.max_gen_toks, self._thought)
        room = self.max_length - how.max_new_tokens
        if room < 1:
            raise ValueError(
                f"The task asks for {how.max_new_tokens} new tokens, but the model "
                f"sees {self.max_length} at once; set max_gen_toks in --gen_kwargs, "
                f"or in --model_args if the task does not say."
            )
        prompts = [self.tok_encode(text) or [self.prefix_token_id] for text, _ in asked]
        self._say_cut(sum(len(p) > room for p in prompts), "prompts")
        self._key, key = jax.random.split(self._key)
        cut = [prompt[-room:] for prompt in prompts]
        batching = Batching(self.batch_size, fixed=True)
        return decode.in_batches(
            self.reuse, self.tokenizer, cut, how, batching, key=key
        )

    def _scored(self) -> dict[str, Any]:
        return {
            "model": self.reuse.model,
            "base": self.reuse.base,
            "batch": self.batch_size,
            "max_length": self.max_length,
            "truncate": True,  # unless _say_cut has refused
            "adapted": models.Adapted(**self.reuse.arguments()),
        }

    def _say_cut(self, count: int, what: str) -> None:
        if count and not self._truncate:
            raise ValueError(
                f"{count} {what} are longer than the {self.max_length} tokens that the "
                f"model sees at once; use fewer shots, or truncate=True to drop their "
                f"start."
            )
        if count:
            _log.warning("%d %s are too long and lose their start.", count, what)


@contextlib.contextmanager
def _bar(name: str, total: int, off: bool) -> Iterator[Callable[[int, int], None]]:
    import tqdm  # comes with the harness

    with tqdm.tqdm(total=total, desc=f"Running {name} requests", disable=off) as bar:

        def progress(done: int, _: int) -> None:
            bar.update(done - bar.n)

        yield progress


def register() -> None:
    """Adds the model to the harness; importing this module does it."""
    from lm_eval.api import registry  # pyrefly: ignore

    importlib.import_module("lm_eval.models")  # or its own models would not be found
    if NAME not in registry.model_registry:
        # By name: run as a script, this module is not the one that the name says.
        registry.model_registry.register(
            NAME, target=f"jaxlora.integrations.lm_eval:{JaxLora.__name__}"
        )


def main() -> int:
    """Runs the harness's command line."""
    if not _HERE:
        print(MISSING, file=sys.stderr)
        return 2
    from lm_eval.__main__ import cli_evaluate  # pyrefly: ignore

    cli_evaluate()
    return 0


if _HERE:
    register()
if __name__ == "__main__":
    sys.exit(main())
