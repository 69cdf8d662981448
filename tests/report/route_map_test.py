"""Every square, bar and row is a weight of the route, at its token and layer."""

import math

import numpy as np
import pytest

from jaxlora.report import draw, route_map, route_numbers
from jaxlora.report.figures import png
from jaxlora.route import diagnose

L, T, E = 2, 3, 3
SITES = [f"layers/{site}_proj/kernel" for site in ("attn/q", "attn/v", "mlp/up")]
TOKENS = ["<bos>", " is", "$x$"]
EXPERTS = ["ann", "bo", "_c_"]


@pytest.fixture(scope="module")
def sites():
    rng = np.random.default_rng(0)
    return {s: rng.dirichlet(np.ones(E), (L, T)).astype(np.float32) for s in SITES}


@pytest.fixture(scope="module")
def mean(sites):
    return np.mean(list(sites.values()), axis=0)


def squares(axes):
    """{(layer, token): (colour, area as a share of the cell)} of a map."""
    (drawn,) = axes.collections
    found = {}
    for path, face in zip(drawn.get_paths(), drawn.get_facecolors(), strict=True):
        box = path.get_extents()
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        found[round(y), round(x)] = tuple(face), box.width * box.height
    return found


def color(name):
    return *(int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0


def maps(figure):
    return [axes for axes in figure.axes if axes.get_ylabel() == "layer"]


def test_numbers_are_means_over_sites(sites, mean):
    found = route_numbers.measure(sites)
    stacked = np.stack(list(sites.values()))
    np.testing.assert_allclose(found.weight, mean, rtol=1e-6)
    np.testing.assert_array_equal(found.top, mean.argmax(-1))
    each = -(stacked * np.log(stacked)).sum(-1)
    np.testing.assert_allclose(found.entropy, each.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.load, stacked.mean((0, 1, 2)), rtol=1e-5)
    best = stacked.argmax(-1)
    shares = [(best == e).mean() for e in range(E)]
    np.testing.assert_allclose(found.share, shares, rtol=1e-5)
    moved = (best[..., 1:] != best[..., :-1]).mean((0, 1))
    np.testing.assert_allclose(found.switched, [0, *moved], rtol=1e-5)


def test_a_square_has_the_colour_of_the_top_expert_and_the_area_of_its_weight(
    sites, mean
):
    (axes,) = maps(route_map.chart(sites, TOKENS, EXPERTS))
    found = squares(axes)
    assert len(found) == L * T
    for at in np.ndindex(L, T):
        face, area = found[at]
        best = mean[at].argmax()
        assert face == pytest.approx(color(route_map.COLORS[best]))
        sure = (mean[at][best] - 1 / E) / (1 - 1 / E)
        assert area == pytest.approx(0.92**2 * (0.14 + 0.86 * sure), rel=1e-4)
    texts = {t.get_position()[::-1]: t.get_text() for t in axes.texts}
    assert texts[0, 0] == f"{mean[0, 0].max():.2f}"[1:]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["<bos>", "is", "$x$"]


def test_entropy_and_load_stand_beside_the_map(sites):
    figure = route_map.chart(sites, TOKENS, EXPERTS, title="What arrow does")
    again = route_map.chart(sites, TOKENS, EXPERTS, title="What arrow does")
    assert png(figure) == png(again)
    numbers = route_numbers.measure(sites)
    top, _, beside, load, _ = figure.axes
    heights = [bar.get_height() for bar in top.patches]
    np.testing.assert_allclose(heights, numbers.entropy.mean(0), rtol=1e-5)
    widths = [bar.get_width() for bar in beside.patches]
    np.testing.assert_allclose(widths, numbers.entropy.mean(1), rtol=1e-5)
    assert top.get_ylim()[1] > math.log(E)
    bars = [bar.get_width() for bar in load.patches]
    np.testing.assert_allclose(bars, numbers.load, rtol=1e-5)
    circles = [line.get_xdata()[0] for line in load.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(circles, numbers.share, rtol=1e-5)
    assert [label.get_text() for label in load.get_yticklabels()] == EXPERTS
    assert figure.get_suptitle() == "What arrow does"


def test_panels_are_parts_or_sites(sites):
    for panels, want in (
        ("mean", {"mean of 3 sites": SITES}),
        ("part", {"attn": SITES[:2], "mlp": SITES[2:]}),
        ("site", {name[7:-7]: [name] for name in SITES}),
    ):
        axes = maps(route_map.chart(sites, TOKENS, EXPERTS, panels=panels))
        titles = [one.get_title(loc="left") for one in axes]
        assert titles == list(want)
        for one, names in zip(axes, want.values(), strict=True):
            best = np.mean([sites[name] for name in names], axis=0).argmax(-1)
            for at, (face, _) in squares(one).items():
                assert face == pytest.approx(color(route_map.COLORS[best[at]]))


def test_no_expert_leaves_no_square_and_a_tie_a_small_hollow_one():
    weights = np.zeros((1, 3, 2), np.float32)
    weights[0, 1] = 0.5
    weights[0, 2] = 0.0, 1.0
    found = route_numbers.measure({"a": weights})
    assert found.top.tolist() == [[diagnose.NONE, diagnose.NONE, 1]]
    (axes,) = maps(route_map.chart({"a": weights}, ["x"] * 3, ["p", "q"]))
    drawn = squares(axes)
    assert set(drawn) == {(0, 1), (0, 2)}
    (face, small), (_, full) = drawn[0, 1], drawn[0, 2]
    assert face[3] == 0
    assert small < 0.2 < 0.8 < full


def test_of_many_experts_the_most_used_have_colours():
    rng = np.random.default_rng(1)
    load = rng.dirichlet(np.full(20, 0.2))
    most = np.argsort(-load)[: len(route_map.COLORS)]
    palette = route_map.colors(load)
    assert list(palette) == most.tolist()
    assert len(set(palette.values())) == len(route_map.COLORS) == 8
    weights = np.broadcast_to(load, (2, 4, 20))
    figure = route_map.chart({"a": weights}, ["x"] * 4, [f"e{i}" for i in range(20)])
    labels = [label.get_text() for label in figure.axes[3].get_yticklabels()]
    assert labels == [*(f"e{i}" for i in most), "12 others"]
    assert figure.axes[3].patches[-1].get_width() == pytest.approx(
        1 - load[most].sum(), abs=1e-5
    )


def test_any_text_and_size_can_be_drawn():
    odd = ["中", "\ud83d\ude00"[:1], "$\\frac$", "\n", "a" * 50, "", "\x00", " "]
    weights = np.full((30, 8, 1), 1.0, np.float32)
    figure = route_map.chart({"a": weights}, odd, ["$_{"])
    assert png(figure).startswith(b"\x89PNG")
    (axes,) = maps(figure)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["□", "□", "$\\frac$", "↵", "a" * 17 + "…", "", "□", "·"]


def test_colours_are_told_apart_without_hue():
    """In the order used, also by those who see no red, or no green: Machado 2009."""
    deutan = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    protan = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    seen = np.asarray([color(name)[:3] for name in route_map.COLORS]) ** 2.2
    for blind in (np.eye(3), np.asarray(deutan), np.asarray(protan)):
        shown = np.clip(seen @ blind.T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(shown[:, None] - shown[None], axis=-1)
        assert apart[~np.eye(8, dtype=bool)].min() > 0.12
    assert not set(route_map.COLORS) & set(draw.GREYS)


def test_rows_hold_every_weight(sites):
    rows = route_numbers.rows(sites, TOKENS, EXPERTS)
    assert tuple(rows.columns) == route_numbers.COLUMNS
    assert len(rows) == L * len(SITES) * T * E
    for row in rows.itertuples():
        want = sites[row.site][row.layer, row.token, EXPERTS.index(row.expert)]
        assert row.weight == want
        assert row.text == TOKENS[row.token]
    assert not rows.duplicated(["layer", "site", "token", "expert"]).any()
    first = rows.iloc[0]
    assert (first.layer, first.site, first.token) == (0, SITES[0], 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sites": {}}, "a site at least"),
        ({"sites": {"a": np.ones((1, L, T, E))}}, "choose one prompt of a batch"),
        ({"tokens": TOKENS[1:]}, "Got 2 tokens and 3 names"),
        ({"experts": EXPERTS[1:]}, "Got 3 tokens and 2 names"),
    ],
)
def test_bad_input_is_named(sites, change, expected):
    given = {"sites": sites, "tokens": TOKENS, "experts": EXPERTS} | change
    for make in (route_numbers.rows, route_map.chart):
        with pytest.raises(ValueError, match=expected):
            make(**given)


def test_a_prompt_that_is_too_long_for_a_figure_is_refused():
    weights = np.ones((1, 513, 1), np.float32)
    with pytest.raises(ValueError, match="513 tokens, expected at most 512"):
        route_map.chart({"a": weights}, ["x"] * 513, ["e"])
