"""The UI as people use it: `quire ui` in a real browser, from a backfill to lineage and checks."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
from upath import UPath

from assets.partitions import page_batches
from orchestration.budgets import budgets
from orchestration.headless import copy_search_job, prepare
from orchestration.ingest import receive, register_partitions
from orchestration.settings import from_environment
from resources.images import ImageStore
from tests.hostile import small_paper

sync_api: Any = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
ARGUMENTS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAPERS = 4
CHOSEN = slice(1, 3)
"""Of the partitions, in the order in which the dialog lists them."""

OF_PAGES = 'not group:"gallery"'
"""The assets that share the partitions of documents, as the UI's filter names them."""

START_S = 240
RUN_S = 400
STEP_MS = 120_000
"""How long things may take on a machine that is busy with something else."""

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to look with"),
    pytest.mark.timeout(900),
]


@dataclass(frozen=True)
class Served:
    """A running UI, and what it knows of before anything was run."""

    url: str
    partitions: list[str]


@pytest.fixture(scope="module")
def served(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`quire ui` over an embedded server of its own, with documents that nobody looked at yet."""
    home = server_home / "ui"
    papers = tmp_path_factory.mktemp("papers")
    environment = {**os.environ, "QUIRE_HOME": str(home), "DAGSTER_HOME": ""}
    partitions = _take_in(environment, papers)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quire = [sys.executable, "-W", "ignore", "-m", "orchestration.cli"]
    log = papers / "ui.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [*quire, "ui", "--port", str(port)],
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process, log)
        yield Served(url, partitions)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        subprocess.run([*quire, "db", "stop"], env=environment, check=False, timeout=120)


def _take_in(environment: dict[str, str], papers: Path) -> list[str]:
    """What the inbox sensor does: documents are known, and nothing is made of them yet."""
    settings = from_environment(environment)
    keep = {name: os.environ.get(name) for name in KEPT}
    try:
        postgres = prepare(settings)
        with dg.DagsterInstance.get() as instance, postgres.connect() as db:
            for number in range(PAPERS):
                small_paper(papers / f"paper-{number}.pdf", seed=60 + number)
                receive(
                    db, ImageStore(url=settings.store_url), UPath(papers / f"paper-{number}.pdf")
                )
            register_partitions(db, instance)
            return list(instance.get_dynamic_partitions("page_batches"))
    finally:
        for name, value in keep.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


KEPT = ("DAGSTER_HOME", "QUIRE_HOME", "QUIRE_DAGSTER_STORAGE_URL")
"""What preparing Dagster's directory sets for this process and its children."""


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise AssertionError(f"the UI did not answer within {START_S} s:\n{log.read_text()}")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """A browser window that reaches this machine only."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        opened = browser.new_page(viewport={"width": 1400, "height": 1000})
        opened.set_default_timeout(STEP_MS)
        yield opened
        browser.close()


@contextmanager
def pictured(page: Any, folder: Path) -> Iterator[None]:
    """Leave a picture of what was on the screen when something was not as expected."""
    try:
        yield
    except Exception as error:
        picture = folder / "ui.png"
        page.screenshot(path=str(picture))
        error.add_note(f"at {page.url}; a picture of it is in {picture}")
        raise


def test_a_range_is_backfilled_from_the_ui_and_its_lineage_checks_and_memory_can_be_read(
    served: Served, page: Any, tmp_path: Path
) -> None:
    expect = sync_api.expect
    expect.set_options(timeout=STEP_MS)
    chosen, left_out = served.partitions[CHOSEN], served.partitions[0]
    with pictured(page, tmp_path):
        page.goto(f"{served.url}/asset-groups~{quote(OF_PAGES)}")
        page.get_by_role("button", name="Materialize all").click()
        dialog = page.get_by_role("dialog").filter(has_text="Launch runs to materialize")
        expect(dialog).to_contain_text(f"materialize {len(budgets(page_batches))} assets")
        dialog.get_by_text("Select a partition or create one").click()
        for key in chosen:
            page.get_by_role("menuitem").filter(has_text=key).first.click()
        page.keyboard.press("Escape")
        expect(dialog).to_contain_text(f"{len(chosen)} partitions")
        dialog.get_by_role("button", name="Launch backfill").click()

        page.get_by_text("Created backfill").wait_for()
        page.get_by_text("View", exact=True).last.click()
        page.wait_for_url(re.compile("/runs/b/"))
        for key in chosen:
            expect(page.get_by_text(key)).to_be_visible()
        expect(page.get_by_text("100% completed")).to_have_count(
            len(budgets(page_batches)), timeout=RUN_S * 1000
        )
        expect(page.get_by_text("Succeeded", exact=True).first).to_be_visible()
        for asset in budgets(page_batches):
            expect(page.locator(f"a[href='/assets/{asset}']")).to_be_visible()

        # Nodes of the graph exist only while they are in sight.
        page.set_viewport_size({"width": 4200, "height": 1200})
        page.locator("a[href='/assets/duplicate_reports']").click()
        page.get_by_role("tab", name="Lineage").click()
        page.get_by_role("button", name="Upstream").click()
        page.get_by_role("button", name="All", exact=True).click()
        upstream = [node.name for node in copy_search_job().graph.nodes]
        expect(page.get_by_text("1 / 1 Passed")).to_have_count(len(upstream))
        for asset in upstream:
            expect(page.get_by_text(asset, exact=True).last).to_be_visible()

        page.set_viewport_size({"width": 1400, "height": 1000})
        page.get_by_role("tab", name="Checks").click()
        expect(page.get_by_text("This is a blocking asset check.")).to_be_visible()
        expect(page.get_by_text("Everything was looked at.")).to_be_visible()
        expect(page.get_by_text("Passed", exact=True).first).to_be_visible()

        page.get_by_role("tab", name="Partitions").click()
        expect(page.get_by_text(f"Materialized ({len(chosen)})")).to_be_visible()
        expect(page.get_by_text(f"Missing ({PAPERS - len(chosen)})")).to_be_visible()
        assert left_out not in chosen

        for asset in ("pages", "panel_features", "duplicate_reports"):
            page.goto(f"{served.url}/assets/{asset}")
            budget_mb, peak_mb = (_metadata(page, name) for name in ("budget_mb", "peak_mb"))
            assert 0 < peak_mb <= budget_mb <= budgets()[asset], asset


def _metadata(page: Any, name: str) -> float:
    """A number from the table of the latest materialization's metadata."""
    row = page.locator("tr").filter(has=page.get_by_text(name, exact=True))
    return float(row.first.locator("td").last.inner_text().replace(",", ""))
