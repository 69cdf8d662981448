"""Why the tensors of a checkpoint are not those that its config.json describes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jaxlora.io.header import READ, Entry
from jaxlora.io.tensors import INDEX, SINGLE
from jaxlora.models.names import HEAD

_UNMERGED = re.compile(r"\.base_layer\.|\.lora_(?:embedding_)?[AB]\b|\.lora_magnitude")
_PACKED = re.compile(
    r"\.(?:qweight|qzeros|g_idx|weight_packed|weight_scale\w*|scales?|SCB|absmax|"
    r"weight\.(?:absmax|quant_map|quant_state\.\w+)|qscale\w*)$"
)
_OTHER_HEAD = re.compile(
    r"(?:.*\.)?(?:v_head|value_head|score|classifier|reward_head)\."
)
_SHOWN = 4


def extra(
    sources: Mapping[str, str], places, entries: Mapping[str, Entry]
) -> list[str]:
    """Returns tensors that no parameter is, and that are no buffers.

    Whole numbers and truths beside the parameters of a decoder are buffers, such as
    position_ids: transformers does not read them either.

    Args:
      sources: name in the checkpoint by canonical name.
      places: canonical names of the parameters.
      entries: of the checkpoint.
    """
    return [
        name
        for name, source in sources.items()
        if name not in places
        and (entries[source].dtype in READ or _PACKED.search(source))
    ]


def reason(
    lacks: Sequence[str], odd: Sequence[str], count: int, files: Iterable[Path] = ()
) -> str:
    """Returns the sentence of an error.

    Args:
      lacks: canonical names of parameters that are not there.
      odd: names of tensors that are there and are none.
      count: parameters by config.json.
      files: that were read.
    """
    unmerged = [name for name in odd if _UNMERGED.search(name)]
    if unmerged:
        return (
            f"The checkpoint is a PEFT model that was not merged: it holds "
            f"{unmerged[0]!r}, a layer apart from its adapter; merge it with PEFT "
            f"(merge_and_unload) and save that, or save the adapter and name its base."
        )
    packed = [name for name in odd if _PACKED.search(name)]
    if packed:
        return (
            f"The checkpoint is quantised: it holds {packed[0]!r}, of packed weights, "
            f"which are not supported here; take the unquantised one."
        )
    heads = [name for name in odd if _OTHER_HEAD.match(name)]
    if heads:
        return (
            f"The checkpoint holds {heads[0]!r}, a head of another task (of a "
            f"classifier, or of values), expected a language model alone"
            + (", with its own head." if HEAD in lacks else "; save that part of it.")
        )
    if list(lacks) == [HEAD]:
        return (
            f"The checkpoint lacks {HEAD!r}, and its config.json has "
            f"tie_word_embeddings false: it was saved without its head (as by "
            f"AutoModel), or its head is the embedding and the config wrong."
        )
    what, names = ("lacks", lacks) if lacks else ("holds also", odd)
    cause = "different models, or the download is incomplete"
    if any(x.name == SINGLE and (x.parent / INDEX).is_file() for x in files):
        cause = f"different models: {SINGLE} was read, and {INDEX} beside it was not"
    return (
        f"The checkpoint {what} {len(names)} tensors by its config.json, which "
        f"describes {count}: {', '.join(names[:_SHOWN])}; weights and config are of "
        f"{cause}."
    )
