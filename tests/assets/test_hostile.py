"""Every hostile file through the whole pipeline, all in one run, beside a sound paper."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from assets.duplicate_reports import export
from resources.embedded_postgres import EmbeddedPostgres
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.postgres import Postgres
from resources.settings import CopySearch
from tests.assets.conftest import Pipeline
from tests.conftest import TEMPLATE
from tests.hostile import HOSTILE, REASONS, Expectation, small_paper
from tests.hostile_pages import FILES

pytestmark = pytest.mark.timeout(1800)  # for the one run, on a machine that does other things

CASES = [(name, expectation) for name, _, expectation in HOSTILE]
PAGES = [
    (name, page, case.reason) for name, cases in FILES.items() for page, case in enumerate(cases, 2)
]
NAMES = [case.name for cases in FILES.values() for case in cases]


@dataclass(frozen=True)
class Ended:
    """What the run came to.

    Attributes:
        succeeded: Whether Dagster calls it a success.
        status: The status of the report over all documents.
        troubles: What the terminal says, each of which makes the exit code 3.
        documents: What the report says of each case, and of the sound paper as ``good``.
        pairs: The pairs of the report.
    """

    succeeded: bool
    status: str
    troubles: list[str]
    documents: dict[str, dict[str, Any]]
    pairs: list[dict[str, Any]]


@pytest.fixture(scope="module")
def ended(
    embedded_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ended]:
    """One run over every case and a sound paper."""
    folder, out = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("out")
    paths = {name: maker(folder) for name, maker, _ in HOSTILE} | {"good": folder / "good.pdf"}
    small_paper(paths["good"], seed=6)
    name = sql.Identifier("hostile")
    with psycopg.connect(embedded_postgres.url, autocommit=True) as admin:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        admin.execute(statement.format(name, sql.Identifier(TEMPLATE)))
    postgres = Postgres(database_url=embedded_postgres.url_of("hostile"))
    images = ImageStore(url=(tmp_path_factory.mktemp("store") / "store").as_uri())
    pipeline = Pipeline(postgres, images, folder)
    received = pipeline.receive(*paths.values())
    (result,) = pipeline.run()
    with postgres.connect() as db:
        ids = [each.document.document_id for each in received if each.document is not None]
        exported = export(db, images, CopySearch(threads=1), Encoder(), ids, out)
    report = json.loads((out / "pairs.json").read_text())
    by_id = {document["sha256"]: document for document in report["report"]["documents"]}
    yield Ended(
        succeeded=result.success,
        status=exported.status,
        troubles=list(exported.troubles),
        documents={name: by_id[_digest(path)] for name, path in paths.items()},
        pairs=report["pairs"],
    )
    pipeline.instance.dispose()
    with psycopg.connect(embedded_postgres.url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_run_survives_them_all_and_is_not_called_a_success(ended: Ended) -> None:
    assert not ended.succeeded  # the blocking check of the reports
    assert ended.status == "degraded"
    assert ended.troubles
    assert len(ended.documents) == len(HOSTILE) + 1


def test_a_sound_paper_among_them_is_unharmed(ended: Ended) -> None:
    good = ended.documents["good"]
    assert (good["status"], good["pages_looked_at"], good["reasons"]) == ("ok", 2, [])
    sides = [(pair["a"]["document"], pair["b"]["document"]) for pair in ended.pairs]
    assert sides.count((good["sha256"], good["sha256"])) == 2


@pytest.mark.parametrize(("case", "expectation"), CASES, ids=[name for name, _ in CASES])
def test_each_file_ends_as_it_should_with_its_reason(
    ended: Ended, case: str, expectation: Expectation
) -> None:
    document = ended.documents[case]
    said = [*document["reasons"], *(page["reason"] for page in document["pages_failed"])]
    assert document["status"] == expectation, said
    if expectation == "ok":
        assert said == []
        assert document["pages_looked_at"] == document["pages"] > 0
    else:
        assert any(re.search(REASONS[case], reason) for reason in said), said
    assert not any("Traceback" in reason or "/tmp/" in reason for reason in said)


@pytest.mark.parametrize(("case", "page", "reason"), PAGES, ids=NAMES)
def test_each_page_says_what_is_wrong_with_it_and_the_others_are_read(
    ended: Ended, case: str, page: int, reason: str
) -> None:
    document = ended.documents[case]
    failed = {each["page"]: each["reason"] for each in document["pages_failed"]}
    said = [failed[page]] if page in failed else []
    for each in document["reasons"]:
        parts = re.split(r"; (?=page \d)", each)
        said += [part for part in parts if re.match(rf"page {page}\b", part)]
    if reason:
        assert any(re.search(reason, each) for each in said), document
    else:
        assert said == []
    assert 1 not in failed
    assert document["pages_looked_at"] == document["pages"] - len(failed)
