"""Headless runs: what ``quire run`` and ``quire read`` do, step by step, through Dagster."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import store.page_batches
import store.progress
from assets.duplicate_reports import Exported, export
from core.batches import runs_of_neighbours
from core.errors import InputError
from orchestration.budgets import Share, share_of
from orchestration.definitions import defs, resources_of
from orchestration.ingest import Received, find_files, receive, register_partitions
from orchestration.launcher import PROCESS_TAG, is_abandoned, this_process
from orchestration.requests import chunks, range_tags
from orchestration.settings import Settings, keep_temporary_files_in, prepare_dagster_home
from orchestration.terminal import say, shown
from resources import scratch
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.postgres import Postgres
from resources.settings import CopySearch

MOST_TROUBLES = 20
"""Reasons that the terminal shows; the report has all."""

INCOMPLETE = 3
FAILED = 1
FAILED_BECAUSE = "the run failed:"

QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration: the terminal is Quire's own; the log is in the UI."""

MEMORY_TAG = "quire/memory"
"""Tag of a headless run: the limit of the whole, and what its ops may hold of that."""


@dataclass(frozen=True)
class Options:
    """What the user asked ``quire run`` for; zeros and empty words leave the settings' values."""

    paths: Sequence[str]
    out: Path
    memory_mb: int = 0
    preset: str = ""
    dpi: float = 0.0
    tile_px: int = 0
    tile_stride: float = 0.0
    tile_first: str = "auto"
    recompute: bool = False


def copy_search_job() -> dg.JobDefinition:
    """The job, as a process of its own rebuilds it."""
    return defs().resolve_job_def("copy_search")


def prepare(settings: Settings) -> Postgres:
    """Start what has to run and point Dagster at it."""
    settings.home.mkdir(parents=True, exist_ok=True)
    postgres = resources_of(settings)["postgres"]
    assert isinstance(postgres, Postgres)
    with postgres.connect():
        pass  # the first connection starts the server and brings the tables up to date
    prepare_dagster_home(settings, postgres.dagster_storage_url())
    return postgres


@dataclass(frozen=True)
class Made:
    """What became of some paths.

    Attributes:
        postgres: The database.
        documents: Ids of what was taken in, in the order of the paths.
        refused: Why the rest was not.
        failed: The first failure of a run in one line; empty where all went through.
        new_work: Whether anything was computed.
    """

    postgres: Postgres
    documents: list[str]
    refused: list[str]
    failed: str
    new_work: bool


def run_paths(settings: Settings, options: Options, out: Console, err: Console) -> int:
    """Take in the paths, make what is missing, export the results; returns the exit code."""
    copy_search = _settings_of_run(settings, options)
    config = run_config(copy_search_job, {"copy_search": copy_search}, recompute=options.recompute)
    made = take_in_and_make(
        settings, options.paths, options.memory_mb, copy_search_job, config, _WORDS, err
    )
    encoder = resources_of(settings)["encoder"]
    assert isinstance(encoder, Encoder)
    with said_first(made.failed, err), made.postgres.connect() as db:
        exported = export(
            db,
            ImageStore(url=settings.store_url),
            copy_search,
            encoder,
            made.documents,
            options.out,
            refused=made.refused,
        )
    return _tell(exported, made.failed, made.new_work, out, err)


def take_in_and_make(
    settings: Settings,
    paths: Sequence[str],
    memory_mb: int,
    job: Callable[[], dg.JobDefinition],
    config: dict[str, Any],
    words: Mapping[str, str],
    err: Console,
) -> Made:
    """Take in the paths and have a job make what is missing of them.

    Args:
        settings: The settings.
        paths: Files, folders, URLs.
        memory_mb: Of everything together; 0: as the settings have it.
        job: Makes the job; at the top of a module, so that processes of ops can call it, too.
        config: The configuration of its runs.
        words: What a person reads of each asset whose progress is shown.
        err: For progress and notes.
    """
    home = begin(settings, memory_mb, err)
    images = ImageStore(url=settings.store_url)
    with dg.DagsterInstance.get() as instance:
        received = _take_in(home.postgres, images, instance, paths, err)
        documents = [r.document.document_id for r in received if r.document is not None]
        with home.postgres.connect() as db:
            registered = store.page_batches.keys(db)
            wanted = store.page_batches.keys(db, documents)
        ran = run_all(home, instance, job, wanted, registered, config, words, err)
    refused = [r.reason for r in received if r.document is None]
    return Made(home.postgres, documents, refused, ran.failed, ran.new_work)


@dataclass(frozen=True)
class Home:
    """What a headless run works with: the database, and how memory is shared out."""

    postgres: Postgres
    share: Share


def begin(settings: Settings, memory_mb: int, err: Console) -> Home:
    """Start what a headless run needs, within a limit for everything together.

    Args:
        settings: The settings.
        memory_mb: The limit; 0: as the settings have it.
        err: Where the share is told, if there is a limit.

    Raises:
        ValueError: The limit is too small, which is told now and not in the run.
    """
    keep_temporary_files_in(scratch.own_folder())
    settings = replace(settings, memory_mb=memory_mb or settings.memory_mb, beside="nothing")
    share = share_of(settings)
    if share.limit_mb is not None:
        say(err, f"quire: {share}")
    return Home(prepare(settings), share)


@dataclass(frozen=True)
class Ran:
    """What became of some runs: the first failure in one line, and whether anything is new."""

    failed: str
    new_work: bool


def run_all(
    home: Home,
    instance: dg.DagsterInstance,
    job: Callable[[], dg.JobDefinition],
    wanted: Sequence[str],
    registered: Sequence[str],
    config: dict[str, Any],
    words: Mapping[str, str],
    err: Console,
) -> Ran:
    """Run a job over partitions, a run for each so many neighbours, with bars that follow it.

    Args:
        home: What it works with.
        instance: Where runs are recorded.
        job: Makes the job; at the top of a module, so that processes of ops can call it, too.
        wanted: The partitions.
        registered: All partitions of their kind, in order.
        config: The configuration of the runs.
        words: What a person reads of each asset whose progress is shown.
        err: For progress.
    """
    close_killed_runs(instance)
    failed, new_work = "", False
    for keys in chunks(runs_of_neighbours(wanted, registered)):
        with _followed(home.postgres, keys, words, err):
            result = execute(job, instance, keys, home.share, config)
        new_work = new_work or _anything_new(result)
        if not result.success:
            failed = failed or first_failure(result)
    return Ran(failed, new_work)


@contextmanager
def said_first(failed: str, err: Console) -> Iterator[None]:
    """What went wrong first is not hidden by what goes wrong in this block."""
    try:
        yield
    except Exception:
        if failed:
            say(err, f"quire: {FAILED_BECAUSE} {failed}")
        raise


def execute(
    job: Callable[[], dg.JobDefinition],
    instance: dg.DagsterInstance,
    keys: Sequence[str],
    share: Share,
    config: dict[str, Any],
) -> dg.JobExecutionResult:
    """Run a job over neighbouring partitions in this process.

    Args:
        job: Makes the job; at the top of a module, so that processes of ops can call it, too.
        instance: Where the run is recorded.
        keys: The partitions, in their order.
        share: How memory is shared out, for the run's tags.
        config: The run's configuration.
    """
    tags = {**range_tags(keys), PROCESS_TAG: this_process(), MEMORY_TAG: str(share)}
    return dg.execute_job(dg.reconstructable(job), instance=instance, run_config=config, tags=tags)


def close_killed_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs that nobody executes any more as failed; without a daemon nothing else would."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if is_abandoned(record.dagster_run):
            instance.report_run_failed(
                record.dagster_run,
                "The process was killed. What it had committed is there; the next run goes on.",
            )


def _settings_of_run(settings: Settings, options: Options) -> CopySearch:
    copy_search = CopySearch(
        preset=options.preset or settings.preset,
        dpi=options.dpi,
        tile_px=options.tile_px,
        tile_stride=options.tile_stride,
        tile_first=options.tile_first,
        threads=settings.threads,
    )
    _ = copy_search.spec  # a wrong value is an error now, not in the run
    return copy_search


def run_config(
    job: Callable[[], dg.JobDefinition],
    resources: Mapping[str, dg.ConfigurableResource],
    *,
    recompute: bool = False,
) -> dict[str, Any]:
    """Configuration of a run: resources other than the settings have them, and what is redone."""
    config: dict[str, Any] = {
        "resources": {
            name: {"config": resource.model_dump(include=set(type(resource).model_fields))}
            for name, resource in resources.items()
        },
        **QUIET,
    }
    if recompute:
        names = [node.name for node in job().graph.nodes]
        config["ops"] = {name: {"config": {"recompute": True}} for name in names}
    return config


def _take_in(
    postgres: Postgres,
    images: ImageStore,
    instance: dg.DagsterInstance,
    paths: Sequence[str],
    err: Console,
) -> list[Received]:
    files = list(find_files(paths))
    if not files:
        raise InputError(f"no PDF found in {', '.join(paths)}")
    received: list[Received] = []
    with _bar(err) as progress, postgres.connect() as db:
        task = progress.add_task("taking in documents", total=len(files))
        for path in files:
            received.append(path if isinstance(path, Received) else receive(db, images, path))
            progress.advance(task)
        register_partitions(db, instance)
    return received


def _bar(err: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=not err.is_terminal,
    )


_WORDS = {
    "pages": "reading pages",
    "panels": "finding panels",
    "panel_features": "features",
    "candidate_pairs": "searching",
    "verified_pairs": "verifying pairs",
}


@contextmanager
def _followed(
    postgres: Postgres, keys: Sequence[str], words: Mapping[str, str], err: Console
) -> Iterator[None]:
    """Bars per stage, read from the work ledger while the run is at it."""
    if not err.is_terminal:
        yield
        return
    stop = threading.Event()
    with _bar(err) as progress, postgres.connect() as db:
        tasks = {asset: progress.add_task(each, total=None) for asset, each in words.items()}

        def show() -> None:
            for stage in store.progress.stages(db, keys):
                if stage.asset not in tasks:
                    continue
                total = max(stage.known, stage.done) or None
                progress.update(tasks[stage.asset], completed=stage.done, total=total)

        def follow() -> None:
            while not stop.wait(0.5):
                show()

        follower = threading.Thread(target=follow, name="progress", daemon=True)
        follower.start()
        try:
            yield
        finally:
            stop.set()
            follower.join()
            show()


def _anything_new(result: dg.JobExecutionResult) -> bool:
    """Whether the run computed anything; writing a report that had changed counts, too."""
    return any(
        metadata["items"].value
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
        and event.asset_key.path[-1] != "duplicate_reports"
        and (metadata := event.materialization.metadata).get("items") is not None
    )


def first_failure(result: dg.JobExecutionResult) -> str:
    """The first failure in one line; a failed check is told by the report, not here."""
    steps = [event for event in result.all_events if event.is_step_failure]
    for event in steps:
        error = _root(event.step_failure_data.error)
        if error is not None and "DagsterAssetCheckFailedError" not in (error.cls_name or ""):
            return f"{event.step_key}: {_first_line(error)}"
    if steps:
        return ""
    for event in result.all_events:  # Dagster itself failed, between steps or around one
        if event.is_run_failure and (error := _root(event.job_failure_data.error)) is not None:
            return f"{_first_line(error)}; its log is in the Dagster UI (quire ui)"
    return "the run failed; its log is in the Dagster UI (quire ui)"


def _root(error: SerializableErrorInfo | None) -> SerializableErrorInfo | None:
    """What an error came from."""
    while error is not None and error.cause is not None:
        error = error.cause
    return error


_OWN_ERROR = re.compile(r"^(core|store|resources|assets)(\.\w+)+: ")
"""What Dagster puts before an error of Quire's own, whose message is a sentence for the user."""


def _first_line(error: SerializableErrorInfo) -> str:
    if error.cls_name == "ChildProcessCrashException":
        return (
            "its process was ended before it was done, from outside or for its memory; the same "
            "command goes on where it stopped"
        )
    said = _OWN_ERROR.sub("", error.message.strip())
    return next(iter(said.splitlines()), error.cls_name or "no reason given")


def _tell(
    exported: Exported,
    failed: str,
    new_work: bool,
    out: Console,
    err: Console,
) -> int:
    if exported.pairs:
        table = Table(title=None, show_edge=False)
        for name in ("tier", "probability", "relation", "where"):
            table.add_column(name, justify="right" if name == "probability" else "left")
        for pair in exported.pairs:
            table.add_row(pair.tier, f"{pair.probability:.3f}", pair.relation, shown(pair.where))
        out.print(table)
        say(out, "")
    say(out, exported.looked_at)
    for path in exported.files:
        say(out, f"  {path}")
    if not new_work and not failed:
        say(out, "Everything was already there: nothing was computed again.")
    say(out, "Open the UI with: quire ui  (or: make ui)")
    for note in exported.notes:
        say(out, f"Note: {note}")
    troubles = exported.troubles
    for trouble in troubles[:MOST_TROUBLES]:
        say(err, f"quire: {trouble}")
    if len(troubles) > MOST_TROUBLES:
        say(err, f"quire: and {len(troubles) - MOST_TROUBLES} more, all in the report")
    if failed:
        say(err, f"quire: {FAILED_BECAUSE} {failed}")
        return FAILED
    if troubles or exported.status != "ok":
        reasons = "1 reason" if len(troubles) == 1 else f"{len(troubles)} reasons"
        say(
            err,
            f"quire: finished, but not everything could be looked at ({reasons}, in the report "
            "and above)",
        )
        return INCOMPLETE
    return 0
