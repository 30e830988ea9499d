"""Duplicate reports: what an integrity officer reads, one per document."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

import store.documents
import store.page_batches
import store.reports
from assets.candidate_pairs import candidates_spec
from assets.encoder_channel import encoder_id_of
from assets.partitions import page_batches, per_batches
from assets.report_contents import Contents, gather, report_pairs
from assets.verified_pairs import verified_pairs
from assets.work import Recompute, complete_check, each, work_through
from core.report import ReportPair
from core.report_html import write_html
from core.report_json import json_head, write_json
from core.report_tsv import write_tsv
from core.report_words import headline
from core.work import Job, Outcome, Status, spec_id
from resources import scratch
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.database import Db
from store.reports import PendingReport, StoredReport

WRITERS = {"pairs.tsv": write_tsv, "pairs.json": write_json, "report.html": write_html}
"""The three forms of a report; the same records in each."""

REPORTS_VERSION = 1


@dg.asset(
    partitions_def=page_batches,
    deps=[verified_pairs],
    group_name="copy_search",
    kinds={"html", "tsv"},
    owners=["team:quire"],
    code_version=str(REPORTS_VERSION),
    op_tags=memory_budget(mb=300),
    backfill_policy=per_batches,
    check_specs=[complete_check("duplicate_reports", blocking=True)],
)
def duplicate_reports(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
    encoder: Encoder,
) -> dg.MaterializeResult:
    """For each document `pairs.tsv`, `pairs.json` and a self-contained `report.html`.

    The report of every document that these partitions touch is written, their own and those they
    share a pair with, whenever what it says has changed. "No pairs" is an answer; a page that could
    not be read, a document that could not be opened or a lowered resolution is said in the report,
    and fails this check.
    """
    with postgres.connect() as db:
        candidate_spec = candidates_spec(db, copy_search, encoder)
    encoder_id = encoder_id_of(copy_search, encoder)
    verified_spec = copy_search.spec.verification_id

    def pending(db: Db, job: Job, limit: int) -> list[PendingReport]:
        return store.reports.pending(db, job, verified_spec, limit)

    def write(item: PendingReport) -> StoredReport:
        with postgres.connect() as db, store.reports.locked(db, item.unit):
            document = store.documents.get(db, [item.unit])[0]
            contents = gather(
                db, copy_search, candidate_spec, encoder_id, [item.unit], document.name
            )
            key = f"reports/{item.unit[:2]}/{item.unit}"
            report = StoredReport(
                document_id=item.unit,
                contents=_digest(contents),
                status=contents.report.status,
                pairs=contents.report.pairs,
                key=key,
            )
            there = store.reports.get(db, item.unit) == report and all(
                images.exists(f"{key}/{name}") for name in WRITERS
            )
            if config.recompute or not there:
                for name, writer in WRITERS.items():
                    with images.writing(f"{key}/{name}") as file:
                        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
                        writer(contents.report, report_pairs(contents, images), text)
                        text.detach()  # flushes, and leaves closing to the store
        return report

    def keep(db: Db, job: Job, item: PendingReport, result: StoredReport) -> Outcome:
        store.reports.put(db, result)
        status = Status.OK if result.status == "ok" else Status.DEGRADED
        reason = "" if result.status == "ok" else f"the report is {result.status}; it says why"
        return Outcome(item.unit, item.batch_key, status, result.pairs, reason)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        ids = store.page_batches.documents(db, job.batch_keys)
        written = [report for i in ids if (report := store.reports.get(db, i)) is not None]
        return {
            "reports": len(written),
            "pairs": sum(report.pairs for report in written),
            "channels": "local" + (f", encoder:{encoder_id}" if encoder_id else ""),
        }

    return work_through(
        context,
        postgres,
        memory,
        spec=reports_spec(candidate_spec, copy_search),
        recompute=config.recompute,
        pending=pending,
        compute=each(write),
        keep=keep,
        item_mb=lambda item: 30.0,
        most=8,
        describe=describe,
    )


def reports_spec(candidate_spec: str, copy_search: CopySearch) -> str:
    """Spec id of reports: how they are written, and what they are written from."""
    verified_spec = copy_search.spec.verification_id
    return spec_id("reports", REPORTS_VERSION, candidate_spec, verified_spec)


def _digest(contents: Contents) -> str:
    digest = hashlib.sha256(json_head(contents.report).encode())
    for pair in contents.pairs:
        digest.update(f"{pair.pair_id} {pair.probability:.9f}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class ExportedPair:
    """One pair in a line."""

    tier: str
    probability: float
    relation: str
    where: str


@dataclass(frozen=True)
class Exported:
    """What was written for a set of documents, and what its reader is told at once."""

    files: list[Path]
    pairs: list[ExportedPair]
    status: str
    looked_at: str
    troubles: list[str]


def export(
    db: Db,
    images: ImageStore,
    copy_search: CopySearch,
    encoder: Encoder,
    document_ids: Sequence[str],
    out: Path,
) -> Exported:
    """Write one report over several documents into a folder, replacing what was there."""
    candidate_spec = candidates_spec(db, copy_search, encoder)
    contents = gather(
        db,
        copy_search,
        candidate_spec,
        encoder_id_of(copy_search, encoder),
        document_ids,
        "Reused figure panels",
    )
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    lines: dict[str, ExportedPair] = {}

    def noted() -> Iterator[ReportPair]:
        for pair in report_pairs(contents, images):
            lines[pair.pair_id] = _line(pair)
            yield pair

    for name, writer in WRITERS.items():
        with scratch.partial_file(out, out / name) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
            writer(contents.report, noted(), text)
            text.detach()
        files.append(out / name)
    troubles = [
        f"{_name(contents, flag.document)}{f', page {flag.page}' if flag.page else ''}: "
        f"{flag.sentence}"
        for flag in contents.report.flags
    ]
    return Exported(
        files, list(lines.values()), contents.report.status, headline(contents.report), troubles
    )


def _name(contents: Contents, document_id: str | None) -> str:
    return next((d.name for d in contents.report.documents if d.sha256 == document_id), "all")


def _line(pair: ReportPair) -> ExportedPair:
    a, b = f"{pair.a.name} p.{pair.a.page}", f"{pair.b.name} p.{pair.b.page}"
    return ExportedPair(
        pair.tier,
        pair.probability,
        pair.relation,
        a if a == b else f"{a} / {b}",
    )
