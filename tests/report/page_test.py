"""Is the page one file, safe, complete, and written whole or not at all?"""

import html.parser
import re

import pytest

from jaxlora import files
from jaxlora.report import outcome, page, svg

VOID = {"meta", "img", "br", "link", "input"}
SVG = "<svg></svg>"


class Page(html.parser.HTMLParser):
    """Collects tags, assets and words; fails on a tag closed out of turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.assets, self.words = [], [], [], []
        self.ids, self.around, self.blocks = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.assets += [v for k, v in attrs if k in ("src", "href", "data", "srcset")]
        assert not [k for k, _ in attrs if k.startswith("on")]
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        name = ".".join(filter(None, (tag, named.get("class"))))
        if self.open and self.open[-1].startswith("main"):
            self.blocks.append(name)
        self.around.append((tag, self.open[-1] if self.open else ""))
        if tag not in VOID:
            self.open.append(name)

    def handle_endtag(self, tag):
        assert self.open.pop().split(".")[0] == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_page_is_self_contained(written):
    seen = Page(written)
    # What a figure refers to is in the page.
    assert all(x.startswith("#") and x[1:] in seen.ids for x in seen.assets)
    assert not {"script", "link", "iframe", "img", "image"} & set(seen.tags)
    assert not re.search(r"https?://|@import|data:|url\((?!#)", written)


def test_figures_are_drawings_that_share_no_id(written):
    seen = Page(written)
    assert seen.tags.count("svg") == 4
    assert len(seen.ids) == len(set(seen.ids)) > 0
    assert set(re.findall(r"url\(#([^)]+)\)", written)) <= set(seen.ids)


def test_every_colour_of_figures_and_words_has_a_dark_one(written):
    style = written[written.index("<style>") : written.index("</style>")]
    light, dark = style.split("@media (prefers-color-scheme: dark)", 1)
    of_light = set(re.findall(r"(--[a-z0-9-]+):", light))
    assert of_light == set(re.findall(r"(--[a-z0-9-]+):", dark.split("\n}\n")[0]))
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", written)) <= of_light
    assert {"--" + x for x in svg.INKS.values()} <= of_light


def test_nothing_is_wider_than_a_narrow_screen(written):
    seen = Page(written)
    # Each wide thing scrolls in a box of its own.
    assert {x for x in seen.around if x[0] == "table"} == {("table", "div.scroll")}
    assert {x for x in seen.around if x[0] == "svg"} == {("svg", "div.scroll")}
    style = written[written.index("<style>") : written.index("</style>")]
    assert re.search(r"\.scroll { overflow-x: auto;[^}]*max-width: 100%", style)
    assert re.search(r"th:first-child { position: sticky; left: 0", style)
    assert not re.search(r"(?<!max-)(?<!min-)width: \d+(px|rem)", style)


def test_the_finding_and_one_figure_come_first_and_proof_is_folded(written):
    seen = Page(written)
    blocks = [x for x in seen.blocks if x != "p.alarm"]
    assert blocks[:4] == ["p.kicker", "h1", "section.verdict", "figure"]
    assert blocks.count("figure") == 1
    assert len([x for x in blocks if x == "div.scroll"]) <= 2
    folded = written[written.index("<details>") :]
    for late in ("Criteria", "sha256:9f2c41d07ab3", "0123456789abcdef", "preset"):
        assert late in folded, late
        assert late not in written[: written.index("<details>")], late
    assert "<details open" not in written


def test_arrows_have_one_spelling(written):
    assert "-&gt;" not in written
    assert "->" not in written.replace("-->", "")
    assert "A→C saw these people" in written


def test_captions_say_whose_range_the_grey_band_is(rows, results):
    names = ("figure-controls.png", "figure-coverage.png")
    text = page.render(rows, results, dict.fromkeys(names, SVG))
    for caption in re.findall("<figcaption>(.*?)</figcaption>", text, re.S):
        assert "combined by mean" in caption
        assert "controls combined the same way" in caption
    assert text.count("<figcaption>") == 2


def test_page_says_everything_that_the_run_left(rows, results):
    results["failed_seeds"] = [7]
    text = Page(page.render(rows, results, {})).text
    for words in (
        "2-combination (mean): preserved in R-II",
        "Seeds that never met their criteria: 7",
        "0.410 failed",
        "0.50 [0.43, 0.57]",
        "unavailable",
        "sha256:9f2c41d07ab3, revision fedcba98",
        "upper bound of hop 1 is 0.76 < 0.90",
        "jaxlora study two-hop --from results.json",
        '"rank": 8',
        "cpu, 2 cores",
        "0123456789abcdef",
        "pretraining 611.0 67%",
        "total 912.4 100%",
        *outcome.MEANINGS,
    ):
        assert words in text, words


@pytest.mark.parametrize("where", ["config", "verdicts", "device", "study", "criteria"])
def test_page_escapes_what_strangers_wrote(rows, results, where):
    evil = "</pre></td><script>alert('x')</script><img src=http://a.b onerror=x> [1"
    if where == "verdicts":
        results["verdicts"][0]["reason"] = evil
    elif where == "criteria":
        results["criteria"][0]["criterion"] = evil
    else:
        results[where] = {evil: evil} if where == "config" else evil
    seen = Page(page.render(rows, results, {}))
    assert seen.assets == []
    assert "script" not in seen.tags
    assert "alert('x')" in seen.text


def test_page_of_a_run_that_failed_altogether(rows):
    seeds = rows[rows["seed"].astype(str) != "all"]
    text = Page(page.render(seeds, {"study": "two-hop"}, {})).text
    assert "There is no verdict" in text
    assert "There is no pooled value to draw" in text
    assert "No prediction was committed" in text


def test_old_page_survives_a_failure(rows, results, tmp_path, monkeypatch):
    old = tmp_path / "report.html"
    old.write_text("old")

    def no_room(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_room)
    monkeypatch.setattr(page.figures, "charts", lambda _: {})
    with pytest.raises(OSError, match="No space left"):
        page.write(rows, results, tmp_path)
    assert old.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_writing_leaves_one_whole_file(tmp_path):
    path = files.write_whole(tmp_path / "deep" / "a.bin", b"one")
    assert files.write_whole(path, b"two") == path
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_times_that_no_part_claims_are_other():
    times = {"total_s": 10.0, "compile_s": 1.0, "pretrain_s": 6.0}
    body = {line[0]: line[1:] for line in page.timing_grid({"timings": times}).body}
    assert body["other"] == ("3.0", "30%")
    assert body["pretraining"] == ("6.0", "60%")
    assert body["total"] == ("10.0", "100%")
