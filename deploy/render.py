"""Memory limits of containers and pods, computed from the budgets of the ops.

    python -m deploy.render            write them where a line says ``# rendered: NAME``
    python -m deploy.render --check    exit 1 where they are not what the budgets give

``orchestration/budgets.py`` has the figures that this starts from.
"""

import argparse
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from orchestration.budgets import SET_ASIDE, enough_mb

FILES = (Path("compose.yaml"), Path("k8s/values.yaml"), Path("README.md"))
"""What is rendered, below this folder."""


@dataclass(frozen=True)
class Room:
    """What a limit leaves above the figures of the budgets."""

    servers: float = 2.0
    """Factor for what runs for months: caches and connections grow with what people look at."""

    postgres_mb: int = 192
    """Building an index takes ``maintenance_work_mem``, 128 MB, once; and a server of its own has
    64 MB of shared buffers, twice what the embedded one has."""

    proxy_mb: int = 64
    """The proxy forwards; its buffers are bounded by its configuration."""

    step_mb: int = 32
    """Limits are multiples of this."""


ROOM = Room()


def limits(room: Room = ROOM) -> dict[str, int]:
    """Memory limit of each service in MiB, by the name it has after ``# rendered:``.

    ``code`` is the code location of compose.yaml: its runs are its children, so it holds the
    server, a run, and the largest ops, as many as a run works on at a time. ``pod`` is the code
    server or the process of a run on Kubernetes, where ops have pods, and limits, of their own.
    """
    needed = {
        "postgres": room.servers * SET_ASIDE.postgres + room.postgres_mb,
        "webserver": room.servers * SET_ASIDE.webserver,
        "daemon": room.servers * SET_ASIDE.daemon,
        "code": enough_mb("code_server", embedded_postgres=False),
        "proxy": room.proxy_mb,
        "pod": room.servers * max(SET_ASIDE.code_server, SET_ASIDE.run),
    }
    return {name: math.ceil(mb / room.step_mb) * room.step_mb for name, mb in needed.items()}


def rendered(text: str, limit: dict[str, int]) -> str:
    """The text with its limits: the number before ``# rendered: NAME``, and tables of Markdown.

    Raises:
        KeyError: A line names something that has no limit.
    """
    text = re.sub(
        r"\d+(?=\S*[ ]*# rendered: (\w+)$)",
        lambda found: str(limit[found.group(1)]),
        text,
        flags=re.MULTILINE,
    )
    return re.sub(
        r"(?<=<!-- rendered: limits -->\n).*?(?=<!-- end -->)",
        lambda _: _table(limit),
        text,
        flags=re.DOTALL,
    )


def _table(limit: dict[str, int]) -> str:
    measured = {
        "postgres": f"{SET_ASIDE.postgres} MB",
        "webserver": f"{SET_ASIDE.webserver} MB",
        "daemon": f"{SET_ASIDE.daemon} MB",
        "code": f"{SET_ASIDE.code_server} MB, a run {SET_ASIDE.run} MB, and the ops",
        "proxy": "",
    }
    lines = ["| service | holds | limit |", "|---|---|---|"]
    lines += [f"| {name} | {holds} | {limit[name]} MiB |" for name, holds in measured.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Memory limits from the budgets of the ops.")
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    folder = Path(__file__).parent
    stale = []
    for name in FILES:
        text = (folder / name).read_text(encoding="utf-8")
        new = rendered(text, limits())
        if new == text:
            continue
        stale.append(str(name))
        if not check:
            (folder / name).write_text(new, encoding="utf-8")
    said = "is not what the budgets give" if check else "written"
    sys.stdout.writelines(f"deploy/{name}: {said}\n" for name in stale)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
