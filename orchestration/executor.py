"""Steps in processes or pods of their own, and a run that does not outlive who started it."""

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


@dg.executor(
    name="k8s",
    config_schema=dg.Permissive(
        {
            "max_concurrent": dg.Field(dg.Int, is_required=False),
            "retries": dg.Field(
                dg.Selector({"enabled": {}, "disabled": {}}), default_value={"enabled": {}}
            ),
        }
    ),
    requirements=dg.multiple_process_executor_requirements(),
)
def pods(context: dg.InitExecutorContext) -> dg.Executor:
    """Dagster's executor for Kubernetes, imported where it starts pods and nowhere else.

    Each pod of an op loads these definitions too, and would hold 60 MB of a client it never uses.
    """
    from dagster_k8s import k8s_job_executor

    create = k8s_job_executor.executor_creation_fn
    assert create is not None
    return create(context)
