"""The report in a real browser: nothing loads, nothing complains, every control does its work."""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.faults.injections import FAMILIES, MARK, of_family
from core.report import Report, ReportPair
from core.report_html import write_html
from core.report_words import describe
from tests.core.report_samples import (
    HOSTILE,
    degraded,
    failed,
    hostile,
    report_of,
    sample_pairs,
    scope,
)

sync_api: Any = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
ARGUMENTS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to look with")


LOW_CONTRAST = """() => {
    const parse = (color) => color.match(/[\\d.]+/g).map(Number);
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = (color) => {
        const [r, g, b] = parse(color).map((value) => linear(value / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            if (parse(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const low = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.data.trim();
        const element = walker.currentNode.parentElement;
        if (!text || element.closest("svg, script, style") || !element.checkVisibility()) continue;
        const pair = [light(getComputedStyle(element).color), light(behind(element))];
        if ((Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05) < 4.5) low.push(text);
    }
    return low;
}"""
"""Texts below the contrast that WCAG 2.1 AA asks of small print, 4.5 to 1."""


@dataclass
class Visit:
    """A page and what it did that it should not have."""

    page: Any
    complaints: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])

    def shown(self) -> list[str]:
        """Ids of the pairs that can be seen."""
        return self.page.eval_on_selector_all(
            ".pair", "all => all.filter(e => e.checkVisibility()).map(e => e.id)"
        )

    def mode(self, pair: int = 1) -> str:
        return self.page.get_attribute(f"#pair-{pair} .compare .stage", "data-mode")

    def stage(self, pair: int = 1) -> np.ndarray[Any, Any]:
        """What the comparison looks like, outlines off."""
        raw = self.page.locator(f"#pair-{pair} .compare .stage").screenshot()
        decoded = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        return decoded


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open a report; at the end it must not have complained or asked for anything."""
    contexts: list[Any] = []
    visits: list[Visit] = []

    def open_report(
        report: Report, pairs: Sequence[ReportPair] = (), *, cut: int | None = None, **context: Any
    ) -> Visit:
        path = tmp_path / f"report-{len(visits)}.html"
        with path.open("w", encoding="utf-8", newline="") as file:
            write_html(report, pairs, file)
        if cut is not None:
            path.write_bytes(path.read_bytes()[:cut])
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}, **context))
        page = contexts[-1].new_page()
        opened = Visit(page)
        visits.append(opened)
        page.on("console", lambda message: opened.complaints.append(message.text))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on("dialog", lambda dialog: opened.complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.goto(path.as_uri())
        opened.requests = [url for url in opened.requests if url != path.as_uri()]
        return opened

    yield open_report
    for context in contexts:
        context.close()
    for opened in visits:
        assert opened.complaints == []
        assert [url for url in opened.requests if not url.startswith("data:")] == []


@pytest.fixture
def full(visit: Any) -> Visit:
    pairs = sample_pairs()
    scopes = [scope("Smith 2021.pdf"), scope(pairs[1].b.name, 30)]
    return visit(report_of(pairs, scopes), pairs)


def test_all_pairs_and_their_sentences_are_seen(full: Visit) -> None:
    assert full.shown() == [f"pair-{number}" for number in range(1, 6)]
    for number, one in enumerate(sample_pairs(), start=1):
        words = full.page.inner_text(f"#pair-{number} .sentence").replace("\u00a0", " ")
        assert words == describe(one)
    assert not full.page.is_visible(".cut-short")
    assert not full.page.is_visible(".filtered-out")


def test_every_picture_is_drawn(full: Visit) -> None:
    for number in range(1, 6):
        for picture in full.page.locator(f"#pair-{number} .views .picture").all():
            if not picture.is_visible():
                continue
            raw = np.frombuffer(picture.screenshot(), np.uint8)
            drawn = cv2.imdecode(raw, cv2.IMREAD_COLOR)
            assert drawn is not None
            assert drawn.std() > 10


def test_keys_1_2_and_0_filter_by_tier_and_the_count_says_so(full: Visit) -> None:
    full.page.keyboard.press("1")
    assert full.shown() == ["pair-1", "pair-2"]
    assert full.page.inner_text("#shown") == "2 of 5 pairs shown"
    assert not full.page.is_visible("#legitimate")
    full.page.keyboard.press("2")
    assert full.shown() == ["pair-3", "pair-4", "pair-5"]
    full.page.keyboard.press("0")
    assert len(full.shown()) == 5


def test_filters_by_relation_and_document_combine(full: Visit) -> None:
    full.page.select_option("#document", index=2)
    assert full.shown() == ["pair-2"]
    full.page.select_option("#relation", "copy_move")
    assert full.shown() == []
    assert full.page.is_visible(".filtered-out")
    full.page.select_option("#document", "")
    assert full.shown() == ["pair-4"]
    full.page.click('.toolbar [data-tier="A"]')
    assert full.shown() == []


def test_j_and_k_walk_through_the_pairs_that_are_shown(full: Visit) -> None:
    def current() -> str:
        return full.page.eval_on_selector(".pair.current", "element => element.id")

    full.page.keyboard.press("j")
    assert current() == "pair-1"
    full.page.keyboard.press("j")
    assert current() == "pair-2"
    top = full.page.eval_on_selector("#pair-2", "element => element.getBoundingClientRect().top")
    bar = full.page.eval_on_selector(".toolbar", "e => e.getBoundingClientRect().bottom")
    assert bar <= top < 200
    full.page.keyboard.press("k")
    assert current() == "pair-1"
    full.page.keyboard.press("k")
    assert current() == "pair-1"
    full.page.keyboard.press("2")
    full.page.keyboard.press("j")
    assert current() == "pair-3"


def test_the_slider_moves_the_line_between_a_and_b(full: Visit) -> None:
    slider = full.page.locator("#pair-1 .controls input")
    full.page.keyboard.press("o")
    slider.fill("0")
    only_b = full.stage()
    slider.fill("100")
    only_a = full.stage()
    slider.fill("50")
    half = full.stage()
    middle = half.shape[1] // 2
    assert np.abs(half[:, : middle - 9].astype(int) - only_a[:, : middle - 9]).mean() < 1
    assert np.abs(half[:, middle + 9 :].astype(int) - only_b[:, middle + 9 :]).mean() < 1
    assert np.abs(only_a.astype(int) - only_b).mean() > 3


def test_the_line_follows_the_pointer_and_the_arrow_keys(full: Visit) -> None:
    full.page.keyboard.press("j")
    box = full.page.locator("#pair-1 .compare .stage").bounding_box()
    y = box["y"] + box["height"] / 2
    full.page.mouse.move(box["x"] + box["width"] * 0.5, y)
    full.page.mouse.down()
    full.page.mouse.move(box["x"] + box["width"] * 0.25, y)
    full.page.mouse.up()
    value = float(full.page.input_value("#pair-1 .controls input"))
    assert value == pytest.approx(25, abs=1)
    full.page.keyboard.press("s")
    full.page.keyboard.press("ArrowRight")
    assert float(full.page.input_value("#pair-1 .controls input")) == pytest.approx(value + 1)
    line = full.page.get_attribute("#pair-1 .compare .divider", "x1")
    assert float(line) == pytest.approx(320 * (value + 1) / 100)


def test_b_blinks_a_and_b_in_turn(full: Visit) -> None:
    full.page.keyboard.press("j")
    full.page.keyboard.press("b")
    assert full.mode() == "blink"
    seen = "getComputedStyle(document.querySelector('#pair-1 .compare .over')).opacity"
    for opacity in ("0", "1", "0"):
        until = time.monotonic() + 5
        while full.page.evaluate(seen) != opacity:
            assert time.monotonic() < until, f"never at opacity {opacity}"
            time.sleep(0.05)
    full.page.keyboard.press("b")
    assert full.mode() == "overlay"


def test_d_shows_the_difference_which_is_dark_where_a_and_b_are_equal(full: Visit) -> None:
    full.page.keyboard.press("o")
    for _ in range(3):
        full.page.keyboard.press("j")
    before = full.stage(3)
    full.page.keyboard.press("d")
    assert full.mode(3) == "difference"
    assert full.mode(1) == "overlay"
    middle = [slice(size // 3, 2 * size // 3) for size in before.shape[:2]]
    assert before[tuple(middle)].mean() > 100
    assert full.stage(3)[tuple(middle)].mean() < 12


def test_the_buttons_do_what_the_keys_do(full: Visit) -> None:
    full.page.click('#pair-2 button[data-mode="difference"]')
    assert full.mode(2) == "difference"
    pressed = '#pair-2 .modes [aria-pressed="true"]'
    assert full.page.inner_text(pressed) == "Difference"
    assert full.page.is_disabled("#pair-2 .controls input")
    full.page.click('#pair-2 button[data-mode="overlay"]')
    assert full.page.inner_text(pressed) == "Slider"
    assert full.page.is_enabled("#pair-2 .controls input")


def test_help_opens_and_closes_by_key_and_holds_the_other_keys_back(full: Visit) -> None:
    full.page.keyboard.press("?")
    assert full.page.is_visible("#help")
    full.page.keyboard.press("1")
    assert len(full.shown()) == 5
    full.page.keyboard.press("Escape")
    assert not full.page.is_visible("#help")


def test_provenance_is_folded_away_and_opens_by_key(full: Visit) -> None:
    full.page.keyboard.press("j")
    assert not full.page.is_visible("#pair-1 .provenance table")
    full.page.keyboard.press("p")
    assert sample_pairs()[0].a.document in full.page.inner_text("#pair-1 .provenance table")


def test_keys_with_a_modifier_belong_to_the_browser(full: Visit) -> None:
    full.page.keyboard.press("j")
    full.page.keyboard.press("Control+b")
    assert full.mode() == "overlay"


def test_without_script_everything_is_there(visit: Any) -> None:
    pairs = sample_pairs()
    opened = visit(report_of(pairs), pairs, java_script_enabled=False)
    articles = opened.page.locator(".pair")
    assert articles.count() == 5
    for number in range(5):
        assert articles.nth(number).is_visible()
        assert articles.nth(number).locator(".picture:visible").count() == 4
    assert not opened.page.is_visible(".toolbar")
    assert not opened.page.locator(".controls").first.is_visible()
    opened.page.click("#pair-1 .provenance summary")
    assert opened.page.is_visible("#pair-1 .provenance table")


def test_print_shows_all_pairs_whatever_the_filter_and_room_to_sign(full: Visit) -> None:
    pymupdf = pytest.importorskip("pymupdf")
    full.page.keyboard.press("1")
    full.page.keyboard.press("j")
    full.page.keyboard.press("b")
    printed = pymupdf.open(stream=full.page.pdf(format="A4"), filetype="pdf")
    words = " ".join(" ".join(page.get_text() for page in printed).replace("\u00a0", " ").split())
    for one in sample_pairs():
        assert describe(one) in words
    assert "Signature" in words
    assert "All tiers" not in words
    assert printed[0].rect.width == pytest.approx(595, abs=1)


@pytest.mark.parametrize(
    "text",
    [*(" ".join(of_family(family)) for family in FAMILIES), "".join(HOSTILE)],
    ids=[*FAMILIES, "all"],
)
def test_hostile_text_is_shown_and_does_nothing(visit: Any, text: str) -> None:
    opened = visit(*hostile(text))
    assert opened.page.evaluate(f"typeof {MARK}") == "undefined"
    assert opened.page.locator("script").count() == 1
    assert opened.page.locator("img, iframe, object, embed, link:not([rel=icon])").count() == 0
    assert len(opened.shown()) == 5
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.page.evaluate(overflow) == 0


def test_a_narrow_screen_needs_no_sideways_scrolling(visit: Any) -> None:
    report, pairs = hostile("n" * 300)
    opened = visit(report, pairs)
    opened.page.set_viewport_size({"width": 360, "height": 780})
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.page.evaluate(overflow) == 0


def test_the_policy_stops_a_script_and_a_picture_that_got_in_all_the_same(visit: Any) -> None:
    opened: Visit = visit(report_of(sample_pairs()), sample_pairs())
    opened.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const picture = new Image();
            picture.src = "http://127.0.0.1:9/tracker.png";
            document.body.append(picture);
            document.body.insertAdjacentHTML("beforeend", "<b id=x onclick='window.ran = 1'>x</b>");
            document.getElementById("x").click();
        }"""
    )
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)
    opened.complaints.clear()
    opened.requests = [url for url in opened.requests if "tracker.png" not in url]


def test_a_report_that_was_cut_off_says_so(visit: Any) -> None:
    pairs = sample_pairs()
    opened = visit(report_of(pairs), pairs, cut=150_000)
    assert opened.page.is_visible(".cut-short")


@pytest.mark.parametrize(
    ("report", "banner"),
    [(report_of(()), ""), (degraded(report_of(())), "Degraded"), (failed(), "Failed")],
)
def test_a_report_without_pairs_says_how_much_that_means(
    visit: Any, report: Report, banner: str
) -> None:
    opened = visit(report)
    assert opened.page.locator(".banner").count() == (1 if banner else 0)
    if banner:
        assert opened.page.inner_text(".banner h2") == banner
    assert opened.page.is_visible(".pairs .none")
    assert opened.page.locator(".toolbar").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("status", ["ok", "degraded", "failed"])
def test_text_can_be_read_in_light_and_dark(visit: Any, scheme: str, status: str) -> None:
    pairs = sample_pairs()
    report = {"ok": report_of(pairs), "degraded": degraded(report_of(pairs)), "failed": failed()}
    opened = visit(report[status], pairs if status != "failed" else (), color_scheme=scheme)
    assert opened.page.evaluate(LOW_CONTRAST) == []
