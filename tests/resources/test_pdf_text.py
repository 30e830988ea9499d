"""Text layers, as the child process tells of them."""

from pathlib import Path

import pymupdf
import pytest

from core.errors import InputError
from core.reading import ReadingSpec, is_usable
from resources.pdf import PdfFile, PdfLimits
from tests.written_pages import LINES, scanned, text_page, written


def test_words_are_where_the_page_shows_them_however_it_is_turned(tmp_path: Path) -> None:
    path = written(tmp_path / "text.pdf", text_page)
    with pymupdf.open(path) as doc:
        doc[0].set_rotation(90)
        doc.saveIncr()
    with PdfFile(path) as pdf:
        layer = pdf.text(1)
    assert (layer.width_pt, layer.height_pt) == (300, 420)
    assert [word.text for word in layer.words] == " ".join(LINES).split()
    x0, y0, x1, y1 = layer.words[0].box_pt  # "The", at (40, 60) before
    assert 300 - 66 < x0 < x1 < 300 - 40
    assert 39 < y0 < y1 < 70
    assert layer.words[0].block == layer.words[1].block
    assert (layer.unknown_letters, layer.cut, layer.image_boxes_pt) == (0, False, ())


def test_text_that_does_not_show_is_told_from_text_that_does(tmp_path: Path) -> None:
    def sandwich(doc: pymupdf.Document) -> None:
        scanned(doc)
        doc[-1].insert_text((40, 60), "harbour lantern", render_mode=3)

    with PdfFile(written(tmp_path / "scan.pdf", sandwich, text_page)) as pdf:
        below, above = pdf.text(1), pdf.text(2)
    assert below.unseen_boxes_pt
    assert not below.seen_boxes_pt
    assert below.image_boxes_pt == ((0, 0, 420, 300),)
    assert above.seen_boxes_pt
    assert not above.unseen_boxes_pt


def test_glyphs_without_a_character_are_counted(tmp_path: Path) -> None:
    def unmapped(doc: pymupdf.Document) -> None:
        """Text in a font that says nothing of what its glyphs mean."""
        page = doc.new_page()
        page.insert_font("F0", fontbuffer=pymupdf.Font("tiro").buffer)
        page.insert_text((72, 72), "harbour", fontname="F0")
        (font,) = [f for f in page.get_fonts(full=True) if f[4] == "F0"]
        doc.xref_set_key(font[0], "ToUnicode", "null")

    with PdfFile(written(tmp_path / "odd.pdf", unmapped)) as pdf:
        layer = pdf.text(1)
    assert layer.unknown_letters == len("harbour")
    assert not is_usable(layer, ReadingSpec())


def test_what_is_listed_is_bounded_and_a_cut_is_told(tmp_path: Path) -> None:
    def crowded(doc: pymupdf.Document) -> None:
        text_page(doc)
        doc[-1].insert_text((10, 20), "x" * 700, fontsize=1)

    path = written(tmp_path / "long.pdf", crowded)
    with PdfFile(path) as pdf:
        layer = pdf.text(1)
        assert layer.cut
        assert max(len(word.text) for word in layer.words) == 500
    with PdfFile(path, limits=PdfLimits(max_page_items=5)) as pdf:
        assert len(pdf.text(1).words) == 5


def test_a_grey_picture_is_a_third_of_the_size(tmp_path: Path) -> None:
    with PdfFile(written(tmp_path / "text.pdf", text_page)) as pdf:
        grey = pdf.render(1, 72, (0, 0, 100, 50), grey=True).image
        colored = pdf.render(1, 72, (0, 0, 100, 50)).image
    assert grey.shape == (50, 100)
    assert colored.shape == (50, 100, 3)


def test_words_are_added_only_where_that_was_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.pdf", scanned)
    whole = path.read_bytes()
    with PdfFile(path) as pdf:
        pdf.add_text(1, [("harbour", (40, 40, 120, 60))])
        with pytest.raises(InputError):
            pdf.save()
    assert path.read_bytes() == whole


def test_words_are_added_to_a_file_that_has_to_be_repaired(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.pdf", scanned, scanned)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"startxref")])
    with PdfFile(path, writes_bytes=1 << 20) as pdf:
        assert pdf.is_repaired
        for page, word in ((1, "harbour"), (2, "museum")):
            pdf.add_text(page, [(word, (40, 40, 120, 60))])
            pdf.save()
    with pymupdf.open(path) as doc:
        assert [str(page.get_text()).split() for page in doc] == [["harbour"], ["museum"]]
