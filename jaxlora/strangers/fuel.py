"""What a template of a stranger may cost: fuel, and filters that pay with it.

Work is paid before it is done, text by the character, so that memory is bounded too.
"""

import functools
import json
import re
import string
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import pass_context
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.filters import do_round
from jinja2.runtime import Context

FUEL = 20_000_000
"""Characters and steps that one rendering may cost; a long chat costs a hundredth."""
STEP = 100
"""Price of a call, or of one round of a loop, in characters."""
PART = 10
"""Price of an element of a list that is looked into."""
METER = "the fuel"
"""Name of the meter among a template's variables; no template can write the space."""
WIDTH = 64
"""The deepest indent."""
DIGITS = 30
"""The finest or coarsest rounding: a power of ten is computed for it."""
DEPTH = 200
"""The deepest nesting of values; hashing a deeper tuple can overflow C's stack."""

SHALLOW = (
    "length count first last list map select reject selectattr rejectattr default d "
    "items reverse defined undefined none string mapping iterable sequence number "
    "boolean integer float true false odd even divisibleby callable"
)
"""Filters and tests that do not look inside the elements of a list."""

_FIELD = re.compile(r"%(?:\([^)]{0,40}\))?.?", re.DOTALL)
_PLAIN = re.compile(r"%(?:%|(?:\(\w{1,40}\))?[sd])")
_NAME = re.compile(r"\w{0,40}")


class Fuel:
    """What a rendering may still cost."""

    __slots__ = ("left",)

    def __init__(self, amount: int = FUEL):
        self.left = amount

    def spend(self, amount: int) -> None:
        """Raises TemplateRuntimeError when nothing is left."""
        self.left -= amount
        if self.left < 0:
            raise TemplateRuntimeError("it needs more work or memory than is allowed")

    def spend_whole(self, value: Any) -> None:
        """Pays for all text in a value, however deep; itself it costs no more."""
        todo = [(value, 0)]
        while todo:
            value, depth = todo.pop()
            self.spend(PART + size(value))
            if depth > DEPTH:
                raise SecurityError(f"values are nested more than {DEPTH} deep")
            if isinstance(value, dict):
                todo += [(x, depth + 1) for x in (*value.keys(), *value.values())]
            elif isinstance(value, list | tuple):
                todo += [(x, depth + 1) for x in value]


def size(value: Any) -> int:
    """Returns the elements or characters of a value, not of what is in it."""
    return len(value) if isinstance(value, str | bytes | list | tuple | dict) else 0


def paid(name: str, function: Callable) -> Callable:
    """A filter or test that pays for its arguments and its result.

    It takes the context so that Jinja does not evaluate it while compiling.
    """
    shallow = name in SHALLOW.split()
    wants = getattr(function, "jinja_pass_arg", None)
    extra = {"context": None, "environment": "environment", "eval_context": "eval_ctx"}

    @functools.wraps(function)
    def paid(context: Context, *args: Any, **kwargs: Any) -> Any:
        fuel = context[METER]
        fuel.spend(STEP)
        for value in args:
            fuel.spend(size(value)) if shallow else fuel.spend_whole(value)
        if wants is not None:
            attribute = extra[wants.name]
            first = getattr(context, attribute) if attribute else context
            args = (first, *args)
        result = function(*args, **kwargs)
        fuel.spend(size(result))
        return _rounds(fuel, result) if isinstance(result, Iterator) else result

    return pass_context(paid)


def _rounds(fuel: Fuel, values: Iterator) -> Iterator:
    for value in values:
        fuel.spend(STEP)
        yield value


@pass_context
def text(context: Context, value: Any) -> Any:
    """Returns a value that becomes text, a key or a side of a comparison, paid."""
    context[METER].spend_whole(value)
    return value


@pass_context
def slice(context: Context, value: Any) -> Any:
    """Returns a value that is cut, paid."""
    context[METER].spend(size(value))
    return value


@pass_context
def loop(context: Context, values: Any) -> Iterator:
    """Yields the values of a loop, paid one by one."""
    return _rounds(context[METER], iter(values))


@pass_context
def join(context: Context, values: Any, d: str = "", attribute: Any = None) -> str:
    """As the filter of Jinja and the method of strings."""
    fuel, parts = context[METER], []
    for value in loop(context, values):
        if attribute is not None:
            value = context.environment.getitem(value, attribute)
        fuel.spend_whole(value)
        fuel.spend(len(d))
        parts.append(str(value))
    return d.join(parts)


@pass_context
def replace(context: Context, text: Any, old: str, new: str, count: int = -1) -> str:
    """As the filter of Jinja and the method of strings."""
    fuel = context[METER]
    fuel.spend_whole(text)
    text = str(text)
    fuel.spend(len(text) + text.count(old) * len(new))
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def percent(context: Context, text: str, *args: Any, **kwargs: Any) -> str:
    """As the filter format and %, of plain %s, %d and names: a width is unbounded."""
    text, given = str(text), kwargs or args
    fields = _FIELD.findall(text)
    if any(not _PLAIN.fullmatch(field) for field in fields) or (kwargs and args):
        raise SecurityError(f"{text[:20]!r} is no plain format of %s and %d")
    if len(args) == 1 and isinstance(args[0], dict):
        given = args[0]
    return _filled(context, len(fields), (args, kwargs), lambda: text % given)


@pass_context
def braces(context: Context, text: str, *args: Any, **kwargs: Any) -> str:
    """As the method format, of plain {}, {0} and {name}: a width is unbounded."""
    try:
        parts = [*string.Formatter().parse(text)]
    except ValueError as error:
        raise TemplateRuntimeError(str(error)) from None
    fields = [(name, spec, how) for _, name, spec, how in parts if name is not None]
    if any(spec or how or not _NAME.fullmatch(name) for name, spec, how in fields):
        raise SecurityError(f"{text[:20]!r} is no plain format of {{}} and {{name}}")
    make = functools.partial(text.format, *args, **kwargs)
    return _filled(context, len(fields), (args, kwargs), make)


def _filled(
    context: Context, fields: int, values: tuple[Any, Any], make: Callable[[], str]
) -> str:
    """Pays for a text in which each field may be the longest of some values."""
    fuel, (args, kwargs) = context[METER], values
    every = (*args, *kwargs.values())
    fuel.spend_whole(every)
    fuel.spend(fields * max((len(str(x)) for x in every), default=0))
    try:
        return make()
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise TemplateRuntimeError(f"a format has other fields ({error})") from None


@pass_context
def indent(
    context: Context,
    text: str,
    width: int | str = 4,
    first: bool = False,
    blank: bool = False,
) -> str:
    """As the filter of Jinja."""
    pad = width if isinstance(width, str) else " " * _at_most(width)
    lines = str(text).splitlines(keepends=True)
    context[METER].spend(len(text) + len(lines) * len(pad))
    return "".join(
        line if (i == 0 and not first) or not (blank or line.strip()) else pad + line
        for i, line in enumerate(lines)
    )


@pass_context
def round_number(
    context: Context, value: Any, precision: int = 0, method: Any = "common"
) -> Any:
    """As the filter round of Jinja, which a precision could keep busy for ever."""
    context[METER].spend(STEP)
    if not isinstance(precision, int) or abs(precision) > DIGITS:
        raise SecurityError(f"a number is rounded to {precision!r:.40} digits")
    return do_round(value, precision, method)


@pass_context
def tojson(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """As the JSON of Hugging Face's templates: not escaped for HTML."""
    context[METER].spend_whole(value)
    shown = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=None if indent is None else _at_most(indent),
        separators=None if separators is None else _pair(*separators),
        sort_keys=sort_keys,
    )
    context[METER].spend(len(shown))
    return shown


def _pair(item: Any, key: Any) -> tuple[str, str]:
    return str(item)[:8], str(key)[:8]


def _at_most(width: Any) -> int:
    if not isinstance(width, int) or width > WIDTH:
        raise SecurityError(f"an indent is {width!r}, {WIDTH} at most is allowed")
    return width
