"""The outcome of a run in words: gates, verdicts, predictions, one headline.

Everything is read from ``results``, the mapping that a run leaves in results.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxlora.evaluate.schema import USUAL, Cell, Library, Method
from jaxlora.evaluate.verdict import Cause
from jaxlora.report.grid import Grid

UNMEASURED = "not measured"

EXPERT_GATE = "experts' own facts"
_BASE, _EXPERTS, _FORMATS = "Base", "Experts", "Extra formats"
_GATES = {
    _BASE: "A base that fails leaves its seed out; without any base, verdicts are "
    "invalid.",
    _EXPERTS: "An expert that fails, in any seed, makes the verdicts on its library "
    "and cell invalid; the worst expert of a seed is shown.",
    _FORMATS: "A format that fails leaves its seed out of the control that needs it, "
    "which is unavailable if no seed is left.",
}
"""Whose gates there are, and what follows where one fails."""

MEANINGS = {
    "invalid": "a gate failed, so nothing follows",
    "preserved": "what the base could do survives the combination",
    "degrades": "the combination no longer holds the single hops",
    "retrieves": "an expert already held the answer",
    "composes": "the combination puts two facts together",
    "no transfer": "not clearly above chance",
    "inconclusive": "the interval decides nothing",
}
"""Every verdict in words, in the order in which they are tried."""


def library_title(library: str, method: str) -> str:
    """Returns the name of a library and how it is used."""
    return library if method == Method.NONE.value else f"{library} ({method})"


def gate_grid(results: Mapping[str, Any]) -> Grid:
    """Returns the gates of base, experts and formats: the worst value of each seed."""
    gates = results.get("gates", [])
    seeds = sorted({gate["seed"] for gate in gates})
    kinds: dict[str, dict[str, list[Mapping[str, Any]]]] = {name: {} for name in _GATES}
    for gate in gates:
        kinds[_kind(gate)].setdefault(gate["gate"], []).append(gate)
    body: list[tuple[str, ...]] = []
    for kind, named in kinds.items():
        body += [(kind,)] if named else []
        body += [_gate_line(name, mine, seeds) for name, mine in named.items()]
        if kind != _FORMATS:
            body += _steps([g for mine in named.values() for g in mine], seeds)
    note = " ".join(_GATES[kind] for kind, named in kinds.items() if named)
    if len({gate.get("coverage") for gate in gates}) > 1:
        note += " Each value is the worst of all coverage levels."
    header = ("gate", "needs", *(f"seed {seed}" for seed in seeds))
    return Grid("Gates", header, tuple(body), note or "No gate was measured.")


def _kind(gate: Mapping[str, Any]) -> str:
    if gate["gate"] == EXPERT_GATE:
        return _EXPERTS
    return _BASE if gate.get("required", True) else _FORMATS


def _gate_line(
    name: str, gates: Sequence[Mapping[str, Any]], seeds: Sequence[Any]
) -> tuple[str, ...]:
    needs = " / ".join(f">= {t:g}" for t in sorted({g["threshold"] for g in gates}))
    return (name, needs, *(_worst(gates, seed) for seed in seeds))


def _worst(gates: Sequence[Mapping[str, Any]], seed: Any) -> str:
    mine = [gate for gate in gates if gate["seed"] == seed]
    if not mine:
        return "–"
    gate = min(
        mine, key=lambda g: (g["passed"], -1 if g["value"] is None else g["value"])
    )
    value = UNMEASURED if gate["value"] is None else f"{gate['value']:.3f}"
    return value if gate["passed"] else f"{value} failed"


def _steps(
    gates: Sequence[Mapping[str, Any]], seeds: Sequence[Any]
) -> list[tuple[str, ...]]:
    """The line of the training steps, if they were logged."""
    most = [
        max((g.get("steps") or 0 for g in gates if g["seed"] == s), default=0)
        for s in seeds
    ]
    return [("steps", "", *(str(n or "–") for n in most))] if any(most) else []


def verdict_grid(results: Mapping[str, Any], *, short: bool = False) -> Grid:
    """Returns the verdicts and causes: libraries and methods down, cells across.

    Args:
      results: as in results.json.
      short: the usual methods of the 2-combination, the mean of all other libraries.
    """
    verdicts, level = _highest(results)
    if short:
        main = (Library.PAIR.value, Method.MEAN.value)
        verdicts = [
            v
            for v in verdicts
            if v["method"] in USUAL and {v["library"], v["method"]} & {*main}
        ]
    named = {(v["library"], v["method"], v["cell"]): v for v in verdicts}
    cells = [c.value for c in Cell if any(v["cell"] == c.value for v in verdicts)]
    body = []
    for library, method in dict.fromkeys((v["library"], v["method"]) for v in verdicts):
        found = [named.get((library, method, cell)) for cell in cells]
        words = ("–" if v is None else _with_cause(v) for v in found)
        body.append((library_title(library, method), *words))
    note = "Second line: the cause, where the verdict has one."
    if level is not None:
        note += f" Coverage {level:g}, the highest of {len(_levels(results))} levels."
    note = note if verdicts else "There is no verdict."
    return Grid("Verdicts", ("", *cells), tuple(body), note)


def reason_grid(results: Mapping[str, Any]) -> Grid:
    """Returns one line per verdict, with cause and reason, at every coverage level."""
    names = ("cell", "library", "method", "verdict", "cause", "reason")
    header = ("coverage", *names) if len(_levels(results)) > 1 else names
    body = (
        tuple(_reason(verdict)[name] for name in header)
        for verdict in results.get("verdicts", [])
    )
    return Grid("Verdicts and their reasons", header, tuple(body))


def _reason(verdict: Mapping[str, Any]) -> dict[str, str]:
    level = verdict.get("coverage")
    return {
        "coverage": "–" if level is None else f"{level:g}",
        "verdict": verdict["label"],
        "cause": _cause(verdict) or "–",
        **{
            key: str(verdict.get(key) or "–")
            for key in ("cell", "library", "method", "reason")
        },
    }


def prediction_grid(results: Mapping[str, Any]) -> Grid:
    """Returns what was predicted, whether before the run, and what came of it."""
    predictions = results.get("predictions") or {}
    words = {True: "held", False: "failed", None: UNMEASURED}
    body = tuple(
        (o["statement"], words[o["held"]], o.get("got") or "–")
        for o in predictions.get("outcomes", [])
    )
    digest = f"digest {predictions.get('digest') or '–'}"
    revision = predictions.get("revision")
    if not body:
        note = "There is no prediction."
    elif revision is None:
        note = f"Not committed at the time of the run: {digest}."
    else:
        note = f"Committed before the run: {digest}, revision {revision}."
    return Grid("Predictions", ("predicted", "outcome", "got"), body, note)


def headline(results: Mapping[str, Any]) -> list[str]:
    """Returns the outcome in sentences, one per library under the mean.

    Of several coverage levels the highest counts, and every sentence names it.

    >>> headline({"verdicts": [{"cell": "R-OO", "library": "2-combination",
    ...     "method": "mean", "label": "no transfer", "cause": "fine-tuning"}]})
    ['2-combination (mean): no transfer in R-OO (not clearly above chance).']
    """
    verdicts, level = _highest(results)
    if not verdicts:
        return [
            "There is no verdict: no seed passed its gates, or nothing was measured."
        ]
    mean = [v for v in verdicts if v["method"] == Method.MEAN.value] or verdicts
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for verdict in sorted(mean, key=lambda v: _rank(v["library"])):
        title = library_title(verdict["library"], verdict["method"])
        groups.setdefault(title, []).append(verdict)
    told: set[str] = set()
    at = "" if level is None else f" at coverage {level:g}"
    return [f"{title}{at}: {_told(group, told)}." for title, group in groups.items()]


def _told(verdicts: Sequence[Mapping[str, Any]], told: set[str]) -> str:
    """Says what a label means where it is first used; adds it to ``told``."""
    parts = []
    for label, meaning in MEANINGS.items():
        cells = [v["cell"] for v in verdicts if v["label"] == label]
        if cells:
            also = "" if label in told else f" ({meaning})"
            parts.append(f"{label} in {_and(cells)}{also}")
            told.add(label)
    return "; ".join(parts)


def _rank(library: str) -> int:
    order = [Library.PAIR.value, Library.TRIPLE.value, Library.TRIPLE_OTHERS.value]
    return order.index(library) if library in order else len(order)


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _levels(results: Mapping[str, Any]) -> list[float]:
    levels = {verdict.get("coverage") for verdict in results.get("verdicts", [])}
    return sorted(levels - {None})


def _highest(
    results: Mapping[str, Any],
) -> tuple[list[Mapping[str, Any]], float | None]:
    """The verdicts that belong to the tables, and their level if it is one of several.

    Verdicts that name no level belong to all.
    """
    verdicts, levels = list(results.get("verdicts", [])), _levels(results)
    if len(levels) < 2:
        return verdicts, None
    top = levels[-1]
    return [v for v in verdicts if v.get("coverage") in (None, top)], top


def _cause(verdict: Mapping[str, Any]) -> str:
    cause = verdict.get("cause") or ""
    return "" if cause == Cause.NONE.value else cause


def _with_cause(verdict: Mapping[str, Any]) -> str:
    cause = _cause(verdict)
    return f"{verdict['label']}\n{cause}" if cause else verdict["label"]
