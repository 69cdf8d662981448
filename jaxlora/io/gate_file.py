"""A gate on disk: one safetensors file, which says what it was made for.

``<site>/live`` and ``<site>/mark`` (the experts' fingerprints) are [E, L] (or [E]),
``<site>/keys`` or ``<site>/keys/<name>`` start with these axes. The header's metadata
are one text: a line of JSON (route, experts in their order, base, and how the keys came
about), and the SHA-256 of it and of all arrays. Everything is checked on reading,
nothing in a file is run, and it is written whole or not at all.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors
from safetensors import safe_open

from jaxlora import route as routes
from jaxlora import tree as named
from jaxlora.files import write_whole
from jaxlora.io import gate_about, header
from jaxlora.io.gate_about import About as About
from jaxlora.io.library_entries import check_site
from jaxlora.parallel import processes
from jaxlora.route import State
from jaxlora.tree import Tree

_KEY, _HASH = "jaxlora_gate", "sha256"
_SAMPLE = 64  # values of a leaf that its fingerprint is made of
_NEAR = 0.02  # more than bfloat16 rounds away


class GateFile(NamedTuple):
    """A gate as it was written."""

    about: About
    state: Tree
    """A tree of :class:`State`, for ``models.apply``."""


def save(path: Path, state: Tree, about: About) -> None:
    """Writes a gate; an older file stays as it was if anything fails.

    Args:
      path: the file.
      state: a tree of :class:`State`, as ``Route.init`` makes it.
      about: the route, the experts and the base that it was made for.

    Raises:
      ValueError: if the state is not one of these experts, or not finite.
    """
    arrays: dict[str, np.ndarray] = {}
    for site, gate in routes.states(state).items():
        check_site(site)
        if not isinstance(gate, State):
            raise ValueError(f"The gate at {site!r} is no State; Route.init makes it.")
        arrays[f"{site}/live"] = np.asarray(gate.live)
        arrays[f"{site}/mark"] = np.asarray(gate.fingerprint, np.float32)
        for name, leaf in named.flatten({"keys": gate.keys}).items():
            arrays[f"{site}/{name}"] = np.asarray(leaf, np.float32)
    # What is written passes the same checks as what is read.
    _states(path, arrays, len(about.experts))
    rows = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    text = gate_about.dumps(about)
    # In one field, because safetensors writes several in an order of its own each time.
    sealed = f"{text}\n{gate_about.file_hash(text, rows)}"
    write_whole(path, safetensors.save(rows, metadata={_KEY: sealed}))


def load(path: Path) -> GateFile:
    """Reads and checks a gate.

    Args:
      path: a file that :func:`save` wrote.

    Raises:
      ValueError: naming the file, what is wrong with it and what was expected.
    """
    if not path.is_file():
        raise ValueError(
            f"There is no file {str(path)!r}, expected a gate, as `jaxlora gate` makes."
        )
    entries = header.read(path)
    about, text, sha256 = _about(path)
    for name, entry in entries.items():
        # Other types would be cast silently: not the weights that were trained.
        wanted = "BOOL" if name.endswith("/live") else "F32"
        if entry.dtype != wanted:
            raise _bad(path, f"{name!r} is stored as {entry.dtype}, expected {wanted}")
    arrays = {name: header.values(path, entry) for name, entry in entries.items()}
    if sha256 is not None and sha256 != gate_about.file_hash(text, arrays):
        raise _bad(path, f"its {_HASH} is not that of what it holds: it was damaged")
    return GateFile(about, _states(path, arrays, len(about.experts)))


def fingerprint(base: Tree) -> tuple[float, ...]:
    """Numbers that tell one base from another, whatever it is rounded to.

    One a leaf, of its first values.

    Args:
      base: params tree.

    >>> [round(x, 3) for x in fingerprint({"head": np.ones((2, 2), np.float32)})]
    [1.496]
    """
    # Irregular weights: a permuted row must not give the same number.
    waves = ((np.cos(0.7 * np.arange(len(x)) + 0.3), x) for x in _samples(base))
    return tuple(round(float(wave @ x), 6) for wave, x in waves)


def check_base(gate: GateFile, base: Tree) -> None:
    """Refuses a gate that was made on other weights; one that does not say is taken.

    Args:
      gate: as :func:`load` returns it.
      base: params tree that the gate shall be used on.

    Raises:
      ValueError: naming the base that it was made on.
    """
    about = gate.about
    if not about.base_fingerprint:
        return
    # A base may be loaded in another type than the gate was made on: near is equal.
    now, sizes = fingerprint(base), [np.linalg.norm(x) for x in _samples(base)]
    fits = len(now) == len(about.base_fingerprint) and all(
        abs(x - y) <= _NEAR * size + 1e-6
        for x, y, size in zip(now, about.base_fingerprint, sizes, strict=True)
    )
    if not fits:
        raise ValueError(
            f"The gate was made on another base ({about.base or 'of unknown name'}): "
            f"its keys say nothing of this one's inputs; make it again on this base."
        )


def asked(
    path: Path,
    gate: GateFile,
    experts: Sequence[Path | str],
    *,
    route: str | None,
    top_k: int | None,
    temperature: float | None,
) -> dict[str, Any]:
    """Returns route, top_k and temperature: as given, or else as the file says.

    Args:
      path: of the gate, for messages.
      gate: as :func:`load` returned it.
      experts: folders of the adapters that it shall choose among.
      route: name of a preset, or ``module:attribute``; None for the file's.
      top_k: experts that the route keeps; None for the file's.
      temperature: divides the route's scores; None for the file's.

    Raises:
      ValueError: if another route is given, the number or the order of the adapters is
        another one, or the route would have to be imported on the file's word.
    """
    about = gate.about
    # A file must not decide which of the user's modules is imported and run.
    if route is None and ":" in about.route:
        raise ValueError(
            f"{path} is of the route {about.route!r}, which runs code of your own; "
            f"give it as the route to say so."
        )
    if route not in (None, about.route):
        raise ValueError(
            f"{path} is a gate of the route {about.route!r}, but the route {route!r} "
            f"is asked for; leave it out, or make a gate for it with `jaxlora gate`."
        )
    # Folders may have moved; their last names are what tells adapters apart.
    got, wanted = ([Path(x).name for x in y] for y in (experts, about.experts))
    if len(got) != len(wanted) or (got != wanted and sorted(got) == sorted(wanted)):
        raise ValueError(
            f"{path} is a gate of {len(wanted)} adapters, {', '.join(about.experts)}, "
            f"but got {len(got)}{': ' if got else ''}{', '.join(map(str, experts))}; "
            f"give the same adapters in the same order."
        )
    given = {"top_k": top_k, "temperature": temperature}
    return {"route": about.route, **given} | {
        name: value for name, value in about.fields.items() if given[name] is None
    }


def _about(path: Path) -> tuple[About, str, str | None]:
    """What it was made for, as text too, and the hash that it says it has."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    if _KEY not in metadata:
        raise ValueError(
            f"{path} is a safetensors file, but no gate: its metadata have no {_KEY}; "
            f"`jaxlora gate` makes one."
        )
    text, _, sha256 = metadata[_KEY].partition("\n")
    try:
        about = gate_about.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise _bad(path, f"its {_KEY} cannot be used ({error})") from None
    if not sha256 and gate_about.version(text) > 1:
        raise _bad(path, f"its {_HASH} is missing: it was damaged")
    return about, text, sha256 or None


def _states(path: Path, arrays: Mapping[str, np.ndarray], experts: int) -> Tree:
    """Builds the tree, after checking that each site has all its parts."""
    sites: dict[str, dict[str, np.ndarray]] = {}
    for name, values in arrays.items():
        site, part = _split(path, name)
        sites.setdefault(site, {})[part] = values
    if not sites:
        raise _bad(path, "it holds no site")
    states = {}
    for site, parts in sites.items():
        check_site(site)
        _check_parts(path, site, parts, experts)
        leaves = {name: jnp.asarray(values) for name, values in parts.items()}
        live, mark = leaves.pop("live"), leaves.pop("mark")
        states[site] = State(named.unflatten(leaves)["keys"], live, mark)
    return named.unflatten(states)


def _check_parts(
    path: Path, site: str, parts: Mapping[str, np.ndarray], experts: int
) -> None:
    keys = [name for name in parts if name.startswith("keys")]
    if len(keys) + 2 != len(parts) or not keys or not {"live", "mark"} <= set(parts):
        raise _bad(path, f"{site!r} has {sorted(parts)}, expected keys, live and mark")
    lead = parts["live"].shape
    for name, values in parts.items():
        # Keys have axes of their own after those of live.
        starts = values.shape[: len(lead)] == lead
        exact = name.startswith("keys") or values.shape == lead
        if not starts or not exact or lead[:1] != (experts,) or len(lead) > 2:
            raise _bad(
                path,
                f"{site}/{name} has the shape {values.shape} beside live {lead}, for "
                f"{experts} experts",
            )
        if values.dtype != bool and not np.isfinite(values).all():
            raise _bad(path, f"{site}/{name} holds NaN or infinity")
        if values.dtype == bool and (values.view(np.uint8) > 1).any():
            raise _bad(path, f"{site}/{name} holds bytes that are neither 0 nor 1")


def _split(path: Path, name: str) -> tuple[str, str]:
    """``(site, part)``: the part is live, mark, keys or keys/<name>."""
    site, _, last = name.rpartition("/")
    before, _, parent = site.rpartition("/")
    if parent == "keys" and before:
        return before, f"keys/{last}"
    if last in ("live", "mark", "keys") and site:
        return site, last
    raise _bad(path, f"the tensor {name[:200]!r} is no live, mark or keys of a site")


def _samples(base: Tree) -> list[np.ndarray]:
    leaves = [leaf for _, leaf in sorted(named.flatten(base).items())]
    # A few values of every leaf are enough to tell bases apart, and quick for billions.
    rows = [leaf[(0,) * (leaf.ndim - 1)][:_SAMPLE] for leaf in leaves]
    rows = processes.host(rows)
    return [np.asarray(row, np.float32).astype(np.float64) for row in rows]


def _bad(path: Path, what: str) -> ValueError:
    return ValueError(
        f"{path} is no sound gate: {what}; make it again with `jaxlora gate`."
    )
