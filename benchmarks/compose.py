"""The services of deploy/compose.yaml as processes of this machine, each under its own limit.

    python benchmarks/compose.py [PDF...]

Reads commands, environment and memory limits from the file itself and replaces only addresses and
folders; Postgres is the embedded one, listening on TCP. Takes in the documents (the samples),
launches a backfill over them through the proxy, as the UI would, and prints what each service held.
Exits 1 when the backfill fails, a limit is met or the proxy lets somebody in without the password.
"""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import yaml
from faults.container import Container
from faults.webserver import backfill_ended, free_port, launch_backfill, wait_until_loaded

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
START_POSTGRES = """
import sys
from pathlib import Path
from resources.embedded_postgres import EmbeddedPostgres, ServerSettings
server = EmbeddedPostgres(
    Path(sys.argv[1]),
    tcp_port=int(sys.argv[2]),
    settings=ServerSettings(shared_buffers="64MB", max_connections=60),
)
server.start()
print(server.tcp_url)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pdfs", nargs="*", default=sorted(map(str, ROOT.glob("samples/*.pdf"))))
    pdfs = parser.parse_args().pdfs
    folder = Path(tempfile.mkdtemp(prefix="quire-compose-"))
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        containers = {name: stack.enter_context(Container(_limit_mb(name))) for name in SERVICES}
        facts = _run(containers, folder, pdfs)
        time.sleep(1)
    services = {
        name: {
            "limit_mb": container.usage.limit_mb,
            "peak_mb": round(container.usage.peak_mb),
            "killed for it": container.usage.oom_kills,
        }
        for name, container in containers.items()
    }
    enforced = all(container.enforced for container in containers.values())
    print(json.dumps({**facts, "limits enforced": enforced, "services": services}, indent=1))
    kept = all(container.usage.within for container in containers.values())
    return 0 if kept and facts["backfill"] == "COMPLETED_SUCCESS" else 1


def _run(containers: dict[str, Container], folder: Path, pdfs: list[str]) -> dict[str, Any]:
    database, code, web, front = (free_port() for _ in range(4))
    started = containers["postgres"].run(
        [sys.executable, "-c", START_POSTGRES, str(folder / "postgres"), str(database)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    if started.returncode:
        raise SystemExit(started.stderr)
    url = started.stdout.strip().splitlines()[-1]
    with psycopg.connect(url, autocommit=True) as db:
        db.execute((DEPLOY / "postgres-init.sql").read_text())
    password = psycopg.conninfo.conninfo_to_dict(url)["password"]
    replaced = {
        r"\$\{QUIRE_DB_PASSWORD[^}]*\}": str(password),
        r"\$\{\w+:-([^}]*)\}": r"\1",
        "@postgres:5432": f"@127.0.0.1:{database}",
        "0.0.0.0": "127.0.0.1",
        "^4000$": str(code),
        "^3000$": str(web),
        "/app/|^/inbox|^/scans": f"{folder}/",
        "/data": f"{folder}/data",
    }

    def here(text: Any) -> str:
        for old, new in replaced.items():
            text = re.sub(old, new, str(text))
        return text

    home = folder / "data" / "dagster"
    home.mkdir(parents=True)
    shutil.copy(DEPLOY / "dagster.yaml", home)
    workspace = (DEPLOY / "workspace.yaml").read_text()
    workspace = workspace.replace("host: code", "host: 127.0.0.1").replace("4000", str(code))
    (folder / "workspace.yaml").write_text(workspace)
    image = {
        "QUIRE_HOME": str(folder / "data"),
        "DAGSTER_HOME": str(home),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "MALLOC_ARENA_MAX": "2",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for name in ("code", "webserver", "daemon"):
        service = SERVICES[name]
        environment = {key: here(value) for key, value in service["environment"].items()}
        with (folder / f"{name}.log").open("w") as log:
            containers[name].start(
                [here(word) for word in service["command"]],
                env={**image, **environment},
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    _start_proxy(containers["proxy"], folder, front, web)
    code_environment = {k: here(v) for k, v in SERVICES["code"]["environment"].items()}
    taken = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/containers.py"), *pdfs, "--take-in"],
        env={**image, **code_environment},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if taken.returncode:
        raise SystemExit(taken.stderr)
    wanted = json.loads(taken.stdout)
    wait_until_loaded(web)
    without = _status(front)
    opener = urllib.request.build_opener()
    credentials = base64.b64encode(b"ada:correct horse").decode()
    opener.addheaders = [("Authorization", f"Basic {credentials}")]
    urllib.request.install_opener(opener)
    wait_until_loaded(front)
    backfill_id = launch_backfill(front, wanted["assets"], wanted["keys"])
    backfill = backfill_ended(front, backfill_id)
    if without != 401:
        backfill = f"the proxy answered {without} without a password"
    return {
        "documents": len(pdfs),
        "partitions": len(wanted["keys"]),
        "without a password": without,
        "backfill": backfill,
    }


def _start_proxy(container: Container, folder: Path, front: int, web: int) -> None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if nginx is None:
        raise SystemExit("no nginx on this machine: apt-get install nginx-light")
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "correct horse"], capture_output=True, text=True, check=True
    )
    (folder / "users.htpasswd").write_text(f"ada:{hashed.stdout}")
    text = (DEPLOY / "nginx.conf").read_text()
    for old, new in (
        ("/tmp/", f"{folder}/"),
        ("listen 8080;", f"listen 127.0.0.1:{front};"),
        ("webserver:3000", f"127.0.0.1:{web}"),
        ("/run/secrets/ui_users", str(folder / "users.htpasswd")),
    ):
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    container.start([nginx, "-e", "stderr", "-c", str(folder / "nginx.conf")])


def _status(port: int) -> int:
    """What the proxy answers to somebody without a password."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def _limit_mb(name: str) -> int:
    return int(SERVICES[name]["mem_limit"].removesuffix("m"))


if __name__ == "__main__":
    sys.exit(main())
