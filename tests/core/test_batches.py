import re

from hypothesis import given
from hypothesis import strategies as st

from core.batches import BatchSpec, divide, runs_of_neighbours

DOCUMENT = "3f9a1c2e4b5d" + "0" * 52


def test_a_document_of_ten_pages_becomes_two_batches() -> None:
    (first, pages_1), (second, pages_2) = divide(DOCUMENT, 10, BatchSpec(pages_per_batch=8))
    assert (first, second) == ("3f9a1c2e4b5d-p00001", "3f9a1c2e4b5d-p00009")
    assert [(r.first_page, r.last_page, r.pages) for r in pages_1 + pages_2] == [
        (1, 8, 8),
        (9, 10, 2),
    ]


def test_an_unreadable_document_has_one_batch_without_pages() -> None:
    [(_, [only])] = divide(DOCUMENT, 0, BatchSpec())
    assert only.pages == 0


@given(pages=st.integers(1, 5000), size=st.integers(1, 50))
def test_every_page_is_in_exactly_one_batch(pages: int, size: int) -> None:
    batches = divide(DOCUMENT, pages, BatchSpec(pages_per_batch=size))
    covered = [
        p for _, ranges in batches for r in ranges for p in range(r.first_page, r.last_page + 1)
    ]
    assert covered == list(range(1, pages + 1))
    keys = [key for key, _ in batches]
    assert keys == sorted(set(keys))
    assert all(re.fullmatch("[a-z0-9_-]+", key) for key in keys)


@given(
    registered=st.lists(st.integers(0, 60), unique=True, max_size=40),
    chosen=st.sets(st.integers(0, 60)),
)
def test_runs_hold_all_that_is_wanted_and_nothing_between(
    registered: list[int], chosen: set[int]
) -> None:
    names = [str(n) for n in registered]
    wanted = {str(n) for n in chosen}
    runs = runs_of_neighbours(wanted, names)
    assert [key for run in runs for key in run] == [name for name in names if name in wanted]
    for run in runs:
        start = names.index(run[0])
        assert names[start : start + len(run)] == run
