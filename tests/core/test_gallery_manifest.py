import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.gallery import GalleryItem
from core.gallery_manifest import MOST_ID, MOST_TEXT, ManifestRow, read_manifest


def rows(name: str, text: str) -> list[ManifestRow]:
    """Every row of a manifest that is whole."""
    found = list(read_manifest(name, text))
    return [row for row in found if isinstance(row, ManifestRow)]


def faults(name: str, text: str) -> list[str]:
    """What is said of the rows of a manifest that are not."""
    return [str(row) for row in read_manifest(name, text) if isinstance(row, InputError)]


def test_a_line_of_a_csv_is_an_item_with_its_pictures() -> None:
    text = "id,name,set,number,lang,image\nb-1,Lotus,Base,4/102,en,a.png;b.png|a.png\n"
    (row,) = read_manifest("gallery.csv", text)
    assert row == ManifestRow(
        GalleryItem("b-1", "Lotus", "Base", "4/102", "en", "gallery.csv, line 2"),
        ("a.png", "b.png"),
    )


def test_quoted_fields_hold_commas_quotes_and_line_breaks() -> None:
    text = 'id,name,image\r\n"1","Lotus, ""Black""\nof old","a, b.png"\r\n2,Next,\r\n'
    first, second = rows("gallery.csv", text)
    assert first.item.name == 'Lotus, "Black"\nof old'
    assert first.images == ("a, b.png",)
    assert first.item.source == "gallery.csv, line 3"  # where it ends
    assert (second.item.item_id, second.images) == ("2", ())


def test_fields_go_by_other_names_in_any_case_and_order() -> None:
    (row,) = rows("gallery.csv", " Title , CARD_ID ,SET_CODE,Files\nLotus,1,Base,a.png\n")
    assert (row.item.name, row.item.item_id, row.item.set_code) == ("Lotus", "1", "Base")
    assert row.images == ("a.png",)


def test_a_column_without_a_name_is_passed_over() -> None:
    (row,) = read_manifest("gallery.csv", ",id,name\n0,1,Lotus\n")
    assert isinstance(row, ManifestRow)
    assert (row.item.item_id, row.item.name) == ("1", "Lotus")


def test_a_line_with_more_fields_than_names_is_at_fault_and_the_others_are_not() -> None:
    text = "id,name\n1,Lotus,Black\n2,Island\n3\n"
    assert [row.item.item_id for row in rows("gallery.csv", text)] == ["2", "3"]
    assert faults("gallery.csv", text) == [
        "gallery.csv, line 2: more fields than the first line names"
    ]


@pytest.mark.parametrize("text", ["", "\n", "name,image\nLotus,a.png\n", "id;name\n1;Lotus\n"])
def test_a_csv_whose_first_line_names_no_id_is_refused_once(text: str) -> None:
    with pytest.raises(InputError, match=r"gallery\.csv: its first line is to name the fields"):
        list(read_manifest("gallery.csv", text))


def test_a_field_beyond_what_csv_takes_ends_the_csv() -> None:
    text = f"id,name\n1,Lotus\n2,{'x' * 200_000}\n3,Island\n"
    assert [row.item.item_id for row in rows("gallery.csv", text)] == ["1"]
    (fault,) = faults("gallery.csv", text)
    assert "it is no CSV from here on" in fault


def test_a_broken_line_of_json_lines_is_at_fault_alone() -> None:
    text = '{"id": 1, "name": "Lotus"}\n\n{"id": 2,\n[3]\n{"id": 4, "images": ["a.png"]}\n'
    assert [row.item.item_id for row in rows("gallery.jsonl", text)] == ["1", "4"]
    broken, no_object = faults("gallery.ndjson", text)
    assert broken.startswith("gallery.ndjson, line 3: no JSON")
    assert no_object == "gallery.ndjson, line 4: no object of fields"


def test_a_json_list_holds_an_object_for_each_item() -> None:
    text = json.dumps([{"id": "a", "template": "x/y.png"}, "b", {"id": None, "name": "c"}])
    (row,) = rows("gallery.json", text)
    assert (row.item.item_id, row.images) == ("a", ("x/y.png",))
    assert faults("gallery.json", text) == [
        "gallery.json, item 2: no object of fields",
        "gallery.json, item 3: it has no id",
    ]


@pytest.mark.parametrize("text", ["{}", "1", "", "[" * 100_000, '[{"id": 1'])
def test_a_json_that_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"gallery\.json is"):
        list(read_manifest("gallery.json", text))


def test_a_manifest_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"ends in \.csv, \.jsonl or \.json"):
        list(read_manifest("gallery.xlsx", ""))


def test_an_id_that_comes_twice_counts_once_and_says_where_it_was() -> None:
    text = '{"id": 1, "name": "first"}\n{"id": "1", "name": "second"}\n'
    (row,) = rows("gallery.jsonl", text)
    assert row.item.name == "first"
    assert faults("gallery.jsonl", text) == ["gallery.jsonl, line 2: the id '1' is that of line 1"]


def test_nul_and_half_characters_do_not_reach_the_database() -> None:
    text = '{"id": "a\\u0000b", "name": "\\ud83d", "images": ["\\udcff.png"]}'
    (row,) = rows("gallery.jsonl", text)
    assert row.item.item_id == "ab"
    assert row.item.name == "\N{REPLACEMENT CHARACTER}"
    assert row.images == ("\N{REPLACEMENT CHARACTER}.png",)


def test_an_id_of_nothing_but_nul_is_none() -> None:
    assert faults("gallery.jsonl", '{"id": " \\u0000 "}') == ["gallery.jsonl, line 1: it has no id"]


def test_values_may_be_long_but_not_longer_than_is_kept() -> None:
    long = {"id": "i" * MOST_ID, "name": "n" * MOST_TEXT}
    assert len(rows("gallery.jsonl", json.dumps(long))) == 1
    (fault,) = faults("gallery.jsonl", json.dumps({**long, "id": "i" * (MOST_ID + 1)}))
    assert "its id has 201 letters; at most 200 are taken" in fault
    (fault,) = faults("gallery.jsonl", json.dumps({**long, "name": "n" * (MOST_TEXT + 1)}))
    assert "its name has 501 letters; at most 500 are taken" in fault


@pytest.mark.parametrize("value", [True, ["a"], {"a": 1}])
def test_an_id_is_a_text_or_a_number(value: object) -> None:
    (fault,) = faults("gallery.jsonl", json.dumps({"id": value}))
    assert "its id is to be a text or a number" in fault


@pytest.mark.parametrize("value", [3, True, {"a": "b.png"}, ["a.png", 3], [None]])
def test_pictures_are_named_by_texts(value: object) -> None:
    (fault,) = faults("gallery.jsonl", json.dumps({"id": 1, "images": value}))
    assert "its images are to be names of files" in fault


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "a/../../b.png",
        "/etc/passwd",
        "..\\a.png",
        "a\\..\\..\\b.png",
        "\\\\server\\share\\a.png",
        "a\0.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "s3:/bucket/a.png",
    ],
)
def test_a_picture_outside_the_manifests_folder_is_refused(name: str) -> None:
    (fault,) = faults("gallery.jsonl", json.dumps({"id": 1, "images": ["ok.png", name]}))
    assert "is to be named relative to the manifest, within its folder" in fault


@pytest.mark.parametrize("name", ["a/b.png", "a..b.png", "Lotus: of old.png", "./a.png"])
def test_a_picture_within_it_is_taken(name: str) -> None:
    (row,) = rows("gallery.jsonl", json.dumps({"id": 1, "images": [name]}))
    assert row.images == (name,)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(
    st.sampled_from(["id", "ID", "name", "set", "images", "number"]) | st.text(), ANYTHING
)


def is_sound(text: str, name: str) -> None:
    """Reading a text yields rows a database can hold, or errors, or is refused as a whole."""
    try:
        found = list(read_manifest(name, text))
    except InputError:
        return
    ids: list[str] = []
    for row in found:
        if isinstance(row, InputError):
            continue
        ids.append(row.item.item_id)
        for value in (*vars(row.item).values(), *row.images):
            assert "\0" not in value
            value.encode()
        assert 0 < len(row.item.item_id) <= MOST_ID
        assert not any(each.startswith("/") or ".." in each.split("/") for each in row.images)
    assert len(set(ids)) == len(ids)


@given(
    text=st.text(st.characters(), max_size=300)
    | st.text(st.sampled_from('id,name\n"\\;|[]{}:/. \0\ufeff'), max_size=100).map(
        lambda rest: f"id,image\n{rest}"
    ),
    name=st.sampled_from(["g.csv", "g.json", "g.jsonl", "g.txt"]),
)
def test_no_text_does_more_than_be_refused(text: str, name: str) -> None:
    is_sound(text, name)


@given(objects=st.lists(OBJECTS, max_size=4), as_lines=st.booleans())
def test_no_object_does_more_than_be_refused(
    objects: list[dict[str, object]], as_lines: bool
) -> None:
    if as_lines:
        is_sound("\n".join(map(json.dumps, objects)), "g.jsonl")
    else:
        is_sound(json.dumps(objects), "g.json")
