"""Fields of a record: which mean nothing, which are refused, and why.

No field is dropped in silence. One that is read is in a form of
:mod:`jaxlora.tasks.record_forms`; of the others some only describe a record, some would
change what is asked or learnt and are refused by name, and what nobody knows is named
once for a file.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HARMLESS = frozenset(
    (
        *("id", "_id", "idx", "index", "uid", "uuid", "key", "row", "hash", "source"),
        *("sources", "dataset", "data_source", "category", "categories", "topic"),
        *("subtopic", "level", "difficulty", "url", "urls", "title", "split"),
        *("language", "lang", "locale", "license", "licence", "created"),
        *("created_at", "updated_at", "timestamp", "date", "time", "tags"),
        *("metadata", "meta", "author", "annotator", "canary", "score", "scores"),
        *("rating", "model", "model_name", "generator", "type", "kind", "task"),
        *("task_type", "task_name", "domain", "subject", "section", "instance"),
        *("original_id", "question_id", "prompt_id", "conversation_id", "source_id"),
        *("item_id", "number", "name", "version", "comment", "comments", "notes"),
        *("note", "where", "extra_info", "ability"),
    )
)
"""What describes a record, whatever it holds."""

REFUSED: Mapping[str, str] = {
    "chosen": "an answer that is preferred to another, and no answer to learn alone",
    "rejected": "an answer that another is preferred to",
    "label": "a judgement of an answer, of which only answers are learnt here",
    "functions": "tools in their old form; expected them as 'tools'",
    "function_call": "a call in its old form; expected turns with 'tool_calls'",
    "documents": "documents for retrieval, which no prompt shows here",
    "images": "pictures, and models of text see none",
    "image": "a picture, and models of text see none",
    "videos": "films, and models of text see none",
    "video": "a film, and models of text see none",
    "audios": "sounds, and models of text hear none",
    "audio": "a sound, and models of text hear none",
    "chat_template": "a template of its own; expected that of the tokenizer",
    "chat_template_kwargs": "settings of the chat template, which has none here",
    "developer": "words that change what is asked; expected a turn of 'messages'",
    "system_prompt": "words that change what is asked; expected them as 'system'",
    "train_on_turn": "which turns are learnt; expected 'train' or 'weight' in a turn",
    "train_detail": "which parts of a turn are learnt; expected 'train' of a turn",
    "mask": "which turns are learnt; expected 'train' or 'weight' in a turn",
    "masked": "which turns are learnt; expected 'train' or 'weight' in a turn",
    "loss_mask": "which turns are learnt; expected 'train' or 'weight' in a turn",
    "loss_scale": "how much is learnt of it, and records count alike here",
    "sample_weight": "how much is learnt of it, and records count alike here",
    "system_message": "words that change what is asked; expected them as 'system'",
    "passage": "what a question is about; expected it as 'context'",
    "paragraph": "what a question is about; expected it as 'context'",
    "background": "what a question is about; expected it as 'context'",
    "choices": "answers to choose from; expected them within the question",
    "options": "answers to choose from; expected them within the question",
    "enable_thinking": "a setting of the chat template, which has none here",
}
"""Fields that change what is asked or learnt and are not supported, with what they
are."""

WEIGHTS = (
    *("weight", "train", "training", "loss", "loss_weight", "trainable"),
    "should_train",
)
"""Of a turn: is it learnt? One and true say yes, nought and false no."""
TURN = frozenset(("role", "content", "name", "tool_call_id", "tool_calls", "tools"))
"""Fields of a turn that a template may show, beside those of thoughts."""
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Names of one field of a turn: what the assistant thought before its answer."""


def refuse_thoughts(fields: Mapping[str, Any], where: str) -> None:
    """Refuses thoughts of a record that belong to a turn of it.

    Args:
      fields: of a record, filled.
      where: file and line, for messages.

    Raises:
      ValueError: naming the field.
    """
    for name in THOUGHTS:
        if name in fields:
            raise ValueError(
                f"{where}: {name!r} of a record is what was thought before its answer; "
                f"expected it in a turn of 'messages', as in "
                f'{{"role": "assistant", "{THOUGHTS[0]}": "...", "content": "..."}}.'
            )


def filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that hold something; null, blanks, empty lists hold nothing.

    >>> filled({"a": None, "b": [], "c": 0, "d": "x", "e": " "})
    {'c': 0, 'd': 'x'}
    """
    return {
        name: x
        for name, x in fields.items()
        if x is not None
        and (not hasattr(x, "__len__") or len(x))
        and not (isinstance(x, str) and not x.strip())
    }


def refuse(fields: Mapping[str, Any], where: str) -> None:
    """Refuses fields that would change what is asked or learnt.

    Args:
      fields: of a record or a turn, filled.
      where: file and line, for messages.

    Raises:
      ValueError: naming the field and what it is.
    """
    for name in fields:
        if name in REFUSED:
            raise ValueError(
                f"{where}: {name!r} is {REFUSED[name]}; remove it if it is not meant."
            )


def unread(fields: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """Returns the fields that are neither known nor harmless.

    >>> unread(["id", "hue", "prompt", "_row"], ["prompt"])
    ('hue',)
    """
    quiet = HARMLESS.union(known)
    return tuple(x for x in fields if x not in quiet and not x.startswith("_"))


def learnt(turn: Mapping[str, Any], where: str) -> bool:
    """Returns whether a turn of the assistant is learnt; by default it is.

    Args:
      turn: its fields.
      where: file, line and turn, for messages.

    Raises:
      ValueError: if a weight is neither nought nor one, or two of them disagree, or
        another's turn is to be learnt.
    """
    given = {x: turn[x] for x in WEIGHTS if turn.get(x) is not None}
    for name, value in given.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            raise ValueError(
                f"{where}: {name!r} is {value!r:.40}, expected 0 or 1 (false or true): "
                f"a turn is learnt, or it is not."
            )
    if len(set(given.values())) > 1:
        raise ValueError(f"{where}: {', '.join(given)} disagree; expected one of them.")
    says = next(iter(given.values()), None)
    assistant = turn.get("role") == "assistant"
    if says and not assistant:
        raise ValueError(
            f"{where}: {next(iter(given))!r} asks to learn the turn of "
            f"{turn.get('role')!r:.40}; only those of the assistant are learnt."
        )
    return assistant and says != 0


def notes(names: Iterable[str], source: str) -> Iterator[str]:
    """Says which fields of a file are not read.

    Args:
      names: of the fields.
      source: the file.
    """
    every = sorted(set(names))
    if every:
        more = f" and {len(every) - 8} more" if len(every) > 8 else ""
        yield (
            f"{source}: fields that are not read, and are in no prompt or answer: "
            f"{', '.join(every[:8])}{more}."
        )
