import mmap
import sys
from pathlib import Path

import psutil
import pytest

from resources.mapped_files import MappedFiles

MB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_that_are_let_go_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "weights.onnx.data"
    path.write_bytes(b"w" * 64 * MB)
    process = psutil.Process()
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as view,
    ):
        assert view.find(b"x") == -1  # touches every page
        held = process.memory_info().rss
        assert MappedFiles(".other").let_go() == 0
        assert MappedFiles("weights.onnx.data").let_go() == 64 * MB
        assert held - process.memory_info().rss > 50 * MB
        assert view[5 * MB] == ord("w")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_changed_in_memory_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "changed.onnx.data"
    path.write_bytes(b"w" * MB)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as view:
        view[0] = ord("x")
        assert MappedFiles("changed.onnx.data").let_go() == 0
        assert view[0] == ord("x")
