"""Merges by name, each with the laws it keeps."""

from jaxlora.merge.compose import LAWS, Merge, chain, unknown
from jaxlora.merge.linear import weighted_mean, weighted_sum

_ALL = frozenset(LAWS)

_PRESETS: dict[str, Merge] = {
    "mean": chain(weighted_mean(), space="delta", laws=_ALL),
    "sum": chain(weighted_sum(), space="delta", laws=_ALL),
    "factor-mean": chain(
        weighted_mean(), space="factor", laws=_ALL - {"gauge", "linearity"}
    ),
}


def preset(name: str) -> Merge:
    """Returns a merge by its name.

    - ``mean``: the exact weighted mean of the deltas; weights are relative.
    - ``sum``: the exact weighted sum of the deltas; by default all in full.
    - ``factor-mean``: a and b averaged apart, as mttl's "uniform"; depends on the
      gauge, and shrinks deltas by up to 1/E.

    Raises:
      ValueError: naming what exists, if there is no such merge.

    >>> sorted(preset("mean").laws - preset("factor-mean").laws)
    ['gauge', 'linearity']
    """
    if name not in _PRESETS:
        raise ValueError(unknown("merge", name, _PRESETS))
    return _PRESETS[name]


def names() -> tuple[str, ...]:
    """The names :func:`preset` knows.

    >>> names()
    ('mean', 'sum', 'factor-mean')
    """
    return tuple(_PRESETS)
