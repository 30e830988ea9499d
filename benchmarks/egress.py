"""`make run` with the network cut: what it says, what it leaves, and what tried to get out.

    python -m benchmarks.egress                  # in this checkout, whose .venv has been made
    python -m benchmarks.egress --folder CLONE   # in another one
    python -m benchmarks.egress -- make test-core

The command runs in a network namespace in which not even the loopback is up, with data and results
in a temporary folder. Ends with 1 where the command failed or the kernel counted an attempt to
leave the machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults.egress import cut_off, why_not_cut_off

HOUR_S = 3600


def main() -> int:
    """Run, print, and say by the exit code whether it went as promised."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="a checkout")
    parser.add_argument("command", nargs="*", help="by default: make run")
    given = parser.parse_args()
    if why_not_cut_off():
        print(f"cannot be measured here: {why_not_cut_off()}")
        return 2
    with tempfile.TemporaryDirectory(prefix="quire-egress-") as scratch:
        out, home = Path(scratch) / "out", Path(scratch) / "home"
        Path(scratch).chmod(0o711)  # under root the database server is another user
        command = given.command or ["make", "run", f"OUT={out}"]
        environment = {**os.environ, "QUIRE_HOME": str(home)}
        started = time.monotonic()
        try:
            outcome = cut_off(command, environment, given.folder, HOUR_S)
        finally:
            stop = [sys.executable, "-m", "orchestration.cli", "db", "stop"]
            subprocess.run(stop, env=environment, check=False, capture_output=True)
        seconds = time.monotonic() - started
        files = sorted(out.iterdir()) if out.is_dir() else []
        print(outcome.stdout.rstrip())
        print(outcome.stderr.rstrip(), file=sys.stderr)
        print(f"\ncommand              {' '.join(command)}")
        print(f"exit code            {outcome.returncode}")
        print(f"seconds              {seconds:.0f}")
        print(f"attempts to get out  {outcome.attempts}")
        for path in files:
            print(f"{path.name:<21}{path.stat().st_size:,} bytes")
    return 1 if outcome.returncode or outcome.attempts else 0


if __name__ == "__main__":
    sys.exit(main())
