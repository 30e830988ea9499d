"""Passages for tests of search, stored as the assets do it, with vectors of a small encoder."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

import store.batches
import store.chunk_embeddings
import store.chunks
from core.chunks import configuration_of
from core.text_encoders import Encoded, Kind, TextEncoderSpec
from store.chunks import Chunk


@dataclass
class WordEncoder:
    """Texts with the same words have the same vector: each word points somewhere of its own.

    Words of the same meaning share a direction, so that meaning finds what words do not.
    """

    dim: int = 48
    same: dict[str, str] = field(default_factory=lambda: {"feline": "cat", "automobile": "car"})
    calls: int = 0

    @property
    def spec(self) -> TextEncoderSpec:
        return TextEncoderSpec("test/words", "1", "0" * 64, "", "", self.dim, 256)

    def count(self, text: str, kind: Kind) -> int:
        return len(text.split())

    def encode(self, texts: Sequence[str], kind: Kind) -> Encoded:
        self.calls += 1
        vectors = np.asarray([self._vector(text) for text in texts], np.float32)
        tokens = tuple(self.count(text, kind) for text in texts)
        nothing = (0,) * len(texts)
        return Encoded(vectors, tokens, nothing, nothing)

    def _vector(self, text: str) -> np.ndarray:
        total = np.full(self.dim, 1e-3)
        for word in re.findall(r"\w+", text.lower()):
            known = self.same.get(word) or word
            seed = hashlib.sha256(known.encode()).digest()[:8]
            total += np.random.default_rng(int.from_bytes(seed)).normal(size=self.dim)
        return total / np.linalg.norm(total)


@dataclass(frozen=True)
class Said:
    """A page with one passage: its whole text."""

    document: str
    page: int
    text: str
    language: str = "eng"
    kind: str = "ocr"
    received: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    @property
    def document_id(self) -> str:
        return hashlib.sha256(self.document.encode()).hexdigest()

    @property
    def chunk_id(self) -> str:
        return hashlib.sha256(f"{self.document}:{self.page}:{self.text}".encode()).hexdigest()[:32]


def boxed(text: str) -> list[list[float]]:
    """A box for each word, ten words a line."""
    return [
        [word.start(), word.end(), 50.0 * (i % 10), 20.0 * (i // 10), 50.0 * (i % 10) + 40,
         20.0 * (i // 10) + 10, 90.0]
        for i, word in enumerate(re.finditer(r"\S+", text))
    ]  # fmt: skip


def keep(
    db: psycopg.Connection, pages: Sequence[Said], encoder: WordEncoder, *, embed: bool = True
) -> str:
    """Store pages as read, with their passages and vectors; returns the table of vectors."""
    spec = encoder.spec
    table = store.chunk_embeddings.table_of(db, spec.encoder_id, spec.dim, spec.chunk_set)
    with db.transaction(), db.cursor() as cursor:
        store.batches.add(db, "page", ["batch-1"])
        counts: dict[str, int] = {}
        for said in pages:
            counts[said.document] = max(counts.get(said.document, 0), said.page)
        first = {said.document: said for said in pages}
        cursor.executemany(
            """
            INSERT INTO documents
                (document_id, name, size_bytes, page_count, status, file_key, received_at)
            VALUES (%s, %s, 1, %s, 'ok', 'documents/x', %s) ON CONFLICT DO NOTHING
            """,
            [(s.document_id, s.document, counts[s.document], s.received) for s in first.values()],
        )
        cursor.executemany(
            """
            INSERT INTO pages VALUES (%s, %s, 'batch-1', 's', 612, 792, '{}', '')
            ON CONFLICT DO NOTHING
            """,
            [(said.document_id, said.page) for said in pages],
        )
        cursor.executemany(
            """
            INSERT INTO ocr_pages VALUES (%s, %s, 'batch-1', 's', %s, %s, 150, 90, %s, %s, '[]')
            ON CONFLICT DO NOTHING
            """,
            [
                (s.document_id, s.page, s.kind, s.language, s.text, Jsonb(boxed(s.text)))
                for s in pages
            ],
        )
        for said in pages:
            chunk = Chunk(
                said.chunk_id, spec.chunk_set, "s", 0, 0, len(said.text), said.text,
                len(said.text.split()), said.language, said.kind, said.text,
                configuration_of(said.language),
            )  # fmt: skip
            store.chunks.replace(db, said.document_id, said.page, [spec.chunk_set], [chunk])
        if embed:
            vectors = encoder.encode([said.text for said in pages], "passage").vectors
            store.chunk_embeddings.replace(db, table, [said.chunk_id for said in pages], vectors)
            embedded(db, pages)
    return table


def embedded(db: psycopg.Connection, pages: Sequence[Said]) -> None:
    """What the ledger says once vectors are stored."""
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO work (asset, unit, spec, batch_key, status, made, run_id)
            VALUES ('chunk_embeddings', %s, 's', 'batch-1', 'ok', 1, 'r')
            ON CONFLICT (asset, unit, spec) DO UPDATE SET done_at = now()
            """,
            [(f"{said.document_id}:{said.page}",) for said in pages],
        )
