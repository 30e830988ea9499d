"""Panel features: packed local features, the strongest of them again for the search."""

from collections.abc import Iterator, Sequence

from psycopg import Connection


def add(
    db: Connection, panel_id: str, spec: str, keypoints: int, features: bytes, index: bytes
) -> None:
    """Store the features of one panel."""
    db.execute(
        """
        INSERT INTO panel_features (panel_id, spec, keypoints, features, index_features)
        VALUES (%(panel_id)s, %(spec)s, %(keypoints)s, %(features)s, %(index)s)
        ON CONFLICT (panel_id, spec) DO UPDATE SET
            keypoints = excluded.keypoints, features = excluded.features,
            index_features = excluded.index_features
        """,
        {
            "panel_id": panel_id,
            "spec": spec,
            "keypoints": keypoints,
            "features": features,
            "index": index,
        },
    )


def get(db: Connection, spec: str, panel_ids: Sequence[str]) -> dict[str, bytes]:
    """Packed features by panel id."""
    rows = db.execute(
        """
        SELECT panel_id, features FROM panel_features
        WHERE spec = %(spec)s AND panel_id = ANY(%(ids)s)
        """,
        {"spec": spec, "ids": list(panel_ids)},
    ).fetchall()
    return {panel_id: features for panel_id, features in rows}


def index(db: Connection, spec: str, panel_ids: Sequence[str]) -> dict[str, bytes]:
    """Packed index features by panel id."""
    rows = db.execute(
        """
        SELECT panel_id, index_features FROM panel_features
        WHERE spec = %(spec)s AND panel_id = ANY(%(ids)s)
        """,
        {"spec": spec, "ids": list(panel_ids)},
    ).fetchall()
    return {panel_id: features for panel_id, features in rows}


def count(db: Connection, spec: str, most: int) -> int:
    """How many panels have features of one spec, counted up to ``most``."""
    row = db.execute(
        """
        SELECT count(*)::int FROM (
            SELECT FROM panel_features WHERE spec = %(spec)s LIMIT %(most)s) AS found
        """,
        {"spec": spec, "most": most},
    ).fetchone()
    assert row is not None
    return row[0]


def stored_blocks(
    db: Connection, spec: str, panels_per_block: int
) -> Iterator[list[tuple[str, bytes]]]:
    """All stored index features of one spec, a bounded block at a time, ordered by panel id."""
    after = ""
    while True:
        rows = db.execute(
            """
            SELECT panel_id, index_features FROM panel_features
            WHERE spec = %(spec)s AND panel_id > %(after)s
            ORDER BY panel_id LIMIT %(limit)s
            """,
            {"spec": spec, "after": after, "limit": panels_per_block},
        ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield rows
        del rows  # the next block is read without this one in memory
