"""One degraded document, from `quire run` to the browser: every place says so."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.degraded import WAYS
from tests.hostile import HOSTILE, small_paper

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
MAKERS = {name: maker for name, maker, _ in HOSTILE}
LOWERED = next(way for way in WAYS if way.name == "page_too_large").says


@pytest.fixture(scope="module")
def home(server_home: Path) -> Iterator[Path]:
    """A home of its own, with its own embedded server, stopped at the end."""
    home = server_home / "degraded"
    yield home
    quire(home, "db", "stop")


def quire(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "orchestration.cli", *arguments],
        env={**os.environ, "QUIRE_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )


@pytest.fixture(scope="module")
def done(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A run over a paper with a page that is too large, beside a sound one and a refused one."""
    folder, out = tmp_path_factory.mktemp("papers"), tmp_path_factory.mktemp("out")
    small_paper(folder / "sound.pdf", seed=51)
    MAKERS["huge_page"](folder)
    os.mkfifo(folder / "pipe.pdf")
    return quire(home, "run", str(folder), "--out", str(out)), out


def test_the_command_line_says_so_and_exits_with_3(
    home: Path, done: tuple[subprocess.CompletedProcess[str], Path]
) -> None:
    run, _ = done
    assert run.returncode == 3, run.stderr
    assert LOWERED in run.stderr
    assert "not a regular file" in run.stderr
    assert "Parts were not looked at" in run.stdout
    assert LOWERED in quire(home, "status").stdout


def test_the_files_say_so(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, out = done
    rows = list(csv.DictReader((out / "pairs.tsv").open(), dialect="excel-tab"))
    assert rows[-1]["Record"] == "report"
    assert rows[-1]["Status"] == "degraded"
    assert LOWERED in rows[-1]["Reasons"]
    assert "not a regular file" in rows[-1]["Reasons"]
    status = {row["Name_A"]: row["Status"] for row in rows if row["Record"] == "document"}
    assert status == {"sound.pdf": "ok", "huge-page.pdf": "degraded"}
    report = json.loads((out / "pairs.json").read_text())["report"]
    assert {flag["kind"] for flag in report["flags"]} == {"file_refused", "page_failed"}
    assert report["outcome"] == "pairs_found_incomplete"


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to look with")
def test_the_banner_is_seen_in_a_browser(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    api: Any = pytest.importorskip("playwright.sync_api")
    _, out = done
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto((out / "report.html").as_uri())
        banner = page.locator("section.banner")
        assert banner.is_visible()
        box = banner.bounding_box()
        assert box["y"] < 800  # seen without scrolling
        assert LOWERED in banner.inner_text()
        assert "not a regular file" in banner.inner_text()
        assert page.locator(".masthead .status").inner_text().strip() == "Degraded"
        browser.close()


ASK = """
import json, os
from orchestration.headless import prepare
from orchestration.settings import from_environment
prepare(from_environment())
import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.test.utils import execute_dagster_graphql
query = '''
{ runsOrError { ... on Runs { results { status } } }
  assetNodes(assetKeys: [{path: ["pages"]}, {path: ["duplicate_reports"]}]) {
    assetKey { path }
    assetChecksOrError { ... on AssetChecks { checks {
      name blocking executionForLatestMaterialization {
        status evaluation { severity description
          metadataEntries { label ... on JsonMetadataEntry { jsonString } } } } } } } } }
'''
with dg.DagsterInstance.get() as instance:
    target = ModuleTarget("orchestration.definitions", None, os.getcwd(), None)
    with WorkspaceProcessContext(instance, target) as process:
        found = execute_dagster_graphql(process.create_request_context(), query)
        print("ANSWER" + json.dumps(found.data))
"""
"""Asks what the pages of the run and of the assets ask, in a process with a code server."""


def test_the_ui_has_a_red_run_a_failed_check_and_the_reason(
    home: Path, done: tuple[subprocess.CompletedProcess[str], Path]
) -> None:
    """Asked as the browser asks: through the GraphQL of the webserver."""
    asked = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK],
        env={**os.environ, "QUIRE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )
    assert "ANSWER" in asked.stdout, asked.stderr[-3000:]
    answer = json.loads(asked.stdout.rpartition("ANSWER")[2].splitlines()[0])
    assert [run["status"] for run in answer["runsOrError"]["results"]] == ["FAILURE"]
    checks = {
        node["assetKey"]["path"][0]: node["assetChecksOrError"]["checks"][0]
        for node in answer["assetNodes"]
    }
    for asset in ("pages", "duplicate_reports"):
        run = checks[asset]["executionForLatestMaterialization"]
        assert run["status"] == "FAILED"
        assert run["evaluation"]["severity"] == "ERROR"
    assert checks["duplicate_reports"]["blocking"]
    assert not checks["pages"]["blocking"]
    told = checks["pages"]["executionForLatestMaterialization"]["evaluation"]
    assert LOWERED in told["description"]
    reasons = {entry["label"]: entry.get("jsonString", "") for entry in told["metadataEntries"]}
    assert LOWERED in reasons["reasons"]
