"""The outcome of a run in words: gates, verdicts, predictions, one headline.

Everything is read from ``results``, the mapping that a run leaves in results.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxlora.evaluate.schema import Cell, Library, Method
from jaxlora.report.grid import Grid

UNMEASURED = "not measured"

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
    """Returns the gates: worst value per seed, in words where it failed."""
    gates = results.get("gates", [])
    seeds = sorted({gate["seed"] for gate in gates})
    names = list(dict.fromkeys(gate["gate"] for gate in gates))

    def worst(name: str, seed: Any) -> str:
        mine = [g for g in gates if (g["gate"], g["seed"]) == (name, seed)]
        if not mine:
            return "–"
        gate = min(
            mine, key=lambda g: (g["passed"], -1 if g["value"] is None else g["value"])
        )
        value = UNMEASURED if gate["value"] is None else f"{gate['value']:.3f}"
        return value if gate["passed"] else f"{value} failed"

    def needs(name: str) -> str:
        thresholds = {g["threshold"] for g in gates if g["gate"] == name}
        return " / ".join(f">= {t:g}" for t in sorted(thresholds))

    steps = {
        s: max(g.get("steps") or 0 for g in gates if g["seed"] == s) for s in seeds
    }
    body = [(n, needs(n), *(worst(n, s) for s in seeds)) for n in names]
    if any(steps.values()):
        body.append(("steps", "", *(str(steps[s] or "–") for s in seeds)))
    header = ("gate", "needs", *(f"seed {seed}" for seed in seeds))
    note = (
        "A failed gate of the base or of an expert makes verdicts invalid; that of an "
        "extra format makes its control unavailable."
    )
    return Grid(
        "Gates", header, tuple(body), note if gates else "No gate was measured."
    )


def verdict_grid(results: Mapping[str, Any], *, short: bool = False) -> Grid:
    """Returns the verdicts and causes: libraries and methods down, cells across.

    Args:
      results: as in results.json.
      short: every method of the 2-combination, and the mean of all other libraries.
    """
    verdicts = results.get("verdicts", [])
    if short:
        main = (Library.PAIR.value, Method.MEAN.value)
        verdicts = [v for v in verdicts if {v["library"], v["method"]} & {*main}]
    named = {(v["library"], v["method"], v["cell"]): v for v in verdicts}
    cells = [c.value for c in Cell if any(v["cell"] == c.value for v in verdicts)]
    body = []
    for library, method in dict.fromkeys((v["library"], v["method"]) for v in verdicts):
        found = [named.get((library, method, cell)) for cell in cells]
        words = ("–" if v is None else _with_cause(v) for v in found)
        body.append((library_title(library, method), *words))
    note = (
        "Second line: the cause, where the verdict has one."
        if verdicts
        else "There is no verdict."
    )
    return Grid("Verdicts", ("", *cells), tuple(body), note)


def reason_grid(results: Mapping[str, Any]) -> Grid:
    """Returns one line per verdict, with cause and reason."""
    keys = ("cell", "library", "method", "label", "cause", "reason")
    body = (
        tuple(str(verdict.get(key) or "–") for key in keys)
        for verdict in results.get("verdicts", [])
    )
    header = ("cell", "library", "method", "verdict", "cause", "reason")
    return Grid("Verdicts and their reasons", header, tuple(body))


def prediction_grid(results: Mapping[str, Any]) -> Grid:
    """Returns what was predicted before the run, and what came of it."""
    predictions = results.get("predictions") or {}
    words = {True: "held", False: "failed", None: UNMEASURED}
    body = tuple(
        (o["statement"], words[o["held"]], o.get("got") or "–")
        for o in predictions.get("outcomes", [])
    )
    digest, revision = (predictions.get(k) or "–" for k in ("digest", "revision"))
    note = f"Committed before the run: digest {digest}, revision {revision}."
    return Grid("Predictions", ("predicted", "outcome", "got"), body, note)


def headline(results: Mapping[str, Any]) -> list[str]:
    """Returns the outcome in sentences, one per library under the mean.

    >>> headline({"verdicts": [{"cell": "R-OO", "library": "2-combination",
    ...     "method": "mean", "label": "no transfer", "cause": "fine-tuning"}]})
    ['2-combination (mean): no transfer in R-OO (not clearly above chance).']
    """
    verdicts = results.get("verdicts", [])
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
    return [f"{title}: {_told(group, told)}." for title, group in groups.items()]


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


def _with_cause(verdict: Mapping[str, Any]) -> str:
    cause = verdict.get("cause")
    return f"{verdict['label']}\n{cause}" if cause else verdict["label"]
