r"""Numbers in one spelling: ``1234.5``, with commas between thousands if any.

Texts and LaTeX have many: thin and fixed spaces, apostrophes and braces between
thousands, points there and a comma before the decimals, dashes for a minus, powers of
ten, fractions, digits of full width.
"""

import html
import re
import unicodedata

_SPACE = "\u00a0\u2002-\u200a\u202f\u3000"
"""Spaces that stand between thousands and, but for these, in no number."""
_COMMA = r"\{\s*,\s*\}|\{,?\\[,!:; ]\}|\\(?:text|textrm|mathrm|math[a-z]+)\{,\}"
_THIN = r"\\[,!:; ]|\\thinspace(?![A-Za-z])(?:\{\}|\s)?|\{\\thinspace\}"
_THOUSANDS = re.compile(
    rf"(?<=\d)(?:(?:,|{_COMMA})?(?:{_THIN})+(?:,|{_COMMA}|\{{\}})?(?:\\!)?|{_COMMA}"
    rf"|['\u2019\u02bc\u066c`_{_SPACE}])(?=\d{{3}}(?!\d))",
    re.ASCII,
)
r"""What LaTeX and print set between thousands: ``9{,}500``, ``12\,500``, ``9'500``."""
_INDIAN = re.compile(r"(?<![\d.,])\d{1,2}(?:,\d\d)+,\d{3}(?![\d,])", re.ASCII)
"""Lakhs: ``1,00,000``."""
_POINTS = re.compile(
    r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+)(?:\{,\}|,)(\d+)(?![\d.,]*\d)"
    r"|(?<![\d.,])(\d{1,3}(?:\.\d{3}){2,})(?![\d.]*\d)",
    re.ASCII,
)
"""Points between thousands: ``1.234,5`` and ``1.234.567``."""
_POINT = re.compile(
    r"(?<=\d)\{\.\}(?=\d)"
    r"|(?<=\d)\{,\}(?=(?:\d\d?|\d{4,})(?!\d))"  # 3{,}14
    r"|(?<=(?<![\d.,{])0)(?:\{,\}(?=\d)|,(?=\d+(?![\d.,)\]]*\d)(?![)\]])))"  # 0,125
    r"|(?<=\d),(?=\d\d?\s?(?:€|\\?%))",  # 2,50 €
    re.ASCII,
)
r"""A point in braces, and a comma that can only be a decimal one."""
_INSIDE = re.compile(
    r"(\$|\\\(|\\\[|\\(?:boxed|fbox|num)\{|#### ?)\s{0,9}([-+]?)\s{0,9}"
    r"(\d{1,3}(?:[ ~]\d{3})+|\d+)((?:\.\d+)?\s{0,9}(?:\$|\\\)|\\\]|\}|\n|\Z))",
    re.ASCII,
)
"""A number alone between marks, where spaces say nothing: ``$9 500$``, ``$- 5$``."""
_POWER = re.compile(
    r"(?<=\d)\s*(?:\\times|\\cdot|[x*·×])\s*10\s*\^\s*(?:\{([-+]?\d{1,3})\}|(\d{1,3}))"
    r"|(?<![\d.\w^{])10\s*\^\s*(?:\{([-+]?\d{1,3})\}|(\d{1,3}))",
    re.ASCII,
)
"""A power of ten: ``1.5 \\times 10^3``, ``10^3``."""
_FRAC = re.compile(
    r"(?P<before>\d\s*|)\\[dtc]?frac\s*"
    r"(?:\{\s*(-?\d{1,9})\s*\}\s*\{\s*(\d{1,9})\s*\}|(\d)\s*(\d))",
    re.ASCII,
)
_HALVES = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_UNIT = re.compile(r"(?<=[A-Za-z}])\s?\^\s?(?:\{\d\}|\d)(?!\d)", re.ASCII)
r"""A power of what is no number: ``5\text{ m}^2``."""
_GLUED = re.compile(r"(\\[A-Za-z]+)(?=\d)")
r"""A command that a number follows: ``\approx7``."""
_STRESS = re.compile(r"(?<![A-Za-z0-9_])_{1,3}(?=[-+$€£¥.\d])", re.ASCII)
_WIDE = str.maketrans(
    "".join(map(chr, range(0xFF10, 0xFF1A))) + "\uff0c\uff0e\u2212\ufe63\uff0d\u2013",
    "0123456789,.----",
)


def plain(text: str) -> str:
    r"""Returns a text with one minus, one dollar and one separator of thousands.

    Args:
      text: perhaps with LaTeX.

    >>> plain(r"\$12\,500"), plain("1.234,50"), plain(r"-2\frac{1}{2}")
    ('$12,500', '1234.50', '-2 1/2')
    """
    if "&" in text:
        text = html.unescape(text)
    text = _HALVES.sub(_half, text.translate(_WIDE).replace("\\$", "$"))
    text = _STRESS.sub("", _FRAC.sub(_fraction, text))
    text = _POINTS.sub(_pointed, text)
    text = _INDIAN.sub(lambda match: match[0].replace(",", ""), text)
    text = _POINT.sub(".", _THOUSANDS.sub(",", text))
    text = _UNIT.sub("", _POWER.sub(_power, _INSIDE.sub(_alone, text)))
    return _GLUED.sub(r"\1 ", text)


def _half(match: re.Match[str]) -> str:
    return " " + unicodedata.normalize("NFKC", match[0]).replace("\u2044", "/")


def _fraction(match: re.Match[str]) -> str:
    before, *parts = match.groups()
    top, bottom = (x for x in parts if x is not None)
    return f"{before.rstrip()}{' ' if before else ''}{top}/{bottom}"


def _pointed(match: re.Match[str]) -> str:
    thousands, decimals, only = match.groups()
    if only:
        return only.replace(".", "")
    return f"{thousands.replace('.', '')}.{decimals}"


def _alone(match: re.Match[str]) -> str:
    mark, sign, digits, rest = match.groups()
    return f"{mark}{sign}{digits.replace(' ', ',').replace('~', ',')}{rest}"


def _power(match: re.Match[str]) -> str:
    power = next(x for x in match.groups() if x is not None)
    return f"e{power}" if match[1] or match[2] else f"1e{power}"
