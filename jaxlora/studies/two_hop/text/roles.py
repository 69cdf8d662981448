"""Adapters that people already have: which expert is which, and what is left out."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxlora.evaluate.schema import Arm
from jaxlora.studies.two_hop.arms import MEMBERS
from jaxlora.studies.two_hop.text.config import TextConfig
from jaxlora.tasks.two_hop.experts import Expert

HOPS = (Expert.HOP1, Expert.HOP2)
TRAINING = "needs training, and adapters were given"
POSITIVE = (
    "they need every negative control, and shuffled and counterfactual experts need "
    "training; what is left can say preserved, no transfer or undecided"
)
FULL = "needs a copy of all parameters and their optimizer state for each group"
ORACLE = "names an expert for every token, and in free text no token has one"
OTHERS = {
    Arm.HOP1: "an expert on the first hop",
    Arm.HOP2: "an expert on the second hop",
    Arm.PAIR: "an expert on each hop",
    Arm.RANDOM: "an expert on each hop",
    Arm.PERMUTED: "an expert on each hop",
    Arm.SHUFFLED: "experts with shuffled answers",
    Arm.COUNTERFACTUAL1: "a first-hop expert with deranged answers",
    Arm.COUNTERFACTUAL2: "a second-hop expert with deranged answers",
    Arm.TARGET_OTHERS: "an expert on the two-hop questions of other people",
    Arm.TRIPLE_OTHERS: "an expert on the two-hop questions of other people",
    Arm.IDENTITY: "a second-hop expert with identity rows",
    Arm.DOCUMENT: "an expert on texts that hold both facts",
    Arm.JOINT: "an expert on both hops",
    Arm.TARGET: "an expert on the two-hop questions of these people",
    Arm.REVERSED: "experts confined to layers, each in the layers of the other",
    Arm.TRIPLE: "an expert on the two-hop questions of these people",
}


class Skill(NamedTuple):
    """What one adapter answers alone, in held-out phrasings: accuracies in [0, 1]."""

    hop1: float
    hop2: float
    two_hop: float


class Roles(NamedTuple):
    """Which adapter is which expert."""

    of: Mapping[Expert, str]
    """Folders by role."""
    how: str
    """How the roles were given, for the report."""
    unused: tuple[str, ...]
    """Folders without a role."""

    def record(self) -> dict[str, Any]:
        """As results.json holds it."""
        of = {str(role): folder for role, folder in self.of.items()}
        return {"of": of, "how": self.how, "unused": list(self.unused)}


def roles_of(config: TextConfig, skills: Mapping[str, Skill]) -> Roles:
    """Gives every adapter its role: by flag, else by what it answers best.

    The first hop goes to the adapter that answers it best, the second to the best of
    the others. Of those that are left, one that meets the criterion of experts on the
    two-hop questions is A->C, and one that meets it on both hops is the joint expert.

    Args:
      config: with the flags hop1, hop2 and target, and the criterion.
      skills: of every adapter, by folder.

    >>> skills = {"x": Skill(0.1, 0.9, 0.0), "y": Skill(1.0, 0.2, 0.1)}
    >>> config = TextConfig(adapter=("x", "y"), facts="facts.jsonl")
    >>> {str(role): folder for role, folder in roles_of(config, skills).of.items()}
    {'hop1': 'y', 'hop2': 'x'}
    """
    roles = (*HOPS, Expert.TARGET)
    of = {role: x for role in roles if (x := getattr(config, role.value))}
    open_roles = [role for role in HOPS if role not in of]
    how = [f"{x} by flag" for x in of] + [f"{x} measured" for x in open_roles]
    left = [folder for folder in skills if folder not in of.values()]
    spare = len(left) > len(open_roles)
    joint = _take(left, skills, config, "joint") if spare else None
    for role in open_roles:
        of[role] = max(left, key=lambda x, r=role: getattr(skills[x], r.value))
        left.remove(of[role])
    if joint is not None:
        of[Expert.JOINT] = joint
    if Expert.TARGET not in of:
        target = _take(left, skills, config, "target")
        of |= {} if target is None else {Expert.TARGET: target}
    return Roles(of, "; ".join(how), tuple(left))


def _take(left: list[str], skills, config: TextConfig, kind: str) -> str | None:
    """Takes out the best adapter that meets the criterion of a role."""

    def value(folder: str) -> float:
        skill = skills[folder]
        return skill.two_hop if kind == "target" else min(skill.hop1, skill.hop2)

    able = [folder for folder in left if value(folder) >= config.criteria.min_own]
    if not able:
        return None
    best = max(able, key=value)
    left.remove(best)
    return best


def left_out(config: TextConfig, present: set[Expert]) -> list[dict[str, str]]:
    """Returns what the study did not run, and why: ``{"what", "why"}``.

    Args:
      config: of the study.
      present: experts that there are.
    """
    why = {str(Arm.FULL): FULL, "method oracle": ORACLE}
    for arm, members in MEMBERS.items():
        if not set(members) <= present:
            why[str(arm)] = f"{OTHERS[arm]}: {TRAINING}"
    if config.adapter:
        why["the verdicts composes and retrieves"] = POSITIVE
    if not config.ask.generate:
        why["generation"] = "switched off by ask.generate"
    if not config.ask.written:
        why["written bridge"] = "switched off by ask.written"
    return [{"what": name, "why": reason} for name, reason in why.items()]
