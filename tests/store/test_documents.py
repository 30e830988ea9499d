import psycopg

import store.documents
import store.page_batches
from core.batches import BatchSpec, divide
from store.documents import Document


def add(db: psycopg.Connection, digest: str) -> None:
    document = Document(digest, f"{digest[:1]}.pdf", 1, 1, "", "ok", "", f"documents/{digest}.pdf")
    store.documents.add(db, document)
    store.page_batches.add(db, divide(digest, 1, BatchSpec()))


def test_documents_come_in_order_of_arrival_though_the_clock_was_set_back(
    db: psycopg.Connection,
) -> None:
    first, second = "b" * 64, "a" * 64
    add(db, first)
    add(db, second)
    db.execute(
        "UPDATE documents SET received_at = now() - interval '30 days' WHERE document_id = %(id)s",
        {"id": second},
    )
    keys = store.page_batches.keys(db)
    for found in (
        store.documents.get(db, [second, first]),
        store.documents.everything(db),
        store.documents.in_batches(db, keys),
    ):
        assert [document.document_id for document in found] == [first, second]
