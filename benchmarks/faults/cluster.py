"""A cluster on one machine: what Dagster asks of Kubernetes, and a limited process for each pod.

It answers the few calls of the API that Dagster's run launcher and executor make, keeps what they
sent, and runs each job's container as a process with the environment and the memory limit that its
pod states. So what a pod would be told, and whether it would live with it, can be seen without a
cluster; scheduling, images and networks cannot.
"""

import json
import math
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.faults.container import Container, Usage

_UNITS = {"": 1 / 2**20, "Ki": 1 / 2**10, "Mi": 1, "Gi": 2**10}


def mebibytes(quantity: str) -> int:
    """A quantity of Kubernetes in MiB, rounded up: ``300Mi``, ``1Gi``."""
    found = re.fullmatch(r"(\d+)(|Ki|Mi|Gi)", quantity)
    if found is None:
        raise ValueError(f"{quantity!r} is not a quantity of memory as used here")
    return math.ceil(int(found[1]) * _UNITS[found[2]])


@dataclass
class Pod:
    """One job's pod.

    Attributes:
        name: Of the job.
        spec: As it was sent.
        returncode: Of its process; None while it runs.
        usage: The memory that its processes held together.
        said: What it wrote.
    """

    name: str
    spec: dict[str, Any]
    labels: dict[str, str]
    returncode: int | None = None
    usage: Usage | None = None
    said: str = ""

    @property
    def container(self) -> dict[str, Any]:
        """Its only container."""
        (container,) = self.spec["containers"]
        return container

    @property
    def op(self) -> str:
        """The op that it is for; empty for the pod of a run."""
        return self.labels.get("dagster/op", "")

    @property
    def limit_mb(self) -> int:
        """Its memory limit in MiB."""
        return mebibytes(self.container["resources"]["limits"]["memory"])


@dataclass
class Cluster:
    """The cluster; use it as a context.

    Attributes:
        folder: Where its kubeconfig goes.
        secrets: By name, what a pod's ``envFrom`` and ``valueFrom`` find.
        environment: What every process gets instead of what its pod is told: addresses and folders
            of this machine.
        enforced: Whether the kernel holds the pods to their limits.
    """

    folder: Path
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    enforced: bool = True
    pods: dict[str, Pod] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """Listen, and write the kubeconfig."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self._server.server_port}"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "here",
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                    "clusters": [{"name": "here", "cluster": {"server": url}}],
                    "users": [{"name": "me", "user": {}}],
                }
            )
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening; processes of pods end with the run that they are of."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def kubeconfig(self) -> Path:
        """How to reach it."""
        return self.folder / "kubeconfig.json"

    def start(self, job: dict[str, Any]) -> None:
        """Run a job's pod."""
        template = job["spec"]["template"]
        name = job["metadata"]["name"]
        pod = self.pods[name] = Pod(name, template["spec"], template["metadata"]["labels"])
        threading.Thread(target=self._run, args=(pod,), name=name, daemon=True).start()

    def _run(self, pod: Pod) -> None:
        command = [*pod.container.get("command", []), *pod.container["args"]]
        try:
            with Container(pod.limit_mb) as container:
                self.enforced = self.enforced and container.enforced
                done = container.run(command, env=self._environment(pod), cwd=self.folder)
            pod.usage = container.usage
            pod.said = done.stdout + done.stderr
            pod.returncode = done.returncode
        except Exception as error:  # noqa: BLE001 - a pod that cannot be run is a failed pod
            pod.said = f"{type(error).__name__}: {error}"
            pod.returncode = 125

    def _environment(self, pod: Pod) -> dict[str, str]:
        told: dict[str, str] = {}
        for source in pod.container.get("envFrom") or []:
            told |= self.secrets.get((source.get("secretRef") or {}).get("name", ""), {})
        for entry in pod.container.get("env") or []:
            told[entry["name"]] = entry.get("value") or self._looked_up(pod, entry)
        return {"PATH": os.defpath, **told, **self.environment}

    def _looked_up(self, pod: Pod, entry: dict[str, Any]) -> str:
        source = entry.get("valueFrom") or {}
        if "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            return self.secrets[reference["name"]][reference["key"]]
        return pod.name if "fieldRef" in source else ""


def _handler_of(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """A job is created."""
            length = int(self.headers["Content-Length"])
            job = json.loads(self.rfile.read(length))
            cluster.start(job)
            self._answer(201, job)

        def do_GET(self) -> None:
            """A job is asked after."""
            found = re.search(r"/jobs/([^/?]+)", self.path)
            if found is None:
                self._answer(200, {"kind": "List", "items": []})
            elif (pod := cluster.pods.get(found[1])) is None:
                self._answer(404, {"kind": "Status", "code": 404})
            else:
                self._answer(200, {"metadata": {"name": pod.name}, "status": _status(pod)})

        def do_DELETE(self) -> None:
            """A job is removed; its process is left to end."""
            self._answer(200, {"kind": "Status", "status": "Success"})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing to say."""

    return Handler


def _status(pod: Pod) -> dict[str, int]:
    if pod.returncode is None:
        return {"active": 1}
    return {"succeeded": 1} if pod.returncode == 0 else {"failed": 1}
