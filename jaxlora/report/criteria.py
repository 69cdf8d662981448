"""The criteria of a run, of base, experts and formats, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from jaxlora.report.grid import Grid

Criterion: TypeAlias = Mapping[str, Any]
"""Name ("criterion"), threshold, value and seed, as a run stores them."""

UNMEASURED = "not measured"

EXPERT_CRITERION = "experts' own facts"
_BASE, _EXPERTS, _FORMATS = "Base", "Experts", "Extra formats"
_CONSEQUENCES = {
    _BASE: "A base that fails leaves its seed out; without any base, verdicts are "
    "invalid.",
    _EXPERTS: "An expert that fails, in any seed, makes the verdicts on its library "
    "and cell invalid; the worst expert of a seed is shown.",
    _FORMATS: "A format that fails leaves its seed out of the control that needs it, "
    "which is unavailable if no seed is left.",
}
"""Whose criteria there are, and what follows where one fails."""


def criteria_grid(results: Mapping[str, Any]) -> Grid:
    """Returns the criteria of base, experts and formats: the worst value of a seed.

    Args:
      results: as in results.json.
    """
    # Runs of version 0.1 stored them as "gates", each with its "gate".
    stored = results.get("criteria") or results.get("gates", [])
    criteria = [{"criterion": x.get("gate"), **x} for x in stored]
    seeds = sorted({criterion["seed"] for criterion in criteria})
    kinds: dict[str, dict[str, list[Criterion]]] = {name: {} for name in _CONSEQUENCES}
    for criterion in criteria:
        kinds[_kind(criterion)].setdefault(criterion["criterion"], []).append(criterion)
    body: list[tuple[str, ...]] = []
    for kind, named in kinds.items():
        body += [(kind,)] if named else []
        body += [_criterion_line(name, some, seeds) for name, some in named.items()]
        if kind != _FORMATS:
            body += _steps([g for some in named.values() for g in some], seeds)
    note = " ".join(_CONSEQUENCES[kind] for kind, named in kinds.items() if named)
    if len({criterion.get("coverage") for criterion in criteria}) > 1:
        note += " Each value is the worst of all coverages."
    header = ("criterion", "needs", *(f"seed {seed}" for seed in seeds))
    return Grid("Criteria", header, tuple(body), note or "No criterion was measured.")


def _kind(criterion: Criterion) -> str:
    if criterion["criterion"] == EXPERT_CRITERION:
        return _EXPERTS
    return _BASE if criterion.get("required", True) else _FORMATS


def _criterion_line(
    name: str, criteria: Sequence[Criterion], seeds: Sequence[Any]
) -> tuple[str, ...]:
    needs = " / ".join(f">= {t:g}" for t in sorted({g["threshold"] for g in criteria}))
    return (name, needs, *(_worst(criteria, seed) for seed in seeds))


def _worst(criteria: Sequence[Criterion], seed: Any) -> str:
    of_seed = [c for c in criteria if c["seed"] == seed]
    if not of_seed:
        return "–"
    worst = min(
        # Failures first, then the lowest value; one that was not measured is lowest.
        of_seed,
        key=lambda g: (g["passed"], -1 if g["value"] is None else g["value"]),
    )
    value = UNMEASURED if worst["value"] is None else f"{worst['value']:.3f}"
    return value if worst["passed"] else f"{value} failed"


def _steps(
    criteria: Sequence[Criterion], seeds: Sequence[Any]
) -> list[tuple[str, ...]]:
    """The line of the training steps, if they were logged."""
    most = [
        max((g.get("steps") or 0 for g in criteria if g["seed"] == s), default=0)
        for s in seeds
    ]
    return [("steps", "", *(str(n or "–") for n in most))] if any(most) else []
