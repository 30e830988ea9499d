"""The one way in which assets work: bounded batches, a memory wall, resume, an honest summary.

An asset says what is pending, what one batch computes and how one result is kept. Everything the
memory contract promises happens here: the batch is planned from the budget, the wall is armed, an
allocation that fails halves the batch and the work continues at the same unit, a single unit that
does not fit is recorded with the reason and the budget that would do, and what was lost is in the
metadata and fails the check. An op that gets past the wall is stopped and named.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import cv2
import dagster as dg

import store.batches
import store.work
from core.errors import BudgetError, InputError, is_out_of_memory
from core.text import as_code, visible
from core.work import Job, Outcome, Status, plan_batch
from resources.memory import MemoryContract, Watch
from resources.postgres import Postgres
from store.database import Db

MARGIN = 1.1
"""Budgets that are named lie so much above what is known to be needed: processes of the same kind
differ by some MB."""

COMPLETE = "complete"
"""The check that every asset carries: nothing failed, nothing was degraded."""


class Recompute(dg.Config):
    """Run configuration of every asset."""

    recompute: bool = False
    """Do the partition anew instead of answering from what is there."""


class Unit(Protocol):
    """Anything that can be pending."""

    @property
    def unit(self) -> str:
        """Key within the asset."""
        ...

    @property
    def batch_key(self) -> str:
        """Partition it belongs to."""
        ...


Item = TypeVar("Item", bound=Unit)
Result = TypeVar("Result")
Refused = InputError | BudgetError


def complete_check(asset: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """The check spec of an asset; blocking where nothing may be built on an incomplete result."""
    return dg.AssetCheckSpec(
        COMPLETE,
        asset=asset,
        blocking=blocking,
        description="Nothing in these partitions failed, was skipped or was made with a loss.",
    )


def each(
    compute: Callable[[Item], Result], threads: int = 1
) -> Callable[[Sequence[Item]], list[Result | Refused]]:
    """Turn a function of one item into one of a batch; an item at fault does not harm the rest."""

    def guarded(item: Item) -> Result | Refused:
        try:
            return compute(item)
        except (InputError, BudgetError) as refusal:
            return refusal

    def batch(items: Sequence[Item]) -> list[Result | Refused]:
        if threads == 1 or len(items) == 1:
            return [guarded(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(guarded, items))

    return batch


def work_through(
    context: dg.AssetExecutionContext,
    postgres: Postgres,
    memory: MemoryContract,
    *,
    spec: str,
    recompute: bool,
    pending: Callable[[Db, Job, int], list[Item]],
    compute: Callable[[Sequence[Item]], list[Result | Refused]],
    keep: Callable[[Db, Job, Item, Result], Outcome | None],
    item_mb: Callable[[Item], float],
    most: int,
    fixed_mb: float = 0.0,
    parallel: int = 1,
    closing: Callable[[Db, Job], None] | None = None,
    describe: Callable[[Db, Job], dict[str, Any]] | None = None,
) -> dg.MaterializeResult:
    """Do what is pending in the op's partitions, a bounded batch at a time.

    Args:
        context: The op's context; it names the asset, its partitions and its run.
        postgres: Where rows live.
        memory: Grants and enforces the budget.
        spec: Id of everything that decides the result besides the input.
        recompute: Forget what the ledger says of these partitions first.
        pending: Units still to be done, at most as many as asked for, in a fixed order.
        compute: Results of a batch in its order, with the refusal in an item's place where the item
            is at fault. It holds no transaction.
        keep: Stores one result and says how it went; called in the batch's one transaction. None:
            what it was computed from is another by now, so nothing was kept, and the unit is
            pending as it is now.
        item_mb: Memory that a unit needs while it is computed.
        most: The largest batch.
        fixed_mb: Memory that the op needs once, whatever the batch: models, a PDF worker.
        parallel: Units computed at the same time.
        closing: Called in the last transaction, once every unit is done.
        describe: More metadata, asked for at the end.

    Returns:
        The materialization, with the contract's numbers and the outcome of the ``complete`` check.
    """
    cv2.setNumThreads(1)  # ops bring their own threads; OpenCV's would wait for each other
    asset = context.asset_key.to_user_string()
    started = time.monotonic()
    job = Job(
        asset=asset,
        spec=spec,
        batch_keys=tuple(context.partition_keys),
        budget_mb=memory.granted_mb(context),
        run_id=context.run_id,
    )
    context.log.info(f"budget {job.budget_mb} MB; {memory.whole or 'no limit for the whole'}")
    done = halved = widest = 0
    cap = most

    def go_on(db: Db) -> tuple[list[store.work.BatchSummary], dict[str, Any]]:
        """Do what the ledger lacks; begun again where the database went away."""
        nonlocal done, halved, widest, cap
        while items := pending(db, job, cap):
            plan = plan_batch(
                [item_mb(item) for item in items],
                budget_mb=job.budget_mb,
                base_mb=base_mb,
                most=cap,
                parallel=parallel,
            )
            batch = items[: plan.batch]
            watch.predicted_mb = max(watch.predicted_mb, plan.predicted_peak_mb)
            widest = max(widest, len(batch))
            wanted = store.work.not_done(db, job, [item.unit for item in batch])
            results = _attempt(compute, batch, watch)
            if isinstance(results, _Misfit):
                halved += 1
                context.log.warning(
                    f"{len(batch)} units did not fit {job.budget_mb} MB; halving the batch"
                )
                watch.require_released(base_mb)
                if len(batch) > 1:
                    cap = len(batch) // 2
                    continue
                planned_mb = base_mb + item_mb(batch[0])
                results = [_too_large(job, results, planned_mb)]
            done += _keep(db, job, batch, results, wanted, keep)
        with db.transaction():
            store.work.take_turn(db, job)
            if closing is not None:
                closing(db, job)
            store.work.forget_earlier_specs(db, job)
            store.batches.finish(db, job)
        more = describe(db, job) if describe is not None else {}
        return store.work.summary(db, job), more

    with memory.watch(job.budget_mb, asset, context.log.error) as watch:
        base_mb = watch.base_mb + fixed_mb
        if recompute:
            postgres.keep_at(lambda db: store.work.forget(db, job), context.log.warning)
        summaries, more = postgres.keep_at(go_on, context.log.warning)
    seconds = time.monotonic() - started
    return _report(context, job, watch, summaries, more, done, widest, halved, seconds)


@dataclass(frozen=True)
class _Misfit:
    """A batch that did not fit.

    Attributes:
        needed_mb: The least budget under which it would have gone further.
        stopped: What was stopped for it, where the wall did not hold it.
    """

    needed_mb: float
    stopped: str = ""


def _attempt(
    compute: Callable[[Sequence[Item]], list[Result | Refused]],
    batch: Sequence[Item],
    watch: Watch,
) -> list[Result | Refused] | _Misfit:
    """The results of a batch; when this returns a misfit, what the batch held is free again."""
    try:
        results = compute(batch)
    except Exception as error:
        stopped = watch.stop()
        if stopped is None and not is_out_of_memory(error):
            raise
        return _Misfit(watch.needed_mb(error), str(stopped or ""))
    stopped = watch.stop()
    return results if stopped is None else _Misfit(watch.peak_mb, str(stopped))


def _too_large(job: Job, misfit: _Misfit, planned_mb: float) -> BudgetError:
    least_mb = max(MARGIN * max(misfit.needed_mb, planned_mb), job.budget_mb * 1.25)
    needed = math.ceil(least_mb / 50) * 50
    why = misfit.stopped or f"it does not fit the memory budget of {job.budget_mb} MB"
    return BudgetError(
        f"{why}; about {needed} MB would do", budget_mb=job.budget_mb, needed_mb=needed
    )


def _keep(
    db: Db,
    job: Job,
    items: Sequence[Item],
    results: Sequence[Result | Refused],
    wanted: Sequence[str],
    keep: Callable[[Db, Job, Item, Result], Outcome | None],
) -> int:
    """Store results and how they went, in one transaction; how many units are done with that.

    Where another run has done a unit that was ``wanted`` when the batch was begun, it stays as it
    is: to put the same once more in its place would undo what that run has made of it since.
    """
    with db.transaction():
        store.work.take_turn(db, job)
        done_elsewhere = set(wanted).difference(store.work.not_done(db, job, wanted))
        outcomes: list[Outcome] = []
        for item, result in zip(items, results, strict=True):
            if item.unit in done_elsewhere:
                continue
            if isinstance(result, InputError | BudgetError):
                outcomes.append(
                    Outcome(
                        item.unit,
                        item.batch_key,
                        Status.FAILED,
                        reason=str(result),
                        budget_mb=job.budget_mb if isinstance(result, BudgetError) else None,
                    )
                )
            elif (outcome := keep(db, job, item, result)) is not None:
                outcomes.append(replace(outcome, batch_key=item.batch_key))
        store.work.record(db, job, outcomes)
    return len(outcomes)


def _report(
    context: dg.AssetExecutionContext,
    job: Job,
    watch: Watch,
    summaries: Sequence[store.work.BatchSummary],
    more: dict[str, Any],
    done: int,
    widest: int,
    halved: int,
    seconds: float,
) -> dg.MaterializeResult:
    for summary in summaries:
        metadata: dict[str, Any] = {
            "units": summary.units,
            "made": summary.made,
            "new": summary.new_units,
            "failed": summary.failed,
            "degraded": summary.degraded + summary.failed > 0,
        }
        if summary.units and not summary.new_units:
            metadata["answer"] = (
                f"already there, {summary.made} rows, made by run {summary.other_run}"
            )
        if summary.reasons:
            metadata["reasons"] = dg.MetadataValue.json([visible(r) for r in summary.reasons])
        context.add_asset_metadata(metadata, partition_key=summary.batch_key)
    failed = sum(summary.failed for summary in summaries)
    degraded = sum(summary.degraded for summary in summaries)
    reasons = [visible(reason) for summary in summaries for reason in summary.reasons]
    if watch.over:
        reasons.append(
            f"the op {job.asset} held {watch.peak_mb:.0f} MB, more than its budget of "
            f"{job.budget_mb} MB"
        )
    affected = [s.batch_key for s in summaries if s.failed or s.degraded]
    check = dg.AssetCheckResult(
        passed=not reasons and not failed and not degraded,
        check_name=COMPLETE,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(map(as_code, reasons[:3])) or "Everything was looked at.",
        metadata={
            "failed": failed,
            "degraded": degraded,
            "partitions": dg.MetadataValue.json(affected[:50]),
            "reasons": dg.MetadataValue.json(reasons[:50]),
        },
    )
    return dg.MaterializeResult(
        metadata={
            "budget_mb": job.budget_mb,
            "predicted_peak_mb": round(watch.predicted_mb, 1),
            "peak_mb": round(watch.peak_mb, 1),
            "walled": watch.walled,
            "items": done,
            "seconds": round(seconds, 3),
            "batch": widest,
            "halved": halved,
            "spec": job.spec,
            **more,
        },
        check_results=[check],
    )
