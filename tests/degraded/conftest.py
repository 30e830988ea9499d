"""Finished papers on a database of their own, and what is told of them wherever users look."""

import csv
import html
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from assets.duplicate_reports import export
from resources.embedded_postgres import EmbeddedPostgres
from resources.images import ImageStore
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.database import Db
from tests.assets.conftest import Pipeline
from tests.conftest import TEMPLATE

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Told:
    """What the three files of a report say, and what the command line is told.

    Attributes:
        table: Rows of `pairs.tsv`.
        record: `pairs.json`.
        page: `report.html`.
        troubles: What is printed; the exit code is 3 where there is anything.
        notes: What is printed besides.
    """

    table: list[dict[str, str]]
    record: dict[str, Any]
    page: str
    troubles: list[str]
    notes: list[str]

    @property
    def status(self) -> str:
        """That of the report, which all three agree on."""
        statuses = {
            self.table[-1]["Status"],
            self.record["report"]["status"],
            *re.findall(r'class="status (ok|degraded|failed)"><span', self.page)[:1],
        }
        assert len(statuses) == 1, statuses
        return statuses.pop()

    @property
    def pairs(self) -> list[str]:
        """Panels of the pairs, which all three list."""
        rows = [row for row in self.table if row["Record"] == "pair"]
        assert [row["Pair"] for row in rows] == [p["pair_id"] for p in self.record["pairs"]]
        assert self.page.count('<article class="pair"') == len(rows)
        return [f"{row['Panel_A']}+{row['Panel_B']}" for row in rows]

    @property
    def banner(self) -> str:
        """What a reader of the HTML is warned of, as text; empty where there is no banner."""
        found = re.search(r'<section class="banner.*?</section>', self.page, re.DOTALL)
        return text_of(found[0]) if found else ""

    @property
    def flags(self) -> list[dict[str, Any]]:
        """The flags of the JSON."""
        return self.record["report"]["flags"]


def text_of(markup: str) -> str:
    """What is left of HTML without its tags, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def tell(
    pipeline: Pipeline,
    db: Db,
    ids: Sequence[str],
    out: Path,
    refused: Sequence[str] = (),
    copy_search: CopySearch | None = None,
) -> Told:
    """Export a report, and read it as its readers do."""
    settings = copy_search or CopySearch(threads=1)
    told = export(db, pipeline.images, settings, pipeline.encoder, ids, out, refused=refused)
    table = list(csv.DictReader(io.StringIO((out / "pairs.tsv").read_text()), dialect="excel-tab"))
    return Told(
        table,
        json.loads((out / "pairs.json").read_text()),
        (out / "report.html").read_text(),
        told.troubles,
        told.notes,
    )


@pytest.fixture(scope="module")
def new_pipeline(
    embedded_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Pipeline]]:
    """Makes pipelines on a migrated database and a store of their own, for a module's tests."""
    template = sql.Identifier(TEMPLATE)
    with psycopg.connect(embedded_postgres.url, autocommit=True) as admin, ExitStack() as stack:

        def make() -> Pipeline:
            name = f"degraded_{next(_numbers)}"
            quoted = sql.Identifier(name)
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(quoted, template))
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted)
            stack.callback(admin.execute, drop)
            folder = tmp_path_factory.mktemp("pipeline")
            return Pipeline(
                Postgres(database_url=embedded_postgres.url_of(name)),
                ImageStore(url=(folder / "store").as_uri()),
                folder,
            )

        yield make
