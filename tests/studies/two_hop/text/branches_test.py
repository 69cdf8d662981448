"""What is read to score candidates: every token is scored, and none is read twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxlora.studies.two_hop.text import branches

ANSWERS = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=12
)
MOST = st.integers(0, 4)


def prefix(tree, m):
    """The tokens from the root to node m."""
    seen = np.flatnonzero(tree.sees[m])
    order = seen[np.argsort(tree.depth[seen])]
    assert tree.depth[order].tolist() == list(range(len(order)))
    return tuple(tree.tokens[order].tolist())


@given(ANSWERS, MOST)
def test_every_token_but_the_first_is_scored_after_its_prefix(answers, most):
    scored = {}
    for tree in branches.plan(answers, most):
        nodes, places = tree.place
        for c, m, k in zip(tree.candidate, nodes, places, strict=True):
            before = prefix(tree, m)
            scored[int(c), len(before)] = before, int(tree.targets[m, k])
    assert scored == {
        (c, i): (tuple(answer[:i]), answer[i])
        for c, answer in enumerate(answers)
        for i in range(1, len(answer))
    }


@given(ANSWERS, MOST)
def test_no_prefix_is_twice_in_a_tree(answers, most):
    trees = branches.plan(answers, most)
    assert len({tree.tokens.shape for tree in trees}) <= 1
    for tree in trees:
        used = {prefix(tree, m) for m in tree.place[0]}
        assert len(used) == len(set(tree.place[0].tolist()))
        if most:
            assert len(set(tree.candidate.tolist())) <= most


def test_single_tokens_need_nothing_beyond_the_prompt():
    assert branches.plan([[1], [2], [1]]) == []
