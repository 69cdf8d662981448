"""The outcome of a run in words: criteria, verdicts, predictions, one headline.

Everything is read from ``results``, the mapping that a run leaves in results.json.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxlora.evaluate.predictions import Ending
from jaxlora.evaluate.schema import USUAL, Arm, Cell, Method
from jaxlora.evaluate.verdict import Cause
from jaxlora.report import finding
from jaxlora.report.criteria import EXPERT_CRITERION as EXPERT_CRITERION
from jaxlora.report.criteria import UNMEASURED as UNMEASURED
from jaxlora.report.criteria import Criterion as Criterion
from jaxlora.report.criteria import criteria_grid as criteria_grid
from jaxlora.report.grid import Grid

MEANINGS = {
    "invalid": "a criterion failed, so nothing follows",
    "preserved": "what the base could do survives the combination",
    "degrades": "the combination no longer holds the single hops",
    "retrieves": "an expert already held the answer",
    "composes": "the combination puts two facts together",
    "composes with the base": "an expert's fact is put together with the base's",
    "likelihood transfer": "the answer becomes likelier, but not the first choice",
    "no transfer": "not clearly above chance",
    "no gain": "an expert alone answers as many, within 0.10",
    "undecided": "the interval decides nothing",
    "inconclusive": "the interval decides nothing",
}
"""Every verdict in words, in the order in which they are tried."""
OPEN = ("undecided", "inconclusive")
"""Verdicts that decide nothing, so that nothing has a cause."""
_OLDER = ("degrades", "inconclusive")
"""Verdicts of older runs: today *degrades* is a remark, and the other *undecided*."""


def meanings(results: Mapping[str, Any]) -> dict[str, str]:
    """Returns every verdict that a run could have in words, in order.

    Args:
      results: as in results.json.
    """
    used = {verdict["label"] for verdict in results.get("verdicts", [])}
    return {k: x for k, x in MEANINGS.items() if k in used or k not in _OLDER}


def library_title(library: str, method: str) -> str:
    """Returns the name of a library and how it is used.

    Args:
      library: which adapters.
      method: how they are used; "none" for at most one.
    """
    return library if method == Method.NONE.value else f"{library} ({method})"


def verdict_grid(results: Mapping[str, Any], *, short: bool = False) -> Grid:
    """Returns the verdicts and causes: libraries and methods down, cells across.

    Args:
      results: as in results.json.
      short: the usual methods of the 2-combination, the mean of all other libraries.
    """
    verdicts, coverage = _highest(results)
    if short:
        main = (Arm.PAIR.value, Method.MEAN.value)
        verdicts = [
            v
            for v in verdicts
            if v["method"] in USUAL and {v["library"], v["method"]} & {*main}
        ]
    named = {(v["library"], v["method"], v["cell"]): v for v in verdicts}
    cells = [c.value for c in Cell if any(v["cell"] == c.value for v in verdicts)]
    body = []
    for library, method in dict.fromkeys((v["library"], v["method"]) for v in verdicts):
        line = [named.get((library, method, cell)) for cell in cells]
        words = ("–" if v is None else _with_cause(v) for v in line)
        body.append((library_title(library, method), *words))
    note = "Below a verdict: its cause, where it has one, and what else holds."
    if coverage is not None:
        note += f" Coverage {coverage:g}, the highest of {len(_coverages(results))}."
    note = note if verdicts else "There is no verdict."
    return Grid("Verdicts", ("", *cells), tuple(body), note)


def reason_grid(results: Mapping[str, Any]) -> Grid:
    """Returns one line per verdict, with cause and reason, at every coverage.

    Args:
      results: as in results.json.
    """
    names = ("cell", "library", "method", "verdict", "cause", "reason")
    header = ("coverage", *names) if len(_coverages(results)) > 1 else names
    body = (
        tuple(_reason(verdict)[name] for name in header)
        for verdict in results.get("verdicts", [])
    )
    return Grid("Verdicts and their reasons", header, tuple(body))


def _reason(verdict: Mapping[str, Any]) -> dict[str, str]:
    coverage = verdict.get("coverage")
    return {
        "coverage": "–" if coverage is None else f"{coverage:g}",
        "verdict": verdict["label"],
        "cause": _cause(verdict) or "–",
        "reason": "; ".join([str(verdict.get("reason") or "–"), *remarks(verdict)]),
        **{key: str(verdict.get(key) or "–") for key in ("cell", "library", "method")},
    }


def prediction_grid(results: Mapping[str, Any]) -> Grid:
    """Returns what was predicted, whether before the run, and what came of it.

    Args:
      results: as in results.json.
    """
    predictions = results.get("predictions") or {}
    body = tuple(
        (o["statement"], _ending(o), o.get("got") or "–")
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
    note = f"{_counted(line[1] for line in body)}{note}"
    return Grid("Predictions", ("predicted", "outcome", "got"), body, note)


def _counted(endings: Iterable[str]) -> str:
    """How many claims ended in which way; what only promised a report is no claim."""
    every = list(endings)
    claims = [x for x in every if x != Ending.REPORTED.value]
    if not claims:
        return ""
    ends = (Ending.HELD, Ending.FAILED, Ending.UNDECIDED, Ending.NOT_MEASURED)
    parts = ", ".join(f"{claims.count(x.value)} {x}" for x in ends if x.value in claims)
    other = len(every) - len(claims)
    more = f"; {other} more only promised a report" if other else ""
    return f"Of {len(claims)} claims: {parts}{more}. "


def _ending(outcome: Mapping[str, Any]) -> str:
    # Older runs knew no "undecided", and counted reports as held.
    if "predicted reported" in outcome.get("detail", "") and outcome["held"]:
        return Ending.REPORTED.value
    words = {True: "held", False: "failed", None: UNMEASURED}
    return outcome.get("outcome") or words[outcome["held"]]


def remarks(verdict: Mapping[str, Any], *, short: bool = False) -> list[str]:
    """What holds beside a verdict, such as "degrades"; empty for older runs.

    Args:
      verdict: as in results.json.
      short: each once, without its numbers.
    """
    beside = list(verdict.get("remarks") or [])
    return list(dict.fromkeys(x.split(":")[0] for x in beside)) if short else beside


def headline(results: Mapping[str, Any]) -> list[str]:
    """Returns the outcome in sentences: the finding, then one per arm under the mean.

    Of several coverages the highest counts, and every sentence names it.

    Args:
      results: as in results.json.

    >>> headline({"verdicts": [{"cell": "R-OO", "library": "2-combination",
    ...     "method": "mean", "label": "no transfer", "cause": "fine-tuning"}]})
    ['2-combination (mean): no transfer in R-OO (not clearly above chance).']
    """
    verdicts, coverage = _highest(results)
    if not verdicts:
        return [
            "There is no verdict: no seed met its criteria, or nothing was measured."
        ]
    # A run of its own methods may not have the mean: then all of them are told.
    mean = [v for v in verdicts if v["method"] == Method.MEAN.value] or verdicts
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for verdict in sorted(mean, key=lambda v: _rank(v["library"])):
        title = library_title(verdict["library"], verdict["method"])
        groups.setdefault(title, []).append(verdict)
    explained: set[str] = set()
    at = "" if coverage is None else f" at coverage {coverage:g}"
    first = finding.sentence(results)
    return [first] * bool(first) + [
        f"{title}{at}: {_explained(group, explained)}."
        for title, group in groups.items()
    ]


def _explained(verdicts: Sequence[Mapping[str, Any]], explained: set[str]) -> str:
    """Says what a label means where it is first used; adds it to ``explained``."""
    parts = []
    for label, meaning in MEANINGS.items():
        cells = [v["cell"] for v in verdicts if v["label"] == label]
        if cells:
            also = "" if label in explained else f" ({meaning})"
            parts.append(f"{label} in {_and(cells)}{also}")
            explained.add(label)
    return "; ".join(parts)


def _rank(library: str) -> int:
    order = [Arm.PAIR.value, Arm.TRIPLE.value, Arm.TRIPLE_OTHERS.value]
    return order.index(library) if library in order else len(order)


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _coverages(results: Mapping[str, Any]) -> list[float]:
    shares = {verdict.get("coverage") for verdict in results.get("verdicts", [])}
    return sorted(shares - {None})


def _highest(
    results: Mapping[str, Any],
) -> tuple[list[Mapping[str, Any]], float | None]:
    """The verdicts that belong to the tables, and their coverage if there are several.

    Verdicts that name no coverage belong to all.
    """
    verdicts, shares = list(results.get("verdicts", [])), _coverages(results)
    if len(shares) < 2:
        return verdicts, None
    top = shares[-1]
    return [v for v in verdicts if v.get("coverage") in (None, top)], top


def _cause(verdict: Mapping[str, Any]) -> str:
    # Older runs gave causes to verdicts that were none.
    cause, open_ = verdict.get("cause") or "", verdict["label"] in OPEN
    return "" if open_ or cause == Cause.NONE.value else cause


def _with_cause(verdict: Mapping[str, Any]) -> str:
    words = [verdict["label"], _cause(verdict), *remarks(verdict, short=True)]
    return "\n".join(filter(None, words))
