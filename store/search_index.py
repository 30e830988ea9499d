"""The approximate index over vectors: built beside what serves, measured against exact search."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier, Literal


@dataclass(frozen=True)
class IndexFacts:
    """What is known of a table of vectors and its index.

    Attributes:
        rows: Vectors.
        indexed: Whether there is a valid HNSW index.
        measured_rows: Vectors when it was last measured; None: never, or under another spec.
        recall: What was measured then.
    """

    rows: int
    indexed: bool
    measured_rows: int | None
    recall: float | None


def index_facts(db: Connection, table: str, spec: str) -> IndexFacts:
    """What is known of a table of vectors and its index, measured under a spec."""
    with db.cursor(row_factory=class_row(IndexFacts)) as cursor:
        row = cursor.execute(
            SQL(
                """
                SELECT (SELECT count(*) FROM {table}) AS rows,
                       EXISTS (SELECT FROM pg_index AS i
                               JOIN pg_class AS c ON c.oid = i.indexrelid
                               JOIN pg_am AS a ON a.oid = c.relam
                               WHERE i.indrelid = to_regclass(quote_ident(%(table)s))
                                 AND a.amname = 'hnsw' AND i.indisvalid) AS indexed,
                       s.rows AS measured_rows, s.recall
                FROM (SELECT) AS one
                LEFT JOIN search_indexes AS s ON s.table_name = %(table)s AND s.spec = %(spec)s
                """
            ).format(table=Identifier(table)),
            {"table": table, "spec": spec},
        ).fetchone()
    assert row is not None
    return row


@dataclass(frozen=True)
class IndexBuild:
    """How an index is built.

    Attributes:
        m: Neighbours of each vector.
        ef_construction: Candidates looked at for each.
        memory_mb: What the server may hold for it; beyond, building goes on more slowly.
        timeout_s: How long it may take.
    """

    m: int
    ef_construction: int
    memory_mb: int
    timeout_s: float


def build_index(db: Connection, table: str, build: IndexBuild) -> None:
    """Build the HNSW index of a table, beside the one that is there, which it then replaces.

    Vectors can be read and written all the while. What a build that was killed left behind is
    removed first; it was never used.

    Args:
        db: A connection that is in no transaction; its settings are changed, so close it then.
        table: The vectors.
        build: How.

    Raises:
        ValueError: The connection is in a transaction.
    """
    if db.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("an index that stands in nobody's way is built outside a transaction")
    index = Identifier(f"{table}_hnsw")
    new = Identifier(f"{table}_hnsw_new")
    lock = {"lock": f"index of {table}"}
    db.execute(
        """
        SELECT set_config('statement_timeout', %(ms)s, false),
               set_config('maintenance_work_mem', %(memory)s, false)
        """,
        {"ms": str(round(build.timeout_s * 1000)), "memory": f"{build.memory_mb}MB"},
    )
    db.execute("SELECT pg_advisory_lock(hashtext(%(lock)s))", lock)
    try:
        db.execute(SQL("DROP INDEX IF EXISTS {new}").format(new=new))
        db.execute(
            SQL(
                """
                CREATE INDEX CONCURRENTLY {new} ON {table} USING hnsw (embedding halfvec_ip_ops)
                WITH (m = {m}, ef_construction = {ef_construction})
                """
            ).format(
                new=new,
                table=Identifier(table),
                m=Literal(build.m),
                ef_construction=Literal(build.ef_construction),
            )
        )
        with db.transaction():
            db.execute(SQL("DROP INDEX IF EXISTS {index}").format(index=index))
            db.execute(SQL("ALTER INDEX {new} RENAME TO {index}").format(new=new, index=index))
    finally:
        db.execute("SELECT pg_advisory_unlock(hashtext(%(lock)s))", lock)


def drop_index(db: Connection, table: str) -> None:
    """Remove the index of a table that has become small enough to be searched exactly."""
    db.execute(
        SQL("DROP INDEX IF EXISTS {index}").format(index=Identifier(f"{table}_hnsw")),
    )


def sample(db: Connection, table: str, count: int) -> NDArray[np.float32]:
    """Some stored vectors, the same ones until others are stored; shape (at most count, dim)."""
    rows = db.execute(
        SQL(
            """
            SELECT embedding FROM {table} ORDER BY md5(chunk_id), chunk_id LIMIT %(count)s
            """
        ).format(table=Identifier(table)),
        {"count": count},
    ).fetchall()
    vectors = [vector.to_numpy().astype(np.float32) for (vector,) in rows]
    return np.asarray(vectors, np.float32).reshape(len(vectors), -1)


def set_recall(db: Connection, table: str, rows: int, recall: float, spec: str) -> None:
    """Remember what was measured of an index."""
    db.execute(
        """
        INSERT INTO search_indexes (table_name, rows, recall, spec)
        VALUES (%(table)s, %(rows)s, %(recall)s, %(spec)s)
        ON CONFLICT (table_name) DO UPDATE SET
            rows = excluded.rows, recall = excluded.recall, spec = excluded.spec,
            measured_at = now()
        """,
        {"table": table, "rows": rows, "recall": recall, "spec": spec},
    )


def forget_changes(db: Connection, most: int) -> int:
    """Forget which transactions changed what can be found, where there are more than ``most``.

    One that says that this was done takes their place, so the version changes once more.
    """
    with db.transaction():
        row = db.execute("SELECT count(*) FROM search_changes").fetchone()
        assert row is not None
        if row[0] <= most:
            return 0
        return db.execute(
            """
            WITH noted AS (SELECT note_search_change(), pg_current_xact_id() AS xid)
            DELETE FROM search_changes AS c USING noted WHERE c.xid < noted.xid
            """
        ).rowcount
