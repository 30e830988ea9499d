"""Ops that ignore their budget, each in its own way, and one beside them that keeps to it."""

import json
import logging
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

import store.page_batches
from assets.work import Refused, complete_check, work_through
from benchmarks.faults.container import Container, Usage
from core.work import Job, Outcome
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from store.database import Db

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "greedy-p00001"
BUDGET_MB = 220
EATEN_MB = 2_000
"""What each tries to get: ten times its budget."""
STEP_MB = 4
STEP_S = 0.002
"""2 GB a second, as fast as one core fills new memory."""

_kept: list[object] = []


@dataclass(frozen=True)
class Unit:
    """A thing to be made; what it takes depends on the op."""

    unit: str
    batch_key: str = KEY


def shared_mapping(_: Sequence[Unit]) -> list[int | Refused]:
    """Fill a shared mapping, which ``RLIMIT_DATA`` does not count."""
    area = mmap.mmap(-1, EATEN_MB << 20)
    for start in range(0, EATEN_MB, STEP_MB):
        area[start << 20 : (start + STEP_MB) << 20] = b"x" * (STEP_MB << 20)
        time.sleep(STEP_S)
    return [1]


def unmapped_file(_: Sequence[Unit]) -> list[int | Refused]:
    """Write to a file in memory that is mapped nowhere, and so is in no process's size."""
    file = os.memfd_create("greedy")
    try:
        for _ in range(0, EATEN_MB, STEP_MB):
            os.write(file, b"x" * (STEP_MB << 20))
            time.sleep(STEP_S)
    finally:
        os.close(file)
    return [1]


def child(_: Sequence[Unit]) -> list[int | Refused]:
    """Start a child that lifts its wall and eats."""
    code = (
        "import resource as r, time; r.setrlimit(r.RLIMIT_DATA, (-1, -1)); held = []\n"
        f"for _ in range(0, {EATEN_MB}, {STEP_MB}):\n"
        f"    held.append(b'x' * ({STEP_MB} << 20)); time.sleep({STEP_S})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return [1]


def kept_arrays(_: Sequence[Unit]) -> list[int | Refused]:
    """Keep every array that was ever made."""
    while True:
        _kept.append(np.ones(STEP_MB << 20, np.uint8))


def deaf(_: Sequence[Unit]) -> list[int | Refused]:
    """Fill a shared mapping, and go on whatever is raised."""
    area = mmap.mmap(-1, EATEN_MB << 20)
    start = 0
    while True:
        try:
            area[start << 20 : (start + STEP_MB) << 20] = b"x" * (STEP_MB << 20)
            start = min(start + STEP_MB, EATEN_MB - STEP_MB)
            time.sleep(STEP_S)
        except MemoryError:
            continue


def modest(_: Sequence[Unit]) -> list[int | Refused]:
    """Work for a while within the budget."""
    held = np.ones(16 << 20, np.uint8)
    time.sleep(2.0)
    return [int(held[0])]


WAYS: dict[str, Callable[[Sequence[Unit]], list[int | Refused]]] = {
    way.__name__: way for way in (shared_mapping, unmapped_file, child, kept_arrays, deaf, modest)
}


def made_by(name: str) -> dg.AssetsDefinition:
    """The asset that works in one of these ways, a unit at a time."""

    @dg.asset(
        name=name,
        partitions_def=dg.StaticPartitionsDefinition([KEY]),
        op_tags=memory_budget(mb=BUDGET_MB),
        check_specs=[complete_check(name)],
    )
    def greedy(
        context: dg.AssetExecutionContext, postgres: Postgres, memory: MemoryContract
    ) -> dg.MaterializeResult:
        return work_through(
            context,
            postgres,
            memory,
            spec=f"{name}-1",
            recompute=False,
            pending=_pending,
            compute=WAYS[name],
            keep=lambda db, job, unit, result: Outcome(unit.unit, unit.batch_key, made=result),
            item_mb=lambda unit: 20.0,
            most=1,
        )

    return greedy


def _pending(db: Db, job: Job, limit: int) -> list[Unit]:
    done = db.execute(
        "SELECT unit FROM work WHERE asset = %(asset)s AND is_done(asset, unit, spec, %(mb)s)",
        {"asset": job.asset, "mb": job.budget_mb},
    ).fetchall()
    return [Unit(u) for u in ("first", "second") if (u,) not in done][:limit]


def greedy_job() -> dg.JobDefinition:
    """All of them in one run, two at a time, each in a process of its own."""
    made = [made_by(name) for name in WAYS]
    return dg.Definitions(
        assets=made,
        jobs=[dg.define_asset_job("greedy", selection=made)],
        resources={
            "postgres": Postgres(database_url=dg.EnvVar("QUIRE_DATABASE_URL")),
            "memory": MemoryContract(),
        },
        executor=dg.multiprocess_executor.configured(
            {
                "max_concurrent": 2,
                "start_method": {"forkserver": {"preload_modules": ["benchmarks.faults.greedy"]}},
            }
        ),
    ).resolve_job_def("greedy")


def run_all(database_url: str, limit_mb: int) -> tuple[dict[str, dict[str, Any]], Usage]:
    """Run the job under one limit; how each op ended, by name, and what everything held."""
    code = "from benchmarks.faults.greedy import main; main()"
    with Container(limit_mb) as container:
        done = container.run(
            [sys.executable, "-c", code],
            env={**os.environ, "QUIRE_DATABASE_URL": database_url, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    return {end["op"]: end for end in ends}, container.usage


def main() -> None:
    """Run the job in a Dagster home of its own and print how each op ended, as JSON lines."""
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        with Postgres(database_url=os.environ["QUIRE_DATABASE_URL"]).connect() as db:
            store.page_batches.add(db, [(KEY, [])])
        result = dg.execute_job(
            dg.reconstructable(greedy_job),
            instance=instance,
            tags={"dagster/partition": KEY},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        logged = [
            event.user_message
            for event in instance.all_logs(result.run_id)
            if event.level >= logging.ERROR
        ]
        failed = {
            event.step_key: event.step_failure_data.error.to_string()
            for event in result.all_events
            if event.is_step_failure and event.step_failure_data.error is not None
        }
        checked = {
            check.asset_key.to_user_string(): check.description
            for check in result.get_asset_check_evaluations()
        }
        for name in WAYS:
            end = {
                "op": name,
                "failure": failed.get(name, ""),
                "check": checked.get(name, ""),
                "told": [text for text in logged if f"op {name} " in text],
            }
            print(json.dumps(end))
