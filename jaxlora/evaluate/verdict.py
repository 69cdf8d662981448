"""What the evidence of one row says, by rules fixed before the results.

The labels are tried in the order of ``Label``; the first whose rule holds is the
verdict, so an edit that breaks a hop is *degrades* even where it beats controls. A
positive verdict needs every negative control: one that could not run blocks it. All
rules use the ends of an interval, never its middle, and a value that is not a number
fulfils no rule.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, NamedTuple

from jaxlora.evaluate.schema import Arm, Cell, Method
from jaxlora.evaluate.statistics import Interval, Paired, holm


class Label(StrEnum):
    """The verdicts, in the order in which they are tried."""

    INVALID = "invalid"
    PRESERVED = "preserved"
    DEGRADES = "degrades"
    RETRIEVES = "retrieves"
    COMPOSES = "composes"
    NO_TRANSFER = "no transfer"
    INCONCLUSIVE = "inconclusive"


class Cause(StrEnum):
    """What a failure is put down to.

    Combination: a joint LoRA composes, the combination does not. Fine-tuning: the
    joint LoRA fails too, or an expert never learned its own facts. Base: a criterion
    failed, or it has no compositions to draw on. None: nothing failed, or no joint
    LoRA was measured.
    """

    COMBINATION = "combination"
    FINE_TUNING = "fine-tuning"
    BASE = "base"
    NONE = "none"


class Verdict(NamedTuple):
    """A label, its cause, and one sentence with the numbers behind both."""

    label: Label
    cause: Cause
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The numbers in the rules, to be registered before the results.

    Attributes:
      preserved_margin: *preserved* if the lower bound of two-hop is at least the
        base's two-hop minus this.
      retention: *degrades* if the upper bound of a hop's retention is below this.
      chance_margin: *no transfer* if the upper bound of two-hop is at most chance
        plus this. A joint LoRA composes, and counterfactual experts move the answer,
        if the lower bound of theirs is above chance plus this.
      confidence: nominal coverage of every interval.
      alpha: a positive verdict needs an adjusted p-value below this.
      coverage: a failure is put down to the base if a smaller share of the facts it
        knows of the second relation ever took part in a trained composition.
    """

    preserved_margin: float = 0.1
    retention: float = 0.9
    chance_margin: float = 0.10
    confidence: float = 0.95
    alpha: float = 0.05
    coverage: float = 0.5

    RENAMED: ClassVar = {"level": "confidence"}

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise ValueError(
                    f"Threshold {field.name} is {value}, expected a share in [0, 1]."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured of one arm under one method in one cell."""

    cell: Cell
    arm: Arm
    method: Method
    base_ok: bool
    """The base met its criteria."""
    expert_ok: bool
    """Every expert met its criterion."""
    two_hop: Interval
    """Accuracy of the combined model."""
    base_two_hop: Interval
    """Accuracy of the base on the same items."""
    hops: Mapping[str, Interval]
    """Retention of each hop, by name; those that some expert or the base holds."""
    chance: float
    """Accuracy of the combined model with the answers shuffled among people."""
    controls: Mapping[str, Paired | None]
    """Two-hop minus that of each negative control; ``None`` if it could not run."""
    target_saw_people: bool
    """An A->C expert in the library was trained on these people."""
    counterfactual: Mapping[str, Interval]
    """Accuracy of the counterfactual answer where the experts of one hop were trained
    on it, by arm; empty if it was not measured."""
    joint: Interval | None
    """Two-hop accuracy of one LoRA on both fact sets; ``None`` if it could not run."""
    coverage: float | None = None
    """Share of the second-relation facts that took part in a trained composition;
    ``None`` where the base knows none of them."""
    p_adjusted: float | None = None
    """P-value over all controls, adjusted for the number of methods by ``adjust``."""

    def __post_init__(self) -> None:
        for name in ("hops", "controls"):
            if not getattr(self, name):
                raise ValueError(
                    f"Evidence on {self.cell} has no {name}: a rule over none of them "
                    f"would always hold. Give each by name; a control that could not "
                    f"run is None."
                )

    @property
    def p(self) -> float:
        """The largest p-value over the negative controls; 1 if one could not run.

        To beat all controls is an intersection-union test: its size needs no
        correction for their number.
        """
        return max(1.0 if x is None else x.p for x in self.controls.values())


def adjust(evidences: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Returns the evidences with Holm's p-values over the methods tried on an arm.

    A family is all methods in the same cell on the same arm.
    """
    adjusted = list(evidences)
    for family in dict.fromkeys((e.cell, e.arm) for e in evidences):
        members = [i for i, e in enumerate(evidences) if (e.cell, e.arm) == family]
        p_values = holm([evidences[i].p for i in members])
        for i, p in zip(members, p_values, strict=True):
            adjusted[i] = dataclasses.replace(evidences[i], p_adjusted=float(p))
    return tuple(adjusted)


def decide(evidence: Evidence, thresholds: Thresholds) -> Verdict:
    """Returns the first label, in the order of ``Label``, whose rule holds."""
    rules = (_invalid, _preserved, _degrades, _retrieves, _composes, _no_transfer)
    for rule in rules:
        if verdict := rule(evidence, thresholds):
            return verdict
    return _inconclusive(evidence, thresholds)


def _invalid(e: Evidence, t: Thresholds) -> Verdict | None:
    if not e.base_ok:
        return Verdict(Label.INVALID, Cause.BASE, "the base failed its criteria")
    if not e.expert_ok:
        reason = "an expert failed its criterion: it does not hold its own facts"
        return Verdict(Label.INVALID, Cause.FINE_TUNING, reason)
    return None


def _preserved(e: Evidence, t: Thresholds) -> Verdict | None:
    base = e.base_two_hop.value
    if e.cell.knows != "II" or not e.two_hop.lo >= base - t.preserved_margin:
        return None
    reason = (
        f"two-hop {_show(e.two_hop)} is at least the base's {base:.2f} - "
        f"{t.preserved_margin:.2f}"
    )
    if e.base_two_hop.lo > e.chance + t.chance_margin:
        return Verdict(Label.PRESERVED, Cause.NONE, reason)
    reason += "; but the base itself does not compose here, so little could be lost"
    return Verdict(Label.PRESERVED, Cause.BASE, reason)


def _degrades(e: Evidence, t: Thresholds) -> Verdict | None:
    lost = {name: kept for name, kept in e.hops.items() if kept.hi < t.retention}
    if not lost:
        return None
    shown = " and ".join(f"{name} {_show(kept)}" for name, kept in lost.items())
    cause, why = _cause(e, t)
    reason = f"retention of {shown} is below {t.retention:.2f}; {why}"
    return Verdict(Label.DEGRADES, cause, reason)


def _retrieves(e: Evidence, t: Thresholds) -> Verdict | None:
    if not e.target_saw_people or _obstacle(e, t):
        return None
    reason = (
        f"two-hop {_show(e.two_hop)} {_beats(e)}; an A->C expert was trained on these "
        f"people"
    )
    return Verdict(Label.RETRIEVES, Cause.NONE, reason)


def _composes(e: Evidence, t: Thresholds) -> Verdict | None:
    if e.target_saw_people or _obstacle(e, t) or _unmoved(e, t):
        return None
    moved = ", ".join(f"{name} {_show(x)}" for name, x in e.counterfactual.items())
    reason = (
        f"two-hop {_show(e.two_hop)} {_beats(e)}; no A->C expert saw these people, and "
        f"counterfactual experts move the answer ({moved})"
    )
    return Verdict(Label.COMPOSES, Cause.NONE, reason)


def _no_transfer(e: Evidence, t: Thresholds) -> Verdict | None:
    if not e.two_hop.hi <= e.chance + t.chance_margin:
        return None
    cause, why = _cause(e, t)
    kept = ", ".join(f"{name} {_show(x)}" for name, x in e.hops.items())
    reason = f"two-hop {_show(e.two_hop)} is at most {_bar(e, t)}; no hop is lost"
    return Verdict(Label.NO_TRANSFER, cause, f"{reason} ({kept}); {why}")


def _inconclusive(e: Evidence, t: Thresholds) -> Verdict:
    obstacle = _obstacle(e, t) or _unmoved(e, t)
    reason = f"two-hop {_show(e.two_hop)} is not at most {_bar(e, t)}, but {obstacle}"
    if e.two_hop.lo > e.chance + t.chance_margin:
        return Verdict(Label.INCONCLUSIVE, Cause.NONE, reason)
    cause, why = _cause(e, t)
    return Verdict(Label.INCONCLUSIVE, cause, f"{reason}; {why}")


def _obstacle(e: Evidence, t: Thresholds) -> str:
    """What stands against "above every negative control"; empty if nothing does."""
    missing = [name for name, x in e.controls.items() if x is None]
    if missing:
        return f"control {missing[0]} could not run"
    for name, x in e.controls.items():
        if x is not None and not x.difference.lo > 0:
            return f"it is not above control {name} (by {_show(x.difference)})"
    if e.p_adjusted is not None and not e.p_adjusted < t.alpha:
        return (
            f"p = {e.p_adjusted:.3g} over all methods is not below {t.alpha:.2g} (Holm)"
        )
    return ""


def _unmoved(e: Evidence, t: Thresholds) -> str:
    """What stands against "counterfactual experts move the answer"."""
    if not e.counterfactual:
        return "no counterfactual expert was measured"
    for name, x in e.counterfactual.items():
        if not x.lo > e.chance + t.chance_margin:
            return f"{name} moves it to {_show(x)} only, not above {_bar(e, t)}"
    return ""


def _cause(e: Evidence, t: Thresholds) -> tuple[Cause, str]:
    if e.joint is not None and e.joint.lo > e.chance + t.chance_margin:
        return Cause.COMBINATION, f"a joint LoRA composes ({_show(e.joint)})"
    if e.coverage is not None and e.coverage < t.coverage:
        share = f"{e.coverage:.2f} of the second relation's facts"
        return Cause.BASE, f"the base composed only {share} in training"
    if e.joint is None:
        return Cause.NONE, "no joint LoRA was measured to tell why"
    return Cause.FINE_TUNING, f"the joint LoRA fails too ({_show(e.joint)})"


def _beats(e: Evidence) -> str:
    known = [x for x in e.controls.values() if x is not None]
    least = min(known, key=lambda x: x.difference.lo)
    return (
        f"is above each of {len(known)} negative controls, by at least "
        f"{_show(least.difference)}"
    )


def _bar(e: Evidence, t: Thresholds) -> str:
    return f"chance {e.chance:.2f} + {t.chance_margin:.2f}"


def _show(x: Interval) -> str:
    return f"{x.value:.2f} [{x.lo:.2f}, {x.hi:.2f}]"
