"""The service as its clients meet it: a real server on loopback, a real database, a real client."""

import contextlib
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import numpy as np
import PIL.Image
import psycopg
import pytest
from upath import UPath

import web.uploads
from benchmarks.faults.injections import FAMILIES, of_family
from orchestration.ingest import receive
from resources.database import Database, DatabaseAccess
from resources.embedded_postgres import EmbeddedPostgres
from resources.images import ImageStore
from resources.postgres import Postgres
from resources.text_search import TextSearch
from tests.conftest import fresh_database
from tests.hostile import small_paper
from tests.passages import Said, WordEncoder, keep
from web.app import create_app
from web.limits import LIMITS, Access, Places
from web.serve import listening_on, server_of

KEY = "a-key-of-some-length-1234"


@contextlib.contextmanager
def serving(
    search: TextSearch, database: DatabaseAccess, inbox: Path, store_url: str, access: Access
) -> Iterator[httpx2.Client]:
    app = create_app(search, database, access, Places(inbox, store_url))
    listener = listening_on("127.0.0.1", 0)
    server = server_of(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    headers = {"Authorization": f"Bearer {access.api_key}"} if access.api_key else {}
    try:
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, trust_env=False
        ) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@dataclass(frozen=True)
class Home:
    client: httpx2.Client
    inbox: Path
    images: ImageStore
    db: psycopg.Connection
    document_id: str

    def files(self) -> list[Path]:
        """Whatever lies in the inbox, half written or not."""
        return [path for path in self.inbox.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def home(
    embedded_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Home]:
    """One service for the module; its tests add to it and leave what they find."""
    tmp_path = tmp_path_factory.mktemp("service")
    images = ImageStore(url=(tmp_path / "store").as_uri())
    small_paper(tmp_path / "paper.pdf", seed=3, panels=2, planted=0)
    encoder = WordEncoder()
    with contextlib.ExitStack() as stack:
        database = Database(stack.enter_context(fresh_database(embedded_postgres)))
        db = stack.enter_context(database.connect())
        received = receive(db, images, UPath(tmp_path / "paper.pdf"))
        assert received.document is not None
        keep(
            db,
            [
                Said("a.pdf", 1, "The cat sat by the river <script>alert(1)</script> all day"),
                Said("a.pdf", 2, "Nothing of interest"),
            ],
            encoder,
        )
        search = TextSearch(database, lambda _: encoder)
        inbox = tmp_path / "inbox"
        client = stack.enter_context(serving(search, database, inbox, images.url, Access()))
        yield Home(client, inbox, images, db, received.document.document_id)


def test_a_search_says_where_and_how_and_what_is_missing(home: Home) -> None:
    asked = {"query": "cat river", "top_k": 1, "filters": {"pages": "1-3", "languages": ["eng"]}}
    reply = home.client.post("/search", json=asked)
    answer = reply.json()
    assert reply.status_code == 200
    (hit,) = answer["hits"]
    assert (hit["document"], hit["page"], answer["reason"]) == ("a.pdf", 1, "")
    assert [hit["snippet"]["text"][a:b] for a, b in hit["snippet"]["marks"]] == ["cat", "river"]
    assert {part["channel"] for part in hit["parts"]} == {"dense", "words"}
    assert hit["image"].startswith(f"/pages/{hit['document_id']}/1/image?boxes=50,0,90,10;")
    assert [channel["method"] for channel in answer["channels"]] == ["exact", "full text"]
    assert answer["degraded"] == ["2 pages not read yet"]  # of the paper that was only received
    assert home.client.post("/search", json=asked).json()["cached"]
    few = home.client.post("/search", json={"query": "cat", "filters": {"pages": "1"}}).json()
    assert few["reason"] == "only 1 passage matches the filter"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert reply.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in reply.headers
    assert "server" not in reply.headers


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"query": "  "}, "there is no word in the query"),
        ({"query": "cat", "top_k": 0}, "top_k: Input should be greater than or equal to 1"),
        ({"query": "cat", "filters": {"pages": "7-3"}}, "the last page (3) lies before the first"),
        ({"query": "cat", "filters": {"since": "yesterday"}}, "since"),
        ({"query": "cat", "filters": {"owner": "x"}}, "filters.owner: Extra inputs"),
        ({"query": "cat", "filters": {"documents": ["\x00"]}}, "a character that no stored name"),
    ],
)
def test_what_is_not_understood_is_said_in_one_sentence(
    home: Home, asked: dict[str, object], reason: str
) -> None:
    reply = home.client.post("/search", json=asked)
    assert reply.status_code == 422
    assert reason in reply.json()["reason"]


def test_a_page_is_shown_with_what_was_found_marked(home: Home) -> None:
    address = f"/pages/{home.document_id}/1/image"
    plain = home.client.get(address, params={"dpi": 60})
    marked = home.client.get(address, params={"dpi": 60, "boxes": "72,72,200,200"})
    assert plain.headers["content-type"] == "image/png"
    first, second = (
        np.asarray(PIL.Image.open(io.BytesIO(reply.content)), np.int16) for reply in (plain, marked)
    )
    differs = np.argwhere(np.any(first != second, axis=2))
    (top, left), (bottom, right) = differs.min(axis=0), differs.max(axis=0)
    assert (first.shape, plain.headers["x-quire-dpi"]) == (second.shape, "60")
    assert [top, left, bottom, right] == pytest.approx([60, 60, 167, 167], abs=2)
    held = home.client.get(
        address, params={"dpi": 60}, headers={"If-None-Match": plain.headers["etag"]}
    )
    assert held.status_code == 304
    assert home.client.get(address, params={"dpi": 600}).status_code == 422
    assert home.client.get(address, params={"boxes": "1,2,3"}).status_code == 422
    assert home.client.get(f"/pages/{home.document_id}/99/image").status_code == 404
    assert home.client.get(f"/pages/{'0' * 64}/1/image").status_code == 404
    assert home.client.get("/pages/..%2f..%2fetc/1/image").status_code in (404, 422)
    (file,) = Path(UPath(home.images.url).path).rglob("*.pdf")
    file.rename(file.with_suffix(".away"))
    gone = home.client.get(address, params={"dpi": 61})
    assert (gone.status_code, "missing" in gone.json()["reason"]) == (503, True)
    file.with_suffix(".away").rename(file)


def test_an_upload_lands_in_the_inbox_once_under_its_hash(home: Home, tmp_path: Path) -> None:
    small_paper(tmp_path / "new.pdf", seed=4, panels=2, planted=0)
    data = (tmp_path / "new.pdf").read_bytes()
    digest = hashlib.sha256(data).hexdigest()

    def send(name: str) -> httpx2.Response:
        return home.client.post(
            "/documents", content=data, params={"name": name},
            headers={"Content-Type": "application/pdf"},
        )  # fmt: skip

    for name in ("../../Übersicht <b>.pdf", "other.pdf"):
        reply = send(name)
        assert (reply.status_code, reply.json()["state"]) == (202, "waiting")
        assert reply.json()["document_id"] == digest
    assert [path.name for path in home.files()] == [f"{digest}.pdf"]
    received = receive(home.db, home.images, UPath(home.inbox / f"{digest}.pdf"))
    assert received.document is not None
    assert received.document.name == "Übersicht <b>.pdf"  # shown, and no path
    again = send("third.pdf")
    assert (again.status_code, again.json()["state"]) == (200, "known")
    listed = home.client.get("/documents", params={"limit": 1}).json()
    assert listed["more"]
    assert listed["documents"][0]["name"] == "Übersicht <b>.pdf"
    home.db.execute("DELETE FROM documents WHERE document_id = %s", [digest])
    (home.inbox / f"{digest}.pdf").unlink()


def test_what_is_no_pdf_or_too_large_leaves_nothing_behind(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(data: object, kind: str = "application/pdf") -> httpx2.Response:
        return home.client.post("/documents", content=data, headers={"Content-Type": kind})  # pyright: ignore

    assert send(b"<html>login</html>").status_code == 415
    assert send(b"").status_code == 415
    assert send(b"%PDF-1.7 fine", "multipart/form-data; boundary=x").status_code == 415

    def endless() -> Iterator[bytes]:
        yield b"%PDF-1.7\n"
        for _ in range(40):
            yield b"x" * 100_000

    monkeypatch.setattr(web.uploads, "LIMITS", _less(upload_bytes=1_000_000))
    assert send(endless()).status_code == 413
    monkeypatch.setattr(web.uploads, "LIMITS", _less(free_bytes=1 << 60))
    assert send(b"%PDF-1.7 fine").status_code == 507
    assert home.files() == []
    assert home.client.get("/metrics").text.count('quire_uploads_total{outcome="refused') == 3


def _less(**changed: int) -> object:
    return replace(LIMITS, **changed)


def test_a_request_that_is_too_large_or_senseless_is_refused(home: Home) -> None:
    large = home.client.post("/search", json={"query": "x" * 100_000})
    assert (large.status_code, large.json()["reason"]) == (413, "the body may have 65,536 bytes")
    chunked = home.client.post(
        "/search", content=(b"x" * 10_000 for _ in range(20)),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert chunked.status_code == 413
    for _ in range(5):  # the answer arrives, although much of the body had not been read
        kept = home.client.post("/search", content=b"x" * 900_000)
        assert (kept.status_code, kept.json()["reason"]) == (413, large.json()["reason"])
    assert home.client.post("/search", content=b"{", headers={"Content-Type": "application/json"}
    ).status_code == 422  # fmt: skip
    assert home.client.get("/nowhere").json() == {"reason": "there is nothing at this address"}
    assert home.client.delete("/documents").status_code == 405
    rebound = home.client.get("/documents", headers={"Host": "attacker.example"})
    assert rebound.status_code == 421


def test_without_a_key_pages_of_other_addresses_get_nothing(home: Home) -> None:
    for headers in ({"Origin": "https://attacker.example"}, {"Sec-Fetch-Site": "cross-site"}):
        refused = home.client.post("/documents?name=x.pdf", content=b"%PDF-1.7", headers=headers)
        assert refused.status_code == 403
        assert home.client.get("/documents", headers=headers).status_code == 403
    own = str(home.client.base_url).rstrip("/")
    assert home.client.get("/documents", headers={"Origin": own}).status_code == 200


def test_one_request_too_many_is_refused_as_every_other_error_is(
    db: psycopg.Connection, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.guard.LIMITS", _less(requests=2))
    encoder = WordEncoder()
    keep(db, [Said("a.pdf", 1, "cat")], encoder)
    search = TextSearch(postgres, lambda _: encoder)
    begun, let_go = threading.Semaphore(0), threading.Event()

    def slowly() -> Iterator[bytes]:
        begun.release()
        yield b"%PDF-1.7\n"
        let_go.wait(30)

    inbox, store_url = tmp_path / "inbox", (tmp_path / "store").as_uri()
    with (
        serving(search, postgres, inbox, store_url, Access()) as client,
        ThreadPoolExecutor(2) as others,
    ):
        kind = {"Content-Type": "application/pdf"}
        uploads = [
            others.submit(client.post, "/documents", content=slowly(), headers=kind)
            for _ in range(2)
        ]
        for _ in uploads:
            assert begun.acquire(timeout=30)
        while (refused := client.get("/documents")).status_code == 200:
            time.sleep(0.1)  # the second may still be on its way
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/json"
        reason = "too many requests at the same time; try again shortly"
        assert refused.json() == {"reason": reason}
        assert refused.headers["retry-after"] == "2"
        assert refused.headers["x-content-type-options"] == "nosniff"
        let_go.set()
        assert [upload.result(30).status_code for upload in uploads] == [202, 202]
        assert client.post("/search", json={"query": "cat"}).json()["hits"]
        assert 'quire_http_requests_total{method="GET",route="other",status="503"}' in (
            client.get("/metrics").text
        )


def test_one_upload_too_many_is_told_when_to_try_again(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.app.LIMITS", _less(uploads=1))
    begun, let_go = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"%PDF-1.7\n"
        begun.set()
        let_go.wait(30)

    search = TextSearch(postgres, lambda _: WordEncoder())
    inbox, store_url = tmp_path / "inbox", (tmp_path / "store").as_uri()
    with (
        serving(search, postgres, inbox, store_url, Access()) as client,
        ThreadPoolExecutor(1) as others,
    ):

        def send(data: bytes | Iterator[bytes]) -> httpx2.Response:
            kind = {"Content-Type": "application/pdf"}
            return client.post("/documents", content=data, headers=kind)

        first = others.submit(send, slowly())
        assert begun.wait(30)
        while (second := send(b"%PDF-1.7\n")).status_code == 202:
            time.sleep(0.1)  # the first may still be on its way
        assert second.status_code == 503
        assert second.json()["reason"].startswith("too many uploads at the same time")
        assert second.headers["retry-after"] == "10"
        let_go.set()
        assert first.result(30).status_code == 202
        assert send(b"%PDF-1.7\n").status_code == 202


def test_hostile_texts_are_texts(home: Home) -> None:
    texts = [text[:900] for family in FAMILIES for text in of_family(family)[:4] if text]
    for text in texts:
        body = json.dumps({"query": f"cat {text}"[:900], "filters": {"documents": [text]}})
        headers = {"Content-Type": "application/json"}
        reply = home.client.post("/search", content=body.encode(), headers=headers)
        assert reply.status_code in (200, 422), reply.text
        assert reply.headers["content-type"] == "application/json"
        assert not reply.json().get("hits")
    assert len(texts) >= 20


def test_health_probes_what_it_speaks_of_and_metrics_count(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = home.client.get("/health")
    assert (healthy.status_code, healthy.json()["status"]) == (200, "ok")
    assert healthy.json()["index"]["version"]
    home.client.post("/search", json={"query": "cat"})
    text = home.client.get("/metrics").text
    assert 'quire_http_requests_total{method="POST",route="/search",status="200"}' in text
    assert 'quire_stored{what="passages_embedded"} 2.0' in text
    assert "process_resident_memory_bytes" in text
    assert "cat" not in text
    monkeypatch.setattr("web.app.LIMITS", _less(free_bytes=1 << 60))
    full = home.client.get("/health")
    assert (full.status_code, full.json()["disk"]["ok"]) == (503, False)
    monkeypatch.undo()
    home.db.execute("ALTER TABLE text_encoder_switches RENAME TO gone")
    broken = home.client.get("/health")
    assert (broken.status_code, broken.json()["database"]["ok"]) == (503, False)
    failed = home.client.post("/search", json={"query": "dog"})
    assert failed.status_code == 500
    assert "text_encoder_switches" not in failed.text
    home.db.execute("ALTER TABLE gone RENAME TO text_encoder_switches")


def test_without_the_key_every_route_answers_401(
    db: psycopg.Connection, postgres: Postgres, tmp_path: Path
) -> None:
    encoder = WordEncoder()
    keep(db, [Said("a.pdf", 1, "cat")], encoder)
    search = TextSearch(postgres, lambda _: encoder)
    access = Access("0.0.0.0", KEY)
    store_url = (tmp_path / "store").as_uri()
    with serving(search, postgres, tmp_path / "inbox", store_url, access) as client:
        described = client.get("/openapi.json").json()
        routes = [
            (method.upper(), path.format(document_id="0" * 64, page=1))
            for path, methods in described["paths"].items()
            for method in methods
        ]
        assert len(routes) == 6
        for method, path in [*routes, ("GET", "/openapi.json"), ("GET", "/x"), ("OPTIONS", "/")]:
            for given in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"):
                refused = client.request(method, path, headers={"Authorization": given})
                assert refused.status_code == 401, (method, path, given)
            assert client.request(method, path).status_code != 401
        by_header = {"Authorization": "", "X-API-Key": KEY}
        assert client.get("/health", headers=by_header).status_code == 200
    for host, key in (("0.0.0.0", ""), ("10.0.0.1", ""), ("example.org", ""), ("127.0.0.1", "no")):
        with pytest.raises(ValueError, match="QUIRE_SERVE_API_KEY"):
            Access(host, key)


def test_the_description_is_complete(home: Home) -> None:
    described = home.client.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (path, method)
            assert {"401", "500"} <= operation["responses"].keys()
            good = next(c for c in operation["responses"] if c.startswith("2"))
            assert operation["responses"][good].get("content"), (path, method)
    schemas = described["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert schemas["SearchRequest"]["examples"]
    assert set(described["components"]["securitySchemes"]) == {"HTTPBearer", "APIKeyHeader"}


def wait_for(what: Callable[[], bool]) -> None:
    """Give the server a minute to come to where something holds."""
    for _ in range(600):
        if what():
            return
        time.sleep(0.1)
    pytest.fail("a minute was not enough")


def test_a_client_that_goes_away_in_the_middle_of_an_upload_leaves_nothing(home: Home) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"%PDF-1.7\n" + b"x" * 3_000_000
        wait_for(lambda: bool(home.files()))  # it is being written when the client goes
        raise ConnectionError

    with pytest.raises(ConnectionError):
        home.client.post(
            "/documents", content=breaks(), headers={"Content-Type": "application/pdf"}
        )
    wait_for(lambda: not home.files())
    assert home.client.get("/health").status_code == 200
