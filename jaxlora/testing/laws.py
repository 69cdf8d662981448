"""What the batteries of merges and of routes share: laws by name, and their words."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def sizes(
    laws: Iterable[str] | None,
    known: Mapping[str, str],
    measure: Callable[[str], float],
) -> dict[str, float]:
    """The violation of each law, by name.

    Args:
      laws: those to measure, or None for all.
      known: every law, and what it says.
      measure: gives the violation of one.

    Raises:
      ValueError: naming what exists, if a law does not.

    >>> sizes(None, {"gauge": "other factors, same delta"}, len)
    {'gauge': 5}
    """
    chosen = sorted(known if laws is None else laws)
    for law in chosen:
        if law not in known:
            there = ", ".join(sorted(known))
            raise ValueError(f"Unknown law {law!r}; there are {there}.")
    return {law: measure(law) for law in chosen}


def assert_kept(
    what: Any, violations: Mapping[str, float], known: Mapping[str, str], rtol: float
) -> None:
    """Refuses violations above ``rtol``.

    Args:
      what: is tested.
      violations: sizes by name.
      known: every law, and what it says.
      rtol: the largest violation that is a rounding error.

    Raises:
      AssertionError: naming the law and the size of the violation.
    """
    for law, size in violations.items():
        assert_small(f"{what!r} breaks the law {law} ({known[law]})", size, rtol)


def assert_small(what: str, size: float, rtol: float) -> None:
    """Refuses a relative difference above ``rtol``; NaN is above.

    Args:
      what: what is wrong if it is above.
      size: the difference.
      rtol: the largest one that is a rounding error.

    Raises:
      AssertionError: with what is wrong, and the difference.
    """
    if not size <= rtol:
        raise AssertionError(
            f"{what}: a relative difference of {size:.3g}, at most {rtol:.3g} expected."
        )


def assert_value(what: Any, made_of: str) -> None:
    """Refuses what is not equal to its copy, and would be compiled again and again.

    Args:
      what: is tested.
      made_of: what it should be made of, in a sentence.

    Raises:
      AssertionError: if it is not hashable and equal to a copy.
    """
    other = copy.deepcopy(what)
    if hash(other) != hash(what) or other != what:
        raise AssertionError(
            f"{what!r} is not equal to its copy: every jitted program would compile it "
            f"again. {made_of}"
        )


def assert_compiled_once(what: Any, traces: int) -> None:
    """Refuses more than one compilation for equal shapes.

    Args:
      what: is tested.
      traces: how often it was traced.

    Raises:
      AssertionError: with the number of compilations.
    """
    if traces != 1:
        raise AssertionError(f"{what!r} was compiled {traces} times for equal shapes.")
