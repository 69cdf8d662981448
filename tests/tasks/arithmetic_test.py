"""Arithmetic without eval equals eval on fractions, and knows nothing else."""

import ast
import decimal
import fractions
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks import arithmetic, arithmetic_syntax
from jaxlora.tasks.arithmetic import Limits, Reason, RefusedError, evaluate

F = fractions.Fraction
LITERALS = st.integers(0, 999).map(str) | st.decimals(0, 99, places=2).map(str)


OPERATORS = st.sampled_from(["+", "-", "*", "/", "//", "%", "**"])
COMPARISONS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def joined(parts):
    """Larger expressions of smaller ones."""
    binary = st.tuples(parts, OPERATORS, parts)
    compared = st.tuples(parts, COMPARISONS, parts)
    return (
        binary.map(lambda x: f"({x[0]} {x[1]} {x[2]})")
        | binary.map(lambda x: f"{x[0]} {x[1]} {x[2]}")
        | parts.map(lambda x: f"-({x})")
        | compared.map(lambda x: f"(n if {' '.join(x)} else {x[0]})")
        | st.tuples(parts, parts).map(lambda x: f"half({x[0]}, {x[1]})")
    )


EXPRESSIONS = st.recursive(LITERALS | st.just("n"), joined, max_leaves=8)


class Literals(ast.NodeTransformer):
    """Every number of a tree as a Fraction of its text, for Python to evaluate."""

    def visit_Constant(self, node):
        text = ast.Constant(repr(node.value))
        return ast.Call(ast.Name("F", ast.Load()), [text], [])


def python(expression, n):
    """The value by Python's own eval; a power may make no more than 1024 bits."""
    tree = Literals().visit(ast.parse(expression, mode="eval"))
    names = {"F": F, "n": n, "half": half}
    return eval(compile(ast.fix_missing_locations(tree), "", "eval"), names)


def half(x, y):
    return F(x + y) / 2


@settings(max_examples=1000, deadline=None)
@given(EXPRESSIONS, st.integers(1, 50))
def test_the_value_is_that_of_eval_on_fractions(expression, n):
    reason, value = None, None
    try:
        value = evaluate(expression, {"n": n}, {"half": half}, extended=True)
    except RefusedError as error:
        reason = error.reason
    if reason is Reason.DIVISION:
        with pytest.raises(ZeroDivisionError):
            python(expression, n)
    elif reason is not None:  # a power that is not exact, or has too many bits
        assert reason in (Reason.TYPE, Reason.MAGNITUDE)
        assert "**" in expression
    else:
        assert value == python(expression, F(n))
        assert type(value) is int or (type(value) is F and value.denominator > 1)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 < 2 < 3", True),
        ("1 < 3 < 2", False),
        ("3 < 2 < 1 / 0", False),  # stops as Python does
        ("1 == 1 and not 2 > 3", True),
        ("0 or 5", 5),
        ("0 and 1 / 0", 0),
        ("1 or 1 / 0", 1),
        ("even(4) == True", True),
        ("even(3) == False", True),
        (" 2 +\n 3".replace("\n", ""), 5),
        ("1e3", 1000),
        ("1e-2", F(1, 100)),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("7.5 // 2", 3),
        ("2 ** -2", F(1, 4)),
        ("(-2) ** 3", -8),
        ("0 ** 0", 1),
        ("1 ** 10 ** 100", 1),
        ("(-1) ** (10 ** 100 + 1)", -1),
    ],
)
def test_values(expression, value):
    got = evaluate(expression, functions={"even": lambda x: x % 2 == 0})
    assert got == value
    assert type(got) is type(value)


def test_a_node_of_a_tree_is_evaluated_too():
    tree = ast.parse("2 * x", mode="eval")
    assert evaluate(tree, {"x": 4}) == evaluate(tree.body, {"x": 4}) == 8


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (0.1, F(1, 10)),
        (np.float64(0.25), F(1, 4)),
        (np.float32(0.5), F(1, 2)),
        (np.int64(3), 3),
        (decimal.Decimal("1.10"), F(11, 10)),
        (F(6, 3), 2),
        (True, True),
        ("pen", "pen"),
    ],
)
def test_names_are_read_exactly(given, value):
    got = evaluate("x", {"x": given})
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (math.inf, Reason.MAGNITUDE),
        (math.nan, Reason.MAGNITUDE),
        (decimal.Decimal("1e999999999999"), Reason.MAGNITUDE),
        (decimal.Decimal("1e-999999999999"), Reason.MAGNITUDE),
        (2**1025, Reason.MAGNITUDE),
        (1j, Reason.TYPE),
    ],
)
def test_names_without_an_exact_value_are_refused(given, reason):
    with pytest.raises(RefusedError) as error:
        evaluate("x", {"x": given})
    assert error.value.reason is reason


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("f(1)(2)", Reason.CALL),
        ("f(x=1)", Reason.CALL),
        ("f(*x)", Reason.CONTAINER),
        ("g(1)", Reason.CALL),
        ("f.__call__(1)", Reason.CALL),
        ("f", Reason.NAME),
        ("x[0]", Reason.CONTAINER),
        ("[1, 2]", Reason.CONTAINER),
        ("'a' == 'a'", Reason.TEXT),
        ("1 if 2 else 3", Reason.BRANCH),
        ("1 in x", Reason.NAME),
        ("f(1) in f(1)", Reason.OPERATOR),
        ("x := 1", Reason.SYNTAX),
        ("", Reason.SYNTAX),
        ("1 = 1", Reason.SYNTAX),
        ("f(1) + name", Reason.TYPE),
        ("name < 1", Reason.TYPE),
        ("-name", Reason.TYPE),
    ],
)
def test_anything_else_is_refused(expression, reason):
    with pytest.raises(RefusedError) as error:
        evaluate(expression, {"name": "Ann"}, {"f": lambda x: x})
    assert error.value.reason is reason


def test_extended_expressions_hold_lists_and_strings_but_no_arithmetic_on_them():
    functions = {"first": lambda values: values[0]}
    text = "first(['a', 'b']) if name == 'Ann' else (1, 2)"
    assert evaluate(text, {"name": "Ann"}, functions, extended=True) == "a"
    assert evaluate(text, {"name": "Bo"}, functions, extended=True) == (1, 2)
    for hostile in ("[0] * 10**9", "'a' * 9", "-'a'", "['a'] + ['b']", "f'{1}'"):
        with pytest.raises(RefusedError):
            evaluate(hostile, extended=True)


def test_a_name_without_a_value_names_those_that_have():
    with pytest.raises(RefusedError, match=r"'z' has no value.*\(x, y\)\."):
        evaluate("x + z", {"x": 1, "y": 2})


def test_a_cyclic_tree_ends():
    tree = ast.parse("-1", mode="eval").body
    tree.operand = tree
    with pytest.raises(RefusedError, match="nested too deeply"):
        evaluate(tree)


def test_trace_gives_operations_with_their_operands():
    value, steps = arithmetic.trace("3 * (n + 1) / 2", {"n": 4})
    assert value == F(15, 2)
    assert steps == (("+", 4, 1, 5), ("*", 3, 5, 15), ("/", 15, 2, F(15, 2)))


@given(st.text("()[]{} x"))
def test_nesting_bounds_what_the_parser_sees(text):
    depth = arithmetic_syntax.nesting(text)
    assert depth <= sum(map(text.count, "([{"))
    with pytest.raises(RefusedError):
        arithmetic_syntax.parse("(" + text, "eval", Limits(depth=depth))
