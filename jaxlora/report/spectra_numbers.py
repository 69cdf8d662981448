"""Every number of what adapters are: norms, ranks, singular values, cosines."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxlora import spectra
from jaxlora.io.collection import Collection
from jaxlora.spectra import Group

ROW = (
    "adapter",
    "group",
    "module",
    "rank",
    "scale",
    "norm",
    "stable_rank",
    "effective_rank",
    "singular_values",
)
"""Columns of :func:`rows`."""


def plain(collection: Collection, groups: Mapping[str, Group]) -> dict[str, Any]:
    """Returns every number, as JSON holds it; None is undefined or absent.

    Args:
      collection: E adapters, as they were read.
      groups: what ``spectra.measure`` says of them, by site.

    Returns:
      Adapters (name, base, modules, parameters, norm), their cosines [E, E], and for
      each group its modules, features, cosines and, by adapter, numbers of each layer.
    """
    gram = spectra.total(groups)
    adapters = [
        {
            "name": name,
            "base": collection.base_names[i],
            "modules": sum(
                int((group.ranks[i] > 0).sum()) for group in groups.values()
            ),
            "parameters": spectra.parameters(groups, i),
            "norm": float(np.sqrt(gram[i, i])),
        }
        for i, name in enumerate(collection.names)
    ]
    return {
        "adapters": adapters,
        "cosines": _json(spectra.cosines(gram)),
        "groups": {
            name: _group(collection, name, group) for name, group in groups.items()
        },
    }


def rows(collection: Collection, groups: Mapping[str, Group]) -> pd.DataFrame:
    """Returns a row for each adapter and each module that it adapts.

    Args:
      collection: E adapters, as they were read.
      groups: what ``spectra.measure`` says of them, by site.

    Returns:
      Columns ``ROW``; singular values are a text, with a space between.
    """
    out = []
    for name, group in groups.items():
        paths = collection.modules[name]
        for i, layer in zip(*np.nonzero(group.ranks), strict=True):
            rank = int(group.ranks[i, layer])
            values = " ".join(f"{x:.6g}" for x in group.singular[i, layer, :rank])
            numbers = (
                float(group.scales[i, layer]),
                float(np.sqrt(group.energy[i, layer])),
                float(group.stable_rank[i, layer]),
                float(group.effective_rank[i, layer]),
            )
            where = (collection.names[i], name, paths[layer], rank)
            out.append((*where, *numbers, values))
    return pd.DataFrame(out, columns=list(ROW)).sort_values(
        "adapter", key=lambda x: x.map(collection.names.index), kind="stable"
    )


def _group(collection: Collection, name: str, group: Group) -> dict[str, Any]:
    there = group.ranks > 0
    return {
        "modules": list(collection.modules[name]),
        "features": list(group.shape),
        "embedding": name in collection.embeddings,
        "cosines": _json(spectra.cosines(group.gram)),
        "adapters": {
            expert: {
                "rank": group.ranks[i].tolist(),
                "scale": _json(np.where(there[i], group.scales[i], np.nan)),
                "norm": _json(np.sqrt(group.energy[i])),
                "stable_rank": _json(group.stable_rank[i]),
                "effective_rank": _json(group.effective_rank[i]),
                "singular_values": [
                    row[:rank].tolist()
                    for row, rank in zip(group.singular[i], group.ranks[i], strict=True)
                ],
            }
            for i, expert in enumerate(collection.names)
        },
    }


def _json(values: np.ndarray) -> Any:
    plain = values.astype(object)
    plain[np.isnan(values)] = None
    return plain.tolist()
