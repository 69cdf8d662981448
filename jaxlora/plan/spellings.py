"""Topologies as people write them, for a message that says how they are written here.

Clouds, schedulers and vendors have names of their own for the same chips: v5litepod-16
(Google Cloud), tpu-v5-lite-podslice (GKE), ct5lp-hightpu-4t (machine types), 8xH100.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxlora.names import near

KINDS: Mapping[str, str] = {
    "v5e": r"v5[-_ ]?lite(pod)?(-podslice)?|v5e|ct5lp|^tpus?(?=[-:]?\d|:?$)",
    "v6e": r"v6[-_ ]?lite|v6e?|trillium|ct6e",
    "v5p": r"v5p|v5|ct5p",
    "h200": r"h200",
    "h100": r"h100|gpus?|cuda",
    "a100": r"a100(-80gb)?",
    "cpu": r"cpu",
}
"""What stands for each kind of chip; the first that is in a name counts."""
ABSENT = "neither memory nor speed of these chips is known here"
_ABSENT = re.compile(
    r"(tpu[-_]?)?(v[2-4]|v7x?|tpu7x|7x|ironwood)([-:_].*)?|"
    r".*(g?b[123]00|a10g?|l4|l40s?|t4|v100|h20|gh200|mi\d+x?|rtx.*)([-:_x].*)?"
)


def is_absent(name: str) -> bool:
    """Are these chips that there are, and that are not known here?

    Args:
      name: in small letters.

    >>> is_absent("v4-8"), is_absent("b200"), is_absent("v5e"), is_absent("h100x8")
    (True, True, False, False)
    """
    return _ABSENT.fullmatch(name) is not None


def meant(
    name: str,
    shapes: Mapping[str, Sequence[str]],
    counted: Iterable[str],
    of_count: Callable[[str, int], str],
) -> str:
    """The topology that somebody may mean; empty if there is none like it.

    Args:
      name: in small letters.
      shapes: of slices, by kind.
      counted: kinds of which any number may be given.
      of_count: the shape of a kind that a cloud's number stands for, or empty.

    >>> meant("8xh100", {}, ["h100"], lambda *_: "")
    'h100:8'
    >>> meant("tpu-v5-lite-podslice:4x2", {"v5e": ("2x2", "2x4")}, [], lambda *_: "")
    'v5e:2x4'
    """
    if is_absent(name):
        return ""
    every = (*shapes, *counted)
    for kind in KINDS:
        if kind in every and (match := re.search(KINDS[kind], name)):
            rest = name[: match.start()] + " " + name[match.end() :]
            break
    else:
        first, sign, rest = name.partition(":")
        close = near(first, every) if sign else []
        if not close:
            return ""
        kind = close[0]
    numbers = [int(n[:9]) for n in re.findall(r"\d+", rest) if n.isascii()]
    if kind not in shapes:
        return f"{kind}:{numbers[-1]}" if numbers and numbers[-1] else f"{kind}:8"
    grid = re.search(r"\d+(x\d+)+", rest)
    if grid:
        chips = math.prod(map(int, grid[0].split("x")))
        alike = [x for x in shapes[kind] if math.prod(map(int, x.split("x"))) == chips]
        return f"{kind}:{alike[0]}" if alike else ""
    if numbers:
        return f"{kind}-{numbers[-1]}" if of_count(kind, numbers[-1]) else ""
    return f"{kind}:{shapes[kind][min(2, len(shapes[kind]) - 1)]}"
