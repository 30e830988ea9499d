from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from core.geometry import Box
from core.pair_selection import Finding, select

LEFT: Box = (0, 0, 100, 100)
RIGHT: Box = (120, 0, 220, 100)
BELOW: Box = (0, 150, 100, 250)


def finding(key: str, a: Box, b: Box, probability: float = 0.9, alternatives: int = 0) -> Finding:
    return Finding(key, probability, "doc", 1, a, a, "doc", 1, b, b, alternatives)


def keys(*findings: Finding) -> list[str]:
    return [f.key for f in select(findings)]


def test_different_pairs_are_all_kept_likeliest_first() -> None:
    assert keys(finding("a", LEFT, RIGHT, 0.6), finding("b", LEFT, BELOW, 0.8)) == ["b", "a"]


def test_a_pair_found_twice_is_shown_once_at_its_best() -> None:
    shifted = (2.0, 1.0, 101.0, 99.0)
    assert keys(finding("a", LEFT, RIGHT, 0.6), finding("b", RIGHT, shifted, 0.8)) == ["b"]


def test_the_parts_win_over_the_whole_that_contains_them() -> None:
    whole: Box = (0, 0, 220, 100)
    within = replace(finding("whole", LEFT, RIGHT, 0.9, 1), panel_a=whole, panel_b=whole)
    assert keys(within, finding("parts", LEFT, RIGHT, 0.9)) == ["parts"]


def test_a_second_reading_that_is_clearly_likelier_is_shown() -> None:
    assert keys(finding("first", LEFT, RIGHT, 0.5), finding("second", LEFT, RIGHT, 0.99, 1)) == [
        "second"
    ]


def test_one_spot_read_twice_is_no_pair() -> None:
    assert keys(finding("a", LEFT, (5, 5, 100, 100))) == []


def test_the_same_boxes_on_another_page_are_another_pair() -> None:
    assert len(keys(finding("a", LEFT, RIGHT), replace(finding("b", LEFT, RIGHT), page_b=2))) == 2


@given(order=st.permutations(range(4)))
def test_the_order_of_findings_does_not_matter(order: list[int]) -> None:
    findings = [
        finding("a", LEFT, RIGHT, 0.6),
        finding("b", RIGHT, LEFT, 0.8),
        finding("c", LEFT, BELOW, 0.7),
        finding("d", BELOW, LEFT, 0.7, 1),
    ]
    assert keys(*(findings[i] for i in order)) == ["b", "c"]
