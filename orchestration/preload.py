"""What every step imports, imported once by the fork server that steps are forked from.

Dagster's storage drivers alone are 500 modules and 0.7 s; nine steps a run would each pay that
again, and each would hold its own copy in memory instead of sharing the pages of one.

What is there is kept out of garbage collection: a step's collector would write to every object it
looks at, and so copy nearly all pages that are shared.

Steps end with their run, however that ended: none works on for nobody.
"""

import gc

import alembic.command
import dagster._core.instance.factory
import dagster_postgres.event_log.event_log
import dagster_postgres.run_storage.run_storage
import dagster_postgres.schedule_storage.schedule_storage
import dotenv.main
import psycopg2.extras
import sqlalchemy.dialects.postgresql.psycopg2
import upath.implementations.local

import orchestration.definitions
import orchestration.headless
from resources.lifeline import have_steps_end_with_their_run

have_steps_end_with_their_run()
gc.collect()
gc.freeze()

__all__ = [
    "alembic",
    "dagster",
    "dagster_postgres",
    "dotenv",
    "orchestration",
    "psycopg2",
    "sqlalchemy",
    "upath",
]
