"""The Dagster UI's own interface, GraphQL, used as the browser uses it."""

import json
import socket
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

LAUNCH = """
mutation ($assets: [AssetKeyInput!], $keys: [String!]) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $keys}) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""

LOADED = """
{ repositoriesOrError { __typename ... on RepositoryConnection { nodes { name } } } }
"""

CANCEL = """
mutation ($id: String!) {
  cancelPartitionBackfill(backfillId: $id) {
    __typename
    ... on CancelBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""

STATUS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}
"""


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The data of an answer.

    Raises:
        RuntimeError: The answer is an error, which is quoted.
        OSError: There is no answer.
    """
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    if "errors" in answer:
        raise RuntimeError(str(answer["errors"])[:1000])
    return answer["data"]


def wait_until_loaded(port: int, timeout_s: float = 300) -> None:
    """Wait for the webserver to answer and the code location to be loaded.

    Raises:
        TimeoutError: Neither happened in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if ask(port, LOADED, {})["repositoriesOrError"].get("nodes"):
                return
        except OSError:
            pass
        time.sleep(1)
    raise TimeoutError(f"the webserver did not answer within {timeout_s:.0f} s")


def launch_backfill(port: int, assets: Sequence[str], keys: Sequence[str]) -> str:
    """Launch a backfill of these assets over these partitions; returns its id.

    Raises:
        RuntimeError: It was not launched, with the reason.
    """
    variables = {"assets": [{"path": [name]} for name in assets], "keys": list(keys)}
    answer = ask(port, LAUNCH, variables)["launchPartitionBackfill"]
    if answer["__typename"] != "LaunchBackfillSuccess":
        raise RuntimeError(f"the backfill was not launched: {answer}")
    return answer["backfillId"]


def backfill_ended(port: int, backfill_id: str, timeout_s: float = 1800) -> str:
    """Wait for the end of a backfill; returns its status, ``COMPLETED_SUCCESS`` when all is well.

    Raises:
        TimeoutError: It did not end in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        status = ask(port, STATUS, {"id": backfill_id})["partitionBackfillOrError"]["status"]
        if status.startswith(("COMPLETED", "FAILED", "CANCELED")):
            return status
        time.sleep(1)
    raise TimeoutError(f"the backfill did not end within {timeout_s:.0f} s")


def cancel_backfill(port: int, backfill_id: str) -> None:
    """Cancel a backfill, as its page does.

    Raises:
        RuntimeError: It was not cancelled, with the reason.
    """
    answer = ask(port, CANCEL, {"id": backfill_id})["cancelPartitionBackfill"]
    if answer["__typename"] != "CancelBackfillSuccess":
        raise RuntimeError(f"the backfill was not cancelled: {answer}")
