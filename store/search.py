"""Search: passages by their vectors and by their words, under filters that are bound values.

Every connection plans each statement anew (``prepare_threshold=None``): a plan kept for any filter
would ignore what this one leaves.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier, Literal

from core.chunks import configuration_of
from core.search import NO_FILTERS, Coverage, Filters, Ranked


@dataclass(frozen=True)
class State:
    """What can be searched at this moment.

    Attributes:
        version: Changes with everything that can be found.
        chunk_set: The passages that are looked at; empty where there are none.
        table: Vectors of the encoder in use; empty where it has none.
        about: How many those are, as the server last estimated; less than 0 where it never did.
        indexed: Whether the table has an HNSW index.
        recall: What was last measured of the index; None where it never was.
    """

    version: str
    chunk_set: str
    table: str
    about: float
    indexed: bool
    recall: float | None


def state(db: Connection, encoder_id: str) -> State:
    """What can be searched at this moment.

    Args:
        db: A connection.
        encoder_id: The encoder in use; empty for none: the passages of the one that serves, or of
            the latest, are looked at by their words.
    """
    with db.cursor(row_factory=class_row(State)) as cursor:
        row = cursor.execute(
            """
            WITH chosen AS (
                SELECT table_name, chunk_set, encoder_id = %(encoder_id)s AS in_use
                FROM text_encoders AS e
                ORDER BY encoder_id = %(encoder_id)s DESC,
                         (SELECT max(switch_id) FROM text_encoder_switches AS s
                          WHERE s.encoder_id = e.encoder_id) DESC NULLS LAST,
                         created_at DESC
                LIMIT 1
            ), searched AS (
                SELECT coalesce((SELECT chunk_set FROM chosen),
                                (SELECT chunk_set FROM chunks ORDER BY chunk_set LIMIT 1), '')
                           AS chunk_set,
                       coalesce((SELECT table_name FROM chosen WHERE in_use), '') AS table_name
            )
            SELECT (SELECT count(*) FROM search_changes) || '-' ||
                   coalesce((SELECT xid FROM search_changes ORDER BY xid DESC LIMIT 1)::text, '0')
                       AS version,
                   chunk_set, table_name AS "table",
                   coalesce((SELECT reltuples FROM pg_class
                             WHERE oid = to_regclass(nullif(table_name, ''))), -1) AS about,
                   EXISTS (SELECT FROM pg_index AS i
                           JOIN pg_class AS c ON c.oid = i.indexrelid
                           JOIN pg_am AS a ON a.oid = c.relam
                           WHERE i.indrelid = to_regclass(nullif(table_name, ''))
                             AND a.amname = 'hnsw' AND i.indisvalid) AS indexed,
                   (SELECT recall FROM search_indexes AS m
                    WHERE m.table_name = searched.table_name) AS recall
            FROM searched
            """,
            {"encoder_id": encoder_id},
        ).fetchone()
    assert row is not None
    return row


def languages(db: Connection, chunk_set: str) -> list[str]:
    """The languages of the passages of a set, a look at the index for each."""
    rows = db.execute(
        """
        WITH RECURSIVE spoken AS (
            (SELECT language FROM chunks WHERE chunk_set = %(chunk_set)s
             ORDER BY language LIMIT 1)
            UNION ALL
            SELECT (SELECT c.language FROM chunks AS c
                    WHERE c.chunk_set = %(chunk_set)s AND c.language > spoken.language
                    ORDER BY c.language LIMIT 1)
            FROM spoken WHERE spoken.language IS NOT NULL
        )
        SELECT language FROM spoken WHERE language IS NOT NULL
        """,
        {"chunk_set": chunk_set},
    ).fetchall()
    return [language for (language,) in rows]


def documents_called(db: Connection, names: Sequence[str]) -> list[tuple[str, str]]:
    """The documents that ids or names mean: each with the word that means it, and its id."""
    return db.execute(
        """
        SELECT wanted, document_id FROM unnest(%(names)s::text[]) AS wanted
        JOIN documents ON document_id = wanted OR name = wanted
        ORDER BY document_id, wanted
        """,
        {"names": list(names)},
    ).fetchall()


def matching(db: Connection, chunk_set: str, filters: Filters, most: int) -> int:
    """How many passages a filter leaves, counted up to ``most``."""
    row = db.execute(
        """
        SELECT count(*)::int FROM (
            SELECT FROM searched_chunks(
                %(chunk_set)s, %(documents)s, %(first_page)s, %(last_page)s, %(languages)s,
                %(kinds)s, %(since)s, %(until)s)
            LIMIT %(most)s) AS few
        """,
        {**_bound(chunk_set, filters), "most": most},
    ).fetchone()
    assert row is not None
    return row[0]


def coverage(db: Connection, chunk_set: str, filters: Filters) -> Coverage:
    """How much of what a query may look at has been read and cut into passages.

    Pages that are not read have no language and no kind: of a filter, documents, days and pages
    decide which ones are counted. Vectors are counted by ``embedded``.
    """
    with db.cursor(row_factory=class_row(Coverage)) as cursor:
        row = cursor.execute(
            """
            WITH scope AS MATERIALIZED (
                SELECT document_id, page_count, status FROM documents
                WHERE (%(documents)s::text[] IS NULL OR document_id = ANY(%(documents)s))
                  AND (%(since)s::date IS NULL
                       OR received_at >= %(since)s::timestamp AT TIME ZONE 'UTC')
                  AND (%(until)s::date IS NULL
                       OR received_at < (%(until)s::date + 1)::timestamp AT TIME ZONE 'UTC')
            ), failed AS MATERIALIZED (
                SELECT DISTINCT split_part(unit, ':', 1) AS document_id,
                       split_part(unit, ':', 2) AS page
                FROM work WHERE asset IN ('pages', 'ocr_pages') AND status = 'failed'
            )
            SELECT (SELECT count(*) FROM scope)::int AS documents,
                   (SELECT count(*) FROM scope WHERE status = 'failed')::int AS documents_failed,
                   (SELECT coalesce(sum(greatest(0,
                               least(page_count, coalesce(%(last_page)s::int, page_count))
                               - coalesce(%(first_page)s::int, 1) + 1)), 0)
                    FROM scope WHERE status <> 'failed')::int AS pages,
                   (SELECT count(*) FROM ocr_pages AS o JOIN scope USING (document_id)
                    WHERE (%(first_page)s::int IS NULL OR o.page >= %(first_page)s)
                      AND (%(last_page)s::int IS NULL OR o.page <= %(last_page)s))::int
                       AS pages_read,
                   (SELECT count(*) FROM failed JOIN scope USING (document_id)
                    CROSS JOIN LATERAL (SELECT CASE WHEN failed.page ~ '^[0-9]{1,9}$'
                                                    THEN failed.page::int END) AS f (page)
                    WHERE f.page BETWEEN coalesce(%(first_page)s, 1)
                                     AND coalesce(%(last_page)s, page_count)
                      AND NOT EXISTS (SELECT FROM ocr_pages AS o
                                      WHERE o.document_id = failed.document_id
                                        AND o.page = f.page))::int AS pages_failed,
                   (SELECT count(*) FROM ocr_pages AS o JOIN scope USING (document_id)
                    WHERE (%(first_page)s::int IS NULL OR o.page >= %(first_page)s)
                      AND (%(last_page)s::int IS NULL OR o.page <= %(last_page)s)
                      AND o.text <> ''
                      AND NOT EXISTS (SELECT FROM chunks AS c
                                      WHERE c.document_id = o.document_id AND c.page = o.page
                                        AND c.chunk_set = %(chunk_set)s))::int AS pages_undivided,
                   (SELECT count(*) FROM searched_chunks(
                        %(chunk_set)s, %(documents)s, %(first_page)s, %(last_page)s, %(languages)s,
                        %(kinds)s, %(since)s, %(until)s))::int AS passages,
                   0 AS passages_embedded
            """,
            _bound(chunk_set, filters),
        ).fetchone()
    assert row is not None
    return row


def embedded(db: Connection, table: str, chunk_set: str, filters: Filters) -> int:
    """How many of the passages that a filter leaves have a vector in a table."""
    if filters == NO_FILTERS:  # every row of the table: an encoder reads one set of passages
        row = db.execute(
            SQL("SELECT count(*)::int FROM {table}").format(table=Identifier(table))
        ).fetchone()
    else:
        row = db.execute(
            SQL(
                """
                SELECT count(*)::int FROM {table} JOIN searched_chunks(
                    %(chunk_set)s, %(documents)s, %(first_page)s, %(last_page)s, %(languages)s,
                    %(kinds)s, %(since)s, %(until)s) USING (chunk_id)
                """
            ).format(table=Identifier(table)),
            _bound(chunk_set, filters),
        ).fetchone()
    assert row is not None
    return row[0]


def nearest_exact(
    db: Connection,
    table: str,
    chunk_set: str,
    vector: NDArray[np.float32],
    filters: Filters,
    limit: int,
    *,
    few: bool = False,
) -> list[Ranked]:
    """The nearest passages of those that a filter leaves, every one of them compared.

    The sum in the order keeps the planner from answering by the index, which may miss some. Where
    the filter leaves ``few`` of all, their vectors are looked up by key: the planner, which knows
    less of what it leaves, reads all of them.
    """
    values = {**_bound(chunk_set, filters), "vector": HalfVector(vector), "limit": limit}
    if filters == NO_FILTERS:  # every row of the table: an encoder reads one set of passages
        rows = db.execute(
            SQL(
                """
                SELECT chunk_id, -(embedding <#> %(vector)s) FROM {table}
                ORDER BY 0 + (embedding <#> %(vector)s), chunk_id LIMIT %(limit)s
                """
            ).format(table=Identifier(table)),
            values,
        ).fetchall()
    elif few:
        rows = db.execute(
            SQL(
                """
                SELECT chunk_id, -(embedding <#> %(vector)s) FROM {table}
                WHERE chunk_id = ANY (ARRAY(SELECT chunk_id FROM searched_chunks(
                    %(chunk_set)s, %(documents)s, %(first_page)s, %(last_page)s, %(languages)s,
                    %(kinds)s, %(since)s, %(until)s)))
                ORDER BY 0 + (embedding <#> %(vector)s), chunk_id LIMIT %(limit)s
                """
            ).format(table=Identifier(table)),
            values,
        ).fetchall()
    else:
        rows = db.execute(
            SQL(
                """
                SELECT chunk_id, -(embedding <#> %(vector)s)
                FROM {table} JOIN searched_chunks(
                    %(chunk_set)s, %(documents)s, %(first_page)s, %(last_page)s, %(languages)s,
                    %(kinds)s, %(since)s, %(until)s) USING (chunk_id)
                ORDER BY 0 + (embedding <#> %(vector)s), chunk_id LIMIT %(limit)s
                """
            ).format(table=Identifier(table)),
            values,
        ).fetchall()
    return [Ranked(chunk_id, score) for chunk_id, score in rows]


def nearest_indexed(
    db: Connection,
    table: str,
    chunk_set: str,
    vector: NDArray[np.float32],
    filters: Filters,
    limit: int,
    ef_search: int,
) -> list[Ranked]:
    """The nearest passages that the HNSW index finds: nearly all of them, and sometimes too few.

    The index is walked on until the filter has left enough or 20,000 were looked at (pgvector's
    ``max_scan_tuples``), so fewer than ``limit`` says nothing about how many there are.
    """
    values = {**_bound(chunk_set, filters), "vector": HalfVector(vector), "limit": limit}
    with _by_index(db, ef_search):
        if filters == NO_FILTERS:
            rows = db.execute(
                SQL(
                    """
                    SELECT chunk_id, -(embedding <#> %(vector)s) FROM {table}
                    ORDER BY embedding <#> %(vector)s LIMIT %(limit)s
                    """
                ).format(table=Identifier(table)),
                values,
            ).fetchall()
        else:
            rows = db.execute(
                SQL(
                    """
                    SELECT chunk_id, -(embedding <#> %(vector)s)
                    FROM {table} JOIN searched_chunks(
                        %(chunk_set)s, %(documents)s, %(first_page)s, %(last_page)s, %(languages)s,
                        %(kinds)s, %(since)s, %(until)s) USING (chunk_id)
                    ORDER BY embedding <#> %(vector)s LIMIT %(limit)s
                    """
                ).format(table=Identifier(table)),
                values,
            ).fetchall()
    # Relaxed order is nearly the order.
    return [Ranked(*row) for row in sorted(rows, key=lambda row: (-row[1], row[0]))]


@dataclass(frozen=True)
class Worded:
    """Passages by their words.

    Attributes:
        passages: The best first.
        capped: Whether more passages have the words than were ranked.
    """

    passages: list[Ranked]
    capped: bool


def with_all_words(
    db: Connection,
    chunk_set: str,
    text: str,
    languages: Sequence[str],
    filters: Filters,
    limit: int,
    ranked_rows: int,
) -> Worded:
    """Passages that have the words as asked for, each passage read by the rules of its language.

    Args:
        db: A connection.
        chunk_set: The passages.
        text: As ``websearch_to_tsquery`` reads it: quotes, minus, ``or``.
        languages: Of the stored passages.
        filters: Which passages.
        limit: How many.
        ranked_rows: How many of those with the words are ranked.
    """
    values = {
        **_bound(chunk_set, filters),
        **_spoken(languages),
        "text": text,
        "limit": limit,
        "ranked_rows": ranked_rows,
    }
    rows = db.execute(
        """
        WITH asked AS MATERIALIZED (
            SELECT spoken.language,
                   websearch_to_tsquery(configuration::regconfig, %(text)s) AS query
            FROM unnest(%(spoken)s::text[], %(configurations)s::text[])
                 AS spoken (language, configuration)
        ), found AS MATERIALIZED (
            SELECT c.chunk_id, c.tsv, asked.query
            FROM asked JOIN searched_chunks(
                %(chunk_set)s, %(documents)s, %(first_page)s, %(last_page)s, %(languages)s,
                %(kinds)s, %(since)s, %(until)s) AS c
              ON c.language = asked.language AND c.tsv @@ asked.query
            LIMIT %(ranked_rows)s + 1
        )
        SELECT chunk_id, ts_rank_cd(tsv, query, 1)::double precision AS score,
               (SELECT count(*) FROM found) > %(ranked_rows)s AS capped
        FROM found ORDER BY score DESC, chunk_id LIMIT %(limit)s
        """,
        values,
    ).fetchall()
    return _worded(rows)


def with_any_word(
    db: Connection,
    chunk_set: str,
    text: str,
    languages: Sequence[str],
    filters: Filters,
    limit: int,
    telling_rows: int,
) -> list[Ranked]:
    """Passages that have some of the words, each word counting the more, the fewer have it.

    A word that more than ``telling_rows`` passages have, in whichever language, counts nothing: it
    tells little, and to gather all of them would take longer than everything else. Other arguments
    as for ``with_all_words``.
    """
    rows = db.execute(
        """
        WITH asked AS MATERIALIZED (
            SELECT spoken.language, lexeme
            FROM unnest(%(spoken)s::text[], %(configurations)s::text[])
                 AS spoken (language, configuration)
            CROSS JOIN LATERAL unnest(tsvector_to_array(
                to_tsvector(configuration::regconfig, %(text)s))) AS lexeme
        ), found AS MATERIALIZED (
            SELECT lexeme, array_agg(holder.chunk_id) AS holders,
                   array_agg(holder.language) AS languages
            FROM (SELECT DISTINCT lexeme FROM asked) AS sought CROSS JOIN LATERAL (
                SELECT c.chunk_id, c.language FROM searched_chunks(
                    %(chunk_set)s, %(documents)s, %(first_page)s, %(last_page)s, %(languages)s,
                    %(kinds)s, %(since)s, %(until)s) AS c
                WHERE c.tsv @@ lexeme_query(sought.lexeme)
                LIMIT %(telling_rows)s + 1) AS holder
            GROUP BY lexeme HAVING count(*) <= %(telling_rows)s
        ), telling AS MATERIALIZED (
            SELECT *, 1 + ln((%(telling_rows)s + 1.0) / cardinality(holders)) AS worth FROM found
        )
        SELECT chunk_id, sum(worth)::double precision AS score
        FROM telling CROSS JOIN LATERAL unnest(holders, languages) AS holder (chunk_id, language)
        WHERE (language, lexeme) IN (SELECT language, lexeme FROM asked)
        GROUP BY chunk_id ORDER BY score DESC, chunk_id LIMIT %(limit)s
        """,
        {
            **_bound(chunk_set, filters),
            **_spoken(languages),
            "text": text,
            "limit": limit,
            "telling_rows": telling_rows,
        },
    ).fetchall()
    return [Ranked(chunk_id, score) for chunk_id, score in rows]


@dataclass(frozen=True)
class Passage:
    """A passage with what is shown of it.

    ``words`` are those of its span as pages store them, and a few before and after it.
    """

    chunk_id: str
    document_id: str
    document: str
    page: int
    start_char: int
    end_char: int
    text: str
    kind: str
    language: str
    words: list[list[float]]


def passages(db: Connection, chunk_ids: Sequence[str]) -> list[Passage]:
    """Passages by id, in no order.

    Words of a page stand in the order of their spans, so a look at every sixteenth tells which of
    them belong to a passage; the others are neither taken apart nor sent.
    """
    with db.cursor(row_factory=class_row(Passage)) as cursor:
        return cursor.execute(
            """
            SELECT c.chunk_id, c.document_id, d.name AS document, c.page, c.start_char, c.end_char,
                   c.text, c.kind, c.language,
                   jsonb_path_query_array(
                       unpacked.words, '$[$first to $last]',
                       jsonb_build_object('first', span.first, 'last', span.last)) AS words
            FROM chunks AS c
            JOIN documents AS d USING (document_id) JOIN ocr_pages AS o USING (document_id, page)
            CROSS JOIN LATERAL (SELECT o.words #> '{}' AS words OFFSET 0) AS unpacked
            CROSS JOIN LATERAL (
                SELECT coalesce(max(place) FILTER (WHERE start <= c.start_char), 0) AS first,
                       coalesce(min(place) FILTER (WHERE start >= c.end_char),
                                jsonb_array_length(unpacked.words)) AS last
                FROM generate_series(0, jsonb_array_length(unpacked.words) - 1, 16) AS place
                CROSS JOIN LATERAL (SELECT (unpacked.words -> place ->> 0)::int) AS w (start)
            ) AS span
            WHERE c.chunk_id = ANY(%(ids)s)
            """,
            {"ids": list(chunk_ids)},
        ).fetchall()


@dataclass(frozen=True)
class ListedDocument:
    """A document as it is listed: what it is, and how much of it can be found."""

    document_id: str
    name: str
    title: str
    size_bytes: int
    pages: int
    status: str
    reason: str
    received_at: datetime
    pages_read: int
    passages: int


def documents(db: Connection, chunk_set: str, limit: int, offset: int) -> list[ListedDocument]:
    """Documents, the latest first."""
    with db.cursor(row_factory=class_row(ListedDocument)) as cursor:
        return cursor.execute(
            """
            SELECT document_id, name, title, size_bytes, page_count AS pages, status, reason,
                   received_at,
                   (SELECT count(*) FROM ocr_pages AS o
                    WHERE o.document_id = d.document_id)::int AS pages_read,
                   (SELECT count(*) FROM chunks AS c
                    WHERE c.document_id = d.document_id
                      AND c.chunk_set = %(chunk_set)s)::int AS passages
            FROM documents AS d
            ORDER BY received_at DESC, document_id LIMIT %(limit)s OFFSET %(offset)s
            """,
            {"chunk_set": chunk_set, "limit": limit, "offset": offset},
        ).fetchall()


def _bound(chunk_set: str, filters: Filters) -> dict[str, Any]:
    """The values of a filter; None leaves everything."""
    return {
        "chunk_set": chunk_set,
        "documents": list(filters.documents) or None,
        "first_page": filters.first_page,
        "last_page": filters.last_page,
        "languages": list(filters.languages) or None,
        "kinds": list(filters.kinds) or None,
        "since": filters.since,
        "until": filters.until,
    }


def _spoken(languages: Sequence[str]) -> dict[str, Any]:
    """Languages, and by which rules Postgres reads the words of each."""
    return {
        "spoken": list(languages),
        "configurations": [configuration_of(language) for language in languages],
    }


def _worded(rows: Sequence[tuple[str, float, bool]]) -> Worded:
    ranked = [Ranked(chunk_id, score) for chunk_id, score, _ in rows]
    return Worded(ranked, capped=bool(rows) and rows[0][2])


@contextmanager
def _by_index(db: Connection, ef_search: int) -> Generator[None]:
    """Have the planner answer by the HNSW index, and as it likes afterwards.

    Left to itself it sorts what a filter leaves, or takes the index for a filter that leaves ten.
    """
    idle = db.info.transaction_status == TransactionStatus.IDLE
    with db.transaction() if idle else nullcontext():
        db.execute(
            SQL(
                """
                SET LOCAL hnsw.ef_search = {ef_search};
                SET LOCAL hnsw.iterative_scan = relaxed_order;
                SET LOCAL enable_seqscan = off;
                SET LOCAL enable_sort = off;
                SET LOCAL enable_hashjoin = off;
                SET LOCAL enable_mergejoin = off
                """
            ).format(ef_search=Literal(ef_search))
        )
        yield
        db.execute(
            """
            SET LOCAL enable_seqscan TO DEFAULT;
            SET LOCAL enable_sort TO DEFAULT;
            SET LOCAL enable_hashjoin TO DEFAULT;
            SET LOCAL enable_mergejoin TO DEFAULT
            """
        )
