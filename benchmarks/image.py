"""The container image: how large it is, what is in it, and whether it does its work.

    python benchmarks/image.py [--engine docker] [--image NAME] [--memory-mb 1024]
        [--build-arg TORCH=none ...] [--build-option=--volume=...] [--run-option=--network=host]

Builds the image, unless one is named, and prints its size; then, on a read-only root, as uid 10001
and under the memory limit: which tools for building are in it (there should be none), the job of
``make run`` over the samples, and the UI with the image's own health check. Exits 1 when something
is not as it should be. ``--engine`` is a command line: ``"podman --cgroup-manager cgroupfs"``.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "localhost/quire:measured"
TOOLS = ("gcc", "cc", "g++", "make", "ld", "as", "pip", "pip3", "git", "curl")
MOST_MB = 1500
HEALTHY_S = 300

INSIDE = """
import json, os, pathlib, shutil, sys
def writable(path):
    try:
        probe = pathlib.Path(path, "probe")
        probe.write_text("")
        probe.unlink()
        return True
    except OSError:
        return False
print(json.dumps({
    "uid": os.getuid(),
    "python": sys.version.split()[0],
    "tools": [tool for tool in sys.argv[1:] if shutil.which(tool)],
    "package lists": os.path.isdir("/var/lib/apt/lists") and len(os.listdir("/var/lib/apt/lists")),
    "writable": [path for path in ("/", "/app", "/opt/quire", "/home", "/data", "/tmp")
                 if writable(path)],
}))
"""


class Engine:
    """What builds and runs images."""

    def __init__(self, command: str, run_options: Sequence[str], memory_mb: int) -> None:
        self.command = shlex.split(command)
        self.limits = [
            "--read-only",
            "--tmpfs=/tmp",
            f"--memory={memory_mb}m",
            f"--memory-swap={memory_mb}m",
            *run_options,
        ]

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command of the engine."""
        return subprocess.run(
            [*self.command, *words], capture_output=True, text=True, cwd=ROOT, check=check
        )

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run in a fresh container, removed afterwards."""
        return self("run", "--rm", "--no-healthcheck", *self.limits, *words, check=check)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default=shutil.which("docker") or "podman")
    parser.add_argument("--image", default="")
    parser.add_argument("--memory-mb", type=int, default=1024)
    for name in ("build-arg", "build-option", "run-option"):
        parser.add_argument(f"--{name}", action="append", default=[])
    arguments = parser.parse_args()
    engine = Engine(arguments.engine, arguments.run_option, arguments.memory_mb)
    image = arguments.image or NAME
    if not arguments.image:
        built = [f"--build-arg={pair}" for pair in arguments.build_arg]
        engine("build", *built, *arguments.build_option, "--tag", image, ".")
    facts = {
        "size_mb": round(int(engine("image", "inspect", "-f", "{{.Size}}", image).stdout) / 1e6),
        **json.loads(engine.run(image, "python", "-c", INSIDE, *TOOLS).stdout),
        "job": _job(engine, image),
        "ui": _ui(engine, image),
    }
    print(json.dumps(facts, indent=1))
    good = (
        facts["size_mb"] < MOST_MB
        and facts["uid"] == 10001
        and not facts["tools"]
        and facts["writable"] == ["/data", "/tmp"]
        and facts["job"]["exit code"] == 0
        and facts["ui"]["healthy"]
    )
    return 0 if good else 1


def _job(engine: Engine, image: str) -> dict[str, Any]:
    """The job of ``make run``, the samples mounted and the results handed out."""
    with tempfile.TemporaryDirectory() as out:
        Path(out).chmod(0o777)
        started = time.monotonic()
        done = engine.run(
            f"--volume={ROOT}/samples:/papers:ro",
            f"--volume={out}:/out",
            image,
            *("quire", "run", "/papers", "--out", "/out"),
            check=False,
        )
        return {
            "exit code": done.returncode,
            "seconds": round(time.monotonic() - started),
            "results": {path.name: path.stat().st_size for path in sorted(Path(out).iterdir())},
            "said": done.stderr.strip().splitlines()[-3:],
        }


def _ui(engine: Engine, image: str) -> dict[str, Any]:
    """The image's own command, asked by the image's own health check."""
    config = json.loads(engine("image", "inspect", image).stdout)[0]
    check = (config.get("Healthcheck") or config["Config"]["Healthcheck"])["Test"]
    container = engine("run", "--detach", "--no-healthcheck", *engine.limits, image).stdout.strip()
    started, healthy = time.monotonic(), False
    try:
        while time.monotonic() - started < HEALTHY_S:
            if engine("exec", container, *check[1:], check=False).returncode == 0:
                healthy = True
                break
            running = engine("inspect", "-f", "{{.State.Running}}", container).stdout.strip()
            if running != "true":
                break
            time.sleep(2)
        if not healthy:
            logs = engine("logs", container)
            return {"healthy": False, "said": (logs.stdout + logs.stderr)[-1000:]}
        healthy_s = round(time.monotonic() - started)
        stopping = time.monotonic()
        engine("stop", "--time=60", container)
        return {
            "healthy": True,
            "check": check[1],
            "seconds until then": healthy_s,
            "seconds to stop": round(time.monotonic() - stopping),
            "exit code": int(
                engine("inspect", "-f", "{{.State.ExitCode}}", container).stdout.strip()
            ),
        }
    finally:
        engine("rm", "--force", "--volumes", container, check=False)


if __name__ == "__main__":
    sys.exit(main())
