"""The Dagster UI over the hostile run, in a real browser: it shows the corpus and does nothing.

It looks at the latest materializations, so it comes first by its name: other tests here add runs.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from benchmarks.faults.egress import addresses, watching, why_not_watched
from benchmarks.faults.injections import HOST, MARK
from benchmarks.faults.webserver import ask, free_port, wait_until_loaded
from core.text import legible, visible
from resources.postgres import Postgres
from tests.security.conftest import PLANTED, Home, HostileRun

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
SHOWN_MS = 120_000
"""How long a page may take to show something on a busy machine."""

OUTSIDE = f"""
    [href*="{HOST}"], [src*="{HOST}"], [srcset*="{HOST}"], [action*="{HOST}"], [style*="{HOST}"],
    [href^="javascript:"], [href^="mailto:"], iframe, object, embed, [onerror], [onload], [ontoggle]
"""
"""Elements that the corpus would make and the UI has no use for."""

RESOURCES = """
{ repositoriesOrError { ... on RepositoryConnection { nodes {
    allTopLevelResourceDetails { name configFields { name } configuredValues { key value type } }
} } } instance { info } }
"""
CONFIGS = """
{ runsOrError { ... on Runs { results { runId runConfigYaml tags { key value } } } } }
"""

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine to look with"),
    pytest.mark.timeout(900),
]


@dataclass
class Visit:
    """A window, and what its pages did that they should not have."""

    page: Any
    url: str
    dialogs: list[str] = field(default_factory=list[str])
    requests: set[str] = field(default_factory=set[str])

    def see(self, path: str, text: str) -> str:
        """Open a page, wait until it shows the text, and return all that it shows."""
        self.page.goto(f"{self.url}/{path}", timeout=SHOWN_MS)
        self.page.get_by_text(text, exact=False).first.wait_for(timeout=SHOWN_MS)
        return self.page.inner_text("body")

    def harm(self) -> list[str]:
        """What got through."""
        found = [f"dialog {text}" for text in self.dialogs]
        found += [f"script in {frame.url}" for frame in self.page.frames if self._ran(frame)]
        found += self.page.eval_on_selector_all(OUTSIDE, "all => all.map(e => e.outerHTML)")
        inside = (self.url, "data:", "blob:", self.url.replace("http", "ws"))
        return found + [url for url in self.requests if not url.startswith(inside)]

    def _ran(self, frame: Any) -> bool:
        return bool(frame.evaluate(f"typeof {MARK} !== 'undefined'"))


@dataclass(frozen=True)
class Served:
    """A running UI."""

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path
    trace: Path | None


@pytest.fixture(scope="module")
def served(hostile_run: HostileRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`quire ui` over the home of the hostile run, watched where that is possible."""
    folder = tmp_path_factory.mktemp("ui")
    port = free_port()
    command = hostile_run.home.command("ui", "--port", str(port))
    trace = None if why_not_watched() else folder / "trace"
    log = folder / "ui.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command if trace is None else watching(command, trace),
            env=hostile_run.home.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_loaded(port)
        yield Served(port, process, log, trace)
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the UI and everything that it started."""
    family = psutil.Process(process.pid).children(recursive=True)
    for child in family:
        if child.ppid() == process.pid or process.args[0] != "strace":  # pyright: ignore[reportIndexIssue]
            child.send_signal(signal.SIGINT)
            break
    _, alive = psutil.wait_procs(family, timeout=60)
    for child in alive:
        child.kill()
    os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    process.wait(60)


@pytest.fixture
def visit(served: Served) -> Iterator[Visit]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        context = browser.new_context(viewport={"width": 1500, "height": 1400})
        opened = Visit(context.new_page(), f"http://127.0.0.1:{served.port}")
        opened.page.on("dialog", lambda dialog: opened.dialogs.append(dialog.message))
        context.on("request", lambda request: opened.requests.add(request.url))
        yield opened
        browser.close()


def test_names_and_reasons_are_shown_as_text_and_do_nothing(
    visit: Visit, hostile_run: HostileRun
) -> None:
    home = hostile_run.home
    run_id = home.rows("quire_dagster", "SELECT run_id FROM runs ORDER BY id")[0][0]
    name = visible(legible(hostile_run.names[-1]))[:40]
    shown = visit.see("assets/documents?view=events", name)
    assert sum(visible(legible(name))[:300] in shown for name in hostile_run.names) > 5
    assert visit.harm() == []
    visit.see(f"runs/{run_id}", "STEP_FAILURE")
    assert visit.harm() == []


def test_what_is_not_code_would_be_rendered_and_is_noticed(
    visit: Visit, hostile_run: HostileRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster renders descriptions of checks as Markdown and lets them ask for pictures."""
    picture = f"![pixel](http://{HOST}/pixel.png)"
    _report_check(hostile_run.home, monkeypatch, picture, [])
    visit.see("assets/panels?view=checks", "Latest execution")
    visit.page.locator("img[alt=pixel]").wait_for(state="attached", timeout=SHOWN_MS)
    assert any(HOST in harm for harm in visit.harm())


def _report_check(
    home: Home, monkeypatch: pytest.MonkeyPatch, description: str, reasons: list[str]
) -> None:
    """Have Dagster store an evaluation, as an asset does."""
    storage = Postgres(database_url=home.server.tcp_url).dagster_storage_url()
    monkeypatch.setenv("QUIRE_DAGSTER_STORAGE_URL", storage)
    monkeypatch.setenv("DAGSTER_HOME", str(home.path / "dagster"))
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                check_name="complete",
                passed=False,
                asset_key=dg.AssetKey("panels"),
                metadata={"reasons": dg.MetadataValue.json(reasons)},
                description=description,
            )
        )


def test_the_report_of_the_run_shows_every_name_and_asks_for_nothing(
    hostile_run: HostileRun,
) -> None:
    report = hostile_run.out / "report.html"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        opened = Visit(browser.new_page(), report.as_uri())
        complaints: list[str] = []
        opened.page.on("console", lambda message: complaints.append(message.text))
        opened.page.on("pageerror", lambda error: complaints.append(str(error)))
        opened.page.on("dialog", lambda dialog: opened.dialogs.append(dialog.message))
        opened.page.on("request", lambda request: opened.requests.add(request.url))
        opened.page.goto(opened.url)
        shown = opened.page.inner_text("body")
        assert "Degraded" in shown
        titles = opened.page.eval_on_selector_all("bdi", "all => all.map(e => e.title)")
        assert {visible(legible(name)) for name in hostile_run.names} <= set(titles)
        assert opened.page.locator("script").count() == 1
        assert opened.harm() == []
        assert complaints == []
        browser.close()


def test_the_interface_gives_no_secret_away(served: Served, hostile_run: HostileRun) -> None:
    answers = [str(ask(served.port, query, {})) for query in (RESOURCES, CONFIGS)]
    assert "QUIRE_DATABASE_URL" in answers[0]
    for text in (*answers, served.log.read_text("utf-8", "surrogateescape")):
        assert PLANTED not in text.lower()
    for process in psutil.Process(served.process.pid).children(recursive=True):
        assert PLANTED not in " ".join(process.cmdline()).lower()


@pytest.mark.skipif(bool(why_not_watched()), reason=why_not_watched() or "-")
def test_the_ui_and_its_daemon_name_no_address_outside_the_machine(served: Served) -> None:
    assert served.trace is not None
    trace = served.trace.read_text("utf-8", "replace")
    assert "127.0.0.1" in trace  # that of the webserver itself
    assert addresses(trace) == ()
