"""Command lines of tests: flags of their own in the place of those that all share."""

from collections.abc import Sequence


def overridden(words: Sequence[str]) -> list[str]:
    """Returns words in which the last of each flag stands alone, as commands want it.

    >>> overridden(["A", "--rank", "2", "--out", "x", "--rank", "9"])
    ['A', '--out', 'x', '--rank', '9']
    """
    groups: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            groups.append([])
        groups[-1].append(word)
    last = {group[0]: i for i, group in enumerate(groups) if group}
    kept = [x for i, x in enumerate(groups) if x and (i == 0 or last[x[0]] == i)]
    return [word for group in kept for word in group]
