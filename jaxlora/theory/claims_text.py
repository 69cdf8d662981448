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
        "W + delta_1 + delta_2 answers the facts of both experts as each does alone, "
        "if both overwrite.",
        (
            "keys of different relations overlap no more than keys of one",
            "the experts write about disjoint sets of answers",
            "an expert's new answers are its old ones in another order",
        ),
        "On a key of R1 the second edit writes sum_j s_j c_j with shares s = v K_2^+. "
        "v is equally near to all N keys of R2, so every s_j is of order 1 / N, and as "
        "new and old answers are the same set, sum_j c_j = 0. What is left is noise of "
        "order sqrt(N (1 / D + 1 / M) / D), beside a margin of 1. Experts that add "
        "facts have no old answers: see the next claim.",
    ),
    "sum keeps added hops": Text(
        "Where both experts add facts that the base has no answer to, the sum keeps "
        "both hops too, with a smaller margin; the two-hop prompt is answered by the "
        "bridge if each relation has more than one answer, and tied if it has one.",
        (
            "the base writes nothing on these prompts",
            "relations are as strong as entities; N is large",
            "each expert's facts have C different answers, equally often",
        ),
        "Changes are answers here, and do not add up to 0: on a key of R1 the shares "
        "of the second edit add up to k(0) / k(1/2) = 0.52, so each of its C answers "
        "gets 0.52 / C beside the 1 of the right one. On 'X R1 R2' they add up to "
        "1.07, and each answer gets 1.07 / C beside 0.91 or more of the bridge. With C "
        "= 1 in both relations the bridge, too, is written by all N facts: 1.10 beside "
        "1.09 at N = 50, a tie that noise decides. Else nothing is a tie, so scaling "
        "both edits by 1/2 changes no answer.",
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
    "placed edits compose": Text(
        "In two layers, with expert 1's edit in the lower and expert 2's in the "
        "upper, the sum answers 'X R1 R2' with r2~(r1~(X)) once the gain is above "
        "about 1, and keeps both hops.",
        (
            "the second layer's attention moves what the first wrote at R1's position "
            "to the last one, with a weight (gain), and leaves little on X and R1",
            "tied embeddings: a written answer is what it is as a subject",
            "a memory reads what its layer's attention moves; answers are read from "
            "the sum of what both layers write",
            "the base holds half of every old fact in either layer",
        ),
        "At R1's position the lower edit is exact and leaves e_new - e_old / 2. The "
        "upper memory finds R2 + g times that, which leans to 'B R2', and writes the "
        "composed end with a share that is 1 at g = 1 and grows with g. Its rival is "
        "the bridge, which the lower memory wrote at the last position: 0.91. Both "
        "have a spread of order sqrt(1 / D + 1 / M), computed to first order: with "
        "small D or M the step in g is blurred.",
    ),
    "other placements do not": Text(
        "Reversed, or with both edits in one layer, the sum does not compose at any "
        "gain; with both in the lower one a small gain gives the bridge, as one layer "
        "does.",
        ("as for placed edits",),
        "Reversed: the lower memory writes the old bridge, and the upper one has no "
        "new second hop. Both low: the bridge is new and moved, but the upper memory "
        "knows only the old r2 of it, with half its share, which passes 0.91 at a "
        "gain near 2. Both high: the moved bridge is the old one.",
    ),
    "edits in both layers": Text(
        "Experts with half of the edit in either layer are exact for their facts, but "
        "compose only at twice the gain, where the base composes what it knows; their "
        "mean hardly ever does, and ties both hops. The mean of placed experts ties "
        "both hops too.",
        ("as for placed edits", "experts share their edit equally between the layers"),
        "The lower memory then writes e_new / 2 at R1's position, and the upper one "
        "half of the composed end, with a share that is 1 at g = 2; the bridge has "
        "0.91 / 2 + what is stale. Under the mean old and new bridge are moved alike, "
        "and of either the old and the new end are written: four answers share one. "
        "The mean of placed experts leaves e_new / 2 in the lower layer, which "
        "behaves as halves do.",
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
        "of M: the leak into another key is N (M - 2) / (M (M - N - 1)).",
        ("edited and other keys are random directions of length 1", "N < M - 1"),
        "For a random key k' the leaked shares have the square length "
        "k'^T K^T (K K^T)^-2 K k', with mean tr (K K^T)^-1 / M. For Gaussian rows an "
        "entry of the diagonal of (K K^T)^-1 has the mean 1 / (M - N - 1) (inverse "
        "Wishart). It is 1 / |row|^2 times that of rows of length 1, independent of "
        "it, and E 1 / |row|^2 = 1 / (M - 2).",
    ),
    "rank to add": Text(
        "To add N facts, one edit of a rank that grows with ln N is enough; the factor "
        "depends on the recall that is wanted: at N = 512, D = 128 about 1.6 ln N for "
        "0.5, 2.6 ln N for 0.9 and 3.4 ln N for 0.99. It rises a little with D.",
        ("nothing is overwritten", "answers are random directions", "N >= D"),
        "An edit of rank R writes the projection of e on R directions. Its inner "
        "product with e is chi-square, with a rival Gaussian: the ratio is chi_R. A "
        "rival wins with a chance that falls as 2^(-R / 2), so that N rivals leave an "
        "error p at R near 2 log2(N / p), less a logarithm of R. The best directions "
        "hold more than random ones do, by the spectrum of answers at D / N.",
    ),
    "rank to overwrite": Text(
        "To overwrite N facts a rank that is a share of D is needed, however few bits "
        "the facts are.",
        ("old and new answers are independent random directions, N >= D",),
        "New beats old exactly if |P c|^2 > |c|^2 / 2: half of the energy of the "
        "change must lie in R directions of D.",
    ),
    "scale and rank": Text(
        "What a merge's weight g does is not what a low rank does: at g = 1/2 an edit "
        "that overwrites fails at every rank, and one that adds is unchanged at any.",
        (
            "old and new answers are independent random directions, N >= D",
            "one edit alone: what other experts write is left out",
        ),
        "old + g P c is nearer to new exactly if |P c|^2 > |c|^2 / (2 g): for g = 1/2 "
        "the whole change, which then ties. What is added to nothing is g times the "
        "same logits, and the largest stays the largest.",
    ),
}
"""By the name of the claim."""
