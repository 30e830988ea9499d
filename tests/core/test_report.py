from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.report import (
    Channel,
    Coverage,
    Crop,
    DocumentScope,
    PageFailure,
    PairCount,
    ReportPair,
    checked,
    count_pairs,
    media_type,
    report_order,
)
from tests.core.report_samples import (
    cells,
    degraded,
    pair,
    report_of,
    sample_pairs,
    scope,
    sha256,
    similarity,
)

PAIR = pair(cells(1, 64, 48))


@given(degrees=st.floats(-179, 179), scale=st.floats(0.3, 3), mirror=st.booleans())
def test_mirror_turn_and_scale_come_back_from_the_transform(
    degrees: float, scale: float, mirror: bool
) -> None:
    found = replace(PAIR, transform=similarity(degrees, scale, (64, 48), (64, 48), mirror=mirror))
    assert found.mirrored is mirror
    assert found.rotation_deg == pytest.approx(degrees, abs=1e-6)
    assert found.scale == pytest.approx(scale)
    assert found.stretch == pytest.approx(1)


def test_a_quarter_turn_clockwise_takes_right_to_down() -> None:
    turned = replace(PAIR, transform=((0.0, -1.0, 48.0), (1.0, 0.0, 0.0)))
    assert turned.rotation_deg == pytest.approx(90)


def test_upside_down_is_plus_180_degrees_whatever_the_rounding() -> None:
    for rounding in (1e-17, -1e-17):
        turned = replace(PAIR, transform=((-1.0, -rounding, 64.0), (rounding, -1.0, 48.0)))
        assert turned.rotation_deg == 180.0


def test_a_report_cannot_be_ok_over_a_document_that_is_not() -> None:
    report = degraded(report_of(()))
    with pytest.raises(ValueError, match="the report is ok, but a document is not"):
        replace(report, status="ok")


def test_a_document_cannot_be_ok_with_pages_missing() -> None:
    with pytest.raises(ValueError, match="ok, but pages are missing"):
        replace(scope("a.pdf"), pages_looked_at=11)
    with pytest.raises(ValueError, match="ok, but pages are missing"):
        replace(scope("a.pdf"), pages_failed=(PageFailure(1, "No."),))


def test_a_document_that_is_not_ok_says_why() -> None:
    with pytest.raises(ValueError, match="failed without a reason"):
        DocumentScope(sha256("a"), "a.pdf", 0, 0, status="failed")


def test_a_report_cannot_be_ok_over_panels_not_compared_or_over_nothing() -> None:
    report = report_of(())
    with pytest.raises(ValueError, match="panels were not compared"):
        replace(report, coverage=Coverage(panels=10, panels_compared=9))
    with pytest.raises(ValueError, match="nothing was looked at"):
        replace(report, documents=())


def test_a_degraded_report_says_why() -> None:
    with pytest.raises(ValueError, match="degraded without a flag"):
        replace(report_of(()), status="degraded")


def test_coverage_does_not_exceed_what_was_found() -> None:
    with pytest.raises(ValueError, match="more panels compared than found"):
        Coverage(panels=3, panels_compared=2, panels_set_aside=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": 1.2}, "probability 1.2 is not in 0..1"),
        ({"probability": float("nan")}, "probability nan is not in 0..1"),
        ({"ncc": float("nan")}, "nan among the measurements"),
        ({"evidence": {"x": float("inf")}}, "inf among the measurements"),
        ({"transform": ((1.0, 1.0, 0.0), (1.0, 1.0, 0.0))}, "onto a line"),
        ({"channels": ()}, "the channel that proposed it"),
        ({"aligned": b"<svg onload=alert(1)>"}, "must be JPEG or PNG"),
        ({"tier": "C"}, "unknown tier 'C'"),
    ],
)
def test_a_pair_with_a_measurement_that_cannot_be_is_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PAIR, **change)  # pyright: ignore[reportArgumentType]


def test_pictures_are_known_by_content_and_svg_is_refused() -> None:
    assert media_type(b"\x89PNG\r\n\x1a\n...") == "image/png"
    assert media_type(b"\xff\xd8\xff\xe0") == "image/jpeg"
    with pytest.raises(ValueError, match="must be JPEG or PNG"):
        Crop(b"<svg xmlns='http://www.w3.org/2000/svg'/>", 10, 10)


def test_what_needs_review_comes_first_then_the_more_probable() -> None:
    listed = sample_pairs()
    assert [one.relation for one in listed][-1] == "other_channel"
    probabilities = [one.probability for one in listed[:-1]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_the_pairs_listed_are_the_pairs_announced() -> None:
    listed = sample_pairs()
    report = report_of(listed)
    assert list(checked(report, listed)) == listed
    with pytest.raises(ValueError, match="announces 5 pairs"):
        list(checked(report, listed[:-1]))
    with pytest.raises(ValueError, match="announces 0 pairs"):
        list(checked(report_of(()), listed))


@pytest.mark.parametrize("order", [lambda some: some[::-1], lambda some: [some[0], *some]])
def test_pairs_out_of_order_or_twice_are_an_error(order: object) -> None:
    listed: list[ReportPair] = order(sample_pairs())  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="out of order or repeated"):
        list(checked(report_of(listed), listed))


def test_pairs_are_counted_by_relation_and_tier() -> None:
    counts = count_pairs([("same_blot", "B"), ("same_image", "A"), ("same_image", "A")])
    assert counts == (PairCount("same_image", "A", 2), PairCount("same_blot", "B", 1))
    report = replace(report_of(()), counts=(*counts, PairCount("other_channel", "B", 4)))
    assert (report.pairs, report.pairs_often_legitimate) == (7, 4)


def test_equal_probabilities_are_ordered_by_id() -> None:
    assert report_order(replace(PAIR, pair_id="a")) < report_order(replace(PAIR, pair_id="b"))


def test_channels_that_did_not_run_are_part_of_the_report() -> None:
    assert Channel("encoder", False, "none configured") in report_of(()).channels
