"""Documents: the files as received, checked."""

import hashlib
from pathlib import Path
from typing import Any

import dagster as dg

import store.documents
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.errors import InputError
from core.text import visible
from core.work import Job, Outcome, Status, spec_id
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from store.database import Db
from store.documents import PendingDocument

SPEC = spec_id("documents", 1)

COLUMNS = [
    dg.TableColumn("document", "string"),
    dg.TableColumn("pages", "int"),
    dg.TableColumn("status", "string"),
    dg.TableColumn("reason", "string"),
]


@dg.asset(
    partitions_def=page_batches,
    group_name="ingest",
    kinds={"pdf", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=200),
    backfill_policy=per_batches,
    check_specs=[complete_check("documents")],
)
def documents(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
) -> dg.MaterializeResult:
    """The files as received, told apart by their SHA-256.

    The same file twice is one document; its name is shown to people and never used as a path. Each
    stored file is read once more and must still hash to its id. A file that cannot be opened stays
    here with the reason, and ends in a report that says so.
    """

    def check(item: PendingDocument) -> tuple[str, str]:
        if item.document.status == Status.FAILED:
            return item.document.status, item.document.reason
        if not images.exists(item.document.file_key):
            raise InputError(
                f"the stored copy of {item.document.name} is missing; add the file again"
            )
        with images.local(item.document.file_key) as path:
            found = _sha256(path)
        if found != item.document.document_id:
            raise InputError(
                f"the stored copy of {item.document.name} has changed since it was received; "
                "add the file again"
            )
        return item.document.status, item.document.reason

    def keep(db: Db, job: Job, item: PendingDocument, result: tuple[str, str]) -> Outcome:
        status, reason = result
        return Outcome(item.unit, item.batch_key, Status(status), made=1, reason=reason)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        found = store.documents.in_batches(db, job.batch_keys)
        records = [
            dg.TableRecord(
                {
                    "document": visible(d.name)[:300],
                    "pages": d.page_count,
                    "status": d.status,
                    "reason": visible(d.reason)[:1000],
                }
            )
            for d in found[:50]
        ]
        return {
            "documents": len(found),
            "pages": sum(d.page_count for d in found),
            # A table: names are shown as they are, where Markdown would make links of them.
            "list": dg.MetadataValue.table(records, dg.TableSchema(COLUMNS)),
        }

    return work_through(
        context,
        postgres,
        memory,
        spec=SPEC,
        recompute=config.recompute,
        pending=store.documents.pending,
        compute=each(check),
        keep=keep,
        item_mb=lambda item: 2.0,
        most=16,
        describe=describe,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
