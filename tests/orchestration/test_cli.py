import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import HOSTILE, small_paper

HTML = next(maker for name, maker, _ in HOSTILE if name == "html")


@pytest.fixture(scope="module")
def home(server_home: Path) -> Iterator[Path]:
    """A home of its own, with its own embedded server, stopped at the end."""
    home = server_home / "home"
    yield home
    quire(home, "db", "stop")


def quire(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "orchestration.cli", *arguments],
        env={**os.environ, "QUIRE_HOME": str(home), "COLUMNS": "120", "NO_COLOR": "1", **variables},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_a_folder_is_searched_and_a_second_run_computes_nothing(home: Path, tmp_path: Path) -> None:
    small_paper(tmp_path / "paper.pdf", seed=21)
    first = quire(home, "run", str(tmp_path / "paper.pdf"), "--out", str(tmp_path / "out"))
    assert first.returncode == 0, first.stderr
    assert "paper.pdf p.1 / paper.pdf p.2" in first.stdout
    assert "report.html" in first.stdout
    rows = list(csv.DictReader((tmp_path / "out" / "pairs.tsv").open(), dialect="excel-tab"))
    assert sum(row["Record"] == "pair" for row in rows) == 2
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    again = quire(home, "run", str(tmp_path / "paper.pdf"), "--out", str(tmp_path / "out"))
    assert again.returncode == 0
    assert "nothing was computed again" in again.stdout
    assert "nothing was computed again" not in first.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_file_at_fault_gives_exit_code_3_one_line_and_a_report_of_the_rest(
    home: Path, tmp_path: Path
) -> None:
    small_paper(tmp_path / "good.pdf", seed=22)
    HTML(tmp_path)
    done = quire(home, "run", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 3, done.stderr
    assert "is a web page, not a PDF" in done.stderr
    assert "good.pdf p.1 / good.pdf p.2" in done.stdout
    report = json.loads((tmp_path / "out" / "pairs.json").read_text())
    assert report["report"]["status"] == "degraded"
    status = quire(home, "status", QUIRE_MEMORY_MB="1000")
    assert re.search(r"memory +quire run: 1000 MB for everything, .*2 ops at a time", status.stdout)
    assert "memory    quire ui: 1000 MB for everything, " in status.stdout
    assert "is a web page, not a PDF" in status.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "nowhere.pdf"], "nowhere.pdf: there is no such file or folder"),
        (["run", ".", "--preset", "best"], "no preset 'best'; choose one of fast, balanced"),
        (["run", ".", "--dpi", "20"], "dpi is 72 to 300, not 20"),
        (["run", ".", "--memory-mb", "300"], "300 MB of memory are too little"),
    ],
)
def test_a_wrong_command_ends_in_one_line(home: Path, arguments: list[str], complaint: str) -> None:
    done = quire(home, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
