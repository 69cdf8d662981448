"""Do the table and the figure show the report's numbers, each in its place?"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxlora.lora import LoraWeight
from jaxlora.merge.fidelity import Fidelity, fidelity
from jaxlora.report import draw
from jaxlora.report import fidelity as report

NAMES = ["maths", "law", "code"]
SITES = ["layers/attn/q_proj/kernel", "layers/mlp/up_proj/kernel"]
QUANTITIES = [
    *("relative_error", "norm_shrinkage", "cross_term_energy", "outside_energy"),
]


@pytest.fixture(scope="module")
def found() -> dict[str, Fidelity]:
    """An averaged pair of factors and the zero adapter; expert 1 is absent."""
    rng = np.random.default_rng(0)
    w = np.asarray([0.5, 0.0, 0.5], np.float32)
    library, averaged = {}, {}
    for name in SITES:
        a, b = rng.standard_normal((3, 2, 6, 2)), rng.standard_normal((3, 2, 2, 6))
        a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
        library[name] = LoraWeight(a, b, jnp.ones((3, 2)))
        mean_a, mean_b = (jnp.tensordot(jnp.asarray(w), x, 1) for x in (a, b))
        averaged[name] = LoraWeight(mean_a, mean_b, jnp.ones(2))
    zero = jax.tree.map(jnp.zeros_like, averaged)
    return {
        "factor-mean": fidelity(averaged, library, w),
        "nothing": fidelity(zero, library, w),
    }


def bars(figure: Figure, panel: int, length: str) -> list[list[float]]:
    read = {"x": lambda bar: bar.get_width(), "y": lambda bar: bar.get_height()}
    return [[read[length](b) for b in c] for c in figure.axes[panel].containers]


def words(figure: Figure, panel: int) -> list[str]:
    return [text.get_text().strip() for text in figure.axes[panel].texts]


def test_the_table_has_a_line_a_site_and_a_total(found):
    one = found["factor-mean"]
    table = report.table(one, NAMES)
    assert list(table.index) == [*SITES, "total"]
    assert list(table) == [*QUANTITIES, *(f"coefficient: {n}" for n in NAMES)]
    layers, total = one.layers(), one.total()
    for quantity in QUANTITIES:
        for site in SITES:
            want = float(getattr(layers, quantity)[site])
            assert table.loc[site, quantity] == pytest.approx(want)
        assert table.loc["total", quantity] == pytest.approx(
            float(getattr(total, quantity))
        )
    assert 0.3 < table.loc["total", "relative_error"] < 2
    for i, name in enumerate(NAMES):
        column = [*(layers.effective_coefficient[s][i] for s in SITES)]
        column.append(total.effective_coefficient[i])
        np.testing.assert_allclose(table[f"coefficient: {name}"], column, rtol=1e-6)
    assert math.isnan(table.loc["total", "coefficient: law"])


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "b"]])
def test_the_table_wants_a_name_for_each_expert(found, names):
    with pytest.raises(ValueError, match="expected 3 different ones"):
        report.table(found["factor-mean"], names)


def test_every_bar_is_a_number_of_the_table(found):
    figure = report.chart(found, NAMES)
    tables = [report.table(one, NAMES) for one in found.values()]
    for panel, quantity in enumerate(QUANTITIES):
        want = [t[quantity].fillna(0) for t in tables]
        np.testing.assert_allclose(bars(figure, panel, "x"), want, rtol=1e-6)
    columns = [f"coefficient: {n}" for n in NAMES]
    want = [t.loc["total", columns].fillna(0) for t in tables]
    np.testing.assert_allclose(bars(figure, 4, "y"), want, rtol=1e-6)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["attn/q_proj", "mlp/up_proj", "total"]
    experts = [label.get_text() for label in figure.axes[4].get_xticklabels()]
    assert experts == NAMES
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(found)


def test_what_is_undefined_or_too_small_for_a_bar_is_a_word(found):
    figure = report.chart(found, NAMES)
    # No share of nothing; the experts span 4 of 6 dimensions, and nothing is outside.
    assert words(figure, 2) == ["undefined"] * 3
    assert words(figure, 3) == ["0"] * 3 + ["undefined"] * 3
    assert words(figure, 1) == ["0"] * 3
    assert words(figure, 4) == ["undefined"] * 2


def test_one_merge_has_no_legend_and_numbers_its_experts(found):
    figure = report.chart(found["factor-mean"])
    assert figure.legends == []
    experts = [label.get_text() for label in figure.axes[4].get_xticklabels()]
    assert experts == ["0", "1", "2"]


def test_bars_of_a_row_do_not_overlap(found):
    figure = report.chart(dict.fromkeys("abcdefg", found["factor-mean"]))
    boxes = [(b.get_y(), b.get_height()) for c in figure.axes[0].containers for b in c]
    edges = sorted((y, y + height) for y, height in boxes)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(edges))


def test_the_file_is_a_png_and_the_same_each_time(found, tmp_path):
    path = report.figure(found, tmp_path / "fidelity.png", NAMES)
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert report.figure(found, path, NAMES).read_bytes() == first


def test_merges_that_do_not_belong_together_are_refused(found):
    one = found["factor-mean"]
    with pytest.raises(draw.NothingToShowError, match="empty"):
        report.chart({})
    with pytest.raises(ValueError, match="Got 8 merges, expected at most 7"):
        report.chart(dict.fromkeys("abcdefgh", one))
    less = jax.tree.map(lambda x: x, vars(one))
    less = Fidelity(**{k: {SITES[0]: v[SITES[0]]} for k, v in less.items()})
    with pytest.raises(ValueError, match="different sites"):
        report.chart({"all": one, "less": less})


@pytest.mark.parametrize(
    ("names", "want"),
    [
        (
            ["model.layers.*.mlp.up", "model.layers.*.self_attn.q"],
            ["mlp.up", "self_attn.q"],
        ),
        (["layers/attn/q_proj/kernel"], ["layers/attn/q_proj"]),
        (["q_proj/kernel", "k_proj/kernel"], ["q_proj", "k_proj"]),
    ],
)
def test_short_names_keep_what_tells_sites_apart(names, want):
    assert report.short(names) == want
