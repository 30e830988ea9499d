import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from benchmarks.faults.injections import INJECTIONS
from core.text import as_code, holds_credentials, legible, visible, well_formed, without_secrets


@given(st.text())
def test_nothing_is_left_that_acts_without_showing(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not any(
        unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in shown
    )


@given(st.text(), st.text())
def test_two_different_texts_never_look_the_same(one: str, other: str) -> None:
    assert (visible(one) == visible(other)) == (one == other)


def test_letters_of_every_script_stay() -> None:
    names = "\u05de\u05d0\u05de\u05e8 \u0645\u0642\u0627\u0644\u0629 \u8ad6\u6587 \U0001f9ec.pdf"
    assert visible(names) == names


def test_what_acts_or_hides_is_spelled_out() -> None:
    assert visible("a\u202eb\n\x00\udc80\\") == "a\\u202eb\\n\\x00\\udc80\\\\"
    assert visible("\x1b[31m\x9b31m\r") == "\\x1b[31m\\x9b31m\\r"
    assert visible("a\u3164b\ufe0fc\U000e0100") == "a\\u3164b\\ufe0fc\\U000e0100"


@given(st.text())
def test_well_formed_text_can_be_encoded_and_changes_nothing_else(text: str) -> None:
    whole = well_formed(text)
    assert len(whole.encode("utf-8")) >= len(whole)
    if not any(unicodedata.category(character) == "Cs" for character in text):
        assert whole == text


def test_unpaired_surrogates_are_replaced_and_pairs_joined() -> None:
    assert well_formed("a\ud800b\udcffc") == "a\ufffdb\ufffdc"
    assert well_formed("\ud83e\uddec") == "\U0001f9ec"


def test_a_database_can_hold_what_is_legible() -> None:
    name = b"caf\xe9\x00.pdf".decode("utf-8", "surrogateescape")
    assert legible(name) == "caf\ufffd\ufffd.pdf"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("file:///home/a@b/store", "file:///home/a@b/store"),
        ("s3://AKIA:secret@bucket/prefix", "s3://***@bucket/prefix"),
        ("s3://AKIA:se@cret@bucket/prefix", "s3://***@bucket/prefix"),
        ("postgresql+psycopg2://u:p%40w@h:5432/x", "postgresql+psycopg2://***@h:5432/x"),
        ("no file at https://h/a.pdf?X-Sig=1&y=2 here", "no file at https://h/a.pdf?*** here"),
        ("az://c/a#sas=1", "az://c/a?***"),
        ("is it a?b#c", "is it a?b#c"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret_in_it(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_credentials_in_an_address_are_noticed() -> None:
    assert holds_credentials("s3://key:secret@bucket/x")
    assert holds_credentials("sftp://user@host/x")
    assert not holds_credentials("file:///home/a@b/x")
    assert not holds_credentials("s3://bucket/a@b")


@pytest.mark.parametrize("text", [injection.text for injection in INJECTIONS])
def test_markdown_shows_a_line_of_code_letter_by_letter(text: str) -> None:
    shown = visible(text)
    parsed = MarkdownIt("js-default").parse(f"{as_code(shown)}; {as_code('more')}")
    assert [token.type for token in parsed] == ["paragraph_open", "inline", "paragraph_close"]
    spans = [(part.type, part.content) for part in parsed[1].children or ()]
    assert spans == [("code_inline", shown), ("text", "; "), ("code_inline", "more")]


@given(st.text("`a <[", min_size=1))
def test_no_run_of_back_quotes_ends_a_line_of_code(line: str) -> None:
    (parsed,) = MarkdownIt("commonmark").parseInline(as_code(line))
    spans = [(part.type, part.content.strip()) for part in parsed.children or ()]
    assert spans == [("code_inline", line.strip())]
