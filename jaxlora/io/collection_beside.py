"""What adapters have beside low-rank updates, and how it is merged without a base.

Biases are modules of their own (:mod:`jaxlora.io.collection_biases`). A magnitude
(DoRA) has no zero to start from unless the base is known: magnitudes are averaged, by
the absolute weights, so that the merge of an adapter with itself is that adapter.
Tensors that adapters replace must agree, or are averaged on request.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxlora.io.peft import PeftFile, Rows
from jaxlora.names import few


def check_starts(files: Sequence[PeftFile]) -> None:
    """Refuses adapters whose updates are not known without their base.

    Args:
      files: the adapters.

    Raises:
      ValueError: naming one that took factors out of its base.
    """
    for file in files:
        starts = {header.start or "" for header in file.modules.values()} - {""}
        if starts:
            raise ValueError(
                f"The adapter {file.folder} began with {min(starts)} factors that its "
                f"training took out of the base, without which its update is not "
                f"known; `jaxlora merge --base MODEL` converts it on the base, as "
                f"generate, eval, forward and fuse do."
            )


def notes(names: Sequence[str], files: Sequence[PeftFile]) -> Iterator[str]:
    """Says what each adapter has beside low-rank updates.

    Args:
      names: of the adapters.
      files: the adapters.
    """
    for name, file in zip(names, files, strict=True):
        if file.kinds:
            yield f"Adapter {name} has {few(file.kinds)} beside its updates."


@dataclasses.dataclass(frozen=True)
class Beside:
    """What a merge has beside low-rank updates, read when it is asked for."""

    files: Sequence[PeftFile]
    """Of the adapters whose weight is not 0."""
    weights: Sequence[float]
    """Of these."""

    @property
    def magnitudes(self) -> tuple[str, ...]:
        """Paths of the modules that have one."""
        return tuple(x for x, h in self.files[0].modules.items() if h.beside[0])

    def magnitude(self, path: str) -> np.ndarray:
        """Returns the mean magnitude [F] of a module.

        Args:
          path: of ``magnitudes``.
        """
        shares = np.abs(self.weights) / np.sum(np.abs(self.weights))
        keys = (file.modules[path].beside[0] or "" for file in self.files)
        values = (file.tensor(key) for file, key in zip(self.files, keys, strict=True))
        return _sum(zip(shares, values, strict=True))

    @property
    def replaced(self) -> dict[str, str]:
        """Keys of the tensors that replace those of the base, by their names there."""
        return {name: key for file in self.files for name, key in file.replaced.items()}

    def replacement(self, name: str) -> np.ndarray:
        """Returns a tensor that replaces one of the base: that of all, or their mean.

        Args:
          name: of ``replaced``.
        """
        pairs = [
            (weight, file.tensor(file.replaced[name]))
            for file, weight in zip(self.files, self.weights, strict=True)
            if name in file.replaced
        ]
        return _mean(pairs)

    def rows(self) -> dict[str, Rows]:
        """Returns the rows that replace those of embeddings, by module path."""
        out: dict[str, dict[int, list[tuple[float, np.ndarray]]]] = {}
        for file, weight in zip(self.files, self.weights, strict=True):
            for path, (ids, key) in file.rows.items():
                for i, row in zip(ids, file.tensor(key), strict=True):
                    known = out.setdefault(path, {})
                    known.setdefault(i, []).append((weight, row))
        return {
            path: Rows(tuple(known), np.stack([_mean(x) for x in known.values()]))
            for path, known in out.items()
        }

    def settings(self) -> dict[str, Any]:
        """Returns fields of the config that say what is replaced."""
        out: dict[str, Any] = {}
        saved: set[str] = set()
        for file in self.files:
            saved |= {*file.settings.get("modules_to_save", ())}
            out = {**file.settings, **out}
        return out | ({"modules_to_save": sorted(saved)} if saved else {})


def of_merge(
    names: Sequence[str],
    files: Sequence[PeftFile],
    weights: Sequence[float],
    *,
    average: bool = False,
) -> tuple[Beside, tuple[str, ...]]:
    """Checks that what adapters have beside their updates can be merged.

    Args:
      names: of the adapters.
      files: the adapters.
      weights: one for each; 0 leaves an adapter out.
      average: take the mean where adapters replace a tensor by different values.

    Returns:
      What the merge has, and what is to be said of it, in sentences.

    Raises:
      ValueError: if some have magnitudes and others none, or two replace a tensor by
        different values and ``average`` is false.
    """
    used = [i for i, weight in enumerate(weights) if weight]
    beside = Beside([files[i] for i in used], [weights[i] for i in used])
    short = [names[i] for i in used]
    _check_magnitudes(short, beside)
    _check_biases(short, beside)
    _check_overlap(short, beside)
    sentences = []
    if beside.magnitudes:
        sentences.append(
            "The adapters are of DoRA: their updates are merged as those of plain "
            "adapters, and their magnitudes are averaged by weight; --base MODEL "
            "merges them on the base, in delta space."
        )
    return beside, (*sentences, *_replaced_notes(short, beside, average))


def _check_magnitudes(names: Sequence[str], beside: Beside) -> None:
    has = [
        {x for x, header in file.modules.items() if header.beside[0]}
        for file in beside.files
    ]
    pairs = itertools.permutations(zip(names, has, strict=True), 2)
    odd = ((x, y, here - there) for (x, here), (y, there) in pairs if here - there)
    for first, second, paths in odd:
        raise ValueError(
            f"Adapter {first} has a magnitude (DoRA) of {min(paths)!r} and {second} "
            f"has none, which without the base cannot be compared; --base MODEL merges "
            f"them on it."
        )


def _check_biases(names: Sequence[str], beside: Beside) -> None:
    """PEFT has biases of all modules or of none, and none of an embedding."""
    pairs = [*zip(names, beside.files, strict=True)]
    biased = [x for x, f in pairs if any(h.beside[1] for h in f.modules.values())]
    tables = [x for x, f in pairs if any(h.embedding for h in f.modules.values())]
    if biased and tables:
        raise ValueError(
            f"Adapter {biased[0]} has biases (lora_bias) and {tables[0]} updates an "
            f"embedding, which no adapter of PEFT does at once; `jaxlora generate "
            f"MODEL --adapter A B --merge NAME` runs them merged."
        )


def _check_overlap(names: Sequence[str], beside: Beside) -> None:
    """No adapter of PEFT replaces a module, and updates it or tokens of it as well."""
    pairs = [*zip(names, beside.files, strict=True)]
    for name, file in pairs:
        for module in (x.removesuffix(".weight") for x in file.replaced):
            others = [x for x, f in pairs if module in f.modules.keys() | f.rows.keys()]
            if others:
                raise ValueError(
                    f"Adapter {name} replaces {module!r} and {others[0]} updates it or "
                    f"tokens of it, which no adapter of PEFT does at once; `jaxlora "
                    f"fuse MODEL A B --merge NAME --out DIR` merges them on the base."
                )


def _replaced_notes(
    names: Sequence[str], beside: Beside, average: bool
) -> Iterator[str]:
    """Compares what is replaced, and says what becomes of it."""
    for name in beside.replaced:
        pairs = [
            (x, file)
            for x, file in zip(names, beside.files, strict=True)
            if name in file.replaced
        ]
        first, *others = (file.tensor(file.replaced[name]) for _, file in pairs)
        odd = [i for i, x in enumerate(others, 1) if not np.array_equal(first, x)]
        if odd and not average:
            raise ValueError(_differ(name, pairs[0][0], pairs[odd[0]][0]))
        if odd and {x.shape for x in others} != {first.shape}:
            raise ValueError(
                f"Adapters replace {name!r} of the base by tensors of different "
                f"shapes, which have no mean."
            )
        kind = "the mean of those" if odd else "that"
        yield f"{name} of the merge is {kind} of {few([x for x, _ in pairs])}."
    seen: dict[tuple[str, int], tuple[str, np.ndarray]] = {}
    for adapter, file in zip(names, beside.files, strict=True):
        for path, (ids, key) in file.rows.items():
            for i, row in zip(ids, file.tensor(key), strict=True):
                before, values = seen.setdefault((path, i), (adapter, row))
                if not average and not np.array_equal(values, row):
                    raise ValueError(_differ(f"token {i} of {path}", before, adapter))
    if seen:
        yield f"{len(seen)} trained tokens are kept beside the merge."


def _differ(what: str, first: str, second: str) -> str:
    return (
        f"Adapters {first} and {second} replace {what!r} of the base by different "
        f"values, which are no updates to merge; --average takes their mean, or leave "
        f"one out."
    )


def _mean(pairs: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    """The mean of tensors by absolute weights; equal ones stay bit for bit."""
    first = pairs[0][1]
    if all(np.array_equal(first, values) for _, values in pairs):
        return first
    total = sum(abs(weight) for weight, _ in pairs)
    return _sum((abs(weight) / total, values) for weight, values in pairs)


def _sum(pairs: Iterator[tuple[float, np.ndarray]]) -> np.ndarray:
    return np.asarray(sum(x * y.astype(np.float32) for x, y in pairs), np.float32)
