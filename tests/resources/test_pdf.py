import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from core.errors import BudgetError, InputError
from resources.pdf import PdfFile, PdfLimits
from tests.hostile import count_too_low
from tests.hostile_pages import laughter

RED_SQUARE = b"1 0 0 rg 72 72 144 144 re f"


def image_object(side: int = 2, fill: int = 0) -> bytes:
    """A gray image of one value."""
    data = zlib.compress(bytes([fill]) * (side * side))
    head = (
        f"<< /Type /XObject /Subtype /Image /Width {side} /Height {side} /ColorSpace /DeviceGray "
        f"/BitsPerComponent 8 /Filter /FlateDecode /Length {len(data)} >>\nstream\n"
    )
    return head.encode() + data + b"\nendstream"


def make_pdf(
    path: Path,
    contents: Sequence[bytes] = (RED_SQUARE,),
    *,
    media_box: str = "0 0 612 792",
    page_extra: str = "",
    trailer_extra: str = "",
    image: bytes | None = None,
) -> Path:
    """A PDF written by hand: no writer's habits, and every fault can be put in."""
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    kids: list[int] = []
    image_at = 3 if image is not None else 0
    if image is not None:
        objects.append(image)
    resources = f"/Resources << /XObject << /Im0 {image_at} 0 R >> >>" if image_at else ""
    for content in contents:
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [{media_box}] {page_extra} {resources} "
            f"/Contents {len(objects)} 0 R >>".encode()
        )
        kids.append(len(objects))
    listed = " ".join(f"{kid} 0 R" for kid in kids)
    objects[1] = f"<< /Type /Pages /Kids [{listed}] /Count {len(kids)} >>".encode()
    out = bytearray(b"%PDF-1.7\n")
    offsets: list[int] = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += (
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer_extra} >>\n"
        f"startxref\n{start}\n%%EOF\n"
    ).encode()
    path.write_bytes(out)
    return path


def test_a_page_renders_where_it_is_drawn(tmp_path: Path) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf")) as pdf:
        rendered = pdf.render(1, dpi=72)
    assert rendered.image.shape == (792, 612, 3)
    assert not rendered.lowered
    np.testing.assert_array_equal(rendered.image[792 - 80, 80], [255, 0, 0])
    np.testing.assert_array_equal(rendered.image[10, 10], [255, 255, 255])


def test_a_clip_is_the_part_of_the_page_it_names(tmp_path: Path) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf")) as pdf:
        whole = pdf.render(1, dpi=144).image
        part = pdf.render(1, dpi=144, clip_pt=(50, 500, 250, 700)).image
    np.testing.assert_array_equal(part, whole[1000:1400, 100:500])


def test_content_names_images_and_paths_with_their_boxes(tmp_path: Path) -> None:
    drawing = b"q 100 0 0 50 200 300 cm /Im0 Do Q " + RED_SQUARE
    with PdfFile(make_pdf(tmp_path / "a.pdf", [drawing], image=image_object())) as pdf:
        content = pdf.content(1)
    assert (content.width_pt, content.height_pt) == (612, 792)
    (image,) = content.images
    assert image.xref == 3
    assert (image.width_px, image.height_px) == (2, 2)
    assert image.box_pt == pytest.approx((200, 442, 300, 492), abs=0.01)
    assert content.drawing_boxes_pt[0] == pytest.approx((72, 576, 216, 720), abs=1)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_boxes_of_a_turned_page_lie_where_the_rendering_shows_them(
    tmp_path: Path, turn: int
) -> None:
    drawing = b"q 100 0 0 50 200 300 cm /Im0 Do Q"
    path = make_pdf(
        tmp_path / "a.pdf", [drawing], image=image_object(), page_extra=f"/Rotate {turn}"
    )
    with PdfFile(path) as pdf:
        content, shown = pdf.content(1), pdf.render(1, dpi=72).image
    dark = np.argwhere(shown[..., 0] < 128)
    (y0, x0), (y1, x1) = dark.min(axis=0), dark.max(axis=0) + 1
    assert content.images[0].box_pt == pytest.approx((x0, y0, x1, y1), abs=1)
    assert (content.height_pt, content.width_pt) == shown.shape[:2]


def test_a_page_too_large_for_the_limit_is_rendered_smaller_and_says_so(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", media_box="0 0 7200 7200")
    with PdfFile(path, limits=PdfLimits(max_page_pixels=4_000_000)) as pdf:
        rendered = pdf.render(1, dpi=150)
    assert rendered.lowered
    assert rendered.dpi == pytest.approx(20, abs=0.1)
    assert rendered.image.shape[0] * rendered.image.shape[1] <= 4_010_000


def test_a_page_that_cannot_be_shown_within_the_limit_is_refused(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", media_box="0 0 9000000 9000000")
    with PdfFile(path) as pdf, pytest.raises(InputError, match=r"page 1 measures .* inches"):
        pdf.render(1, dpi=150)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"PK\x03\x04" + bytes(64), "is a ZIP archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "is a PNG picture, not a PDF"),
        (b"Dear editor," * 9, "is not a PDF"),
        (b"%PDF-1.7\nnothing more", "damaged beyond repair|cannot be opened"),
    ],
)
def test_what_is_no_pdf_is_refused_with_a_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "named.pdf"
    path.write_bytes(data)
    with pytest.raises(InputError, match=reason) as refused:
        PdfFile(path)
    assert "named.pdf" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_a_missing_file_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        PdfFile(tmp_path / "gone.pdf")


def test_an_encrypted_file_asks_for_its_password_to_be_removed(tmp_path: Path) -> None:
    locked = (
        "/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 "
        f"/O <{'ab' * 32}> /U <{'cd' * 32}> >> /ID [<00> <00>]"
    )
    with pytest.raises(InputError, match="is encrypted; remove its password"):
        PdfFile(make_pdf(tmp_path / "a.pdf", trailer_extra=locked))


def test_a_file_without_pages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no page of it can be read"):
        PdfFile(make_pdf(tmp_path / "a.pdf", []))


def test_limits_on_size_and_pages_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", [RED_SQUARE] * 3)
    with pytest.raises(InputError, match="has 3 pages, more than the 2 allowed"):
        PdfFile(path, limits=PdfLimits(max_pages=2))
    with pytest.raises(InputError, match="raise max_file_bytes"):
        PdfFile(path, limits=PdfLimits(max_file_bytes=100))


def test_a_truncated_file_opens_and_says_that_it_was_repaired(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", [RED_SQUARE] * 4)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"xref\n")])
    with PdfFile(path) as pdf:
        assert pdf.is_repaired
    path.write_bytes(whole)
    with PdfFile(path) as pdf:
        assert not pdf.is_repaired


def test_a_crash_costs_one_page_and_the_next_request_gets_a_new_worker(tmp_path: Path) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf", [RED_SQUARE] * 2)) as pdf:
        first = pdf.pid
        assert first is not None
        os.kill(first, signal.SIGSEGV)
        with pytest.raises(InputError, match=r"page 1 crashed the PDF parser \(SIGSEGV"):
            pdf.render(1, dpi=72)
        assert pdf.render(2, dpi=72).image.shape == (792, 612, 3)
        assert pdf.pid not in (None, first)


def test_a_worker_that_the_kernel_kills_was_short_of_memory(tmp_path: Path) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf")) as pdf:
        assert pdf.pid is not None
        os.kill(pdf.pid, signal.SIGKILL)
        with pytest.raises(BudgetError, match="page 1 needs more than"):
            pdf.render(1, dpi=72)


def test_a_page_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf"), timeout_s=20) as pdf:
        assert pdf.pid is not None
        pdf.timeout_s = 0.3
        stopped = psutil.Process(pdf.pid)
        stopped.suspend()
        with pytest.raises(InputError, match=r"page 1 took longer than 0\.3 s"):
            pdf.render(1, dpi=72)
        assert not stopped.is_running()
        pdf.timeout_s = 20
        assert pdf.content(1).width_pt == 612


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts allocations on Linux only")
def test_a_page_beyond_the_worker_s_wall_costs_that_page_only(tmp_path: Path) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf"), memory_mb=55) as pdf:
        with pytest.raises(BudgetError, match="page 1 needs more than the 55 MB") as caught:
            pdf.render(1, dpi=340)
        assert caught.value.budget_mb == 55
        assert caught.value.needed_mb > 55
        assert pdf.render(1, dpi=72).image.shape == (792, 612, 3)


def test_an_image_bomb_is_shown_small_or_refused_but_never_left_out(tmp_path: Path) -> None:
    bomb = image_object(side=16_000)
    assert len(bomb) < 1_000_000
    path = make_pdf(tmp_path / "a.pdf", [b"q 612 0 0 792 0 0 cm /Im0 Do Q"], image=bomb)
    with PdfFile(path, memory_mb=70) as pdf:
        try:
            shown = pdf.render(1, dpi=72).image
        except BudgetError:
            return
    assert shown[396, 306].max() < 10


def test_an_image_that_cannot_be_decoded_is_complained_about(tmp_path: Path) -> None:
    broken = image_object(side=64).replace(b"/FlateDecode", b"/DCTDecode")
    path = make_pdf(tmp_path / "a.pdf", [b"q 612 0 0 792 0 0 cm /Im0 Do Q"], image=broken)
    with PdfFile(path) as pdf:
        assert pdf.render(1, dpi=72).complaints


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_the_parser_quotes_from_the_file_can_be_stored(tmp_path: Path) -> None:
    """MuPDF's complaints quote names out of the file, whatever bytes those are."""
    path = make_pdf(tmp_path / "names.pdf", [RED_SQUARE + b" /#ff#fe#ed#a0#80x Do"])
    with PdfFile(path) as pdf:
        complaints = pdf.render(1, 20).complaints
    assert any("XObject" in complaint and "\ufffd" in complaint for complaint in complaints)
    for complaint in complaints:
        complaint.encode("utf-8")


def test_the_worker_sees_no_environment_and_may_write_no_file(tmp_path: Path) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf")) as pdf:
        process = psutil.Process(pdf.pid)
        assert Path(f"/proc/{pdf.pid}/environ").read_bytes() == b""
        assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)


def test_closing_ends_the_worker(tmp_path: Path) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf")) as pdf:
        process = psutil.Process(pdf.pid)
    assert not process.is_running()
    assert pdf.pid is None


def test_a_page_beyond_the_last_is_the_caller_s_mistake(tmp_path: Path) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf")) as pdf, pytest.raises(ValueError, match="page 2 of"):
        pdf.content(2)


def test_a_page_with_countless_paths_lists_as_many_as_allowed(tmp_path: Path) -> None:
    limits = replace(PdfLimits(), max_page_items=50)
    dots = b"\n".join(b"%d %d 1 1 re f" % (n % 600, n // 600 * 3) for n in range(400))
    with PdfFile(make_pdf(tmp_path / "a.pdf", [dots]), limits=limits) as pdf:
        assert len(pdf.content(1).drawing_boxes_pt) == 50


def test_a_page_of_laughter_costs_its_time_and_no_more(tmp_path: Path) -> None:
    with PdfFile(laughter(tmp_path / "laughter.pdf"), timeout_s=20) as pdf:
        pdf.timeout_s = 1.0
        with pytest.raises(InputError, match=r"page 1 took longer than 1 s"):
            pdf.content(1)
        pdf.timeout_s = 20
        assert pdf.render(2, dpi=72).image.shape == (300, 300, 3)


def test_a_file_whose_pages_come_to_nothing_is_given_up(tmp_path: Path) -> None:
    limits = PdfLimits(max_lost_s=0.5)
    with PdfFile(laughter(tmp_path / "laughter.pdf"), timeout_s=20, limits=limits) as pdf:
        pdf.timeout_s = 1.0
        with pytest.raises(InputError, match="took longer"):
            pdf.content(1)
        with pytest.raises(InputError, match=r"page 2 was not tried: other pages of the file took"):
            pdf.content(2)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff\xff{",
        b"\x00\x00\x00\x02{]",
        b"\x00\x00\x00\x02{}",
        b'\x00\x00\x00\x0e{"payload":-1}',
        b'\x00\x00\x00\x18{"payload":999999999999}',
    ],
)
def test_a_worker_that_answers_nonsense_is_not_believed(tmp_path: Path, answer: bytes) -> None:
    with PdfFile(make_pdf(tmp_path / "a.pdf")) as pdf:
        real = pdf._child
        assert real is not None
        fake = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({answer!r}); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        pdf._child = fake
        with pytest.raises(InputError, match="page 1 broke the PDF parser; print it to a new PDF"):
            pdf.content(1)
        assert fake.returncode is not None
        pdf._child = real
        assert pdf.content(1).width_pt == 612


def test_a_worker_s_stray_output_does_not_break_its_answers() -> None:
    noisy = (
        "import os, sys, runpy; sys.argv = ['worker', '200'];"
        "import resources.pdf_worker as w; answer = w.answer\n"
        "def loud(*a):\n    print('from Python', flush=True); os.write(1, b'from C')\n"
        "    return answer(*a)\n"
        "w.answer = loud; w.main()"
    )
    request = json.dumps({"op": "open", "path": "/nowhere", "max_pages": 9, "timeout_s": 9})
    done = subprocess.run(
        [sys.executable, "-c", noisy],
        input=struct.pack(">I", len(request)) + request.encode(),
        capture_output=True,
        timeout=120,
        check=True,
    )
    (size,) = struct.unpack(">I", done.stdout[:4])
    assert json.loads(done.stdout[4:])["error"] == "input"
    assert len(done.stdout) == 4 + size
    assert b"from C" in done.stderr


def test_complaints_stay_with_the_page_that_they_are_about(tmp_path: Path) -> None:
    """MuPDF counts a message that it repeats, and goes on counting from one page to the next."""
    broken = b"/Nowhere Do"
    with PdfFile(make_pdf(tmp_path / "a.pdf", [broken, broken, RED_SQUARE, broken])) as pdf:
        said = [pdf.render(page, dpi=20).complaints for page in (1, 2, 3, 4)]
        listed = [pdf.content(page).complaints for page in (1, 2, 3, 4)]
    assert said[0] == said[1] == said[3] == listed[0] == listed[1] == listed[3]
    assert "cannot find XObject resource 'Nowhere'" in said[0][0]
    assert said[2] == listed[2] == ()


def test_pages_beyond_the_count_of_the_file_are_told(tmp_path: Path) -> None:
    with PdfFile(count_too_low(tmp_path)) as pdf:
        assert pdf.page_count == 1
        assert any("1 of the 3 pages that it lists" in each for each in pdf.complaints)
    with PdfFile(make_pdf(tmp_path / "a.pdf", [RED_SQUARE] * 3)) as pdf:
        assert pdf.complaints == ()


def test_an_allocation_that_no_page_can_need_is_the_file_s_fault(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf")
    with PdfFile(path, limits=PdfLimits(max_memory_mb=1)) as pdf:
        with pytest.raises(InputError, match=r"page 1 asks for [\d,]+ MB of memory at once"):
            pdf._check("page 1", _short("malloc (2097152 bytes) failed"), "cannot be read")
        with pytest.raises(BudgetError) as over:
            pdf._check("page 1", _short("calloc (1 x 1048576 bytes) failed"), "cannot be read")
        assert over.value.needed_mb >= pdf.memory_mb + 1


def _short(message: str) -> dict[str, object]:
    return {"error": "memory", "message": message, "complaints": []}


def test_more_images_than_are_listed_are_told(tmp_path: Path) -> None:
    drawing = b" ".join(b"q 9 0 0 9 %d 9 cm /Im0 Do Q" % (9 * n) for n in range(60))
    limits = replace(PdfLimits(), max_page_items=50)
    with PdfFile(
        make_pdf(tmp_path / "a.pdf", [drawing], image=image_object()), limits=limits
    ) as pdf:
        content = pdf.content(1)
    assert len(content.images) == 50
    assert any("more than 50 images" in complaint for complaint in content.complaints)
