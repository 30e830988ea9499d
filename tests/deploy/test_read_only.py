"""Quire where nothing may be written but its own folder and a small /tmp, as in the image."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.settings import from_environment, prepare_dagster_home
from tests.hostile import small_paper

ROOT = Path(__file__).parents[2]
LOCK = """
mount --make-rprivate / && mount --bind "$1" /mnt &&
mount --bind /mnt/mounted.yaml /mnt/dagster/dagster.yaml &&
mount -o remount,bind,ro /mnt/dagster/dagster.yaml && mount -o remount,bind,ro / || exit 99
mount -o remount,bind,ro /tmp 2>/dev/null
for folder in / /tmp "$2"; do touch "$folder/probe" 2>/dev/null && exit 98; done
shift 2 && exec "$@"
"""
"""The home alone stays writable, as /mnt; in it Dagster's settings are a file from outside."""


def may_lock() -> bool:
    """Whether a mount namespace of one's own may be made here."""
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-m", "mount", "--make-rprivate", "/"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_lock(), reason="no mount namespace of one's own may be made here")
def test_a_run_writes_to_its_home_and_nowhere_else(server_home: Path) -> None:
    home = server_home / "locked"
    (home / "dagster").mkdir(parents=True)
    (home / "dagster" / "dagster.yaml").touch()
    (home / "tmp").mkdir()
    mounted = (ROOT / "deploy" / "dagster.yaml").read_text()
    (home / "mounted.yaml").write_text(mounted)
    small_paper(home / "paper.pdf", seed=33)
    script = """
    quire="$0 -W ignore -m orchestration.cli"
    $quire run /mnt/paper.pdf --out /mnt/out; ended=$?
    $quire db stop; exit $ended
    """
    done = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", LOCK, "lock", str(home), str(Path.home())),
            *("sh", "-c", script, sys.executable),
        ],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": "/nowhere",
            "QUIRE_HOME": "/mnt",
            "TMPDIR": "/mnt/tmp",
            "COLUMNS": "120",
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert "need review" in done.stdout
    assert (home / "out" / "report.html").stat().st_size > 0
    assert (home / "mounted.yaml").read_text() == mounted


def test_a_dagster_yaml_that_is_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAGSTER_HOME", "QUIRE_DAGSTER_STORAGE_URL", "QUIRE_HOME", "QUIRE_BESIDE"):
        monkeypatch.setenv(name, "")
    settings = from_environment({"QUIRE_HOME": str(tmp_path)})
    settings.dagster_home.mkdir()
    (settings.dagster_home / "dagster.yaml").write_text("# mine\n")
    prepare_dagster_home(settings, "postgresql+psycopg2:///x")
    assert (settings.dagster_home / "dagster.yaml").read_text() == "# mine\n"


def test_with_a_home_of_its_own_quire_asks_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", staticmethod(nobody))
    assert from_environment({"QUIRE_HOME": "/data"}).home == Path("/data")
