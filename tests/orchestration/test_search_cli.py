"""Read, search, serve: the three commands on a home of their own, with the encoder of Quire."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pymupdf
import pytest

from tests.hostile import HOSTILE
from tests.resources.tiny_text_encoders import tiny_checkpoint, tiny_text_encoder

HTML = next(maker for name, maker, _ in HOSTILE if name == "html")

PAGES = (
    "The committee of the harbour approved a loan for the repair of the northern quay. Cranes "
    "that stand there lift twelve tonnes.",
    "Seagulls nest on the warehouse roofs every spring, and their feathers clog the gutters.",
)

FORBIDDEN = ("dagster", "torch", "transformers", "sentence_transformers", "cv2", "scipy", "pandas")
"""What the process that answers must not have imported."""

RSS_MB = 200


def variables(home: Path) -> dict[str, str]:
    return {
        **os.environ, "QUIRE_HOME": str(home), "COLUMNS": "160", "NO_COLOR": "1",
        "QUIRE_THREADS": "1", "QUIRE_SERVE_API_KEY": "",
    }  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "orchestration.cli", *arguments]


def quire(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=variables(home) | settings, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip


def write_pdf(path: Path) -> None:
    with pymupdf.open() as document:
        for text in PAGES:
            page = document.new_page()
            page.insert_textbox(pymupdf.Rect(72, 72, 520, 300), text, fontsize=12)
        document.save(path)


@pytest.fixture(scope="module")
def home(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home in which a paper and a file that is none were read."""
    home, papers = server_home / "reading", tmp_path_factory.mktemp("papers")
    write_pdf(papers / "harbour.pdf")
    HTML(papers)
    try:
        done = quire(home, "read", str(papers), "--out", str(home / "out"))
        (home / "said").write_text(done.stdout + done.stderr)
        assert done.returncode == 3, done.stderr
        yield home
    finally:
        quire(home, "db", "stop")


def test_reading_writes_texts_and_says_what_could_not_be_read(home: Path) -> None:
    text = (home / "out" / "harbour.txt").read_text()
    first, second = text.split("\f")
    assert "approved a loan" in first
    assert "Seagulls nest" in second
    told = json.loads((home / "out" / "pages.json").read_text())
    assert told["status"] == "degraded"
    documents = {each["name"]: each for each in told["documents"]}
    harbour = documents["harbour.pdf"]
    assert (harbour["status"], harbour["pages_read"], harbour["failed"]) == ("ok", 2, [])
    assert [page["kind"] for page in harbour["read"]] == ["text_layer", "text_layer"]
    (other,) = (each for name, each in documents.items() if name != "harbour.pdf")
    assert other["status"] == "failed"
    assert "is a web page, not a PDF" in other["notes"][0]
    assert "is a web page, not a PDF" in (home / "said").read_text()


def test_a_search_shows_document_page_passage_and_score(home: Path) -> None:
    found = quire(home, "search", "who paid for mending the dock?", "--top-k", "1")
    assert found.returncode == 3  # one document could not be opened
    assert re.search(r"1 │ harbour\.pdf +│ +1 │ .*approved a loan", found.stdout)
    assert re.search(r"dense #1 \(0\.\d\d\)", found.stdout)
    assert "1 document could not be opened" in found.stderr
    answer = json.loads(
        quire(home, "search", "gutters", "--pages", "2", "--document", "harbour.pdf",
              "--language", "eng", "--kind", "text_layer", "--json").stdout
    )  # fmt: skip
    assert [hit["page"] for hit in answer["hits"]] == [2]
    assert answer["reason"] == "only 1 passage matches the filter"
    assert answer["hits"][0]["highlight"]["words"]
    wrong = quire(home, "search", "gutters", "--since", "yesterday")
    assert (wrong.returncode, wrong.stderr) == (2, "quire: since is a day like 2026-01-31\n")


def test_an_encoder_that_is_not_converted_yet_is_named_with_the_command_that_makes_it(
    home: Path, tmp_path: Path
) -> None:
    fresh = f"sentence-transformers:{tiny_checkpoint(tmp_path / 'fresh', seed=7)}"
    found = quire(home, "search", "gutters", "--top-k", "1", QUIRE_TEXT_ENCODER=fresh)
    assert found.returncode == 3
    assert "words #1" in found.stdout
    assert f"there is no encoder: {fresh} has not been converted to a form" in found.stderr
    assert "quire read PATH does it, or quire encoders prepare --text" in found.stderr


ANSWER = """
import json, sys, psutil
from orchestration.cli import main
from orchestration.search import open_search
from orchestration.settings import from_environment
from core.search import parse_query
import web.app, web.serve
search = open_search(from_environment())
answer = search.search(parse_query("mending the dock"))
rss = psutil.Process().memory_info().rss / 1e6
print(json.dumps([answer.hits[0].page, rss, sorted(sys.modules)]))
"""


def test_what_answers_has_imported_neither_dagster_nor_torch(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ANSWER], env=variables(home), capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    page, rss_mb, modules = json.loads(done.stdout)
    assert page == 1
    assert rss_mb < RSS_MB
    assert [name for name in modules if name.partition(".")[0] in FORBIDDEN] == []


def test_the_service_answers_and_is_small(home: Path) -> None:
    served = subprocess.Popen(
        command("serve", "--port", "0"), env=variables(home), stdout=subprocess.PIPE, text=True
    )
    try:
        assert served.stdout is not None
        address = re.search(r"http://[\d.]+:\d+", served.stdout.readline())
        assert address is not None
        with httpx2.Client(base_url=address[0], timeout=30, trust_env=False) as client:
            assert client.get("/health").json()["status"] == "ok"
            answer = client.post("/search", json={"query": "mending the dock"}).json()
            assert answer["hits"][0]["page"] == 1
            assert psutil.Process(served.pid).memory_info().rss / 1e6 < RSS_MB
        served.terminate()
        served.wait(20)
    finally:
        served.kill()


def test_the_next_text_encoder_is_prepared_compared_and_switched_to(
    home: Path, tmp_path: Path
) -> None:
    both = f"minilm {tiny_text_encoder(tmp_path)}"

    def encoders(name: str) -> str:
        done = quire(home, "encoders", name, "--text", QUIRE_TEXT_ENCODER=both)
        assert done.returncode == 0, done.stderr
        return done.stdout

    early = quire(home, "encoders", "switch", "--text", QUIRE_TEXT_ENCODER=both)
    assert early.returncode == 2
    assert "has not embedded 2 pages: quire encoders prepare --text does it" in early.stderr
    assert "has embedded everything" in encoders("prepare")
    assert re.search(r"all-minilm\S+ +│ serves +│", encoders("list"))
    assert "100.0% of the 10 pages nearest" in encoders("compare")
    assert re.search(r"from-\S+ serves; all-minilm\S+ waits", encoders("switch"))
    found = quire(home, "search", "gutters", "--json", QUIRE_TEXT_ENCODER=both)
    answer = json.loads(found.stdout)
    assert answer["hits"][0]["page"] == 2
    assert answer["channels"][0]["method"] == "exact"
    assert [loss.partition(",")[0] for loss in answer["degraded"]] == [
        "1 document could not be opened"
    ]
    assert re.search(r"all-minilm\S+ serves; from-\S+ waits", encoders("switch"))


def test_a_service_open_to_others_wants_a_key(home: Path) -> None:
    started = time.monotonic()
    done = quire(home, "serve", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert done.stderr.startswith("quire: set QUIRE_SERVE_API_KEY to listen on 0.0.0.0")
    assert time.monotonic() - started < 60
