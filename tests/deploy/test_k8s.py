"""The values for Dagster's chart: what they make of each pod, as Dagster's own launcher renders it.

The chart itself is not part of this: how its templates hand the values on is repeated in ``chart``.
"""

import math
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dagster as dg
import psycopg
import pytest
import yaml
from dagster._core.origin import JobPythonOrigin
from dagster_k8s import K8sRunLauncher
from dagster_k8s.models import k8s_model_from_dict
from kubernetes import client
from upath import UPath

import store.page_batches
import store.reports
from assets.partitions import page_batches
from benchmarks.faults.cluster import Cluster, Pod, mebibytes
from orchestration.budgets import Share, budgets
from orchestration.definitions import defs, executor_of
from orchestration.headless import copy_search_job
from orchestration.ingest import receive
from orchestration.requests import range_tags
from orchestration.settings import from_environment
from resources.embedded_postgres import EmbeddedPostgres
from resources.images import ImageStore
from resources.postgres import Postgres
from store.reports import StoredReport
from tests.hostile import small_paper

ROOT = Path(__file__).parents[2]
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/k8s/values.yaml").read_text())
(CODE,) = VALUES["dagster-user-deployments"]["deployments"]
LAUNCHER: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
IMAGE = f"{CODE['image']['repository']}:{CODE['image']['tag']}"
RUN_S = 600
"""How long ten processes may take, one after the other, on a machine that is busy."""


def snake(value: Any) -> Any:
    """Keys as the chart's templates write them: ``podSpecConfig`` becomes ``pod_spec_config``."""
    if isinstance(value, dict):
        return {re.sub("([A-Z])", r"_\1", key).lower(): snake(one) for key, one in value.items()}
    return [snake(one) for one in value] if isinstance(value, list) else value


def container_context() -> dict[str, Any]:
    """What the chart tells the code server to hand to its runs (``k8sContainerContext``)."""
    context = {
        "image_pull_policy": CODE["image"]["pullPolicy"],
        "env_secrets": [secret["name"] for secret in CODE["envSecrets"]],
        "volumes": CODE["volumes"],
        "volume_mounts": CODE["volumeMounts"],
        "resources": CODE["resources"],
        "namespace": "quire",
        "service_account_name": "quire-user-deployments",
        "env": CODE["env"],
    }
    return {"k8s": context}


def instance_config(cluster: Cluster) -> dict[str, Any]:
    """The chart's ``dagster.yaml``, with the storage and the cluster of the test."""
    launcher = {
        "load_incluster_config": False,
        "kubeconfig_file": str(cluster.kubeconfig),
        "job_namespace": "quire",
        "image_pull_policy": LAUNCHER["imagePullPolicy"],
        "service_account_name": "quire",
        "dagster_home": VALUES["global"]["dagsterHome"],
        "instance_config_map": "quire-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "security_context": LAUNCHER["securityContext"],
        "run_k8s_config": snake(LAUNCHER["runK8sConfig"]),
    }
    return {
        "storage": {"postgres": {"postgres_url": {"env": "QUIRE_DAGSTER_STORAGE_URL"}}},
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": launcher,
        },
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": VALUES["computeLogManager"]["type"],
        },
        "telemetry": VALUES["telemetry"],
    }


@dataclass(frozen=True)
class Done:
    """A run that the cluster was given."""

    pods: list[Pod]
    status: dg.DagsterRunStatus
    enforced: bool
    report: StoredReport | None

    @property
    def ops(self) -> dict[str, Pod]:
        return {pod.op: pod for pod in self.pods if pod.op}

    @property
    def run(self) -> Pod:
        (pod,) = [pod for pod in self.pods if not pod.op]
        return pod


@pytest.fixture(scope="module")
def done(
    embedded_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Done]:
    """A paper with planted copies, launched as the daemon would, with a pod for each op."""
    folder = tmp_path_factory.mktemp("cluster")
    home = folder / "dagster"
    home.mkdir()
    with psycopg.connect(embedded_postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE cluster TEMPLATE migrated")
    postgres = Postgres(database_url=embedded_postgres.url_of("cluster"))
    addresses = {
        "QUIRE_DATABASE_URL": postgres.url(),
        "QUIRE_DAGSTER_STORAGE_URL": postgres.dagster_storage_url(),
    }
    here = {
        **addresses,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "DAGSTER_HOME": str(home),
        "QUIRE_STORE_URL": (folder / "store").as_uri(),
        "TMPDIR": str(folder),
    }
    secrets = {"quire-env": addresses, "quire-postgresql": {"postgresql-password": "x"}}
    with pytest.MonkeyPatch.context() as patch, Cluster(folder, secrets, here) as cluster:
        patch.setenv("QUIRE_DAGSTER_STORAGE_URL", addresses["QUIRE_DAGSTER_STORAGE_URL"])
        (home / "dagster.yaml").write_text(yaml.safe_dump(instance_config(cluster)))
        small_paper(folder / "paper.pdf", seed=81)
        images = ImageStore(url=here["QUIRE_STORE_URL"])
        with dg.DagsterInstance.from_config(str(home)) as instance, postgres.connect() as db:
            assert isinstance(instance.run_launcher, K8sRunLauncher)
            paper = receive(db, images, UPath(folder / "paper.pdf")).document
            assert paper is not None
            keys = store.page_batches.keys(db)
            instance.add_dynamic_partitions(cast(str, page_batches.name), keys)
            run = instance.create_run_for_job(
                defs().resolve_job_def("copy_search"),
                tags=range_tags(keys),
                job_code_origin=_origin(),
            )
            instance.launch_run(run.run_id, cast(Any, None))
            status = _wait_for(instance, run.run_id, cluster)
            report = store.reports.get(db, paper.document_id)
        yield Done(list(cluster.pods.values()), status, cluster.enforced, report)
    with psycopg.connect(embedded_postgres.url, autocommit=True) as admin:
        admin.execute("DROP DATABASE cluster WITH (FORCE)")
        admin.execute("DROP DATABASE cluster_dagster WITH (FORCE)")


def _origin() -> JobPythonOrigin:
    """Where the code is, with what its code server hands to runs."""
    origin = dg.reconstructable(copy_search_job).get_python_origin()
    return origin._replace(
        repository_origin=origin.repository_origin._replace(
            container_image=IMAGE, container_context=container_context()
        )
    )


def _wait_for(instance: dg.DagsterInstance, run_id: str, cluster: Cluster) -> dg.DagsterRunStatus:
    deadline = time.monotonic() + RUN_S
    while True:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        over = all(pod.returncode is not None for pod in cluster.pods.values())
        if over and (run.is_finished or time.monotonic() > deadline - RUN_S + 60):
            return run.status
        assert time.monotonic() < deadline, "the run does not end"
        time.sleep(0.5)


def test_a_run_with_a_pod_for_each_op_finds_the_planted_pairs(done: Done) -> None:
    said = "".join(f"{pod.name}: {pod.said[-2000:]}" for pod in done.pods if pod.returncode)
    assert done.status == dg.DagsterRunStatus.SUCCESS, said
    assert set(done.ops) == {node.name for node in copy_search_job().graph.nodes}
    assert done.report is not None
    assert (done.report.status, done.report.pairs) == ("ok", 2)


def test_each_pod_of_an_op_has_the_limit_of_its_own_budget(done: Done) -> None:
    for name, pod in done.ops.items():
        resources, budget_mb = pod.container["resources"], budgets()[name]
        assert resources["requests"]["memory"] == f"{budget_mb}Mi", name
        assert resources["limits"]["memory"] == f"{math.ceil(budget_mb * 1.2)}Mi", name


def test_each_op_stays_within_the_limit_of_its_pod(done: Done) -> None:
    for pod in done.pods:
        assert pod.usage is not None
        assert pod.usage.oom_kills == 0, pod.name
        assert pod.usage.peak_mb <= pod.limit_mb, (pod.op or "run", pod.usage.as_dict())


def test_the_run_has_the_limit_of_the_deployment(done: Done) -> None:
    assert done.run.container["resources"] == CODE["resources"]


def test_no_pod_is_root_writes_to_its_image_or_knows_a_path_of_its_node(done: Done) -> None:
    for pod in done.pods:
        assert pod.container["image"] == IMAGE
        assert pod.container["securityContext"] == LAUNCHER["securityContext"]
        assert pod.container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod.spec["securityContext"]["runAsUser"] == 10001
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        kinds = {kind for volume in pod.spec["volumes"] for kind in volume if kind != "name"}
        assert kinds == {"emptyDir"}
        told = {entry["name"]: entry.get("value") for entry in pod.container["env"]}
        assert told["QUIRE_EXECUTOR"] == "pods"
        assert str(told["QUIRE_STORE_URL"]).startswith("s3://")
        sources = [source["secretRef"]["name"] for source in pod.container["envFrom"]]
        assert sources == ["quire-env"]


def test_ops_work_in_processes_unless_pods_are_asked_for() -> None:
    def chosen(**environment: str) -> str:
        return executor_of(from_environment(environment), Share()).name

    assert chosen() == "multiprocess"
    assert chosen(QUIRE_EXECUTOR="processes") == "multiprocess"
    assert chosen(QUIRE_EXECUTOR="pods") == "k8s"
    with pytest.raises(ValueError, match="QUIRE_EXECUTOR is one of processes, pods, not 'ray'"):
        chosen(QUIRE_EXECUTOR="ray")


@pytest.mark.parametrize("name", ["dagsterWebserver", "dagsterDaemon"])
def test_the_servers_are_limited_and_may_change_nothing_either(name: str) -> None:
    server = VALUES[name]
    assert server["securityContext"]["readOnlyRootFilesystem"] is True
    assert server["podSecurityContext"]["runAsUser"] == 10001
    assert mebibytes(server["resources"]["limits"]["memory"]) > 0
    assert not any("hostPath" in volume for volume in server["volumes"])


def test_what_is_handed_to_kubernetes_is_what_kubernetes_knows() -> None:
    for values in (VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], CODE):
        k8s_model_from_dict(client.V1PodSecurityContext, snake(values["podSecurityContext"]))
        k8s_model_from_dict(client.V1SecurityContext, snake(values["securityContext"]))
        k8s_model_from_dict(client.V1ResourceRequirements, values["resources"])
        for volume in values["volumes"]:
            k8s_model_from_dict(client.V1Volume, snake(volume))
        for mount in values["volumeMounts"]:
            k8s_model_from_dict(client.V1VolumeMount, snake(mount))
    with pytest.raises(Exception, match="hostPaht"):
        k8s_model_from_dict(client.V1Volume, {"name": "x", "hostPaht": {}})


def test_rows_and_dagster_itself_are_on_a_postgres_of_the_user() -> None:
    assert VALUES["postgresql"]["enabled"] is False
    assert VALUES["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
