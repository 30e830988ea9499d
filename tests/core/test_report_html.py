import base64
import hashlib
import io
import re
import tracemalloc
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from core.report import Crop, Report, ReportPair
from core.report_drawing import SPEC, corresponding_marks
from core.report_html import write_html
from core.report_json import write_json
from core.report_words import describe
from tests.core.report_samples import (
    HOSTILE,
    cells,
    copy_move,
    degraded,
    failed,
    hostile,
    pair,
    report_of,
    sample_pairs,
    similarity,
)
from tests.core.test_report_words import ACCUSING

BENIGN = "plain"


def html_of(report: Report, pairs: Sequence[ReportPair] = ()) -> str:
    file = io.StringIO()
    write_html(report, pairs, file)
    return file.getvalue()


class Outline(HTMLParser):
    """The elements of a page with the names of their attributes, and the text outside them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self._inert = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(name, value or "") for name, value in attrs]
        self._inert += tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", ()))
        self._inert -= tag in {"script", "style"}

    def handle_data(self, data: str) -> None:
        if not self._inert:
            self.text.append(data)

    def words(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.text).replace("\u00a0", " "))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_changes_no_element_and_no_attribute(text: str) -> None:
    page = html_of(*hostile(text))
    assert Outline(page).elements == Outline(html_of(*hostile(BENIGN))).elements


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_leaves_nothing_that_acts_without_showing(text: str) -> None:
    page = html_of(*hostile(text))
    page.encode("utf-8")
    acting = {character for character in page if unicodedata.category(character)[0] == "C"}
    assert acting <= {"\n"}


def test_the_page_may_run_only_what_it_was_written_with() -> None:
    page = html_of(report_of(sample_pairs()), sample_pairs())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    for kind, element in (("script-src", "script"), ("style-src", "style")):
        found = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in rules
    assert rules.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in rules
    assert page.index("Content-Security-Policy") < page.index("<title>")


def test_the_page_refers_to_nothing_outside_itself() -> None:
    outline = Outline(html_of(*hostile(BENIGN)))
    for name, value in outline.attributes:
        assert not name.startswith("on")
        assert name != "style"
        if name in {"href", "src", "action", "data", "poster", "srcset"}:
            assert re.match(r"#[\w-]+$|data:(image/(jpeg|png);base64,[A-Za-z0-9+/=]+|,)$", value)
    page = html_of(*hostile(BENIGN))
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(http" not in page


def test_the_header_says_what_was_and_was_not_looked_at() -> None:
    words = Outline(html_of(degraded(report_of(())))).words()
    assert "No similar regions found in what was looked at, but parts were not looked at." in words
    assert "11 of 12 pages" in words
    assert "81 of 90 panels compared, 9 set aside" in words
    assert "2,240 earlier panels compared with, of 31 documents" in words
    assert "Image encoder did not run: none configured" in words
    assert "locked.pdf failed: The file is encrypted; store it without a password." in words
    assert "Page 9: The image is larger than 200 megapixels." in words


def test_no_pairs_is_an_answer_with_its_scope() -> None:
    page = html_of(report_of(()))
    words = Outline(page).words()
    assert "No similar regions found." in words
    assert (
        "No similar regions that need review were found in 12 pages and 81 compared panels."
        in words
    )
    assert 'role="alert">\n<h2>' not in page


def test_a_failed_search_never_looks_like_no_pairs() -> None:
    words = Outline(html_of(failed())).words()
    assert "The search failed. Nothing can be concluded from this report." in words
    assert "No similar regions" not in words


def test_every_pair_has_its_sentence_and_stands_in_its_section() -> None:
    pairs = sample_pairs()
    page = html_of(report_of(pairs), pairs)
    words = Outline(page).words()
    places = [words.index(describe(one)) for one in pairs]
    assert places == sorted(places)
    assert words.index("Needs review") < places[0]
    assert places[-2] < words.index("Often legitimate One field") < places[-1]
    assert page.count("<article ") == 5


def test_only_often_legitimate_pairs_leave_the_first_section_empty_but_said_so() -> None:
    only = [one for one in sample_pairs() if one.often_legitimate]
    page = html_of(report_of(only), only)
    assert page.count("<article ") == 1
    assert "No similar regions that need review were found" in Outline(page).words()


def test_the_page_accuses_no_one() -> None:
    for report, pairs in (
        (report_of(sample_pairs()), sample_pairs()),
        (degraded(report_of(())), []),
        (failed(), []),
    ):
        assert not ACCUSING.search(Outline(html_of(report, pairs)).words())


def test_the_page_names_the_very_json_that_lies_beside_it() -> None:
    pairs = sample_pairs()
    beside = io.StringIO()
    write_json(report_of(pairs), pairs, beside)
    digest = hashlib.sha256(beside.getvalue().encode()).hexdigest()
    assert digest in html_of(report_of(pairs), pairs)


def test_the_page_is_the_same_bytes_every_time() -> None:
    assert html_of(report_of(sample_pairs()), sample_pairs()) == html_of(
        report_of(sample_pairs()), sample_pairs()
    )


def test_a_page_whose_pairs_are_not_those_announced_has_no_signature_and_no_end() -> None:
    file = io.StringIO()
    with pytest.raises(ValueError, match="announces 5 pairs"):
        write_html(report_of(sample_pairs()), sample_pairs()[:-1], file)
    assert "Signature" not in file.getvalue()
    assert 'id="end"' not in file.getvalue()


def test_a_pair_without_an_aligned_picture_is_still_shown() -> None:
    bare = replace(sample_pairs()[0], aligned=None)
    page = html_of(report_of([bare]), [bare])
    assert "No aligned picture was kept for this pair" in page
    assert 'type="range"' not in page


def test_numbered_points_are_the_same_point_in_both_pictures() -> None:
    one = pair(cells(1, 64, 48), degrees=90, mirror=True)
    marks = corresponding_marks(one)
    assert [mark.number for mark in marks] == [1, 2, 3, 4]
    (a, b, c), (d, e, f) = similarity(90, 1, (64, 48), (64, 48), mirror=True)
    for mark in marks:
        x, y = mark.a
        assert mark.b == pytest.approx((a * x + b * y + c, d * x + e * y + f))
        assert 0 <= mark.b[0] <= one.b.crop.width_px
        assert 0 <= mark.b[1] <= one.b.crop.height_px


def test_points_that_no_picture_holds_are_left_out() -> None:
    away = replace(pair(cells(1, 64, 48)), transform=((1.0, 0.0, 900.0), (0.0, 1.0, 0.0)))
    assert corresponding_marks(away) == ()


def test_a_small_region_is_shown_enlarged_in_the_comparison() -> None:
    page = html_of(report_of([copy_move()]), [copy_move()])
    boxes = re.findall(r'class="picture stage"[^>]*viewBox="([^"]*)"', page)
    assert boxes == ["14.00 24.00 112.00 102.00"] * 2
    assert SPEC.zoom_margin == 0.2


def big_pairs(count: int) -> Iterator[ReportPair]:
    template = pair(cells(1, 64, 48))
    noise = np.random.default_rng(0)
    for position in range(count):
        crop = Crop(b"\xff\xd8\xff" + noise.bytes(300_000), 64, 48)
        yield replace(
            template,
            pair_id=f"{position:04d}",
            a=replace(template.a, crop=crop),
            b=replace(template.b, crop=replace(crop)),
            aligned=crop.data,
        )


class Sink:
    """Takes text and keeps only its length."""

    size = 0

    def write(self, text: str, /) -> None:
        self.size += len(text)


def peak_of(count: int) -> tuple[int, int]:
    report = report_of([pair(cells(1, 64, 48))] * count)
    sink = Sink()
    tracemalloc.start()
    write_html(report, big_pairs(count), sink)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, sink.size


def test_memory_is_that_of_one_pair_however_many_there_are() -> None:
    write_html(report_of(()), (), Sink())
    few, small = peak_of(3)
    many, large = peak_of(30)
    assert large > 9 * small
    assert many < 1.2 * few
