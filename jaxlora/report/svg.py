"""A figure as SVG inside a page: its inks are variables of the page, its words text.

A page in dark mode changes the variables and so recolours every figure. A raster image
could not follow.
"""

import io
import re
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from jaxlora.report import draw

_RULES = ("#e4e4e4", "#f0f0f0", "#f6f6f6")
_PALE = 0xD8
"""Greys from here on are bands behind what is measured."""
INKS = {
    "#000000": "ink",
    draw.INK: "ink",
    draw.FAINT: "soft",
    "#ffffff": "page",
    **dict.fromkeys(_RULES, "rule"),
    **{x: f"grey-{i}" for i, x in enumerate(draw.GREYS, 1)},
    draw.BLUE: "blue",
    draw.SKY: "sky",
    draw.GREEN: "green",
    draw.RED: "red",
    draw.ORANGE: "orange",
    draw.YELLOW: "yellow",
    draw.PURPLE: "purple",
}
"""Which variable of a page's style stands for each colour of the figures."""
_FIXED = {"#ffffff": "#fffffe", draw.INK: "#222221"}
"""The same inks for numbers on a heat map, whose colours stay as they are."""


def pictures(charts: Mapping[str, Figure]) -> dict[str, str]:
    """Returns every figure as SVG, by its name; no two share an id.

    Args:
      charts: finished figures, which are used up.
    """
    return {
        name: inline(chart, f"f{i}") for i, (name, chart) in enumerate(charts.items())
    }


def inline(figure: Figure, prefix: str) -> str:
    """Returns a figure as the SVG element of a page, as wide as it was drawn at most.

    Args:
      figure: a finished one; its images become vectors, so that it is used up.
      prefix: of every id, since a page has one space of ids.
    """
    for axes in figure.axes:
        _vectors(axes)
    buffer = io.StringIO()
    # Words stay words: they can be searched, and take the font of the page.
    settings = {"svg.fonttype": "none", "svg.hashsalt": prefix}
    with mpl.rc_context(settings):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None},
        )
    # Safe in a page: matplotlib escapes the words that it writes.
    return _rewritten(buffer.getvalue(), prefix)


def _vectors(axes: Axes) -> None:
    """Draws heat maps as cells, with numbers that no theme recolours."""
    for image in list(axes.images):
        for text in axes.texts:
            color = to_hex(text.get_color())
            text.set_color(_FIXED.get(color, color))
            # A halo would turn words into outlines.
            text.set_path_effects([])
        _cells(axes, image)
    for drawn in axes.collections:
        if drawn.get_rasterized():
            # A colour bar would be an image; edges close the gaps between its steps.
            drawn.set(rasterized=False, edgecolor="face")


def _cells(axes: Axes, image: AxesImage) -> None:
    values = np.ma.masked_invalid(np.ma.asarray(image.get_array()))
    left, right, bottom, top = image.get_extent()
    x, y = (
        np.linspace(left, right, values.shape[1] + 1),
        np.linspace(bottom, top, values.shape[0] + 1),
    )
    if image.origin == "upper":
        y = y[::-1]
    colors = image.to_rgba(values)
    # One step off in blue: no cell has a colour that a theme changes.
    colors[..., 2] = np.abs(colors[..., 2] - 1 / 255)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.pcolormesh(x, y, colors, zorder=image.get_zorder(), edgecolors="none")
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    image.remove()


def _rewritten(text: str, prefix: str) -> str:
    """The element alone, small, and with the names of this page."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.S)
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    body = re.sub(r"<!--.*?-->", "", body)
    body = re.sub(r"(\.\d\d)\d+", r"\1", re.sub(r"\s*\n\s*", " ", body))
    body = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", body)
    return _named(_inked(_head(body)), prefix)


def _head(body: str) -> str:
    ((width, height),) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    # Points, as matplotlib counts; 96 pixels are 72 points.
    style = f"width: {float(width) * 4 / 3:.0f}px"
    head = f'<svg viewBox="0 0 {width} {height}" style="{style}" aria-hidden="true">'
    return head + body[body.index(">") + 1 :]


def _inked(body: str) -> str:
    known = {color.lower(): name for color, name in INKS.items()}

    def variable(match: re.Match[str]) -> str:
        color = match[2].lower()
        pale = color[1:3] == color[3:5] == color[5:] and int(color[1:3], 16) >= _PALE
        name = known.get(color, "band" if pale else None)
        return f"{match[1]}: var(--{name})" if name else match[0]

    return re.sub(r"(fill|stroke): (#[0-9a-fA-F]{6})", variable, body)


def _named(body: str, prefix: str) -> str:
    """Ids that something refers to, with the prefix; all others go."""
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in used else ""

    body = re.sub(r' id="([^"]+)"', renamed, body)
    body = re.sub(r"<g/> ?", "", body)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", body)
