from pathlib import Path

import psutil
import pytest

from resources.container_limit import container_limit_mb

MB = 1 << 20


def _machine(root: Path, own: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": own, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_narrowest_limit_on_the_way_up_counts_in_version_2(tmp_path: Path) -> None:
    machine = _machine(
        tmp_path,
        "0::/pod/box\n",
        {
            "sys/fs/cgroup/pod/memory.max": f"{300 * MB}\n",
            "sys/fs/cgroup/pod/box/memory.max": f"{512 * MB}\n",
        },
    )
    assert container_limit_mb(machine) == 300


@pytest.mark.parametrize("seen", ["docker/0a1b", ""])
def test_a_container_sees_its_own_cgroup_by_path_or_as_the_root_in_version_1(
    tmp_path: Path, seen: str
) -> None:
    limit = f"rss 1\nhierarchical_memory_limit {512 * MB}\n"
    machine = _machine(
        tmp_path,
        "9:name=systemd:/\n4:memory:/docker/0a1b\n",
        {f"sys/fs/cgroup/memory/{seen}/memory.stat": limit},
    )
    assert container_limit_mb(machine) == 512


@pytest.mark.parametrize("limit", ["max", str(psutil.virtual_memory().total)])
def test_a_limit_that_the_machine_cannot_reach_is_none(tmp_path: Path, limit: str) -> None:
    machine = _machine(tmp_path, "0::/\n", {"sys/fs/cgroup/memory.max": limit})
    assert container_limit_mb(machine) is None


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert container_limit_mb(tmp_path) is None
