"""Steps in processes of their own, and a run that does not outlive who started it."""

import dagster as dg

from resources.lifeline import end_with_starter


@dg.executor(
    name="multiprocess",
    config_schema=dg.multiprocess_executor.config_schema.as_field(),
    requirements=dg.multiple_process_executor_requirements(),
)
def processes(context: dg.InitExecutorContext) -> dg.Executor:
    """Dagster's multiprocess executor; a run that a code server started ends with that server.

    A new server would not know of the run, could not cancel it, and would call it failed.
    """
    end_with_starter()
    create = dg.multiprocess_executor.executor_creation_fn
    assert create is not None
    return create(context)
