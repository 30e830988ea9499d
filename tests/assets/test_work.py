"""The work loop on a real database, with units whose memory the test decides."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import dagster as dg
import numpy as np
import psycopg
import pytest

import store.page_batches
import store.work
from assets.work import Refused, complete_check, each, work_through
from core.errors import BudgetError, InputError
from core.work import Job, Outcome
from resources.memory import MemoryContract, memory_budget, tree_mb
from resources.postgres import Postgres
from store.database import Db
from tests.assets.conftest import until_somebody_waits

KEY = "abc-p00001"
UNITS = [f"unit-{number}" for number in range(8)]


@dataclass(frozen=True)
class Unit:
    unit: str
    batch_key: str = KEY


class Granted(MemoryContract):
    """Room above what the test process holds."""

    room_mb: int = 120
    exactly_mb: int = 0

    def granted_mb(self, context: dg.AssetExecutionContext) -> int:
        return self.exactly_mb or int(tree_mb()) + self.room_mb


@pytest.fixture
def batch(db: psycopg.Connection) -> None:
    store.page_batches.add(db, [(KEY, [])])


def pending(db: Db, job: Job, limit: int) -> list[Unit]:
    done = {
        unit
        for (unit,) in db.execute(
            """
            SELECT unit FROM work
            WHERE asset = %(asset)s AND spec = %(spec)s
              AND is_done(asset, unit, spec, %(mb)s)
            """,
            {"asset": job.asset, "spec": job.spec, "mb": job.budget_mb},
        ).fetchall()
    }
    return [Unit(name) for name in UNITS if name not in done][:limit]


def keep(db: Db, job: Job, unit: Unit, result: int) -> Outcome:
    return Outcome(unit.unit, unit.batch_key, made=result)


def make(
    postgres: Postgres,
    compute: Callable[[Sequence[Unit]], list[int | Refused]],
    room_mb: int = 120,
    item_mb: float = 1.0,
    exactly_mb: int = 0,
    keeping: Callable[[Db, Job, Unit, int], Outcome | None] = keep,
) -> dg.ExecuteInProcessResult:
    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition([KEY]),
        op_tags=memory_budget(mb=100),
        check_specs=[complete_check("things")],
    )
    def things(
        context: dg.AssetExecutionContext, postgres: Postgres, memory: MemoryContract
    ) -> dg.MaterializeResult:
        return work_through(
            context,
            postgres,
            memory,
            spec="things-1",
            recompute=False,
            pending=pending,
            compute=compute,
            keep=keeping,
            item_mb=lambda unit: item_mb,
            most=8,
            parallel=8,
        )

    return dg.materialize(
        [things],
        resources={
            "postgres": postgres,
            "memory": Granted(room_mb=room_mb, exactly_mb=exactly_mb),
        },
        partition_key=KEY,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def numbers(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def statuses(db: psycopg.Connection) -> dict[str, str]:
    return dict(db.execute("SELECT unit, status FROM work ORDER BY unit").fetchall())


def allocating(mb_of: Callable[[Unit], int]) -> Callable[[Sequence[Unit]], list[int | Refused]]:
    """Really allocates, for all units of the batch at once."""

    def compute(units: Sequence[Unit]) -> list[int | Refused]:
        held = [np.ones((mb_of(unit), 1 << 20), np.uint8) for unit in units]
        return [int(block[0, 0]) for block in held]

    return compute


@pytest.mark.usefixtures("batch")
def test_a_batch_that_does_not_fit_is_halved_and_every_unit_is_made(
    postgres: Postgres, db: psycopg.Connection
) -> None:
    result = make(postgres, allocating(lambda unit: 43), room_mb=150)
    facts = numbers(result)
    assert facts["halved"] in (1, 2)
    assert facts["items"] == 8
    assert facts["degraded"] is False
    assert set(statuses(db).values()) == {"ok"}
    (check,) = result.get_asset_check_evaluations()
    assert check.passed


@pytest.mark.usefixtures("batch")
def test_one_unit_beyond_the_budget_is_named_and_only_it_is_done_again_with_more(
    postgres: Postgres, db: psycopg.Connection
) -> None:
    compute = allocating(lambda unit: 300 if unit.unit == "unit-3" else 2)
    small = make(postgres, compute, room_mb=120)
    assert numbers(small)["failed"] == 1
    named = re.search(r"about (\d+) MB would do", str(numbers(small)["reasons"]))
    assert named
    (check,) = small.get_asset_check_evaluations()
    assert not check.passed
    assert statuses(db) == {unit: "failed" if unit == "unit-3" else "ok" for unit in UNITS}
    large = make(postgres, compute, exactly_mb=int(named[1]))
    assert numbers(large)["items"] == 1
    assert numbers(large)["budget_mb"] == int(named[1])
    assert set(statuses(db).values()) == {"ok"}


@pytest.mark.usefixtures("batch")
def test_the_plan_keeps_batches_inside_the_budget_before_anything_is_halved(
    postgres: Postgres,
) -> None:
    facts = numbers(make(postgres, allocating(lambda unit: 40), room_mb=150, item_mb=40.0))
    assert facts["halved"] == 0
    assert facts["batch"] == 3
    assert facts["peak_mb"] <= facts["budget_mb"]  # type: ignore[operator]


@pytest.mark.usefixtures("batch")
def test_a_unit_at_fault_is_a_reason_and_the_others_are_made(
    postgres: Postgres, db: psycopg.Connection
) -> None:
    def one(unit: Unit) -> int:
        if unit.unit == "unit-5":
            raise InputError("page 5 is torn")
        return 1

    result = make(postgres, each(one))
    assert statuses(db)["unit-5"] == "failed"
    assert sum(status == "ok" for status in statuses(db).values()) == 7
    assert "page 5 is torn" in str(numbers(result)["reasons"])
    again = make(postgres, each(one))
    assert numbers(again)["items"] == 0  # the file has not changed, so neither has the answer


@pytest.mark.usefixtures("batch")
def test_what_was_committed_before_a_crash_is_not_done_again(
    postgres: Postgres, db: psycopg.Connection
) -> None:
    calls: list[str] = []

    def crash_late(units: Sequence[Unit]) -> list[int | Refused]:
        calls.extend(unit.unit for unit in units)
        if len(calls) > 4:
            raise ConnectionError("the machine went away")
        return [1 for _ in units]

    with pytest.raises(ConnectionError):
        make(postgres, lambda units: crash_late(units), item_mb=60.0)
    committed = statuses(db)
    assert 0 < len(committed) < 8
    calls.clear()

    def finish(units: Sequence[Unit]) -> list[int | Refused]:
        calls.extend(unit.unit for unit in units)
        return [1 for _ in units]

    make(postgres, finish)
    assert sorted(calls) == sorted(set(UNITS) - set(committed))


@pytest.mark.usefixtures("batch")
def test_the_unit_at_which_an_op_is_stopped_fails_and_the_others_are_made(
    postgres: Postgres, db: psycopg.Connection
) -> None:
    def with_child(unit: Unit) -> int:
        if unit.unit == "unit-0":  # a child that lifts its own wall
            code = "import resource as r, time; r.setrlimit(r.RLIMIT_DATA, (-1, -1)); "
            code += "b = b'x' * (300 << 20); time.sleep(60)"
            subprocess.run([sys.executable, "-c", code], check=True)
        return 1

    result = make(postgres, each(with_child))
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert "the op things held" in (check.description or "")
    assert "more than its budget" in (check.description or "")
    assert statuses(db) == {unit: "failed" if unit == "unit-0" else "ok" for unit in UNITS}


@pytest.mark.usefixtures("batch")
def test_an_op_that_keeps_what_its_units_held_is_blamed_and_not_its_units(
    postgres: Postgres, db: psycopg.Connection
) -> None:
    kept: list[object] = []

    def keeping(units: Sequence[Unit]) -> list[int | Refused]:
        kept.extend(np.ones((30, 1 << 20), np.uint8) for _ in units)
        return [1 for _ in units]

    try:
        with pytest.raises(BudgetError, match="the op things ignores its budget"):
            make(postgres, keeping, item_mb=60.0)
    finally:
        kept.clear()
    assert set(statuses(db).values()) == {"ok"}


def test_what_another_run_did_meanwhile_is_waited_for_and_left_as_it_is(
    postgres: Postgres, db: psycopg.Connection, batch: None
) -> None:
    """Two runs over the same papers compute the same; the other one is just writing it."""
    db.execute("CREATE TABLE things (unit text PRIMARY KEY, made_by text)")
    theirs = Job("things", "things-1", (KEY,), 256, "another")
    has_written = threading.Event()

    def put(other: Db, unit: Unit, made_by: str) -> Outcome:
        """In place of what was there, as many a store does it."""
        other.execute("DELETE FROM things WHERE unit = %s", [unit.unit])
        other.execute("INSERT INTO things VALUES (%s, %s)", [unit.unit, made_by])
        return Outcome(unit.unit, KEY, made=1)

    def another_run() -> None:
        with (
            postgres.connect() as other,
            postgres.connect() as watching,
            other.transaction(),
        ):
            store.work.take_turn(other, theirs)
            made = [put(other, Unit(name), "another") for name in UNITS[:6]]
            store.work.record(other, theirs, made)
            has_written.set()
            until_somebody_waits(watching)

    batches: list[int] = []

    def compute(units: Sequence[Unit]) -> list[int | Refused]:
        batches.append(len(units))
        if len(batches) == 1:
            others.submit(another_run).add_done_callback(ended.append)
            assert has_written.wait(30)
        return [1] * len(units)

    def keep_thing(db: Db, job: Job, unit: Unit, result: int) -> Outcome:
        return put(db, unit, "this one")

    ended: list[Future[None]] = []
    with ThreadPoolExecutor(1) as others:
        result = make(postgres, compute, keeping=keep_thing)
    assert [future.exception() for future in ended] == [None]
    assert numbers(result)["items"] == 2
    assert batches == [8]
    rows = db.execute("SELECT made_by, count(*) FROM things GROUP BY 1 ORDER BY 1").fetchall()
    assert rows == [("another", 6), ("this one", 2)]
    assert set(statuses(db).values()) == {"ok"}


@pytest.mark.usefixtures("batch")
def test_a_unit_that_is_not_kept_is_still_to_be_done(
    postgres: Postgres, db: psycopg.Connection
) -> None:
    stale = {"unit-2", "unit-5"}

    def keep_fresh(db: Db, job: Job, unit: Unit, result: int) -> Outcome | None:
        if unit.unit in stale:
            stale.remove(unit.unit)
            return None
        return keep(db, job, unit, result)

    seen: list[str] = []

    def compute(units: Sequence[Unit]) -> list[int | Refused]:
        seen.extend(unit.unit for unit in units)
        return [1] * len(units)

    assert numbers(make(postgres, compute, keeping=keep_fresh))["items"] == 8
    assert seen == [*UNITS, "unit-2", "unit-5"]
    assert statuses(db) == dict.fromkeys(UNITS, "ok")


def test_a_database_that_goes_away_costs_the_batch_at_hand_and_nothing_else(
    postgres: Postgres, db: psycopg.Connection, batch: None, postgres_url: str
) -> None:
    computed: list[str] = []

    def compute(units: Sequence[Unit]) -> list[int | Refused]:
        computed.extend(unit.unit for unit in units)
        if len(computed) in (3, 6):
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute(
                    """
                    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'quire'
                      AND pid <> pg_backend_pid()
                    """
                )
        return [1] * len(units)

    room_for_one = {"room_mb": 120, "item_mb": 60.0}
    with Postgres(database_url=postgres_url).connect() as bystander:
        assert bystander.execute("SELECT 1").fetchone() == (1,)
        assert make(postgres, compute, **room_for_one).success
    assert computed == [*UNITS[:3], *UNITS[2:5], *UNITS[4:]]
    with Postgres(database_url=postgres_url).connect() as later:
        rows = later.execute("SELECT unit FROM work ORDER BY unit").fetchall()
    assert [row[0] for row in rows] == UNITS
