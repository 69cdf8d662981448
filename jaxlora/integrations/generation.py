"""How an evaluation harness wants texts continued, as our options."""

from collections.abc import Mapping
from typing import Any

from jaxlora.reuse.decode import TextDecoding

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of one option, the number of new tokens; the first that is given counts."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "repetition_penalty": (1, None),
    "min_p": (0, None),
    "seed": (None,),
}
"""Options that are not supported, and the values at which they do nothing."""


def settings(
    options: Mapping[str, Any], default: int = 256, thought: str | None = None
) -> TextDecoding:
    """Reads the generation options of a harness task.

    ``do_sample: false`` is greedy whatever the temperature; sampling without a
    temperature has 1, and keeps every token unless ``top_k`` or ``top_p`` is given.

    Args:
      options: ``until``, one of ``LIMITS``, do_sample, temperature, top_k, top_p.
      default: new tokens, if no limit is given.
      thought: what ends the thoughts of a reasoning model, which are dropped.

    Raises:
      ValueError: if an option would change the text and is not supported.

    >>> settings({"until": "Q:", "temperature": 0.5, "do_sample": False}, 8)
    TextDecoding(max_new_tokens=8, temperature=0.0, top_k=0, top_p=1.0,
                 until=('Q:',), thought=None)
    """
    given = dict(options)
    until = given.pop("until", None) or ()
    limits = [given.pop(name, None) for name in LIMITS]
    sample, temperature = given.pop("do_sample", None), given.pop("temperature", None)
    if temperature is None:
        temperature = 1.0 if sample else 0.0
    top_k, top_p = given.pop("top_k", None), given.pop("top_p", None)
    odd = {k: v for k, v in given.items() if v not in NEUTRAL.get(k, ())}
    if odd:
        raise ValueError(
            f"The task asks for {odd}, which would change its texts and is not "
            f"supported; there are until, do_sample, temperature, top_k, top_p and "
            f"{', '.join(LIMITS)}, and --gen_kwargs can set them."
        )
    return TextDecoding(
        max_new_tokens=int(next((n for n in limits if n is not None), default)),
        until=tuple(s for s in ([until] if isinstance(until, str) else until) if s),
        temperature=0.0 if sample is False else float(temperature),
        top_k=max(0, int(top_k or 0)),
        top_p=1.0 if top_p is None else float(top_p),
        thought=thought,
    )
