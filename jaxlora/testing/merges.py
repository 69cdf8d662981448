"""One battery for any merge: the laws it declares, and what every merge must do.

A law is tested on small libraries that are made here, and its *violation* is a number:
the distance of two merged deltas that should be one, relative to their norm, at the
worst site; :mod:`.merge_battery` computes it.
"""

from collections.abc import Iterable

import jax

from jaxlora.merge import Merge
from jaxlora.testing.libraries import MakeData
from jaxlora.testing.merge_battery import RTOL as RTOL
from jaxlora.testing.merge_battery import Battery, MakeLibrary


def check_merge(
    merge: Merge,
    *,
    laws: Iterable[str] | None = None,
    key: jax.Array | None = None,
    data: MakeData | None = None,
    make_library: MakeLibrary | None = None,
    rtol: float = RTOL,
) -> None:
    """Asserts that a merge keeps its laws, and does what every merge must.

    Every merge must: return finite factors in float32 at scale 1, for the sites of the
    library; give the same under jit and without, under vmap over libraries and weights
    and in a loop; compute in float32 from a library in bfloat16; compile once; depend
    on the key only if it says so (``draws``); leave the library as it is; and be a
    value, hashable and equal to its copy.

    Args:
      merge: any :class:`~jaxlora.merge.Merge`.
      laws: those to test; by default the ones that the merge declares.
      key: for methods that draw; all libraries of a law get the same.
      data: for methods that see data, ``data(library) -> {site: array [E, ...]}``.
        ``regmean``, ``fisher`` and ``scaled_sum`` need none given here.
      make_library: ``make_library(seed) -> library`` of three experts, all of one shape
        and in float32; by default :func:`small_library`,
        of one site unless the merge looks at several.
      rtol: the largest violation that is a rounding error.

    Raises:
      AssertionError: naming the law and the size of the violation.
      ValueError: if a law is unknown, or data are needed and not given.

    >>> from jaxlora import merge
    >>> check_merge(merge.preset("mean"))
    >>> half = merge.chain(merge.weighted_mean(), space="factor", laws={"gauge"})
    >>> check_merge(half)
    Traceback (most recent call last):
    AssertionError: ... breaks the law gauge ...
    """
    Battery(merge, key=key, data=data, make_library=make_library).check(laws, rtol)


def violations(
    merge: Merge,
    *,
    laws: Iterable[str] | None = None,
    key: jax.Array | None = None,
    data: MakeData | None = None,
    make_library: MakeLibrary | None = None,
) -> dict[str, float]:
    """How far a merge is from each law, declared or not: the size by name.

    0 is a law that is kept to the last bit, 1 a difference as large as the result, inf
    a result that is not finite. A law that a merge does not declare should have a size
    here that rounding does not explain; else it could be declared.

    Args:
      merge: any merge.
      laws: by default all of them.
      key: for methods that draw; all libraries of a law get the same.
      data: for methods that see data, ``data(library) -> {site: array [E, ...]}``.
        ``regmean``, ``fisher`` and ``scaled_sum`` need none given here.
      make_library: ``make_library(seed) -> library`` of three experts, all of one shape
        and in float32; by default :func:`small_library`.

    >>> from jaxlora import merge
    >>> sizes = violations(merge.preset("factor-mean"), laws=["gauge", "padding"])
    >>> (sizes["gauge"] > 0.1, sizes["padding"] < 1e-5)
    (True, True)
    """
    battery = Battery(merge, key=key, data=data, make_library=make_library)
    return battery.violations(laws)
