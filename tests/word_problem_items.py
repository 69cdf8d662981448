"""Items of a word-problem study that are made up: who solves which share of what."""

import numpy as np
import pandas as pd

from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.studies.two_hop import Block
from jaxlora.studies.word_problems import design, judging

REGIME = (("regime", "overlap"), ("overlap", 1.0))
SEEDS, PAIRS = (70, 71, 72), 4
SIZES = {
    (Split.SKILL_A, 1): 13,
    (Split.SKILL_B, 1): 13,
    (Split.CHAIN_A, 2): 26,
    (Split.CHAIN_B, 2): 26,
    (Split.KNOWN, 2): 26,
    (Split.BOTH, 2): 26,
    (Split.ANSWER_A, 1): 13,
    (Split.ANSWER_B, 1): 13,
    (Split.ANSWER_BOTH, 2): 26,
}


BLANK = pd.DataFrame(
    [
        (pair, item, str(split), level)
        for pair in range(PAIRS)
        for (split, level), n in SIZES.items()
        for item in range(n)
    ],
    columns=["pair", "item", "split", "level"],
)
COMPOSITE = BLANK["split"].isin([str(Split.BOTH), str(Split.ANSWER_BOTH)]).to_numpy()
KNOWN = (BLANK["split"] == str(Split.KNOWN)).to_numpy()


def items(rng, both=0.08, skills=1.0, moved=0, known=1.0):
    """Items of one arm on one base; ``moved`` is the number of those that are wrong."""
    share = np.where(COMPOSITE, both, np.where(KNOWN, known, skills))
    right = rng.random(len(BLANK)) < share
    return BLANK.assign(
        correct=right.astype(int),
        counterfactual=moved * (COMPOSITE & ~right),
        steps=right.astype(int),
        chance=0.08,
        error=np.where(right, -1, 2),
    )


def study(pair, method=Method.MEAN, shuffled=True, regime=REGIME, **others):
    """Blocks of a judged regime; every arm but the pair and the joint is at chance."""
    rng, blocks = np.random.default_rng(0), {}
    moved = {Arm.COUNTERFACTUAL_A: {"moved": 1}, Arm.COUNTERFACTUAL_B: {"moved": 2}}
    moved |= {Arm.JOINT: {"both": 1.0}} | others
    for seed in SEEDS:
        plan = [(arm, Method.NONE) for arm in (*judging.ALONE, Arm.JOINT)]
        plan += [(arm, method) for arm in (Arm.PAIR, *design.CONTROLS)]
        for arm, how in plan:
            if arm is Arm.SHUFFLED and not shuffled:
                continue
            given = pair if arm is Arm.PAIR else moved.get(arm, {})
            blocks[Block(None, seed, arm, how, regime)] = items(rng, **given)
    return blocks
