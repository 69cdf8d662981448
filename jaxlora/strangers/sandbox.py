"""Jinja for templates of strangers: no Python within reach, and a limit on work.

A chat template comes with the checkpoint, so it is foreign code. Jinja's sandbox keeps
it from attributes that lead to Python, but not from filling memory or never ending.
Here every value that is built, printed, compared or looped over is paid for
(:mod:`.fuel`). Filters, tests and methods of which the cost cannot be told
beforehand do not exist.
"""

from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxlora.strangers import fuel as text_fuel

BITS = 1024
"""Size of the largest product of integers."""
METHODS = {
    str: "format strip lstrip rstrip split rsplit splitlines startswith endswith "
    "upper lower title capitalize find rfind index count replace join isdigit isalpha "
    "isspace isupper islower removeprefix removesuffix partition rpartition",
    dict: "get items keys values",
    list: "index count",
    tuple: "index count",
    bytes: "",
    int: "",
    float: "",
}
FILTERS = (
    "length count first last list map select reject selectattr rejectattr default d "
    "items reverse abs capitalize dictsort e escape float groupby int lower max min "
    "safe sort string title trim unique upper wordcount"
)
TESTS = (
    "defined undefined none string mapping iterable sequence number boolean integer "
    "float true false odd even divisibleby callable eq equalto == ne != lt lessthan < "
    "le <= gt greaterthan > ge >= in lower upper"
)


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment whose templates run on :class:`Fuel`; see :meth:`compiled`."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, extensions: tuple[type[Extension], ...] = (), **functions: Any):
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", *extensions],
        )
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]
        self.globals.update(functions)
        self.filters = {k: text_fuel.paid(k, self.filters[k]) for k in FILTERS.split()}
        self.tests = {k: text_fuel.paid(k, self.tests[k]) for k in TESTS.split()}
        self.filters |= {
            "join": text_fuel.join,
            "replace": text_fuel.replace,
            "indent": text_fuel.indent,
            "format": text_fuel.percent,
            "round": text_fuel.round_number,
            "tojson": text_fuel.tojson,
            "the text": text_fuel.text,
            "the loop": text_fuel.loop,
            "the slice": text_fuel.slice,
        }

    def compiled(self, source: str) -> Any:
        """Returns a template, to be rendered with a ``Fuel`` under :data:`METER`."""
        tree = _meter(self.parse(source))
        tree.set_environment(self)
        return self.template_class.from_code(self, self.compile(tree), self.globals)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only listed methods of plain values; of others, what Jinja allows."""
        for kind, names in METHODS.items():
            if isinstance(obj, kind):
                # A group of groupby is a tuple whose parts have names.
                return attr in (*names.split(), *getattr(obj, "_fields", ()))
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leaves str.format to :meth:`call`; a width is unbounded."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        """Raises at once; Jinja's would print as nothing."""
        raise SecurityError(
            f"the attribute {attribute!r} of a {type(obj).__name__} is not allowed"
        )

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Looks a key up; no tuples, whose hashing nobody pays for."""
        if isinstance(argument, tuple):
            raise SecurityError("a tuple is no key here")
        return super().getitem(obj, argument)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls a method, macro or global, and pays for what it reads and gives."""
        fuel = context[text_fuel.METER]
        fuel.spend(text_fuel.STEP + sum(map(text_fuel.size, args)))
        owner = getattr(obj, "__self__", None)
        if not isinstance(obj, Macro):
            # Dictionaries hash what they get; lists compare it with all they hold.
            fuel.spend_whole((args, owner if isinstance(owner, list | tuple) else ()))
        if isinstance(owner, str):
            fuel.spend(len(owner))
            method = getattr(obj, "__name__", "")
            if method == "join":
                return text_fuel.join(context, args[0], owner)
            if method == "replace":
                return text_fuel.replace(context, owner, *args)
            if method == "format":
                return text_fuel.braces(context, owner, *args, **kwargs)
        result = super().call(context, obj, *args, **kwargs)
        fuel.spend(text_fuel.size(result))
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Pays for sums and products before they exist; powers are refused."""
        kinds = str | bytes | list | tuple
        texts = isinstance(left, kinds), isinstance(right, kinds)
        if operator == "**" or (operator == "%" and isinstance(left, bytes)):
            raise SecurityError(f"the operator {operator} is not allowed here")
        if operator == "%" and isinstance(left, str):
            values = right if isinstance(right, tuple) else (right,)
            return text_fuel.percent(context, left, *values)
        if operator == "*" and any(texts):
            context[text_fuel.METER].spend(_times(left) * _times(right))
        elif operator == "*" and _bits(left) + _bits(right) > BITS:
            raise SecurityError("a number is too large")
        elif operator == "+":
            context[text_fuel.METER].spend(text_fuel.size(left) + text_fuel.size(right))
        return super().call_binop(context, operator, left, right)


def _meter(tree: nodes.Template) -> nodes.Template:
    """Puts a meter wherever values are looped over, compared, cut or become text."""
    for node in list(tree.find_all(nodes.Node)):
        if isinstance(node, nodes.Output | nodes.Concat):
            node.nodes = [_paid("the text", child) for child in node.nodes]
        elif isinstance(node, nodes.Operand | nodes.Compare):
            node.expr = _paid("the text", node.expr)
        elif isinstance(node, nodes.Pair):
            node.key = _paid("the text", node.key)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            node.node = _paid("the slice", node.node)
        elif isinstance(node, nodes.For):
            if node.recursive:
                raise SecurityError("recursive loops are not allowed")
            node.iter = _paid("the loop", node.iter)
    return tree


def _paid(name: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _times(value: Any) -> int:
    return max(0, value) if isinstance(value, int) else text_fuel.size(value)


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0
