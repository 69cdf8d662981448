"""Two maps: rows that practise against what pretraining covered, and layers of both.

Every cell of a map has its number, so that colour is never the only carrier.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from jaxlora.evaluate.schema import Split
from jaxlora.report import draw, regimes_readings
from jaxlora.report.readings import Reading
from jaxlora.report.regimes_lines import JOINT, MEAN, SUM
from jaxlora.report.regimes_readings import ASKS, PRACTISING, Book, Place

SCALE = "Blues"
SINGLE, BOTH = "mean = best single expert's upper bound", "mean = joint LoRA"
CONTOURS = ((SINGLE, draw.RED, "dashed"), (BOTH, draw.GREEN, "solid"))


class Map(NamedTuple):
    """Places in a plane; both axes are lists of values in order."""

    across: tuple[Any, ...]
    up: tuple[Any, ...]
    places: Mapping[tuple[Any, Any], Place]

    def readings(self, of) -> list[list[Reading]]:
        """What a function says of each place, [up, across]; absent where none is.

        Args:
          of: place -> reading.
        """
        return [
            [of(self.places[x, y]) if (x, y) in self.places else Reading() for x in xs]
            for y, xs in ((y, self.across) for y in self.up)
        ]


Numbers: TypeAlias = np.ndarray


def phase(book: Book) -> Figure:
    """Returns accuracy of the mean by rho and coverage, with two contours.

    Args:
      book: of a run.
    """
    places = [
        x
        for x in book.places
        if x.base == "map" and (x.regime == "direct" or x.regime.startswith(PRACTISING))
    ]
    at = _map({(x.rho, x.coverage): x for x in places}, sorted)
    if len(at.places) < 2:
        raise draw.NothingToShowError(
            f"The phase diagram has {len(at.places)} of at least 2 points."
        )
    title = "Accuracy of the mean on new facts: what B→C practised, what the base did"
    figure = draw.canvas(9.5, 2.2 + 0.62 * len(at.up), title.replace("->", "→"))
    panels = figure.subplots(1, 2, squeeze=False)[0]
    drawn, image = set(), None
    for axes, split in zip(panels, (Split.WRITTEN, Split.TWO_HOP), strict=True):
        axes.set_title(ASKS[split], loc="left", fontsize=10.5)
        means = at.readings(lambda x, s=split: _read(book, x, s, MEAN))
        image = _heat(axes, at, _values(means))
        _write(axes, image, [[_with_n(r) for r in line] for line in means])
        drawn |= _contours(axes, book, at, split)
        axes.set_xlabel("share ρ of rows in which B→C practises", fontsize=9.5)
    panels[0].set_ylabel("coverage of second facts", fontsize=9.5)
    _scale(figure, image, panels)
    lines = [
        Line2D([], [], color=color, ls=style, lw=2, label=name)
        for name, color, style in CONTOURS
        if name in drawn
    ]
    if lines:
        more = {"frameon": False, "fontsize": 9.5, "ncols": 2}
        figure.legend(handles=lines, loc="outside lower center", **more)
    return figure


def placement(book: Book) -> Figure:
    """Returns accuracy of the sum by the layers of both experts.

    Args:
      book: of a run.
    """
    direct = regimes_readings.find(book, "map", "direct")
    pairs = [x for x in book.places if x.base == "map" and x.regime == "layers"]
    if not pairs:
        raise draw.NothingToShowError("No pair of layer ranges was asked.")
    every = [*([direct] if direct else []), *pairs]
    at = _map({_ranges(x): x for x in every}, _by_layer)
    title = "Accuracy of the sum on new facts, by the layers each expert may change"
    figure = draw.canvas(9.5, 1.4 + 0.72 * len(at.up), title)
    panels, image = figure.subplots(1, 2, squeeze=False)[0], None
    for axes, split in zip(panels, ASKS, strict=True):
        axes.set_title(ASKS[split], loc="left", fontsize=10.5)
        sums = at.readings(lambda x, s=split: _read(book, x, s, SUM))
        joint = at.readings(lambda x, s=split: _read(book, x, s, JOINT))
        alone = at.readings(lambda x, s=split: regimes_readings.single(book, x, s))
        image = _heat(axes, at, _values(sums))
        _write(axes, image, _beside(sums, joint, alone))
        axes.set_xlabel("layers of A→B", fontsize=9.5)
    panels[0].set_ylabel("layers of B→C", fontsize=9.5)
    _scale(figure, image, panels)
    return figure


def _map(places: Mapping[tuple[Any, Any], Place], order) -> Map:
    across, up = (tuple(order({key[i] for key in places})) for i in (0, 1))
    return Map(across, up, places)


def _ranges(place: Place) -> tuple[str, str]:
    first, second = place.placement.split(" + ")
    return first, second


def _by_layer(names: Sequence[str]) -> list[str]:
    """All layers first, then from low to high."""

    def key(name: str) -> tuple[int, ...]:
        ends = name.replace(",", "-").split("-")
        return () if name == "all" else (int(ends[0]), int(ends[-1]))

    return sorted(names, key=key)


def _read(book: Book, place: Place, split: Split, shown) -> Reading:
    return regimes_readings.value(book, place, split, shown)


def _values(readings: Sequence[Sequence[Reading]]) -> Numbers:
    return np.array(
        [[math.nan if r.value is None else r.value for r in line] for line in readings]
    )


def _heat(axes: Axes, at: Map, values: Numbers) -> AxesImage:
    image = axes.imshow(values, cmap=SCALE, vmin=0, vmax=1, origin="lower")
    axes.set_aspect("auto")
    axes.set_xticks(range(len(at.across)), [_tick(x) for x in at.across])
    axes.set_yticks(range(len(at.up)), [_tick(x) for x in at.up])
    axes.tick_params(labelsize=9.5, length=0)
    axes.spines[:].set_visible(False)
    # White lines between cells.
    axes.set_xticks(np.arange(len(at.across) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(at.up) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    return image


def _scale(figure: Figure, image: AxesImage | None, panels: Numbers) -> None:
    """One colour bar for both panels, which share a scale."""
    assert image is not None
    figure.colorbar(image, ax=panels, label="accuracy", pad=0.015, fraction=0.03)


def _tick(x: Any) -> str:
    return x if isinstance(x, str) else f"{x:g}"


def _with_n(reading: Reading) -> tuple[str, str]:
    if reading.value is None:
        return "–", ""
    return f"{reading.value:.2f}", f"n {reading.n}"


def _beside(*three: Sequence[Sequence[Reading]]) -> list[list[tuple[str, str]]]:
    def words(total: Reading, joint: Reading, alone: Reading) -> tuple[str, str]:
        if total.value is None:
            return "–", ""
        parts = (("joint", joint), ("single", alone))
        small = [f"{name} {r.value:.2f}" for name, r in parts if r.value is not None]
        return f"{total.value:.2f}", "\n".join(small)

    return [
        [words(*each) for each in zip(*lines, strict=True)]
        for lines in zip(*three, strict=True)
    ]


def _write(
    axes: Axes, image: AxesImage, words: Sequence[Sequence[tuple[str, str]]]
) -> None:
    """A number in each cell and smaller words below it, light on dark."""
    values = np.ma.filled(np.ma.asarray(image.get_array()), math.nan)
    colors = image.to_rgba(values)
    for y, line in enumerate(words):
        for x, (large, small) in enumerate(line):
            value = values[y, x]
            around = colors[y, x] if math.isfinite(value) else "white"
            style = {
                "ha": "center",
                "color": "white" if value > 0.55 else draw.INK,
                # A contour may cross the cell; the number stays readable.
                "path_effects": [withStroke(linewidth=2.5, foreground=around)],
            }
            up = 0.02 + 0.08 * (small.count("\n") + bool(small))
            axes.text(x, y + up, large, va="center", fontsize=10, **style)
            axes.text(x, y + up - 0.14, small, va="top", fontsize=7, **style)


def _contours(axes: Axes, book: Book, at: Map, split: Split) -> set[str]:
    """Draws where the mean is as good as a limit; the names of lines there are."""
    drawn = set()
    mean = _values(at.readings(lambda x: _read(book, x, split, MEAN)))
    joint = _values(at.readings(lambda x: _read(book, x, split, JOINT)))
    bound = at.readings(lambda x: _upper(regimes_readings.single(book, x, split)))
    limits = (_values(bound), joint)
    for (name, color, style), limit in zip(CONTOURS, limits, strict=True):
        above = mean - limit
        shown = above[np.isfinite(above)]
        # A line needs a plane, and a value on each of its sides.
        if min(above.shape) > 1 and shown.size and shown.min() < 0 < shown.max():
            some = {"colors": color, "linestyles": style, "linewidths": 2}
            axes.contour(np.ma.masked_invalid(above), levels=[0.0], **some)
            drawn.add(name)
    return drawn


def _upper(reading: Reading) -> Reading:
    return Reading(reading.hi if reading.hi is not None else reading.value)
