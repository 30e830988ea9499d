from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
from dagster._core.events import JobFailureData
from dagster_shared.error import SerializableErrorInfo

from orchestration.headless import first_failure


def failed_run(error: SerializableErrorInfo | None) -> Any:
    data = JobFailureData(error=error, failure_reason=None, first_step_failure_event=None)
    event = dg.DagsterEvent("PIPELINE_FAILURE", job_name="copy_search", event_specific_data=data)
    return SimpleNamespace(all_events=[event])


def test_a_run_that_fails_between_its_steps_says_why() -> None:
    cause = SerializableErrorInfo("OSError: path too long\nmore\n", [], "OSError")
    wrapped = SerializableErrorInfo("it failed", [], "DagsterError", cause=cause)
    said = first_failure(cast("dg.JobExecutionResult", failed_run(wrapped)))
    assert said.startswith("OSError: path too long;")
    assert "\n" not in said


def test_a_run_that_fails_without_a_reason_names_the_log() -> None:
    said = first_failure(cast("dg.JobExecutionResult", failed_run(None)))
    assert "log is in the Dagster UI" in said


def test_an_op_that_was_killed_is_said_in_words() -> None:
    killed = SerializableErrorInfo("", [], "ChildProcessCrashException")
    said = first_failure(cast("dg.JobExecutionResult", failed_run(killed)))
    assert said.startswith("its process was ended before it was done")
