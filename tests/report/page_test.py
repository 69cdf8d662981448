"""Is the page one file, safe, complete, and written whole or not at all?"""

import base64
import html.parser
import re

import pytest

from jaxlora import files
from jaxlora.report import outcome, page

VOID = {"meta", "img", "br", "link", "input"}
PNG = b"\x89PNG not really"


class Page(html.parser.HTMLParser):
    """Collects tags, assets and words; fails on a tag closed out of turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.assets, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.assets += [v for k, v in attrs if k in ("src", "href", "data", "srcset")]
        assert not [k for k, _ in attrs if k.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / "figure-library.png", tmp_path / "figure-controls.png"]
    for path in paths:
        path.write_bytes(PNG + path.name.encode())
    return paths


def test_page_is_self_contained(rows, results, images, tmp_path):
    path = page.write(rows, results, tmp_path / "out", images)
    text = path.read_text(encoding="utf-8")
    seen = Page(text)
    assert len(seen.assets) == len(images)
    for asset, image in zip(seen.assets, images, strict=True):
        kind, data = asset.split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == image.read_bytes()
    assert not {"script", "link", "iframe"} & set(seen.tags)
    assert not re.search(r"https?://|@import|url\(", text)


def test_page_draws_its_own_figures_if_it_is_given_none(rows, results, tmp_path):
    text = page.write(rows, results, tmp_path).read_text(encoding="utf-8")
    assert len(Page(text).assets) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_captions_say_whose_range_the_grey_band_is(rows, results):
    names = ("figure-controls.png", "figure-coverage.png")
    text = page.render(rows, results, dict.fromkeys(names, PNG))
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
    with pytest.raises(OSError, match="No space left"):
        page.write(rows, results, tmp_path, [])
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
