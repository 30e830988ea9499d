"""The gallery from the command line, in a home of its own: the sample cards."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from orchestration.gallery import Results, why_nothing
from store.scans import Scan

SAMPLES = Path(__file__).parents[2] / "samples" / "cards"


@pytest.fixture(scope="module")
def home(server_home: Path) -> Iterator[Path]:
    """A home with the sample gallery and a photograph identified."""
    home = server_home / "gallery-home"
    home.mkdir()
    home.chmod(0o711)
    yield home
    quire(home, "db", "stop")
    shutil.rmtree(home, ignore_errors=True)


def quire(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestration.cli", *arguments],
        env={**os.environ, "QUIRE_HOME": str(home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_from_manifest_to_overlay_to_correction(home: Path, tmp_path: Path) -> None:
    added = quire(home, "gallery", "add", str(SAMPLES), "--memory-mb", "605")
    assert added.returncode == 0, added.stderr
    count = len((SAMPLES / "gallery.jsonl").read_text().splitlines())
    assert f"{count} items, {count} of them new; {count} new pictures" in added.stdout
    assert f"The gallery holds {count} items and {count} templates." in added.stdout

    out = tmp_path / "out"
    found = quire(home, "identify", str(SAMPLES / "binder.jpg"), "--out", str(out))
    assert found.returncode == 0, found.stderr
    assert "mdw-010 Fernwick" in found.stdout
    results = json.loads((out / "identifications.json").read_text())
    assert results["status"] == "ok"
    (scan,) = results["scans"]
    assert [item["number"] for item in scan["items"]] == list(range(1, 10))
    overlay = cv2.imread(str(out / "binder.jpg"))
    assert overlay is not None
    assert max(overlay.shape) <= 1600

    item = scan["items"][0]
    wrong = quire(home, "correct", "ffffffffff", "--is", "mdw-010", "--user", "ada")
    assert wrong.returncode == 2
    assert "no single detection is called 'ffffffffff': there is none" in wrong.stderr
    said = quire(home, "correct", item["detection_id"][:10], "--is", "mdw-010", "--user", "ada")
    assert (said.returncode, said.stdout.splitlines()[0]) == (0, "correction 1 is kept")
    learned = quire(home, "gallery", "learn")
    assert learned.returncode == 0, learned.stderr
    assert "1 of 2 people who have to agree say so" in learned.stdout

    stats = quire(home, "gallery", "stats", "--json")
    told = json.loads(stats.stdout)
    assert (told["items"], told["templates"], told["batches_unfinished"]) == (count, count, 0)
    assert told["corrections"] == {"quarantined": 1}
    assert told["confusions"][0]["similarity"] > 0.9


def test_what_is_no_picture_is_told_and_the_others_are_identified(
    home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    shutil.copy(SAMPLES / "binder.jpg", folder / "page one.jpg")
    (folder / "broken.jpg").write_bytes((SAMPLES / "binder.jpg").read_bytes()[:3000])
    (folder / "notes.png").write_text("not a picture")
    out = tmp_path / "out"
    found = quire(home, "identify", str(folder), "--out", str(out), "--json")
    assert found.returncode == 3, found.stderr
    results = json.loads(found.stdout)
    assert results == json.loads((out / "identifications.json").read_text())
    assert results["status"] == "degraded"
    assert len(results["troubles"]) == 2
    assert any(t.startswith("broken.jpg: the picture is damaged") for t in results["troubles"])
    assert any(t.startswith("notes.png: it is no picture") for t in results["troubles"])
    by_name = {scan["scan"]: scan["items"] for scan in results["scans"]}
    assert by_name["notes.png"] == by_name["broken.jpg"] == []
    assert sum(len(items) for items in by_name.values()) == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gallery", "add", "no/such/folder"], "there is no such file or folder"),
        (["identify", "no-such.jpg"], "there is no such file or folder"),
        (["correct", "abc", "--is", "x"], "say who corrects: --user NAME"),
        (["correct", "abc", "--user", "ada"], "say one thing: --is ITEM, --unknown, or --revoke"),
        (["gallery", "add", "s3://user:secret@bucket/x"], "leave user and password out"),
    ],
)
def test_what_is_wrong_with_a_command_is_one_line(
    home: Path, arguments: list[str], words: str
) -> None:
    done = quire(home, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("troubles", "failed", "said"),
    [
        ([], "", "a.jpg: no item was found on it"),
        (["a.jpg: scans: it does not fit"], "", "a.jpg: scans: it does not fit"),
        (["b.jpg: scans: it does not fit"], "", "a.jpg: no item was found on it"),
        ([], "the disk is full", "a.jpg: nothing is known of it, since the run failed"),
    ],
)
def test_that_nothing_was_found_is_said_only_of_what_was_looked_at(
    troubles: list[str], failed: str, said: str
) -> None:
    scan = Scan("0" * 64, "a.jpg", 1, "scans/a")
    assert why_nothing(Results([scan], {}, {}, troubles, failed), scan) == said
