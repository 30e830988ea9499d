import base64
import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from core.errors import InputError
from core.geometry import Image
from resources.photographs import (
    Header,
    Photograph,
    is_picture,
    jpeg_of,
    read_header,
    read_photograph,
)

HEIGHT, WIDTH = 32, 48
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 40))
"""Of the quarters of the drawn picture, row by row: no turn or mirror image of it is the same."""

TURNED: dict[int, Callable[[Image], Image]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}
"""How pixels lie in a file of each EXIF orientation, by the table of the standard (TIFF 6, 274)."""

HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAbRtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAADRpbG9jAAAAAERAAAIAAQAAAAAB2AABAAAAAAAAADwAAgAAAAACFAABAAAAAAAAAHoAAAA4aWluZgAAAAAA"
    "AgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA82lwcnAAAADT"
    "aXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAq"
    "QgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAAUaXNwZQAAAAAAAABA"
    "AAAAQAAAAChjbGFwAAAAMAAAAAEAAAAgAAAAAf////AAAAAC////4AAAAAIAAAAQcGl4aQAAAAADCAgIAAAACWlyb3QD"
    "AAAAGGlwbWEAAAAAAAAAAQABBYECBIOFAAAAGmlyZWYAAAAAAAAADmNkc2MAAgABAAEAAAC+bWRhdAAAADgoAa9Y+RLd"
    "/9GL/16SGfWnO9Wq43rpP0ZaFqmb/P2Y1IZ+ne1DxKCUXj0iKTYngSCtuxxlbI+owAAAAAZFeGlmAABNTQAqAAAACAAD"
    "AQ8AAgAAAAgAAAAyARIAAwAAAAEABgAAiCUABAAAAAEAAAA6AAAAAFBMQU5URUQAAAIAAQACAAAAAk4AAAAAAgAFAAAA"
    "AwAAAFgAAAAAAAAAMAAAAAEAAAAzAAAAAQAAAB0AAAAB"
)
"""The drawn picture as pillow-heif wrote it, to be turned by 90 degrees, with a maker and a place;
Pillow and what comes with it here decode HEIC and do not write it."""


def drawn() -> Image:
    """Four quarters of one colour each."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for number, colour in enumerate(COLOURS):
        row, column = divmod(number, 2)
        image[row * 16 : row * 16 + 16, column * 24 : column * 24 + 24] = colour
    return image


def noise(width: int, height: int) -> PIL.Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return PIL.Image.fromarray(values)


def exif(orientation: int = 1) -> PIL.Image.Exif:
    """What a phone writes: how it was held, who made it, and where."""
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "PLANTED"
    place = tags.get_ifd(0x8825)
    place[1], place[2] = "N", (48.0, 51.0, 29.0)
    return tags


def read(path: Path, most_px: int = 3600, most_megapixels: float = 60.0) -> Photograph:
    return read_photograph(path, most_px=most_px, most_megapixels=most_megapixels)


def corners(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The colours well within the four quarters."""
    height, width = image.shape[:2]
    rows, columns = (height // 4, height * 3 // 4), (width // 4, width * 3 // 4)
    return np.array([image[y, x] for y in rows for x in columns], np.int16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_however_a_camera_was_held_the_picture_is_upright(
    tmp_path: Path, ending: str, orientation: int
) -> None:
    path = tmp_path / f"a.{ending}"
    stored = PIL.Image.fromarray(np.ascontiguousarray(TURNED[orientation](drawn())))
    options = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}
    stored.save(path, exif=exif(orientation), **options.get(ending, {}))
    found = read(path)
    assert found.image.shape == (HEIGHT, WIDTH, 3)
    assert (found.scale, found.loss) == (1.0, "")
    if ending == "jpg":
        assert np.abs(corners(found.image) - np.array(COLOURS)).max() <= 4
    else:
        np.testing.assert_array_equal(found.image, drawn())


def test_a_heic_is_read_upright(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(HEIC)
    assert read_header(tmp_path / "a.heic").format == "HEIF"
    found = read(tmp_path / "a.heic")
    assert found.image.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(corners(np.rot90(found.image)) - np.array(COLOURS)).max() <= 8


@pytest.mark.parametrize("length", [0, 8, 20, 28, 100, 300, len(HEIC) - 180])
def test_a_heic_that_was_cut_off_is_at_fault(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.heic").write_bytes(HEIC[:length])
    with pytest.raises(InputError, match=r"it is no picture that is taken|is damaged"):
        read(tmp_path / "a.heic")


def test_a_heic_of_garbage_is_at_fault(tmp_path: Path) -> None:
    garbage = np.random.default_rng(2).bytes(5000)
    (tmp_path / "a.heic").write_bytes(HEIC[:28] + garbage)
    with pytest.raises(InputError, match=r"it is no picture that is taken|is damaged"):
        read(tmp_path / "a.heic")


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "heic"])
def test_nothing_that_a_camera_writes_beside_the_pixels_is_stored(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "heic":
        path.write_bytes(HEIC)
    else:
        more: dict[str, Any] = {"comment": b"PLANTED comment"} if ending == "jpg" else {}
        xmp = b"<x:xmpmeta>PLANTED exif:GPSLatitude</x:xmpmeta>"
        more |= {"xmp": xmp} if ending in ("jpg", "webp") else {}
        PIL.Image.fromarray(drawn()).save(path, exif=exif(6), icc_profile=b"PLANTED icc", **more)
    assert b"PLANTED" in path.read_bytes()
    stored = jpeg_of(read(path).image, 90)
    for planted in (b"PLANTED", b"Exif", b"GPS", b"xmp", b"ICC_PROFILE"):
        assert planted not in stored
    with PIL.Image.open(io.BytesIO(stored)) as picture:
        assert dict(picture.getexif()) == {}
        assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize(
    "damaged",
    [
        b"Exif\0\0garbage!",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 40,
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02" + b"6\0\0\0" + bytes(4),
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + b"\0\x63\0\0" + bytes(4),
    ],
    ids=["garbage", "too many tags", "leads nowhere", "a letter", "no such orientation"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_what_is_damaged_beside_the_pixels_does_not_harm_them(
    tmp_path: Path, damaged: bytes
) -> None:
    PIL.Image.fromarray(drawn()).save(tmp_path / "a.jpg", exif=damaged)
    assert read(tmp_path / "a.jpg").image.shape == (HEIGHT, WIDTH, 3)


def test_what_is_seen_through_lies_on_white(tmp_path: Path) -> None:
    layered = np.dstack([drawn(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    layered[:16, :24, 3] = 0
    layered[:16, 24:, 3] = 128
    PIL.Image.fromarray(layered).save(tmp_path / "a.png")
    clear, half, *rest = corners(read(tmp_path / "a.png").image)
    assert clear.tolist() == [255, 255, 255]
    assert np.abs(half - (np.array(COLOURS[1]) + 255) / 2).max() <= 2
    assert np.array(rest).tolist() == [list(colour) for colour in COLOURS[2:]]


def test_a_palette_with_a_colour_that_is_none_lies_on_white(tmp_path: Path) -> None:
    indexed = PIL.Image.fromarray(drawn()).quantize(4)
    clear = indexed.getpixel((2, 2))
    indexed.save(tmp_path / "a.png", transparency=clear)
    found = corners(read(tmp_path / "a.png").image)
    assert found[0].tolist() == [255, 255, 255]
    assert np.abs(found[1:] - np.array(COLOURS[1:])).max() <= 2


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_of_grey_become_eight(tmp_path: Path, ending: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    PIL.Image.fromarray(ramp).save(tmp_path / f"a.{ending}")
    found = read(tmp_path / f"a.{ending}").image
    assert found.shape == (16, 16, 3)
    np.testing.assert_allclose(found[:, :, 1].ravel(), np.arange(256), atol=1)


def test_a_picture_of_fractions_is_seen_and_what_is_no_number_is_dark(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    values[0, 0] = np.nan
    PIL.Image.fromarray(values).save(tmp_path / "a.tif")
    found = read(tmp_path / "a.tif").image
    np.testing.assert_allclose(found[:, :, 0].ravel(), np.arange(256), atol=1)


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "YCbCr"])
def test_other_kinds_of_colour_become_rgb(tmp_path: Path, mode: str) -> None:
    ending = "jpg" if mode in ("CMYK", "YCbCr", "L") else "png"
    PIL.Image.fromarray(drawn()).convert(mode).save(tmp_path / f"a.{ending}")
    found = read(tmp_path / f"a.{ending}").image
    assert (found.shape, found.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    if mode not in ("L", "1"):
        assert np.abs(corners(found) - np.array(COLOURS)).max() <= 12


def test_of_a_jpeg_that_holds_more_pictures_the_first_is_the_photograph(tmp_path: Path) -> None:
    first = PIL.Image.fromarray(drawn())
    first.save(
        tmp_path / "a.jpg", "MPO", save_all=True, append_images=[noise(16, 16)], exif=exif(3)
    )
    assert read_header(tmp_path / "a.jpg").format == "MPO"
    found = read(tmp_path / "a.jpg")
    assert found.loss == ""  # phones put previews and maps of depth there
    assert np.abs(corners(found.image[::-1, ::-1]) - np.array(COLOURS)).max() <= 12


def test_of_a_tiff_with_several_pictures_the_first_is_looked_at_and_that_is_said(
    tmp_path: Path,
) -> None:
    others = [noise(8, 8), noise(9, 9)]
    first = PIL.Image.fromarray(drawn())
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    found = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.image, drawn())
    assert found.loss == "only the first of its pictures is looked at"


@pytest.mark.timeout(60)
def test_a_tiff_that_promises_pictures_without_end_is_not_counted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(drawn()).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    start = int.from_bytes(data[4:8], "little")
    link = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data += bytes(len(data) % 2)
    first = len(data)
    data[link : link + 4] = first.to_bytes(4, "little")
    for number in range(200_000):
        data += bytes(2) + (first + 6 * (number + 1)).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").image, drawn())


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_file_that_was_cut_off_is_at_fault(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    noise(64, 64).save(path)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.7):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=r"it is no picture that is taken|is damaged"):
            read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"This is a letter.\n", b"%PDF-1.7\n", b"GIF89a" + bytes(30), b"<svg/>", b"\xff\xd8\xff"],
    ids=["nothing", "text", "a PDF", "a GIF", "an SVG", "three bytes"],
)
def test_what_only_calls_itself_a_picture_is_refused_without_its_path(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"no picture that is taken \(JPEG, PNG") as refusal:
        read_header(tmp_path / "a.jpg")
    assert str(tmp_path) not in str(refusal.value)


def claiming(path: Path, size: int, **options: Any) -> Path:
    """A small file whose header says that it is a large square."""
    noise(16, 16).save(path, **options)
    data = bytearray(path.read_bytes())
    if path.suffix == ".png":
        data[16:24] = size.to_bytes(4, "big") * 2
        data[29:33] = _crc(bytes(data[12:29]))
    else:
        frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        data[frame + 5 : frame + 9] = size.to_bytes(2, "big") * 2
    path.write_bytes(data)
    return path


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def test_a_bomb_is_refused_by_what_its_header_says(tmp_path: Path) -> None:
    path = claiming(tmp_path / "a.png", 60_000)
    assert read_header(path) == Header("PNG", 60_000, 60_000)
    with pytest.raises(InputError, match="60000 x 60000 pixels, more than 60 million; make it"):
        read(path)


def test_a_progressive_jpeg_is_refused_by_its_whole_size(tmp_path: Path) -> None:
    path = claiming(tmp_path / "a.jpg", 60_000, progressive=True)
    with pytest.raises(InputError, match="60000 x 60000 pixels, more than 60 million"):
        read(path)


def test_a_large_jpeg_is_read_at_a_part_of_its_size(tmp_path: Path) -> None:
    noise(900, 600).save(tmp_path / "a.jpg")
    found = read(tmp_path / "a.jpg", most_px=300, most_megapixels=0.2)
    assert found.image.shape == (200, 300, 3)
    assert found.scale == pytest.approx(1 / 3)


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_what_cannot_be_read_at_a_part_of_its_size_is_refused(tmp_path: Path, ending: str) -> None:
    noise(900, 600).save(tmp_path / f"a.{ending}")
    with pytest.raises(InputError, match=r"900 x 600 pixels, more than 0\.1 million"):
        read(tmp_path / f"a.{ending}", most_megapixels=0.1)
    found = read(tmp_path / f"a.{ending}", most_px=300)
    assert (found.image.shape, found.scale) == ((200, 300, 3), pytest.approx(1 / 3))


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000)])
def test_a_thin_picture_keeps_a_pixel_each_way(tmp_path: Path, size: tuple[int, int]) -> None:
    noise(*size).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png", most_px=100)
    assert min(found.image.shape) >= 1
    assert max(found.image.shape[:2]) == min(100, max(size))


def in_a_process_of_its_own(script: str, path: Path) -> list[float]:
    """What a script prints, run without what other tests have loaded."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "heic"])
def test_the_first_picture_of_a_process_may_be_of_any_kind(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "heic":
        path.write_bytes(HEIC)
    else:
        noise(20, 10).save(path)
    script = (
        "import sys; from pathlib import Path; from resources.photographs import read_photograph;"
        "p = read_photograph(Path(sys.argv[1]), most_px=99, most_megapixels=1);"
        "print(*p.image.shape)"
    )
    assert sorted(in_a_process_of_its_own(script, path))[0] == 3


def test_fifty_megapixels_take_less_memory_than_their_pixels(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (8660, 5780), (90, 120, 30)).save(tmp_path / "a.jpg", quality=50)
    script = """
import resource, sys
from pathlib import Path
from resources.photographs import read_header, read_photograph

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

read_header(Path(sys.argv[1]))
before = peak_mb()
found = read_photograph(Path(sys.argv[1]), most_px=3600, most_megapixels=60)
print(peak_mb() - before, found.scale, *found.image.shape)
"""
    peak_mb, scale, height, width, _ = in_a_process_of_its_own(script, tmp_path / "a.jpg")
    assert (height, width) == (2403, 3600)
    assert scale == pytest.approx(3600 / 8660)
    if sys.platform == "linux":  # elsewhere in other units
        assert peak_mb < 8660 * 5780 * 3 / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="the wall is there on Linux alone")
@pytest.mark.parametrize(
    ("ending", "options"),
    [("jpg", {"progressive": True}), ("webp", {"method": 0}), ("webp", {"lossless": True})],
)
def test_what_does_not_fit_the_memory_is_not_called_damaged(
    tmp_path: Path, ending: str, options: dict[str, Any]
) -> None:
    PIL.Image.new("RGB", (2000, 1500), (90, 120, 30)).save(tmp_path / f"a.{ending}", **options)
    script = """
import resource, sys
from pathlib import Path
from resources.photographs import read_photograph
from resources.process_tree import status_kb

for room_mb in (5, 12, 20, 30, 45, 80):
    most = (status_kb("VmData")["VmData"] + room_mb * 1024) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
    try:
        read_photograph(Path(sys.argv[1]), most_px=3600, most_megapixels=60)
        print(1)
    except MemoryError:
        print(0)
"""
    fitted = in_a_process_of_its_own(script, tmp_path / f"a.{ending}")
    assert fitted == sorted(fitted)
    assert (fitted[0], fitted[-1]) == (0, 1)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": exif(6)}])
def test_a_webp_is_known_by_its_first_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    noise(40, 30).save(tmp_path / "a.webp", **options)
    assert read_header(tmp_path / "a.webp") == Header("WEBP", 40, 30)
    start = (tmp_path / "a.webp").read_bytes()[:30]
    (tmp_path / "a.webp").write_bytes(start)
    with pytest.raises(InputError):
        read(tmp_path / "a.webp")


def test_a_webp_that_claims_too_much_is_refused_before_memory_is_taken_for_it(
    tmp_path: Path,
) -> None:
    noise(40, 30).save(tmp_path / "a.webp", exif=exif())
    data = bytearray((tmp_path / "a.webp").read_bytes())
    data[24:30] = b"\xff\x3e\x00" * 2
    (tmp_path / "a.webp").write_bytes(data)
    with pytest.raises(InputError, match="16128 x 16128 pixels, more than 60 million"):
        read(tmp_path / "a.webp")


def test_the_header_knows_the_memory_that_decoding_takes() -> None:
    assert Header("JPEG", 4000, 3000).megabytes(3600) == pytest.approx(126, abs=1)
    heic = Header("HEIF", 4000, 3000).megabytes(3600)
    assert heic > Header("JPEG", 4000, 3000).megabytes(3600)
    # A JPEG is decoded at a half, a quarter, an eighth, as far as that is no less than is wanted.
    assert Header("JPEG", 4000, 3000).megabytes(2000) == pytest.approx(126 / 4, abs=1)
    assert Header("JPEG", 4000, 3000).megabytes(2002) == pytest.approx(126, abs=1)
    assert Header("JPEG", 8000, 6000).megabytes(3600) == pytest.approx(126, abs=1)
    assert Header("HEIF", 4000, 3000).megabytes(2000) == heic


def test_the_header_knows_to_which_size_there_is_memory_to_decode() -> None:
    def within(room_mb: float, kind: str = "JPEG", width: int = 4000) -> int:
        header = Header(kind, width, width * 3 // 4)
        return header.most_px_within(room_mb, most_px=3600, least_px=1800)

    assert within(130) == 3600
    assert within(100) == 2000
    assert within(100, width=3999) == 2000  # one pixel is no reason to decode all of it
    assert within(30) == 3600  # a quarter would be too little to look at: all of it is tried
    assert within(100, width=8000) == 2000
    assert within(10, width=1500) == 3600
    assert within(100, "PNG") == 3600


def test_a_picture_is_known_by_its_ending_in_any_case() -> None:
    assert all(is_picture(f"a.b.{e}") for e in ("JPG", "jpeg", "png", "TIFF", "webp", "HEIC"))
    assert not any(is_picture(name) for name in ("a.gif", "a.pdf", "jpg", "a.jpg.txt", ""))
