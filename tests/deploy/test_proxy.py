"""The way to the UI: a real nginx with the deployed configuration before a real web server."""

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import dagster
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
START_S = 120

# openssl passwd -6 -salt quire 'correct horse'
USERS = (
    "ada:$6$quire$bL6wso.jjcFKIqe35V96RfKiJxgxYe2HxQ1AveW329BT7XnM6dp"
    "5IXqFwaLnxNxp/BTbW3XYW/MKgZ8ufy7gO/"
)
RIGHT = "Basic " + base64.b64encode(b"ada:correct horse").decode()
WRONG = "Basic " + base64.b64encode(b"ada:wrong horse").decode()

pytestmark = pytest.mark.skipif(not NGINX, reason="no nginx on this machine to put in front")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Way:
    """Where the proxy listens, and where the web server behind it does."""

    port: int
    behind: int

    def ask(
        self, path: str, *, password: str = RIGHT, body: dict[str, str] | None = None, **more: str
    ) -> Answer:
        headers = {"Authorization": password} if password else {}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as http_:
            data = None if body is None else json.dumps(body)
            http_.request("GET" if body is None else "POST", path, data, headers)
            answer = http_.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """nginx as compose.yaml starts it, with other ports and folders, before a web server."""
    folder = tmp_path_factory.mktemp("proxy")
    folder.chmod(0o755)
    (folder / "empty.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
    (folder / "users").write_text(f"{USERS}\n")
    way = Way(free_port(), free_port())
    text = CONFIGURATION.read_text()
    for old, new in (
        ("/tmp/", f"{folder}/"),
        ("listen 8080;", f"listen 127.0.0.1:{way.port};"),
        ("webserver:3000", f"127.0.0.1:{way.behind}"),
        ("/run/secrets/ui_users", str(folder / "users")),
    ):
        assert old in text
        text = text.replace(old, new)
    user = "user root;\n" if os.getuid() == 0 else ""  # the test's folder is closed to others
    (folder / "nginx.conf").write_text(user + text)
    with ExitStack() as stack:
        webserver = [sys.executable, "-W", "ignore", "-m", "dagster_webserver", "-h", "127.0.0.1"]
        for command in (
            [*webserver, "-p", str(way.behind), "-f", str(folder / "empty.py")],
            [str(NGINX), "-c", str(folder / "nginx.conf"), "-e", "stderr"],
        ):
            environment = {**os.environ, "DAGSTER_HOME": str(folder)}
            process = subprocess.Popen(command, env=environment, cwd=folder)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        for port in (way.behind, way.port):
            _wait_for(port)
        yield way


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.2)


@pytest.mark.parametrize("path", ["/", "/server_info", "/graphql", "/runs", "/notebook"])
@pytest.mark.parametrize("password", ["", WRONG], ids=["none", "wrong"])
def test_without_the_password_nothing_is_answered(way: Way, path: str, password: str) -> None:
    answer = way.ask(path, password=password)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="Quire"'
    assert b"dagster" not in answer.body.lower()


def test_a_query_without_the_password_does_not_arrive(way: Way) -> None:
    assert way.ask("/graphql", password="", body={"query": "{ version }"}).status == 401


def test_with_the_password_the_ui_and_its_queries_are_there(way: Way) -> None:
    page = way.ask("/")
    assert page.status == 200
    assert b"dagster" in page.body.lower()
    assert page.headers["X-Frame-Options"] == "DENY"
    answer = way.ask("/graphql", body={"query": "{ version }"})
    assert json.loads(answer.body) == {"data": {"version": dagster.__version__}}


def test_what_a_page_of_another_site_makes_a_browser_send_is_refused(way: Way) -> None:
    query = {"query": "{ version }"}
    here = f"http://127.0.0.1:{way.port}"
    assert way.ask("/graphql", body=query, Origin=here).status == 200
    for origin in (
        "http://evil.example",
        f"http://evil.example:{way.port}",
        f"{here}.evil.example",
        "null",
        f"http://127.0.0.1:{way.behind}",
    ):
        assert way.ask("/graphql", body=query, Origin=origin).status == 403, origin
    assert way.ask("/graphql", body=query, Host="evil.example", Origin=here).status == 403


def test_subscriptions_pass_with_the_password_alone(way: Way) -> None:
    url = f"ws://127.0.0.1:{way.port}/graphql"
    protocol = [Subprotocol("graphql-ws")]
    with connect(
        url, subprotocols=protocol, additional_headers={"Authorization": RIGHT}
    ) as socket_:
        socket_.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(socket_.recv(timeout=60))["type"] == "connection_ack"
    with pytest.raises(InvalidStatus, match="401"):
        connect(url, subprotocols=protocol)
    with pytest.raises(InvalidStatus, match="403"):
        connect(
            url,
            subprotocols=protocol,
            origin=Origin("http://evil.example"),
            additional_headers={"Authorization": RIGHT},
        )


def test_the_web_server_is_not_told_the_password() -> None:
    assert 'proxy_set_header Authorization "";' in CONFIGURATION.read_text()
