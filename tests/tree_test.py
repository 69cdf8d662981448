import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlora import lora, tree

PARAMS = {
    "embed": {"kernel": 0},
    "layers": {"attn": {"k": 1, "q": 2}, "mlp": {"up": 3}},
    "norm": 4,
}
LETTERS = st.text("abc", min_size=1, max_size=2)
TREES = st.dictionaries(
    LETTERS,
    st.recursive(
        st.integers(),
        lambda inner: st.dictionaries(LETTERS, inner, min_size=1, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


def test_names_are_paths_in_the_order_of_jax():
    flat = tree.flatten(PARAMS)
    assert list(flat) == [
        "embed/kernel",
        "layers/attn/k",
        "layers/attn/q",
        "layers/mlp/up",
        "norm",
    ]
    assert list(flat.values()) == jax.tree.leaves(PARAMS)


def test_names_through_dataclasses_and_lists_unless_they_are_leaves():
    w = lora.LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 2)), jnp.ones(()))
    assert list(tree.flatten({"x": [w]})) == ["x/0/a", "x/0/b", "x/0/scale"]
    assert tree.flatten({"x": [w]}, lora.is_lora) == {"x/0": w}


@given(TREES)
def test_unflatten_inverts_flatten(nested):
    assert tree.unflatten(tree.flatten(nested)) == nested


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"a": 1, "a/b": 2}, "'a/b' lies below another leaf, 'a'"),
        ({"a/b": 2, "a": 1}, "'a' is also the parent of other leaves"),
    ],
)
def test_unflatten_refuses_a_leaf_that_is_a_parent(flat, message):
    with pytest.raises(ValueError, match=message):
        tree.unflatten(flat)


def test_map_named_gives_names_and_all_leaves():
    other = jax.tree.map(lambda x: 10 * x, PARAMS)
    got = tree.map_named(lambda name, x, y: (name, x, y), PARAMS, other)
    assert got["layers"]["attn"]["q"] == ("layers/attn/q", 2, 20)
    assert got["norm"] == ("norm", 4, 40)


def test_first_match_wins_and_names_keep_their_order():
    claimed = tree.match(["layers/attn/.*", "layers/.*"], list(tree.flatten(PARAMS)))
    assert claimed == {
        "layers/attn/.*": ("layers/attn/k", "layers/attn/q"),
        "layers/.*": ("layers/mlp/up",),
    }


def test_a_pattern_must_match_the_full_name():
    with pytest.raises(ValueError, match="must match a full name"):
        tree.match(["attn/q"], ["layers/attn/q"])


@pytest.mark.parametrize(
    ("patterns", "names", "message"),
    [
        (["attn/qq"], ["attn/q", "mlp/up"], r"'attn/qq' matches none of 2 .*'attn/q'"),
        ([".*", "attn/q"], ["attn/q"], r"'attn/q' matches none.*already claimed"),
        (["x"], [], r"none of 0 leaves.*the tree is empty"),
        (["(", ".*"], ["q"], r"'\(' is not a regular expression"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(patterns, names, message):
    with pytest.raises(ValueError, match=message):
        tree.match(patterns, names)


def test_mask_marks_what_matches():
    got = tree.flatten(tree.mask(PARAMS, ["norm", "layers/.*/q"]))
    assert [name for name, chosen in got.items() if chosen] == ["layers/attn/q", "norm"]
    assert set(got.values()) == {True, False}


def test_partition_splits_and_join_puts_together():
    matched, others = tree.partition(PARAMS, ["layers/attn/.*", "norm"])
    assert matched == {"layers": {"attn": {"k": 1, "q": 2}}, "norm": 4}
    assert others == {"embed": {"kernel": 0}, "layers": {"mlp": {"up": 3}}}
    assert tree.join(matched, others) == PARAMS
    with pytest.raises(ValueError, match="matches none"):
        tree.partition(PARAMS, ["head"])


def test_partition_and_mask_keep_whole_leaves():
    w = lora.LoraWeight(jnp.ones((2, 1)), jnp.ones((1, 2)), jnp.ones(()))
    matched, others = tree.partition({"q": w, "k": w}, ["q"], lora.is_lora)
    assert (matched, others) == ({"q": w}, {"k": w})
    assert tree.join(matched, others, is_leaf=lora.is_lora) == {"q": w, "k": w}
    assert tree.mask({"q": w, "k": w}, ["q"], lora.is_lora) == {"q": True, "k": False}


def test_join_refuses_a_leaf_held_twice():
    with pytest.raises(ValueError, match="both hold a leaf 'a/b'"):
        tree.join({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}})
    with pytest.raises(ValueError, match="lies below another leaf"):
        tree.join({"a": 1}, {"a": {"b": 1}})


def test_a_string_where_patterns_are_meant_is_refused():
    with pytest.raises(ValueError, match=r"Patterns are 'q', expected a tuple or list"):
        tree.match("q", ["q"])
