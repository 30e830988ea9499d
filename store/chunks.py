"""Chunks: passages of what a page says, each with its place there and its words for full text."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job


@dataclass(frozen=True)
class Chunk:
    """A passage as it is stored; see the table for what the fields mean.

    Attributes:
        readable: The same passage as full text reads it; not stored as such.
        configuration: Postgres's text search configuration for it.
    """

    chunk_id: str
    chunk_set: str
    spec: str
    ordinal: int
    start_char: int
    end_char: int
    text: str
    tokens: int
    language: str
    kind: str
    readable: str
    configuration: str


@dataclass(frozen=True)
class PendingChunks:
    """A page whose chunks are still to be embedded, in order."""

    unit: str
    batch_key: str
    chunk_ids: list[str]
    texts: list[str]


def replace(
    db: Connection, document_id: str, page: int, chunk_sets: Sequence[str], chunks: Sequence[Chunk]
) -> None:
    """Store the chunks of a page in place of what some sets had of it.

    A chunk that is there keeps its place, and so do its vectors.

    Args:
        db: A connection.
        document_id: The page's document.
        page: Its number.
        chunk_sets: The sets that are replaced; other ones stay as they are.
        chunks: All chunks of the page in those sets.
    """
    place = {"document_id": document_id, "page": page}
    db.execute(
        """
        DELETE FROM chunks
        WHERE document_id = %(document_id)s AND page = %(page)s AND chunk_set = ANY(%(sets)s)
          AND chunk_id <> ALL(%(kept)s)
        """,
        {**place, "sets": list(chunk_sets), "kept": [chunk.chunk_id for chunk in chunks]},
    )
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO chunks
                (chunk_id, document_id, page, batch_key, chunk_set, spec, ordinal, start_char,
                 end_char, text, tokens, language, kind, tsv)
            SELECT %(chunk_id)s, document_id, page, batch_key, %(chunk_set)s, %(spec)s, %(ordinal)s,
                   %(start_char)s, %(end_char)s, %(text)s, %(tokens)s, %(language)s, %(kind)s,
                   to_tsvector((SELECT oid::regconfig FROM pg_ts_config
                                WHERE cfgname = %(configuration)s), %(readable)s)
            FROM ocr_pages WHERE document_id = %(document_id)s AND page = %(page)s
            ON CONFLICT (chunk_id) DO UPDATE SET
                spec = excluded.spec, ordinal = excluded.ordinal, tokens = excluded.tokens,
                language = excluded.language, kind = excluded.kind, tsv = excluded.tsv
            """,
            [place | vars(chunk) for chunk in chunks],
        )


def pending(db: Connection, job: Job, chunk_set: str, limit: int) -> list[PendingChunks]:
    """Pages whose chunks of one set the job has still to embed, in order; none without chunks."""
    with db.cursor(row_factory=class_row(PendingChunks)) as cursor:
        return cursor.execute(
            """
            SELECT page_unit(document_id, page) AS unit, batch_key,
                   array_agg(chunk_id ORDER BY ordinal) AS chunk_ids,
                   array_agg(text ORDER BY ordinal) AS texts
            FROM chunks
            WHERE batch_key = ANY(%(keys)s) AND chunk_set = %(chunk_set)s
              AND NOT is_done(%(asset)s, page_unit(document_id, page), %(spec)s, %(budget_mb)s)
            GROUP BY document_id, page, batch_key
            ORDER BY document_id, page
            LIMIT %(limit)s
            """,
            {
                "keys": list(job.batch_keys),
                "chunk_set": chunk_set,
                "asset": job.asset,
                "spec": job.spec,
                "budget_mb": job.budget_mb,
                "limit": limit,
            },
        ).fetchall()


def are_still(db: Connection, page: PendingChunks, chunk_set: str) -> bool:
    """Whether a page has the chunks that it had when they were taken up.

    Whoever reads the page anew, or divides it, waits until the transaction ends.
    """
    document_id, _, number = page.unit.rpartition(":")
    place = {"document_id": document_id, "page": int(number), "chunk_set": chunk_set}
    db.execute(
        """
        SELECT FROM ocr_pages WHERE document_id = %(document_id)s AND page = %(page)s
        FOR NO KEY UPDATE
        """,
        place,
    )
    rows = db.execute(
        """
        SELECT chunk_id FROM chunks
        WHERE document_id = %(document_id)s AND page = %(page)s AND chunk_set = %(chunk_set)s
        ORDER BY ordinal
        """,
        place,
    ).fetchall()
    return [chunk_id for (chunk_id,) in rows] == page.chunk_ids


def units(db: Connection, chunk_ids: Sequence[str]) -> dict[str, str]:
    """The page of each of some chunks, as the ledger names it."""
    rows = db.execute(
        """
        SELECT chunk_id, page_unit(document_id, page) FROM chunks
        WHERE chunk_id = ANY(%(ids)s)
        """,
        {"ids": list(chunk_ids)},
    ).fetchall()
    return dict(rows)
