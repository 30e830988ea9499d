from hypothesis import given
from hypothesis import strategies as st

from core.recall import RECALL, Hit, best_items


def hit(item: str, similarity: float, template: str = "", turned: bool = False) -> Hit:
    return Hit(template or f"template of {item}", item, similarity, turned)


def test_of_an_item_its_nearest_template_counts() -> None:
    hits = [hit("a", 0.5, "a1"), hit("b", 0.7), hit("a", 0.9, "a2")]
    assert best_items(hits, 10) == [hit("a", 0.9, "a2"), hit("b", 0.7)]


def test_a_card_upside_down_is_found_by_its_turned_vector() -> None:
    hits = [hit("a", 0.4), hit("a", 0.8, turned=True), hit("b", 0.6)]
    assert best_items(hits, 10) == [hit("a", 0.8, turned=True), hit("b", 0.6)]


def test_many_templates_of_one_item_do_not_crowd_out_the_others() -> None:
    crowd = [hit("a", 0.99 - n / 1000, f"a{n}") for n in range(RECALL.rows)]
    assert [each.item_id for each in best_items([*crowd, hit("b", 0.1)], RECALL.items)] == [
        "a",
        "b",
    ]


def test_no_hits_are_no_items() -> None:
    assert best_items([], 5) == []


HITS = st.lists(
    st.builds(
        lambda item, number, similarity, turned: Hit(f"{item}{number}", item, similarity, turned),
        st.sampled_from("abcd"),
        st.integers(1, 3),
        st.sampled_from([0.1, 0.5, 0.9]),
        st.booleans(),
    )
)


@given(hits=HITS, items=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_items_are_distinct_at_most_so_many_nearest_first_and_always_the_same(
    hits: list[Hit], items: int, order: object
) -> None:
    found = best_items(hits, items)
    ids = [each.item_id for each in found]
    assert len(set(ids)) == len(ids) == min(items, len({each.item_id for each in hits}))
    assert [each.similarity for each in found] == sorted(
        (each.similarity for each in found), reverse=True
    )
    for each in found:
        assert each.similarity == max(h.similarity for h in hits if h.item_id == each.item_id)
    shuffled = hits.copy()
    order.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
    assert best_items(shuffled, items) == found
