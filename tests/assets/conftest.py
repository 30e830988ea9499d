"""The whole pipeline on a fresh database and store, in this process."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from upath import UPath

import assets
import store.documents
import store.page_batches
from assets.chunk_embeddings import chunk_embeddings, next_chunk_embeddings
from assets.chunks import chunks
from assets.text_encoders import text_encoders
from core.batches import BatchSpec, divide, runs_of_neighbours
from orchestration.ingest import Received, receive, register_partitions
from orchestration.requests import range_tags
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.memory import MemoryContract, tree_mb
from resources.postgres import Postgres
from resources.settings import CopySearch, Reading
from resources.text_encoder_resource import TextEncoderResource
from store.documents import Document
from tests.resources.tiny_text_encoders import tiny_text_encoder

ORDER = [
    "documents",
    "pages",
    "panels",
    "panel_features",
    "tiles",
    "encoders",
    "tile_embeddings",
    "candidate_pairs",
    "verified_pairs",
    "duplicate_reports",
]

TEXT = (text_encoders, chunks, chunk_embeddings, next_chunk_embeddings)

DIGEST = "a" * 64


class Roomy(MemoryContract):
    """Budgets on top of what the test process holds already, which is more than a step's."""

    room_mb: int = 250

    def granted_mb(self, context: dg.AssetExecutionContext) -> int:
        return int(tree_mb()) + self.room_mb


@dataclass
class Pipeline:
    """Everything a run needs, and how to run some of it."""

    postgres: Postgres
    images: ImageStore
    folder: Path
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    memory: MemoryContract = field(default_factory=Roomy)
    encoder: Encoder = field(default_factory=Encoder)
    reading: Reading = field(default_factory=Reading)

    def receive(self, *paths: Path, pages_per_batch: int = 8) -> list[Received]:
        with self.postgres.connect() as db:
            spec = BatchSpec(pages_per_batch=pages_per_batch)
            found = [receive(db, self.images, UPath(path), spec=spec) for path in paths]
            register_partitions(db, self.instance)
        return found

    def run(
        self,
        received: Sequence[Received] | None = None,
        only: Sequence[str] = ORDER,
        recompute: bool = False,
    ) -> list[dg.ExecuteInProcessResult]:
        ids = [r.document.document_id for r in received if r.document] if received else None
        with self.postgres.connect() as db:
            wanted = store.page_batches.keys(db, ids)
            runs = runs_of_neighbours(wanted, store.page_batches.keys(db))
        return [self.run_keys(keys, only, recompute) for keys in runs]

    def run_keys(
        self, keys: Sequence[str], only: Sequence[str] = ORDER, recompute: bool = False
    ) -> dg.ExecuteInProcessResult:
        chosen = [
            a
            for a in dg.load_assets_from_package_module(assets)
            if isinstance(a, dg.AssetsDefinition) and a.key.to_user_string() in only
        ]
        result = dg.materialize(
            chosen,
            instance=self.instance,
            resources={
                "postgres": self.postgres,
                "images": self.images,
                "memory": self.memory,
                "copy_search": CopySearch(threads=1),
                "encoder": self.encoder,
                "reading": self.reading,
            },
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {name: {"config": {"recompute": recompute}} for name in only},
            },
            tags=range_tags(keys),
            raise_on_error=False,
        )
        for event in result.all_events:
            if event.is_step_failure and (error := event.step_failure_data.error) is not None:
                print(event.step_key, error.to_string()[-1500:])  # pytest shows it on failure
        return result

    def report(self, received: Received, name: str = "pairs.tsv") -> bytes:
        assert received.document is not None
        digest = received.document.document_id
        return self.images.read_bytes(f"reports/{digest[:2]}/{digest}/{name}")


@pytest.fixture
def pipeline(postgres: Postgres, tmp_path: Path) -> Pipeline:
    return Pipeline(postgres, ImageStore(url=(tmp_path / "store").as_uri()), tmp_path)


@pytest.fixture
def new_pipeline(tmp_path: Path) -> Callable[[str, Postgres], Pipeline]:
    def make(name: str, postgres: Postgres) -> Pipeline:
        return Pipeline(postgres, ImageStore(url=(tmp_path / name).as_uri()), tmp_path)

    return make


@dataclass
class Room:
    """A document of which the pages have been read, and the assets of text."""

    postgres: Postgres
    folder: Path
    text_encoder: TextEncoderResource
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    room_mb: int = 600

    def read(self, db: psycopg.Connection, *pages: str, language: str = "eng") -> None:
        document = Document(DIGEST, "a.pdf", 1, len(pages), "", "ok", "", "documents/a.pdf")
        store.documents.add(db, document)
        store.page_batches.add(db, divide(DIGEST, len(pages), BatchSpec(pages_per_batch=8)))
        (key,) = store.page_batches.keys(db)
        self.instance.add_dynamic_partitions("page_batches", [key])
        for number, text in enumerate(pages, start=1):
            place = {"id": DIGEST, "page": number, "key": key}
            db.execute(
                """
                INSERT INTO pages VALUES (%(id)s, %(page)s, %(key)s, 's', 595, 842, '{}', 't')
                """,
                place,
            )
            db.execute(
                """
                INSERT INTO ocr_pages VALUES (%(id)s, %(page)s, %(key)s, 's', 'ocr', %(language)s,
                                              150, 90, %(text)s, '[]', '[]')
                """,
                place | {"text": text, "language": language},
            )

    def run(self, *only: dg.AssetsDefinition, recompute: bool = False) -> dg.ExecuteInProcessResult:
        chosen = only or TEXT
        with self.postgres.connect() as db:
            keys = store.page_batches.keys(db)
        result = dg.materialize(
            list(chosen),
            instance=self.instance,
            partition_key=keys[0],
            resources={
                "postgres": self.postgres,
                "images": ImageStore(url=self.text_encoder.store_url),
                "memory": Roomy(room_mb=self.room_mb),
                "text_encoder": self.text_encoder,
            },
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {
                    a.key.to_user_string(): {"config": {"recompute": recompute}} for a in chosen
                },
            },
            raise_on_error=False,
        )
        for event in result.all_events:
            if event.is_step_failure and (error := event.step_failure_data.error) is not None:
                print(event.step_key, error.to_string()[-1500:])  # pytest shows it on failure
        return result

    def use(self, spec: str) -> TextEncoderResource:
        self.text_encoder = TextEncoderResource(spec=spec, store_url=self.text_encoder.store_url)
        return self.text_encoder


@pytest.fixture
def room(postgres: Postgres, tmp_path: Path) -> Room:
    """With an encoder of few words, which is loaded in no time."""
    url = (tmp_path / "store").as_uri()
    spec = tiny_text_encoder(tmp_path / "encoder")
    return Room(postgres, tmp_path, TextEncoderResource(spec=spec, store_url=url))


def until_somebody_waits(db: psycopg.Connection) -> None:
    """Return once another session of this database waits for a lock; it may take ten seconds."""
    deadline = time.monotonic() + 10
    while not db.execute(
        """
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
        """
    ).fetchall():
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> list[dict[str, Any]]:
    """Metadata of each materialization of an asset in a run."""
    return [
        {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(asset)
    ]
