"""Duplicate reports: what an integrity officer reads, one per document."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import dagster as dg

import store.documents
import store.page_batches
import store.reports
from assets.partitions import page_batches, per_batches
from assets.report_contents import (
    Contents,
    PictureError,
    gather,
    in_force,
    picture_faults,
    report_pairs,
)
from assets.verified_pairs import verified_pairs
from assets.work import Recompute, complete_check, each, work_through
from core.degraded import NOTES
from core.report import Flag, ReportPair
from core.report_files import FILES, write_files
from core.report_json import json_head
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

REPORTS_VERSION = 1

MOST_REASONS = 3
"""Reasons that the check of a report names; the report has all."""


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
        settings = in_force(db, copy_search, encoder)
    verified_spec = copy_search.spec.verification_id

    def pending(db: Db, job: Job, limit: int) -> list[PendingReport]:
        return store.reports.pending(db, job, verified_spec, limit)

    def write(item: PendingReport) -> tuple[StoredReport, str]:
        key = f"reports/{item.unit[:2]}/{item.unit}"

        def gathered(faults: Mapping[str, str]) -> Contents:
            (document,) = store.documents.get(db, [item.unit])
            return gather(db, settings, [item.unit], document.name, faults=faults)

        def stored(contents: Contents) -> StoredReport:
            report = contents.report
            return StoredReport(item.unit, _digest(contents), report.status, report.pairs, key)

        with postgres.connect() as db, store.reports.locked(db, item.unit):
            contents = gathered({})
            there = store.reports.get(db, item.unit) == stored(contents) and all(
                images.exists(f"{key}/{name}") for name in FILES
            )
            if config.recompute or not there:
                contents = _written(
                    contents, gathered, images, lambda name: images.writing(f"{key}/{name}")
                )
        reasons = [flag.sentence for flag in contents.report.flags if flag.kind not in NOTES]
        return stored(contents), _in_short(reasons)

    def keep(db: Db, job: Job, item: PendingReport, result: tuple[StoredReport, str]) -> Outcome:
        report, reasons = result
        store.reports.put(db, report)
        status = Status.OK if report.status == "ok" else Status.DEGRADED
        reason = "" if report.status == "ok" else f"the report is {report.status}: {reasons}"
        return Outcome(item.unit, item.batch_key, status, report.pairs, reason)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        ids = store.page_batches.documents(db, job.batch_keys)
        written = [report for i in ids if (report := store.reports.get(db, i)) is not None]
        described = settings.encoder
        return {
            "reports": len(written),
            "pairs": sum(report.pairs for report in written),
            "channels": "local" + (f", encoder:{described.encoder_id}" if described else ""),
        }

    return work_through(
        context,
        postgres,
        memory,
        spec=reports_spec(settings.candidate_spec, copy_search),
        recompute=config.recompute,
        pending=pending,
        compute=each(write),
        keep=keep,
        item_mb=lambda item: 15.0,  # the pictures of one pair, decoded, aligned and encoded
        most=8,
        describe=describe,
    )


def reports_spec(candidate_spec: str, copy_search: CopySearch) -> str:
    """Spec id of reports: how they are written, and what they are written from."""
    verified_spec = copy_search.spec.verification_id
    return spec_id("reports", REPORTS_VERSION, candidate_spec, verified_spec)


def _in_short(reasons: Sequence[str]) -> str:
    """The first reasons, and how many more the report has."""
    more = len(reasons) - MOST_REASONS
    return "; ".join(reasons[:MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")


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
    """What was written for a set of documents, and what its reader is told at once.

    Attributes:
        files: What was written.
        pairs: In the report's order.
        status: Of the report.
        looked_at: The answer in one sentence.
        troubles: Why the status is not ``ok``.
        notes: What the reader has to know although it leaves the status as it is.
    """

    files: list[Path]
    pairs: list[ExportedPair]
    status: str
    looked_at: str
    troubles: list[str]
    notes: list[str]


def export(
    db: Db,
    images: ImageStore,
    copy_search: CopySearch,
    encoder: Encoder,
    document_ids: Sequence[str],
    out: Path,
    *,
    refused: Sequence[str] = (),
) -> Exported:
    """Write one report over several documents into a folder, replacing what was there.

    Args:
        db: An open connection.
        images: Where the pictures are.
        copy_search: The settings in force.
        encoder: The encoder in force.
        document_ids: The scope.
        out: Where the three files go: all of them, or, after an error, none.
        refused: Files that were to be in the scope and were not taken in, with the reason.
    """
    settings = in_force(db, copy_search, encoder)
    lines: dict[str, ExportedPair] = {}

    def gathered(faults: Mapping[str, str]) -> Contents:
        return gather(
            db, settings, document_ids, "Reused figure panels", refused=refused, faults=faults
        )

    contents = _written(
        gathered({}),
        gathered,
        images,
        lambda name: scratch.partial_file(out, out / name),
        lambda pair: lines.update({pair.pair_id: _line(pair)}),
    )
    report = contents.report
    return Exported(
        files=[out / name for name in FILES],
        pairs=list(lines.values()),
        status=report.status,
        looked_at=headline(report),
        troubles=[_told(contents, flag) for flag in report.flags if flag.kind not in NOTES],
        notes=[_told(contents, flag) for flag in report.flags if flag.kind in NOTES],
    )


def _written(
    contents: Contents,
    gathered: Callable[[Mapping[str, str]], Contents],
    images: ImageStore,
    opened: Callable[[str], AbstractContextManager[BinaryIO]],
    note: Callable[[ReportPair], None] = lambda pair: None,
) -> Contents:
    """Write the three files of a report, and say what they were written from.

    A picture that turns out to be missing has to be told from the head of the report on, so the
    report is gathered again with all such pictures known, and written from the start.
    """
    while True:
        try:
            with ExitStack() as stack:
                binary = {name: stack.enter_context(opened(name)) for name in FILES}
                texts = {
                    name: io.TextIOWrapper(file, encoding="utf-8", newline="\n")
                    for name, file in binary.items()
                }
                write_files(contents.report, _noted(contents, images, note), texts)
                for name, text in texts.items():
                    text.detach()  # flushes, and leaves closing to the store
                    binary[name].flush()  # a full disk shows before the first takes its place
        except PictureError as fault:
            known = {**contents.faults, fault.panel_id: str(fault)}
            contents = gathered({**picture_faults(contents, images), **known})
        else:
            return contents


def _noted(
    contents: Contents, images: ImageStore, note: Callable[[ReportPair], None]
) -> Iterator[ReportPair]:
    for pair in report_pairs(contents, images):
        note(pair)
        yield pair


def _told(contents: Contents, flag: Flag) -> str:
    page = f", page {flag.page}" if flag.page else ""
    where = f"{_name(contents, flag.document)}{page}: " if flag.document else ""
    return f"{where}{flag.sentence}"


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
