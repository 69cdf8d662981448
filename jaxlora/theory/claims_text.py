"""The words of the claims: statements, assumptions and proofs."""

from typing import NamedTuple


class Text(NamedTuple):
    """What a page says of one claim."""

    statement: str
    assumptions: tuple[str, ...]
    proof: str


TEXTS = {
    "edit is exact": Text(
        "An edit of least norm answers every one of its N facts anew.",
        ("the N keys are linearly independent, so N <= M",),
        "K has a right inverse K^+ = K^T (K K^T)^-1, and v_i K^+ is the i-th unit "
        "vector: v_i (W + K^+ C) = v_i W + c_i = e_new. For one fact this is "
        "v c^T / |v|^2.",
    ),
    "sum keeps both hops": Text(
        "W + delta_1 + delta_2 answers the facts of both experts as each does alone.",
        (
            "keys of different relations overlap no more than keys of one",
            "the experts write about disjoint sets of answers",
        ),
        "On a key of R1 the second edit writes sum_j s_j c_j with shares s = v K_2^+. "
        "v is equally near to all N keys of R2, so every s_j is of order 1 / N, and as "
        "new and old answers are the same set, sum_j c_j = 0. What is left is noise of "
        "order sqrt(N (1 / D + 1 / M) / D), beside a margin of 1.",
    ),
    "two-hop answers the bridge": Text(
        "Asked 'X R1 R2', the sum answers the bridge r1~(X).",
        ("the prompt shares two tokens with 'X R1' and one with every other fact",),
        "Least squares is kernel regression: the share of 'X R1' is "
        "(k_near - k_far) / (k_self - k_other) = 0.91 for equally strong tokens, with "
        "k the arc-cosine kernel, and all other shares are of order 1 / N. The old "
        "answer cancels against the base's, so the largest logit is the new bridge's.",
    ),
    "composition is chance": Text(
        "On 'X R1 R2' the sum finds r2~(r1~(X)) no more often than chance, even if "
        "only ends Z may be answered; among all entities, never.",
        (
            "the embedding of the bridge is orthogonal to those in the prompt",
            "one layer, one pass: nothing reads the bridge that was written",
        ),
        "The stream X + R1 + R2 has the same inner product with Y + R2 for every Y. So "
        "the shares s_j of the second edit are one number, up to noise that does not "
        "know r1~: the logits of the ends carry no information on which end is "
        "r2~(r1~(X)), and a bijection leaves 1 / N.",
    ),
    "mean ties old and new": Text(
        "Under the mean of two experts that overwrite, each hop is answered anew about "
        "half of the time.",
        ("the base held a rival answer with the same margin", "weights are 1/2 each"),
        "On its own key W + (delta_1 + delta_2) / 2 writes (e_old + e_new) / 2 and "
        "noise that is symmetric in the two: a tie, broken by a fair coin. A fact with "
        "no rival keeps a margin of 1/2.",
    ),
    "no scalar gate repairs it": Text(
        "No pair of weights (g1, g2) lifts composition above chance, of either sign "
        "and any size.",
        ("one weight for each expert, the same for all its facts",),
        "What is written is linear in g. The part of the first expert has no end in "
        "it; that of the second is g2 times shares that are equal for all j, up to "
        "noise. Scaling changes neither.",
    ),
    "a written bridge repairs it": Text(
        "Once the model has written the bridge B, 'X R1 B R2' is answered r2~(B), as "
        "long as less attention is left on X R1 than goes to B R2.",
        (
            "the bridge that is written is right (it is: see above)",
            "attention to what is stale is below 1",
        ),
        "With attention s on X and R1 the stream is s (X + R1) + B + R2. It leans to "
        "the key of 'B R2' for s < 1 and to that of 'X R1' for s > 1, and each edit is "
        "exact on its own key.",
    ),
    "a second pass repairs it": Text(
        "A second pass through the same layer, which reads what the first wrote, "
        "composes; it needs a gain above about 1, answers that can be read as "
        "subjects, and the second edit in the second pass.",
        (
            "tied embeddings: a written answer is what it is as a subject",
            "gain times the share of the bridge exceeds what stands there of X and R1",
            "the second pass holds the second expert's edit",
        ),
        "The first pass writes 0.91 e_B and little else; the second finds "
        "X + R1 + R2 + g 0.91 B, which leans to 'B R2' once 0.91 g > 1. Read through "
        "another map, e_B is nobody's embedding; without the edit in the second pass "
        "it answers the old r2(B).",
    ),
    "edits made apart": Text(
        "N rank-one edits, each exact alone, added up: recall is 1 while keys overlap "
        "by less than 1/2, and 0 beyond.",
        (
            "new and old answers of the relation are the same set",
            "any two keys overlap by about the same k",
        ),
        "On key i the others write k sum_{j != i} c_j = -k c_i, because the changes of "
        "a bijection add up to 0. What is left is (1 - k) c_i: new beats old exactly "
        "if 1 - k > k.",
    ),
    "alike embeddings close the gap": Text(
        "Composition rises from chance to 1 as the bridge's embedding leans to its "
        "person's, in a closed form.",
        ("cos(e_X, e_B) is the same for all pairs, other embeddings are random",),
        "The share of 'B R2' rises above the others' by a margin that the kernel "
        "gives; it must beat N - 1 Gaussian rivals whose spread is that of random "
        "overlaps in D dimensions and M features.",
    ),
    "the stronger relation wins": Text(
        "Where X has a fact in both relations, 'X R1 R2' is answered by the relation "
        "with more attention.",
        ("both facts are stored with equal strength",),
        "The stream X + w R1 + R2 is nearer to 'X R1' for w > 1 and to 'X R2' for "
        "w < 1. With R2 in place, at the last position, and R1 attended to weakly, the "
        "bridge never appears: the answer is r2(X).",
    ),
    "capacity": Text(
        "Recall of N facts falls near N = M D / (2 ln N), for outer products and, "
        "beyond an exact regime up to N = M, for least squares.",
        ("keys and answers are random directions",),
        "Outer products: crosstalk of energy (N - 1) / M over D directions. Least "
        "squares: the projection on the features keeps q = M / N of a fact and writes "
        "energy q (1 - q) elsewhere.",
    ),
    "interference": Text(
        "N exact edits leave facts that were not edited alone until N is a large share "
        "of M: the leak into another key is N / (M - N - 1).",
        ("edited and other keys are random directions", "N < M - 1"),
        "For a random key k' the leaked shares have the square length "
        "k'^T K^T (K K^T)^-2 K k', with mean tr (K K^T)^-1 / M. An inverse Wishart "
        "matrix has that trace.",
    ),
    "rank to add": Text(
        "To add N facts, one edit of rank about 2 ln N is enough.",
        ("nothing is overwritten", "answers are random directions"),
        "An edit of rank R writes the projection of e on R directions. Its inner "
        "product with e is chi-square, with a rival Gaussian: the ratio is chi_R, "
        "whatever N, M and D are.",
    ),
    "rank to overwrite": Text(
        "To overwrite N facts a rank that is a share of D is needed, however few bits "
        "the facts are.",
        ("old and new answers are independent random directions, N >= D",),
        "New beats old exactly if |P c|^2 > |c|^2 / 2: half of the energy of the "
        "change must lie in R directions of D.",
    ),
}
"""By the name of the claim."""
