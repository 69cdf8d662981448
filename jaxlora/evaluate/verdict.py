"""What the evidence of one row says, by rules fixed before the results.

The labels are tried in the order of ``Label``; the first whose rule holds is the
verdict. Beside it stand remarks: *degrades* and *no headroom* forbid no label. A
positive verdict needs every negative control: one that could not run blocks it. All
rules use the ends of an interval, never its middle, and a value that is not a number
fulfils no rule.
"""

from enum import StrEnum
from typing import NamedTuple

from jaxlora.evaluate import gain
from jaxlora.evaluate.evidence import Controls
from jaxlora.evaluate.evidence import Evidence as Evidence
from jaxlora.evaluate.evidence import Ingredient as Ingredient
from jaxlora.evaluate.evidence import PValues as PValues
from jaxlora.evaluate.evidence import Thresholds as Thresholds
from jaxlora.evaluate.evidence import adjust as adjust
from jaxlora.evaluate.statistics import Interval

DEGRADES, NO_HEADROOM = "degrades", "no headroom"
"""The words that remarks begin with."""


class Label(StrEnum):
    """The verdicts, in the order in which they are tried."""

    INVALID = "invalid"
    PRESERVED = "preserved"
    RETRIEVES = "retrieves"
    COMPOSES = "composes"
    COMPOSES_WITH_BASE = "composes with the base"
    LIKELIHOOD = "likelihood transfer"
    NO_TRANSFER = "no transfer"
    NO_GAIN = "no gain"
    UNDECIDED = "undecided"


class Cause(StrEnum):
    """What a failure is put down to.

    Combination: a joint LoRA composes, the combination does not. Fine-tuning: the
    joint LoRA fails too, or an expert never learned its own facts. Base: a criterion
    failed, or it has no compositions to draw on. None: nothing failed, nothing is
    decided, or no joint LoRA was measured.
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
    remarks: tuple[str, ...] = ()
    """What holds beside the label, each with its numbers after a colon."""


def decide(evidence: Evidence, thresholds: Thresholds) -> Verdict:
    """Returns the first label, in the order of ``Label``, whose rule holds."""
    if verdict := _invalid(evidence):
        return verdict
    rules = (
        _preserved,
        _retrieves,
        _composes,
        _composes_with_base,
        _likelihood,
        _no_transfer,
        _no_gain,
    )
    tried = (rule(evidence, thresholds) for rule in rules)
    verdict = next(filter(None, tried), None) or _undecided(evidence, thresholds)
    remarks = [*_remarks(evidence, thresholds)]
    if verdict.label is Label.UNDECIDED and (more := gain.needed(evidence, thresholds)):
        remarks.append(more)
    return verdict._replace(remarks=tuple(remarks))


def has_headroom(joint: Interval, thresholds: Thresholds) -> bool:
    """Does one LoRA on both fact sets reach what methods need to be ranked?"""
    return joint.value >= thresholds.headroom


def _invalid(e: Evidence) -> Verdict | None:
    if not e.base_ok:
        return Verdict(Label.INVALID, Cause.BASE, "the base failed its criteria")
    if not e.expert_ok:
        reason = "an expert failed its criterion: it does not hold its own facts"
        return Verdict(Label.INVALID, Cause.FINE_TUNING, reason)
    return None


def _preserved(e: Evidence, t: Thresholds) -> Verdict | None:
    base = e.base_two_hop.value
    if (
        e.cell is None
        or e.cell.knows != "II"
        or not e.two_hop.lo >= base - t.preserved_margin
    ):
        return None
    reason = (
        f"{e.asked} {_show(e.two_hop)} is at least the base's {base:.2f} - "
        f"{t.preserved_margin:.2f}"
    )
    if e.base_two_hop.lo > e.chance + t.chance_margin:
        return Verdict(Label.PRESERVED, Cause.NONE, reason)
    reason += "; but the base itself does not compose here, so little could be lost"
    return Verdict(Label.PRESERVED, Cause.BASE, reason)


def _retrieves(e: Evidence, t: Thresholds) -> Verdict | None:
    if not e.target_saw_people or _obstacle(e, t):
        return None
    reason = (
        f"{e.asked} {_show(e.two_hop)} {_beats(e.controls)}; an A->C expert was "
        f"trained on these people"
    )
    return Verdict(Label.RETRIEVES, Cause.NONE, reason)


def _composes(e: Evidence, t: Thresholds) -> Verdict | None:
    if e.target_saw_people or _obstacle(e, t) or _unmoved(e, t):
        return None
    moved = ", ".join(f"{name} {_show(x)}" for name, x in e.counterfactual.items())
    reason = (
        f"{e.asked} {_show(e.two_hop)} {_beats(e.controls)}; {e.unseen}, "
        f"and counterfactual experts move the answer ({moved})"
    )
    return Verdict(Label.COMPOSES, Cause.NONE, reason)


def _composes_with_base(e: Evidence, t: Thresholds) -> Verdict | None:
    if e.ingredient is None or e.target_saw_people:
        return None
    control, name = e.ingredient
    moved = e.counterfactual.get(name)
    if moved is None or not moved.lo > e.chance + t.chance_margin:
        return None
    p = e.adjusted.with_base if e.adjusted else None
    if _not_above(e.others, p, t):
        return None
    reason = (
        f"{e.asked} {_show(e.two_hop)} {_beats(e.others)}; the base knows the other "
        f"hop, so {control} is no negative control, and {name} moves the answer "
        f"({_show(moved)})"
    )
    return Verdict(Label.COMPOSES_WITH_BASE, Cause.NONE, reason)


def _likelihood(e: Evidence, t: Thresholds) -> Verdict | None:
    why = _obstacle(e, t)
    # With an A->C expert of these people it would be retrieval, not transfer.
    if not why or not e.likelihood or e.target_saw_people:
        return None
    if _not_above(e.likelihood, e.adjusted.likelihood if e.adjusted else None, t):
        return None
    reason = (
        f"loss minus shuffled loss is lower than that of each of {len(e.likelihood)} "
        f"negative controls, by at least {_show(_least(e.likelihood))} nats, but "
        f"{e.asked} is {_show(e.two_hop)}: {why}"
    )
    return Verdict(Label.LIKELIHOOD, Cause.NONE, reason)


def _no_transfer(e: Evidence, t: Thresholds) -> Verdict | None:
    if not e.two_hop.hi <= e.chance + t.chance_margin:
        return None
    cause, why = _cause(e, t)
    kept = ", ".join(f"{name} {_show(x)}" for name, x in e.hops.items())
    kept = kept and f"; kept: {kept}"
    reason = f"{e.asked} {_show(e.two_hop)} is at most {_bar(e, t)}{kept}; {why}"
    return Verdict(Label.NO_TRANSFER, cause, reason)


def _no_gain(e: Evidence, t: Thresholds) -> Verdict | None:
    beaten = gain.none(e, t)
    if beaten is None:
        return None
    name, difference = beaten
    reason = (
        f"{e.asked} {_show(e.two_hop)} is not at most {_bar(e, t)}, but above {name} "
        f"by {_show(difference)}, at most {t.chance_margin:.2f}"
    )
    return Verdict(Label.NO_GAIN, Cause.NONE, reason)


def _undecided(e: Evidence, t: Thresholds) -> Verdict:
    obstacle = _obstacle(e, t) or _unmoved(e, t)
    reason = f"{e.asked} {_show(e.two_hop)} is not at most {_bar(e, t)}, but {obstacle}"
    return Verdict(Label.UNDECIDED, Cause.NONE, reason)


def _remarks(e: Evidence, t: Thresholds):
    for name, kept in e.hops.items():
        if kept.hi < t.retention:
            yield f"{DEGRADES}: {name} {_show(kept)} is below {t.retention:.2f}"
    if e.joint is not None and not has_headroom(e.joint, t):
        joint = f"the joint LoRA has {_show(e.joint)}"
        yield f"{NO_HEADROOM}: {joint}, below {t.headroom:.2f}"


def _obstacle(e: Evidence, t: Thresholds) -> str:
    """What stands against "above every negative control"; empty if nothing does."""
    return _not_above(e.controls, e.adjusted.accuracy if e.adjusted else None, t)


def _not_above(controls: Controls, p: float | None, t: Thresholds) -> str:
    missing = [name for name, x in controls.items() if x is None]
    if missing:
        return f"control {missing[0]} could not run"
    for name, x in controls.items():
        if x is not None and not x.difference.lo > 0:
            return f"it is not above control {name} (by {_show(x.difference)})"
    if p is not None and not p < t.alpha:
        return f"p = {p:.3g} over all methods is not below {t.alpha:.2g} (Holm)"
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


def _beats(controls: Controls) -> str:
    return (
        f"is above each of {len(controls)} negative controls, by at least "
        f"{_show(_least(controls))}"
    )


def _least(controls: Controls) -> Interval:
    known = [x.difference for x in controls.values() if x is not None]
    return min(known, key=lambda x: x.lo)


def _bar(e: Evidence, t: Thresholds) -> str:
    return f"chance {e.chance:.2f} + {t.chance_margin:.2f}"


def _show(x: Interval) -> str:
    return f"{x.value:.2f} [{x.lo:.2f}, {x.hi:.2f}]"
